//! Backups of a cluster whose members, or whose keys' shares, have changed since its first day.

use super::*;
use crate::operator::{Change, Order, SignedOrder};

const LATER: [u8; 32] = [8; 32];

impl World {
    /// Node 4 takes the place of node 3.
    fn replaces_three_by_four(&mut self) {
        let identity = Identity::generate(&mut OsRng);
        let four = Pinned {
            node: 4,
            peer: "node-4:1".into(),
            identity: Hex32(identity.public()),
            envelope: Hex32(identity.envelope_public()),
        };
        let new = self
            .orders
            .next(&self.old.genesis, (&[four], &[3]), None)
            .unwrap();
        let order = Order {
            cluster: Hex32(self.old.genesis.cluster_id()),
            sequence: 1,
            change: Change::Members(new),
        };
        let mut signed = SignedOrder::new(order);
        let signature = self.operator.sign(&signed.order.signed_bytes());
        signed.add(signature);
        self.orders.orders.push(signed);
        self.old.nodes.push(4);
        self.old.identities.push(identity);
    }
}

#[test]
fn a_node_that_joined_later_signs_its_backups_by_the_order_that_made_it_a_member() {
    let mut world = World::new();
    world.replaces_three_by_four();
    let four = world.header(4, &world.keys, [3, 4]).0;
    let again = VerifiedHeader::read(&mut four.bytes()).unwrap();
    assert_eq!(again.members.last().nodes(), [1, 2, 4]);
    // Who was replaced may have been the last to make one.
    let three = world.header(3, &world.keys, [3, 4]).0;
    assert_eq!(three.members.base().nodes(), [1, 2, 3]);

    let forged = |change: &dyn Fn(&mut Header), signer: u64| {
        let mut changed = four.header.clone();
        change(&mut changed);
        told(changed.sign(|message| world.old.identity(signer).sign(message)))
    };
    assert!(forged(&|_| {}, 3).contains("not signed by the node"));
    assert!(forged(&|header| header.orders = Vec::new(), 4).contains("no member"));
    assert!(forged(&|header| header.orders = b"{}".to_vec(), 4).contains("orders cannot be read"));
    // Its own list, which no operator has signed.
    let mut own = world.orders.clone();
    own.orders[0] = SignedOrder::new(own.orders[0].order.clone());
    assert!(forged(&|header| header.orders = own.to_json(), 4).contains("does not follow"));
    // And those of another cluster.
    let mut other = World::new();
    other.replaces_three_by_four();
    assert!(forged(&|header| header.orders = other.orders.to_json(), 4).contains("does not follow"));
}

#[test]
fn the_new_cluster_has_the_numbers_of_the_last_members_or_of_those_that_they_replace() {
    let mut world = World::new();
    let before = world.header(1, &world.keys, [3, 3]).0;
    world.replaces_three_by_four();
    let [two, four] = [2, 4].map(|node| world.header(node, &world.keys, [3, 3]).0);
    let request = |nodes: &[u64], headers: &[&VerifiedHeader]| {
        let target = Cluster::new(nodes, &world.operator).genesis;
        Request::new(
            target,
            nodes[0],
            headers.iter().map(|header| (*header).clone()).collect(),
        )
    };
    // The backup that knows the last order says it, wherever it stands among them.
    request(&[1, 2, 4], &[&before, &two, &four]).unwrap();
    request(&[1, 2, 3], &[&before, &two]).unwrap();
    for nodes in [&[1, 2, 5][..], &[1, 2, 3, 4], &[2, 4]] {
        let refused = told(request(nodes, &[&before, &two, &four]));
        assert!(
            refused.contains("[1, 2, 4], or before its last change, [1, 2, 3]"),
            "{refused}"
        );
    }
    assert!(
        told(request(&[1, 2, 4], &[&before])).contains("node numbers"),
        "of before the order"
    );
}

#[test]
fn a_key_comes_back_with_the_shares_of_which_enough_are_left() {
    let world = World::new();
    let id = |key: u8| LocalId([key; 16]);
    let born = [symmetric(1, &[1, 2, 3])];
    let renewed = [shared(1, &[1, 2, 3], (1, LATER))];
    let surveyed = |backups: &[Backup], nodes: &[u64]| {
        let survey = survey(backups, nodes, |_| {}).unwrap();
        let live = &survey.keys[&(KS, id(1))];
        let found = (
            live.record.epoch,
            live.record.session,
            live.holders.clone(),
            live.is_earlier,
        );
        (found, survey.lost().len(), survey.earlier())
    };
    // Node 3 made its backup after the key was renewed: the newest state names shares that only it has.
    let older = [1, 2].map(|node| world.backup(node, [(9, &[]), (5, &born)], &[id(1)]));
    let newer = world.backup_of(3, [(9, &[]), (6, &renewed)], &[(id(1), LATER)]);
    let [one, two] = older;
    let found = surveyed(&[one, two, newer], &[1, 2, 3]);
    assert_eq!(found, ((0, SESSION, vec![1, 2], true), 0, 1));

    // It was made while both were there: the newest is taken.
    let both = [(id(1), SESSION), (id(1), LATER)];
    let one = world.backup(1, [(9, &[]), (5, &born)], &[id(1)]);
    let two = world.backup_of(2, [(9, &[]), (5, &born)], &both);
    let newer = world.backup_of(3, [(9, &[]), (6, &renewed)], &both);
    let found = surveyed(&[one, two, newer], &[1, 2, 3]);
    assert_eq!(found, ((1, LATER, vec![2, 3], false), 0, 0));

    // One of each: nothing is enough.
    let one = world.backup(1, [(9, &[]), (5, &born)], &[id(1)]);
    let newer = world.backup_of(3, [(9, &[]), (6, &renewed)], &[(id(1), LATER)]);
    let ((epoch, ..), lost, earlier) = surveyed(&[one, newer], &[1, 2, 3]);
    assert_eq!((epoch, lost, earlier), (1, 1, 0));
}

#[test]
fn shares_of_nodes_that_the_new_cluster_lacks_do_not_count() {
    let world = World::new();
    let id = |key: u8| LocalId([key; 16]);
    // Key 1 is held by the first three, key 2 by those that there will be.
    let state = [symmetric(1, &[1, 2, 3]), symmetric(2, &[1, 2, 4])];
    let backup = |node| world.backup(node, [(9, &[]), (5, &state)], &[id(1), id(2)]);
    let survey = survey(&[backup(1), backup(2), backup(3)], &[1, 2, 4], |_| {}).unwrap();
    assert_eq!(
        survey.lost(),
        [(KS, id(1))],
        "one of its holders will not be there"
    );
    assert_eq!(survey.keys[&(KS, id(2))].holders, [1, 2]);
    assert_eq!(survey.keys[&(KS, id(2))].bereft(), [4]);
}

#[test]
fn another_key_by_the_same_name_names_its_node() {
    let world = World::new();
    let born = [symmetric(1, &[1, 2, 3])];
    let (at, value) = shared(1, &[1, 2, 3], (1, LATER));
    let mut record: KeyRecord = postcard::from_bytes(&value).unwrap();
    let Material::Pieces(sharing) = &mut record.material else {
        panic!("a symmetric key")
    };
    sharing.check = [1; 16];
    let other = [(at, postcard::to_stdvec(&record).unwrap())];
    let backups = [
        world.backup(1, [(9, &[]), (5, &born)], &[]),
        world.backup(2, [(9, &[]), (6, &other)], &[]),
    ];
    let refused = told(survey(&backups, &[1, 2, 3], |_| {}));
    assert!(
        refused.contains("node 2 has another public part of key"),
        "{refused}"
    );
}
