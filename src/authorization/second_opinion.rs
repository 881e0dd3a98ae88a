//! rdf-canon, an independent implementation of RDFC-1.0, as a second opinion on chains that no vector has: random ids,
//! suites, controllers and depths, with the blank nodes renamed and the quads shuffled for it.

use ed25519_dalek::SigningKey;
use oxrdf::{BlankNode, GraphName, Literal, NamedNode};
use proptest::prelude::*;
use serde_json::Value;

use super::capability::{Delegated, MAX_CHAIN};
use super::issue::{Capability, Delegation};
use super::rdfc::{Quad, Term, canonicalize};
use super::{DidKey, Suite, canonical};

fn node(iri: &str) -> NamedNode {
    NamedNode::new(iri).unwrap()
}

/// A name that has nothing to do with the number's place.
fn blank(number: usize, salt: usize) -> BlankNode {
    BlankNode::new(format!("x{:04}", (number * 7_919 + salt) % 10_007)).unwrap()
}

fn translate(quad: &Quad<'_>, salt: usize) -> oxrdf::Quad {
    let subject: oxrdf::Subject = match quad.subject {
        Term::Blank(number) => blank(number, salt).into(),
        Term::Iri(iri) => node(iri).into(),
        Term::Literal(..) => panic!("a literal subject"),
    };
    let object: oxrdf::Term = match quad.object {
        Term::Blank(number) => blank(number, salt).into(),
        Term::Iri(iri) => node(iri).into(),
        Term::Literal(text, None) => Literal::new_simple_literal(text).into(),
        Term::Literal(text, Some(datatype)) => Literal::new_typed_literal(text, node(datatype)).into(),
    };
    let graph: GraphName = match quad.graph {
        None => GraphName::DefaultGraph,
        Some(Term::Blank(number)) => blank(number, salt).into(),
        Some(_) => panic!("a named graph"),
    };
    oxrdf::Quad::new(subject, node(quad.predicate), object, graph)
}

fn key(index: usize) -> SigningKey {
    SigningKey::from_bytes(&[index as u8 + 1; 32])
}

fn chain(ids: &[u32], suites: &[bool], controllers: &[usize], actions: bool) -> Delegated {
    let target = "https://kms.example/kms/keystores/z1A";
    let mut capability: Option<Value> = None;
    for (index, id) in ids.iter().enumerate() {
        let names: Vec<String> = (0..controllers[index])
            .map(|n| DidKey::of(&key(index + 1 + n).verifying_key()).did)
            .collect();
        let made = Delegation {
            key: &key(index),
            parent: capability
                .as_ref()
                .map_or(Capability::Root(target), Capability::Delegated),
            id: &format!("urn:x:{id}"),
            controllers: &names.iter().map(String::as_str).collect::<Vec<_>>(),
            target,
            actions: actions.then_some(&["sign", "read", "sign"]),
            created: 1_780_000_000,
            expires: 1_790_000_000,
            suite: if suites[index] {
                Suite::EddsaRdfc2022
            } else {
                Suite::Ed25519Signature2020
            },
        };
        capability = Some(made.sign().unwrap());
    }
    Delegated::from_json(&capability.unwrap(), [0; 32], MAX_CHAIN).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rdf_canon_agrees(
        ids in proptest::collection::btree_set(any::<u32>(), 1..10).prop_map(|ids| ids.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        suites in proptest::collection::vec(any::<bool>(), 9),
        controllers in proptest::collection::vec(1usize..4, 9),
        actions: bool,
        salt in 0usize..10_007,
    ) {
        let delegated = chain(&ids, &suites, &controllers, actions);
        let (quads, blanks) = canonical::proof_quads(&delegated, ids.len() - 1);
        let mut theirs: Vec<oxrdf::Quad> = quads.iter().map(|quad| translate(quad, salt)).collect();
        theirs.sort_by_key(|quad| quad.to_string().len() * 31 % 17);
        prop_assert_eq!(canonicalize(&quads, blanks).unwrap(), rdf_canon::canonicalize_quads(&theirs).unwrap());
    }
}

#[test]
fn the_longest_chain_is_within_the_bound_on_work() {
    let ids: Vec<u32> = (1..MAX_CHAIN as u32).collect();
    let delegated = chain(&ids, &[false; MAX_CHAIN], &[1; MAX_CHAIN], true);
    assert_eq!(super::proof::verify_all(&delegated), Ok(MAX_CHAIN - 1));
}
