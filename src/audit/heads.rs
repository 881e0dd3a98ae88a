//! The heads that nodes have signed, held against their chains: what a node once vouched for must be in its chain, at that
//! number and with that hash. Each node writes its peers' heads into its own chain, so a chain that was cut or written
//! anew, which nothing in it betrays, is betrayed by the others'. Needs no running node.
//!
//! Show it each chain's records as [`super::verify_each`] finds them good, then the end of that chain, then ask for the
//! findings.

use std::collections::{BTreeMap, HashSet};

use ed25519_dalek::VerifyingKey;

use super::record::{Content, PeerHead, Record};
use super::span::{SKEW, Span};
use super::verification::Report;

/// Findings that are kept; the rest is counted.
const MAX_KEPT: usize = 1_000;

/// A head that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadFinding {
    /// Whose head it is.
    pub node: u64,
    /// Number of the last record that it covers.
    pub sequence: u64,
    /// In whose chain the head is.
    pub held_by: u64,
    /// What is wrong.
    pub what: WrongHead,
}

/// Why a head does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongHead {
    /// The node's key has not signed it: it is the holder's chain that is wrong.
    #[error("the head was not signed by the node that it is said to be of")]
    Unsigned,
    /// The chain has another record, or no head behind it.
    #[error("the node's chain is another than the one that it has signed: it was written anew")]
    Differs,
    /// The chain ends below the head, and yet has records from after the head was seen.
    #[error(
        "the node's chain ends below the head that it has signed, and has later records: it was written anew"
    )]
    Renumbered,
    /// Two heads of one number and two hashes, both signed.
    #[error("the node has signed two different chains")]
    Forked,
}

/// A chain that ends below a head that its node has signed: it was cut, or copied before the holder's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shorter {
    /// Number of the chain's last record; 0 if it has none.
    pub ends_at: u64,
    /// The highest number that the node has signed for.
    pub signed: u64,
    /// In whose chain that head is.
    pub held_by: u64,
    /// Heads beyond the chain's end, in all chains.
    pub heads: u64,
}

/// What the chains say about each other's heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadFindings {
    /// Heads of peers that were found, in all chains.
    pub held: u64,
    /// Of these: signed by the node that they are of, and in its chain.
    pub confirmed: u64,
    /// Of these: of nodes whose chains are not here; their signatures were checked.
    pub without_chain: u64,
    /// Of these: of nodes whose keys are not known, so that nothing could be checked.
    pub without_key: u64,
    /// Of these: of records from before the beginning of the chain; their signatures were checked.
    pub before: u64,
    /// By node: of these, what retention by age would have left in its chain. Its oldest segments were removed.
    pub removed: BTreeMap<u64, u64>,
    /// By node: chains that are shorter than what their nodes have signed for.
    pub shorter: BTreeMap<u64, Shorter>,
    /// What is wrong, the first of it.
    pub wrong: Vec<HeadFinding>,
    /// How much is wrong in all.
    pub wrong_count: u64,
}

/// Chains whose heads are being compared.
pub struct Heads {
    cluster: [u8; 32],
    keys: BTreeMap<u64, VerifyingKey>,
    retention_ms: u64,
    chains: BTreeMap<u64, Chain>,
    held: Vec<Held>,
    /// By holder and node: the highest head, and when it was first put on record.
    latest: BTreeMap<(u64, u64), (u64, u64)>,
    found: HeadFindings,
}

/// A node's own chain.
#[derive(Default)]
struct Chain {
    /// Numbers and hashes of the records that its heads cover, ascending.
    heads: Vec<(u64, [u8; 32])>,
    span: Span,
}

/// A head whose signature is good, in another node's chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    node: u64,
    sequence: u64,
    hash: [u8; 32],
    by: u64,
    time_ms: u64,
    /// It is not older: then the node still had an earlier one for its last. None if the holder has no earlier one.
    since_ms: Option<u64>,
}

