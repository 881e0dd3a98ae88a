//! The search for a key (`make search`): a key is used by real release processes, put together from the copied share
//! stores of k nodes, and looked for everywhere: memory, disks, logs, metrics, and the wire between nodes. Nothing may
//! be found but the canaries, which show that the search finds what is there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod key;
mod needle;
mod places;
mod symmetric;
mod tap;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::disks;
use common::namespace;
use common::world::{ED25519, HMAC, KEK, Key, World, X25519};
use needle::Needles;
use places::Place;

/// Signs and derives through all nodes.
async fn use_keys(world: &World, signing: &Key, agreeing: &Key) {
    for node in 0..world.clients.len() {
        world.sign(node, signing).await.unwrap();
        world.derive(node, agreeing).await.unwrap();
    }
}

/// What is in each place at a moment.
async fn look(world: &World, moment: &str, into: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    for node in world.cluster.nodes() {
        places.push(places::core_of(&node, moment, into));
        places.push(places::metrics_of(&node, moment, into).await);
    }
    places
}

#[test]
#[ignore = "long: run by make search"]
fn a_key_is_nowhere() {
    let alone = namespace::enter();
    namespace::block_on(async {
        // Peer ports of `dev` are 100 above those for clients.
        let tap = match alone {
            Ok(()) => Some(tap::Tap::begin(|port| (12_100..30_200).contains(&port)).unwrap()),
            Err(_) => None,
        };
        let mut world = World::start(3).await;
        let peers: Vec<u16> = world
            .cluster
            .nodes()
            .iter()
            .map(|node| node.peer.port())
            .collect();
        let (signing, agreeing) = (world.key(0, ED25519).await, world.key(1, X25519).await);
        let (hmac, kek) = (world.key(2, HMAC).await, world.key(0, KEK).await);
        let told = key::refused(&world, &signing).await;
        use_keys(&world, &signing, &agreeing).await;
        symmetric::use_keys(&world, &hmac, &kek).await;
        let folder = tempfile::tempdir().unwrap();
        let mut places = look(&world, "idle", folder.path()).await;

        let stop = Arc::new(AtomicBool::new(false));
        let load = async {
            while !stop.load(Ordering::Relaxed) {
                use_keys(&world, &signing, &agreeing).await;
                symmetric::use_keys(&world, &hmac, &kek).await;
            }
        };
        let looked = async {
            let looked = tokio::task::spawn_blocking({
                let (nodes, into) = (world.cluster.nodes(), folder.path().to_owned());
                move || {
                    let core = |node| places::core_of(node, "load", &into);
                    nodes.iter().map(core).collect::<Vec<Place>>()
                }
            });
            let looked = looked.await.unwrap();
            stop.store(true, Ordering::Relaxed);
            looked
        };
        let ((), looked) = tokio::join!(load, looked);
        places.extend(looked);

        world.cluster.kill(1).await;
        world.cluster.restart(1).await;
        world.cluster.restart_all().await;
        use_keys(&world, &signing, &agreeing).await;
        symmetric::use_keys(&world, &hmac, &kek).await;
        places.extend(look(&world, "restarted", folder.path()).await);

        let nodes = world.cluster.nodes();
        for node in &nodes {
            assert_eq!(places::core_limit(node), 0, "core dumps are off");
        }
        let kept: PathBuf = folder.path().join("kept");
        let alice = world.alice.did().to_owned();
        let copied = places::copy_after_stop(world.cluster, &kept).await;
        for node in &nodes {
            places.extend(places::files_of(node.id, &copied));
        }

        let mut needles = Needles::default();
        for (name, made) in [("Ed25519 key", &signing), ("X25519 key", &agreeing)] {
            let whole = key::put_together(&copied, made);
            for (form, value) in whole.forms() {
                needles.secret(&format!("{name}: {form}"), &value);
            }
            for (node, share) in &whole.shares {
                needles.secret(&format!("{name}: share of node {node}"), share);
            }
            needles.exactly(
                &format!("canary: public point of the {name}"),
                whole.public.to_vec(),
            );
            needles.exactly(
                &format!("canary: id of the {name}"),
                disks::ids(made).1.0.to_vec(),
            );
        }
        for (name, made) in [("HMAC key", &hmac), ("wrapping key", &kek)] {
            let whole = symmetric::put_together(&copied, made);
            needles.secret(&format!("{name}: secret"), &whole.secret);
            for (number, piece) in &whole.pieces {
                needles.secret(&format!("{name}: piece {number}"), piece);
            }
            if let Some(inner) = &whole.inner {
                needles.secret(&format!("{name}: inner state"), inner);
            }
            needles.exactly(
                &format!("canary: id of the {name}"),
                disks::ids(made).1.0.to_vec(),
            );
        }
        // What is known to be in each of the places: so that silence means something.
        for name in told {
            needles.exactly("canary: a refused request's name", name.into_bytes());
        }
        needles.exactly("canary: the controller", alice.into_bytes());
        needles.exactly("canary: a metric", b"conclave_requests_served_total".to_vec());
        needles.exactly("canary: head of a sealed file", b"conclave sealed".to_vec());
        needles.exactly("canary: epoch file", b"CVEPOCH1".to_vec());
        needles.exactly(
            "canary: what a node logs when it starts",
            b"conclave_transport::peers".to_vec(),
        );
        let search = needles.search();

        let mut wrong = Vec::new();
        println!("{:<44} {:>10}  found", "place", "bytes");
        for place in &places {
            let bytes = place.read();
            let found = search.found(&bytes);
            let (canaries, others): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|name| name.starts_with("canary"));
            // A node's own opened share is in its own memory: that is the canary of memory.
            let (own, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| place.may_hold(name));
            let what = if own.is_empty() {
                ""
            } else {
                " and its own open shares"
            };
            let (name, length) = (&place.name, bytes.len());
            println!("{name:<44} {length:>10}  {} canaries{what}", canaries.len());
            wrong.extend(others.iter().map(|name| format!("{}: {name}", place.name)));
            if canaries.is_empty() {
                wrong.push(format!("{}: no canary was found", place.name));
            }
            if place.is_core() && own.is_empty() {
                wrong.push(format!(
                    "{}: the share that is open there was not found",
                    place.name
                ));
            }
        }
        match tap {
            Some(tap) => {
                let flows = tap.end();
                let mut seen = 0;
                for ((from, to), stream) in &flows {
                    if !peers.contains(from) && !peers.contains(to) {
                        continue;
                    }
                    match tap::records(stream) {
                        Ok(records) => seen += records,
                        Err(at) => wrong.push(format!("port {from} to {to}: no TLS record at byte {at}")),
                    }
                    wrong.extend(
                        search
                            .found(stream)
                            .iter()
                            .map(|name| format!("the wire: {name}")),
                    );
                }
                println!(
                    "{:<44} {seen:>10}  TLS records, and nothing else",
                    "ports of peers"
                );
                assert!(seen > 100, "the capture saw only {seen} records");
            }
            None => println!("capture of the peer ports: skipped: needs root"),
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        key::nothing_opens_with_fewer(&copied, &signing);
    });
}
