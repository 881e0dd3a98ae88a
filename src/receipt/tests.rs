//! Every field of what is signed, and every way to fall short of a quorum.

use super::*;
use crate::membership::Member;

const NOW: u64 = 1_764_342_000_000;
const KEY: &str = "https://kms.example/kms/keystores/z1A/keys/z1B";
const KEYSTORE: &str = "https://kms.example/kms/keystores/z1A";
const BODY: &[u8] = br#"{"id":"https://kms.example/kms/keystores/z1A/keys/z1B","publicKeyMultibase":"z6Mk"}"#;

fn key(node: u64) -> SigningKey {
    SigningKey::from_bytes(&[u8::try_from(node).unwrap(); 32])
}

fn members_of(nodes: &[u64], index: u64) -> Membership {
    let member = |node: &u64| Member {
        node: *node,
        index: u16::try_from(*node).unwrap(),
        address: format!("10.0.0.{node}:9443"),
        verifying_key: key(*node).verifying_key(),
        envelope_key: [u8::try_from(*node).unwrap(); 32],
    };
    Membership {
        cluster: [7; 32],
        index,
        members: nodes.iter().map(member).collect(),
        operators: Vec::new(),
        operator_threshold: 1,
        ..Membership::default()
    }
}

fn members() -> Membership {
    members_of(&[1, 2, 3], 1)
}

fn description() -> Subject {
    Subject::description(KEY, BODY)
}

fn birth() -> Subject {
    Subject::birth([5; 32], format!("{KEYSTORE}/keys"), BODY)
}

fn revocation() -> Subject {
    Subject::Revocation {
        keystore: KEYSTORE.into(),
        capability: "urn:uuid:1".into(),
        delegator: "did:key:z6Mk".into(),
    }
}

/// What these nodes say about it.
fn receipt(by: &[u64], subject: Subject) -> Receipt {
    let statement = Statement::new(&members(), subject);
    let vouchers = by.iter().map(|node| statement.vouch(*node, &key(*node), NOW));
    Receipt {
        members: 1,
        vouchers: vouchers.collect(),
    }
}

#[test]
fn a_quorum_vouches() {
    for subject in [description(), birth(), revocation()] {
        let all = receipt(&[1, 2, 3], subject.clone());
        assert_eq!(all.verify(&members(), subject.clone(), NOW), Ok(vec![1, 2, 3]));
        let two = receipt(&[1, 3], subject.clone());
        assert_eq!(two.verify(&members(), subject, NOW + SKEW), Ok(vec![1, 3]));
    }
}

#[test]
fn every_field_is_signed() {
    let altered = |what: &str, signed: Subject, shown: Subject| {
        let verdict = receipt(&[1, 2], signed).verify(&members(), shown, NOW);
        assert_eq!(verdict, Err(Doubt::Signature(1)), "{what}");
    };
    altered("the body", description(), Subject::description(KEY, b"{}"));
    let other = Subject::description("https://kms.example/kms/keystores/z1A/keys/z1C", BODY);
    altered("another key's", other, description());
    altered("a description for a birth", description(), {
        let Subject::Description { url, body } = description() else {
            unreachable!()
        };
        let request = [5; 32];
        Subject::Birth { request, url, body }
    });
    altered(
        "another request",
        birth(),
        Subject::birth([6; 32], format!("{KEYSTORE}/keys"), BODY),
    );
    altered(
        "another keystore's keys",
        birth(),
        Subject::birth([5; 32], "https://kms.example/keys", BODY),
    );
    altered(
        "another new key",
        birth(),
        Subject::birth([5; 32], format!("{KEYSTORE}/keys"), b"{}"),
    );
    for at in 0..3 {
        let mut texts = [KEYSTORE, "urn:uuid:1", "did:key:z6Mk"].map(str::to_owned);
        texts[at].push('x');
        let [keystore, capability, delegator] = texts;
        let shown = Subject::Revocation {
            keystore,
            capability,
            delegator,
        };
        altered("a revocation", revocation(), shown);
    }
    // Lengths stand before texts: what one gives to the next is another statement.
    let shifted = Subject::Revocation {
        keystore: KEYSTORE.into(),
        capability: "urn:uuid:1d".into(),
        delegator: "id:key:z6Mk".into(),
    };
    altered("a letter moved", revocation(), shifted);
}

#[test]
fn cluster_members_node_and_time_are_signed() {
    let mut elsewhere = members();
    elsewhere.cluster = [8; 32];
    let shown = receipt(&[1, 2], description());
    assert_eq!(
        shown.verify(&elsewhere, description(), NOW),
        Err(Doubt::Signature(1))
    );
    // The same nodes with the same keys under the same number: by another order.
    let four = members_of(&[1, 2, 3, 4], 1);
    assert_eq!(shown.verify(&four, description(), NOW), Err(Doubt::Signature(1)));
    let mut altered = shown.clone();
    altered.vouchers[1].time += 1;
    assert_eq!(
        altered.verify(&members(), description(), NOW),
        Err(Doubt::Signature(2))
    );
    let mut altered = shown.clone();
    altered.vouchers[1].node = 3;
    assert_eq!(
        altered.verify(&members(), description(), NOW),
        Err(Doubt::Signature(3))
    );
    let mut altered = shown;
    altered.vouchers[0].signature[63] ^= 1;
    assert_eq!(
        altered.verify(&members(), description(), NOW),
        Err(Doubt::Signature(1))
    );
}