impl Heads {
    /// For this cluster, whose nodes have these keys: all that they ever had, since chains keep what nodes said that have
    /// left. Nodes remove nothing from their chains that is younger than `retention_ms`; 0 if nobody knows.
    pub fn new(cluster: [u8; 32], keys: BTreeMap<u64, VerifyingKey>, retention_ms: u64) -> Self {
        Self {
            cluster,
            keys,
            retention_ms,
            chains: BTreeMap::new(),
            held: Vec::new(),
            latest: BTreeMap::new(),
            found: HeadFindings::default(),
        }
    }

    /// A record of `node`'s chain.
    pub fn record(&mut self, node: u64, record: &Record) {
        match &record.content {
            Content::Operation(_) => {}
            Content::Head(_) => {
                let chain = self.chains.entry(node).or_default();
                chain.heads.push((record.sequence - 1, record.previous));
            }
            Content::Witnessed(head) => {
                self.found.held += 1;
                let held = Held {
                    node: head.node,
                    sequence: head.sequence,
                    hash: head.hash,
                    by: node,
                    time_ms: record.time_ms,
                    since_ms: self.earliest(node, head, record.time_ms),
                };
                match self.keys.get(&head.node) {
                    None => self.found.without_key += 1,
                    Some(key) if head.is_signed(&self.cluster, key) => self.held.push(held),
                    Some(_) => self.wrong(&held, WrongHead::Unsigned),
                }
            }
        }
    }

    /// Since when a head that a holder puts on record can be at the earliest. Holders ask for a node's last head every few
    /// seconds: when the highest one before was the last, this one was not signed yet.
    fn earliest(&mut self, by: u64, head: &PeerHead, time_ms: u64) -> Option<u64> {
        let before = self.latest.get(&(by, head.node)).copied();
        if before.is_none_or(|(sequence, _)| head.sequence > sequence) {
            self.latest.insert((by, head.node), (head.sequence, time_ms));
        }
        let (sequence, since_ms) = before?;
        (head.sequence > sequence).then_some(since_ms)
    }

    /// The end of `node`'s chain.
    pub fn end(&mut self, node: u64, report: &Report) {
        self.chains.entry(node).or_default().span = Span::of(report);
    }

    /// What all of it comes to.
    pub fn findings(mut self) -> HeadFindings {
        let mut held = std::mem::take(&mut self.held);
        held.sort_unstable();
        let forked = held.windows(2).filter(|pair| {
            (pair[0].node, pair[0].sequence) == (pair[1].node, pair[1].sequence)
                && pair[0].hash != pair[1].hash
        });
        let forked: HashSet<(u64, u64)> = forked.map(|pair| (pair[0].node, pair[0].sequence)).collect();
        for head in &held {
            if forked.contains(&(head.node, head.sequence)) {
                self.wrong(head, WrongHead::Forked);
            } else {
                self.check(head);
            }
        }
        self.found
    }

    fn check(&mut self, head: &Held) {
        let Some(chain) = self.chains.get(&head.node) else {
            self.found.without_chain += 1;
            return;
        };
        // The node's own record of its head comes right behind what it covers, and is durable before anybody hears of it.
        let (own, span) = (head.sequence.saturating_add(1), chain.span);
        if own > span.last {
            if span.last_ms > head.time_ms.saturating_add(SKEW) {
                return self.wrong(head, WrongHead::Renumbered);
            }
            let ends_at = span.last;
            let shorter = self.found.shorter.entry(head.node).or_default();
            shorter.ends_at = ends_at;
            shorter.heads += 1;
            if head.sequence > shorter.signed {
                (shorter.signed, shorter.held_by) = (head.sequence, head.by);
            }
        } else if own < span.first {
            self.found.before += 1;
            let would_keep = |since_ms| span.would_keep(since_ms, self.retention_ms);
            if head.since_ms.is_some_and(would_keep) {
                *self.found.removed.entry(head.node).or_default() += 1;
            }
        } else {
            let place = chain.heads.binary_search_by_key(&head.sequence, |(at, _)| *at);
            match place.is_ok_and(|at| chain.heads[at].1 == head.hash) {
                true => self.found.confirmed += 1,
                false => self.wrong(head, WrongHead::Differs),
            }
        }
    }

