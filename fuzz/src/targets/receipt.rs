//! Receipts, as they come in a reply's header, and put together by a corrupt node out of what it and others have signed: one
//! spelling each, and nothing counts but a quorum's own words about this very answer.

use std::sync::LazyLock;

use conclave::membership::{Member, Membership};
use conclave::receipt::{Doubt, MAX_RECEIPT, Receipt, SKEW, Statement, Subject, Voucher};

use super::{Seed, Target, seed};
use crate::support::input::{Input, Output};
use crate::support::key::PEOPLE;

pub(super) const TARGET: Target = Target {
    name: "receipt",
    longest: 2_048,
    mutations: 1_500,
    run,
    seeds,
};

/// What follows the first byte.
const TEXT: u8 = 0;
const PUT_TOGETHER: u8 = 1;

/// The reader's clock, ms.
const NOW: u64 = 1_780_315_200_000;

/// Nodes 1, 2 and 3; of the five people two are strangers.
static MEMBERS: LazyLock<Membership> = LazyLock::new(|| {
    let member = |node: u8| Member {
        node: node.into(),
        index: node.into(),
        address: format!("10.0.0.{node}:9443"),
        verifying_key: PEOPLE[usize::from(node) - 1].key.verifying_key(),
        envelope_key: [node; 32],
    };
    Membership {
        cluster: [7; 32],
        index: 1,
        members: (1..=3).map(member).collect(),
        operators: Vec::new(),
        operator_threshold: 1,
        ..Membership::default()
    }
});

fn run(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    match input.byte() {
        TEXT => match std::str::from_utf8(input.0) {
            Ok(text) => as_it_came(text),
            Err(_) => false,
        },
        PUT_TOGETHER => put_together(&mut input),
        _ => false,
    }
}

fn as_it_came(text: &str) -> bool {
    let Ok(receipt) = Receipt::parse(text) else {
        return false;
    };
    assert!(text.len() <= MAX_RECEIPT);
    assert_eq!(receipt.to_string(), text, "another spelling");
    assert!((1..=5).contains(&receipt.vouchers.len()));
    assert!(
        receipt
            .vouchers
            .windows(2)
            .all(|pair| pair[0].node < pair[1].node)
    );
    let nothing = Subject::description("", b"");
    let believed = receipt.verify(&MEMBERS, nothing, NOW);
    assert!(believed.is_err(), "nobody has signed that");
    true
}

/// Of whatever texts there are.
fn subject(input: &mut Input<'_>) -> Subject {
    match input.byte() % 3 {
        0 => Subject::description(input.text(), input.chunk()),
        1 => Subject::birth(input.array(), input.text(), input.chunk()),
        _ => Subject::Revocation {
            keystore: input.text(),
            capability: input.text(),
            delegator: input.text(),
        },
    }
}

fn put_together(input: &mut Input<'_>) -> bool {
    let (signed, shown) = (subject(input), subject(input));
    let members = u64::from(input.byte());
    let (mut vouchers, mut honest) = (Vec::new(), Vec::new());
    while !input.is_empty() && vouchers.len() < 8 {
        let (node, signer) = (u64::from(input.byte()), usize::from(input.byte()) % PEOPLE.len());
        let (about, away) = (input.byte() % 2, u64::from(input.short()) * 1_000);
        let time = NOW - away;
        let own_key = MEMBERS.member(node).is_some() && node == signer as u64 + 1;
        let signs = if about == 0 { &shown } else { &signed };
        let statement = Statement::new(&MEMBERS, signs.clone());
        let Voucher { signature, .. } = statement.vouch(node, &PEOPLE[signer].key, time);
        vouchers.push(Voucher {
            node,
            time,
            signature,
        });
        honest.push((node, own_key && *signs == shown && away <= SKEW));
    }
    let receipt = Receipt { members, vouchers };
    let nodes: Vec<u64> = honest.iter().map(|(node, _)| *node).collect();
    let well_formed = nodes.is_sorted_by(|one, next| one < next) && (1..=5).contains(&nodes.len());
    let read = Receipt::parse(&receipt.to_string());
    assert_eq!(read.is_ok(), well_formed, "{read:?}");
    assert!(!well_formed || read == Ok(receipt.clone()));

    let mut distinct: Vec<u64> = nodes;
    distinct.sort_unstable();
    distinct.dedup();
    let all_right = honest.iter().all(|(_, right)| *right);
    let quorum = members == 1 && all_right && distinct.len() >= 2;
    match receipt.verify(&MEMBERS, shown, NOW) {
        Ok(vouching) => {
            assert!(quorum, "{vouching:?} do not vouch for this");
            true
        }
        Err(doubt) => {
            assert!(!quorum, "{doubt}");
            assert!(!doubt.to_string().is_empty());
            assert!(!matches!(doubt, Doubt::TooFew { .. }) || all_right);
            false
        }
    }
}

fn seeds() -> Vec<Seed> {
    let statement = Statement::new(
        &MEMBERS,
        Subject::description("https://kms.example/kms/keystores/z/keys/k", b"{}"),
    );
    let receipt = |nodes: &[u8]| {
        let vouch = |node: &u8| statement.vouch((*node).into(), &PEOPLE[usize::from(*node) - 1].key, NOW);
        Receipt {
            members: 1,
            vouchers: nodes.iter().map(vouch).collect(),
        }
    };
    let text = |receipt: &Receipt| [&[TEXT], receipt.to_string().as_bytes()].concat();
    let revocation = |output: Output| {
        let output = output.byte(2).chunk(b"https://kms.example/kms/keystores/z");
        output.chunk(b"urn:uuid:1").chunk(b"did:key:z6Mk")
    };
    let birth = |output: Output| {
        let output = output
            .byte(1)
            .bytes(&[5; 32])
            .chunk(b"https://kms.example/kms/keystores/z/keys");
        output.chunk(b"{}")
    };
    // Node, whose key, about what is shown, and when.
    let voucher =
        |output: Output, node: u8, signer: u8, about: u8| output.byte(node).byte(signer).byte(about).short(1);
    let shown = || revocation(revocation(Output::default().byte(PUT_TOGETHER))).byte(1);
    let lie = birth(revocation(Output::default().byte(PUT_TOGETHER))).byte(1);
    vec![
        seed("one", text(&receipt(&[2]))),
        seed("three", text(&receipt(&[1, 2, 3]))),
        seed("five", text(&receipt(&[1, 2, 3, 4, 5]))),
        seed("quorum", voucher(voucher(shown(), 1, 0, 0), 3, 2, 0).0),
        seed("twice-one", voucher(voucher(shown(), 1, 0, 0), 1, 0, 0).0),
        seed("anothers-key", voucher(voucher(shown(), 1, 0, 0), 3, 0, 0).0),
        seed("stranger", voucher(voucher(shown(), 1, 0, 0), 4, 3, 0).0),
        seed("of-something-else", voucher(voucher(lie, 1, 0, 1), 3, 2, 0).0),
    ]
}