#[test]
fn fewer_than_a_quorum_vouch_for_nothing() {
    let lonely = receipt(&[2], description()).verify(&members(), description(), NOW);
    let few = Doubt::TooFew {
        vouching: vec![2],
        needed: 2,
    };
    assert_eq!(lonely, Err(few.clone()));
    assert!(few.is_lack());
    assert_eq!(
        few.to_string(),
        "only 1 of the 2 members that are needed vouch for it: node 2"
    );
    let mut copies = receipt(&[2, 2, 2], description());
    assert_eq!(copies.verify(&members(), description(), NOW), Err(few));
    assert_eq!(Receipt::parse(&copies.to_string()), Err(Malformed::Order));
    copies.vouchers.clear();
    assert!(copies.verify(&members(), description(), NOW).is_err());
    let four = members_of(&[1, 2, 3, 4], 1);
    let statement = Statement::new(&four, description());
    let two = Receipt {
        members: 1,
        vouchers: [1, 2].map(|node| statement.vouch(node, &key(node), NOW)).into(),
    };
    assert!(matches!(
        two.verify(&four, description(), NOW),
        Err(Doubt::TooFew { needed: 3, .. })
    ));
}

#[test]
fn strangers_and_former_members_do_not_count() {
    let stranger = receipt(&[1, 2, 9], description());
    let verdict = stranger.verify(&members(), description(), NOW);
    assert_eq!(verdict, Err(Doubt::Stranger(9)));
    assert!(!verdict.unwrap_err().is_lack());
    // Node 3 was replaced by node 4.
    let next = members_of(&[1, 2, 4], 2);
    let old = receipt(&[1, 3], description()).verify(&next, description(), NOW);
    assert_eq!(old, Err(Doubt::OtherMembers { named: 1, known: 2 }));
    let mut relabelled = receipt(&[1, 2], description());
    relabelled.members = 2;
    assert_eq!(
        relabelled.verify(&next, description(), NOW),
        Err(Doubt::Signature(1))
    );
    let later = relabelled.verify(&members(), description(), NOW).unwrap_err();
    assert!(
        later.is_lack() && later.to_string().contains("conclave node orders"),
        "{later}"
    );
}

#[test]
fn an_old_one_is_none() {
    let shown = receipt(&[1, 2], description());
    let verify = |now| shown.verify(&members(), description(), now);
    let late = NOW + SKEW + 1;
    let doubt = Doubt::Time {
        node: 1,
        time: NOW,
        now: late,
    };
    assert_eq!(verify(late), Err(doubt));
    assert!(verify(NOW - SKEW).is_ok());
    assert!(verify(NOW - SKEW - 1).is_err());
    assert!(verify(0).is_err() && verify(u64::MAX).is_err());
}

#[test]
fn a_receipt_has_one_spelling() {
    let five = Statement::new(&members_of(&[1, 2, 3, 4, 5], 1), description());
    let all = Receipt {
        members: u64::MAX,
        vouchers: (1..=5)
            .map(|node| five.vouch(node, &key(node), u64::MAX))
            .collect(),
    };
    let text = all.to_string();
    assert!(text.len() < 700, "{}", text.len());
    assert_eq!(Receipt::parse(&text), Ok(all));

    let text = receipt(&[1, 2], description()).to_string();
    assert!(Receipt::parse(&text).is_ok());
    let one = text.split(' ').nth(2).unwrap();
    // The last character has four bits that say nothing: another one of them is the same signature.
    let last = one.chars().last().unwrap();
    let loose = format!(
        "{}{}",
        &one[..one.len() - 1],
        if last == 'A' {
            'B'
        } else {
            (last as u8 + 1) as char
        }
    );
    let grammar = Malformed::Grammar;
    for (other, reason) in [
        (String::new(), Malformed::Version),
        ("v2 1".into(), Malformed::Version),
        ("v1 ".into(), grammar),
        ("v1 1".into(), Malformed::Count),
        ("v1 1 ".into(), grammar),
        (format!(" {text}"), Malformed::Version),
        (format!("{text} "), grammar),
        (text.replace("v1 1", "v1  1"), grammar),
        (text.replace("v1 1", "v1 01"), grammar),
        (text.replace("v1 1", "v1 +1"), grammar),
        (text.replace("v1 1", "v1 18446744073709551616"), grammar),
        (text.replace(" 2:", " 02:"), grammar),
        (text.replace(" 2:", " 1:"), Malformed::Order),
        (format!("v1 1 {one}="), grammar),
        (format!("v1 1 {}", &one[..one.len() - 1]), grammar),
        (format!("v1 1 {loose}"), grammar),
        (format!("v1 1 {one}:"), grammar),
        (format!("v1 1 {}", one.replace(':', ";")), grammar),
        (" ".repeat(MAX_RECEIPT + 1), Malformed::TooLong),
        (format!("v1 1 {}", [one; 6].join(" ")), Malformed::Order),
    ] {
        assert_eq!(Receipt::parse(&other), Err(reason), "{other:?}");
    }
    let six = Statement::new(&members(), description());
    let six = Receipt {
        members: 1,
        vouchers: (1..=6).map(|node| six.vouch(node, &key(node), NOW)).collect(),
    };
    assert_eq!(Receipt::parse(&six.to_string()), Err(Malformed::Count));
}