    fn wrong(&mut self, head: &Held, what: WrongHead) {
        self.found.wrong_count += 1;
        if self.found.wrong.len() < MAX_KEPT {
            self.found.wrong.push(HeadFinding {
                node: head.node,
                sequence: head.sequence,
                held_by: head.by,
                what,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::super::chain::head_message;
    use super::super::record::{PeerHead, Signature};
    use super::*;

    const CLUSTER: [u8; 32] = [3; 32];
    const TIME: u64 = 1_000_000;
    const HOUR: u64 = 3_600_000;
    const RETENTION: u64 = 100 * HOUR;

    fn key(node: u64) -> SigningKey {
        SigningKey::from_bytes(&[u8::try_from(node).unwrap(); 32])
    }

    fn keys() -> BTreeMap<u64, VerifyingKey> {
        (1..=3).map(|node| (node, key(node).verifying_key())).collect()
    }

    fn head(node: u64, sequence: u64, hash: u8) -> PeerHead {
        let message = head_message(&CLUSTER, node, sequence, &[hash; 32]);
        PeerHead {
            node,
            sequence,
            hash: [hash; 32],
            signature: Signature(key(node).sign(&message).to_bytes()),
        }
    }

    fn record(sequence: u64, previous: u8, content: Content) -> Record {
        Record {
            sequence,
            synced: 0,
            time_ms: TIME,
            previous: [previous; 32],
            hash: [0; 32],
            content,
        }
    }

    /// The chain of node 2: heads that cover these records, whose hashes all begin with their numbers.
    fn chain(heads: &mut Heads, covers: &[u64], first: u64, last: u64, last_ms: u64) {
        for covered in covers {
            let content = Content::Head(Signature([0; 64]));
            heads.record(2, &record(covered + 1, u8::try_from(*covered).unwrap(), content));
        }
        let report = Report {
            first_sequence: Some(first),
            last_sequence: Some(last),
            last_ms: Some(last_ms),
            ..Report::default()
        };
        heads.end(2, &report);
    }

    /// Heads of node 2 on record at nodes 1 and 3, beside its chain of records 1 to 20 with heads at 5, 10 and 15.
    fn findings(held: &[(u64, PeerHead)]) -> HeadFindings {
        let mut heads = Heads::new(CLUSTER, keys(), RETENTION);
        for (by, head) in held {
            heads.record(*by, &record(1, 0, Content::Witnessed(*head)));
        }
        chain(&mut heads, &[5, 10, 15], 1, 20, TIME);
        heads.findings()
    }

    fn wrong(found: &HeadFindings) -> Vec<(u64, u64, WrongHead)> {
        found
            .wrong
            .iter()
            .map(|wrong| (wrong.node, wrong.held_by, wrong.what))
            .collect()
    }

    #[test]
    fn heads_that_are_in_the_chain_are_confirmed() {
        let found = findings(&[(1, head(2, 5, 5)), (3, head(2, 15, 15)), (3, head(2, 15, 15))]);
        assert_eq!((found.held, found.confirmed, found.wrong_count), (3, 3, 0));
        assert!(found.shorter.is_empty());
    }

    #[test]
    fn a_chain_that_was_written_anew_differs() {
        assert_eq!(
            wrong(&findings(&[(1, head(2, 10, 99))])),
            [(2, 1, WrongHead::Differs)]
        );
        // The record may be the same; the head behind it is gone.
        assert_eq!(
            wrong(&findings(&[(3, head(2, 11, 11))])),
            [(2, 3, WrongHead::Differs)]
        );
        assert_eq!(
            wrong(&findings(&[(3, head(2, 0, 0))])),
            [(2, 3, WrongHead::Differs)]
        );
    }

    #[test]
    fn a_chain_that_was_cut_is_shorter_than_what_was_signed() {
        let found = findings(&[(1, head(2, 19, 19)), (1, head(2, 20, 20)), (3, head(2, 40, 40))]);
        let shorter = Shorter {
            ends_at: 20,
            signed: 40,
            held_by: 3,
            heads: 2,
        };
        assert_eq!(found.shorter, BTreeMap::from([(2, shorter)]));
        assert_eq!(
            wrong(&found),
            [(2, 1, WrongHead::Differs)],
            "head 19 would be record 20"
        );
    }

    #[test]
    fn a_chain_that_went_on_behind_its_cut_is_no_earlier_copy() {
        let mut heads = Heads::new(CLUSTER, keys(), RETENTION);
        heads.record(1, &record(1, 0, Content::Witnessed(head(2, 40, 40))));
        chain(&mut heads, &[5], 1, 20, TIME + SKEW + 1);
        assert_eq!(wrong(&heads.findings()), [(2, 1, WrongHead::Renumbered)]);
    }

    #[test]
    fn what_retention_has_taken_is_not_missed() {
        let mut heads = Heads::new(CLUSTER, keys(), RETENTION);
        for sequence in [4, 9, 10] {
            let held = head(2, sequence, u8::try_from(sequence).unwrap());
            heads.record(1, &record(1, 0, Content::Witnessed(held)));
        }
        // The head of record 10 is the first that is left.
        chain(&mut heads, &[10, 15], 11, 20, TIME);
        let found = heads.findings();
        assert_eq!((found.before, found.confirmed, found.wrong_count), (2, 1, 0));
    }

    /// What is found when node 1 has put these heads of node 2 on record at these hours, and node 2's chain has records
    /// 11 to 20, the last of hour 200.
    fn begun_late(held: &[(u64, u64)]) -> HeadFindings {
        let mut heads = Heads::new(CLUSTER, keys(), RETENTION);
        for (at, (sequence, hour)) in (1..).zip(held) {
            let head = head(2, *sequence, u8::try_from(*sequence).unwrap());
            let mut record = record(at, 0, Content::Witnessed(head));
            record.time_ms = hour * HOUR;
            heads.record(1, &record);
        }
        chain(&mut heads, &[10, 15], 11, 20, 200 * HOUR);
        heads.findings()
    }

    #[test]
    fn heads_that_retention_would_have_left_were_removed() {
        let found = begun_late(&[(3, 110), (5, 120), (8, 130), (10, 140)]);
        // Nobody knows how old the first one is; the last one is in the chain.
        assert_eq!((found.before, found.confirmed, found.wrong_count), (3, 1, 0));
        assert_eq!(found.removed, BTreeMap::from([(2, 2)]));
    }

    #[test]
    fn heads_that_may_be_as_old_as_retention_are_not_missed() {
        // Record 5 was signed at some time after hour 99: retention had that, or an hour later while it was copied.
        for hour in [99, 101] {
            let found = begun_late(&[(3, hour), (5, 150)]);
            assert_eq!((found.before, found.removed.len()), (2, 0), "{hour}");
        }
        // An older copy of its disk had told less meanwhile: what is told again is no younger for that.
        let found = begun_late(&[(5, 90), (3, 150), (5, 160), (8, 170)]);
        assert_eq!((found.before, found.removed.len()), (4, 0));
    }

    #[test]
    fn what_the_node_has_not_signed_is_the_holders_fault() {
        let mut other = head(2, 10, 10);
        other.signature = head(2, 10, 11).signature;
        assert_eq!(wrong(&findings(&[(3, other)])), [(2, 3, WrongHead::Unsigned)]);
        let mut of_another = head(3, 10, 10);
        of_another.node = 2;
        assert_eq!(
            wrong(&findings(&[(1, of_another)])),
            [(2, 1, WrongHead::Unsigned)]
        );
    }

    #[test]
    fn nodes_without_a_chain_or_a_key_are_counted() {
        let found = findings(&[(1, head(3, 10, 10)), (1, head(4, 10, 10))]);
        assert_eq!((found.held, found.without_chain, found.without_key), (2, 1, 1));
        assert_eq!(found.wrong_count, 0);
    }

    #[test]
    fn two_signed_chains_of_one_node_need_no_chain_to_be_seen() {
        let found = findings(&[(1, head(3, 10, 10)), (2, head(3, 10, 11))]);
        assert_eq!(
            wrong(&found),
            [(3, 1, WrongHead::Forked), (3, 2, WrongHead::Forked)]
        );
    }
}
