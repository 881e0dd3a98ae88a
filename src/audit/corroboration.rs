//! The chains of several nodes held against each other: every result has the independent records of everybody who took part,
//! about one and the same signed request (trust.md, section 7). Needs no running node.
//!
//! Show it each chain's records as [`super::verify_each`] finds them good, then the end of that chain, then ask for the
//! findings.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use super::record::{Entry, Evidence, Kind, OperationId, Record};
use super::span::{SKEW, Span};
use super::verification::Report;

/// Findings that are kept; the rest is counted.
const MAX_KEPT: usize = 1_000;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose chain it is about.
    pub node: u64,
    /// The operation.
    pub operation: OperationId,
    /// What is wrong.
    pub what: Wrong,
}

/// Why something does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A participant's chain does not have it.
    #[error("took part in a result, and its chain has no record of it")]
    Missing,
    /// A participant's record says something else than the result's.
    #[error("recorded another request, key, attempt or other participants than the result has")]
    Differs,
    /// The client's signature on record does not verify, or is not of the request that the record names.
    #[error("recorded a contribution that no client's signature stands behind")]
    Unsigned,
    /// A result for which too few took part; a node counts once.
    #[error("answered a result in which fewer nodes took part than the quorum")]
    Alone,
    /// A result names a participant more than once: no honest coordinator asks a node twice.
    #[error("answered a result and named a node twice among those that took part")]
    Twice,
    /// A result names a participant that never was a member.
    #[error("answered a result in which node {0} took part, which no list of members has")]
    Stranger(u64),
}

/// What all chains say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Results that were looked at.
    pub results: u64,
    /// Of these: everybody who took part has a record of the same signed request.
    pub corroborated: u64,
    /// Of these: answers that follow from lengths alone, without the key.
    pub without_key: u64,
    /// Of these: somebody took part whose chain is not here, so that nothing is proven.
    pub without_chain: u64,
    /// Who that is.
    pub missing: BTreeSet<u64>,
    /// Results from before the beginning of a participant's chain.
    pub before: u64,
    /// By node: of these, what retention by age would have left in its chain. Its oldest segments were removed.
    pub removed: BTreeMap<u64, u64>,
    /// By node: results in which it took part, later than the end of its chain. A copy that was taken earlier, or a chain
    /// that was cut.
    pub after_end: BTreeMap<u64, u64>,
    /// What is wrong, the first of it.
    pub wrong: Vec<Finding>,
    /// How much is wrong in all.
    pub wrong_count: u64,
}

/// Whether a client's signature stands behind the request, or the item of one, with this name.
pub type IsSigned = fn(&Evidence, &[u8; 32]) -> bool;

/// What results are held against, beside the chains.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Who ever was a member.
    pub members: BTreeSet<u64>,
    /// So many nodes take part in every result.
    pub quorum: usize,
    /// Nodes remove nothing from their chains that is younger, ms; 0 if nobody knows.
    pub retention_ms: u64,
}

/// Chains that are being compared.
pub struct Corroboration {
    expected: Expected,
    is_signed: IsSigned,
    chains: BTreeMap<u64, Span>,
    said: HashMap<OperationId, Vec<Said>>,
    results: Vec<Answered>,
    found: Findings,
}

/// One node's record that it takes part.
struct Said {
    node: u64,
    kind: Kind,
    attempt: u8,
    about: About,
    may_be_alone: bool,
}

/// What all records of one thing have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct About {
    /// The request.
    request: [u8; 32],
    /// The request, its name, the key and its epoch, and who takes part.
    all: [u8; 32],
}

/// A coordinator's record that it has answered with a result.
struct Answered {
    node: u64,
    time: u64,
    operation: OperationId,
    attempt: u8,
    about: About,
    participants: Vec<u64>,
}

impl About {
    fn of(entry: &Entry) -> Self {
        let mut hash = Sha256::new();
        hash.update(entry.request);
        hash.update(entry.name);
        hash.update(entry.keystore);
        hash.update(entry.key.unwrap_or_default());
        hash.update(entry.epoch.to_be_bytes());
        for node in &entry.participants {
            hash.update(node.to_be_bytes());
        }
        Self {
            request: entry.request,
            all: hash.finalize().into(),
        }
    }
}

impl Said {
    fn fits(&self, result: &Answered) -> bool {
        match self.kind {
            // An endorsement names no others: each member gives its own.
            Kind::Endorsed => self.about.request == result.about.request,
            _ => self.attempt == result.attempt && self.about == result.about,
        }
    }
}

/// What a participant's chain has of a result.
enum Told {
    /// A record of the same signed request.
    Same,
    /// None, and it is not here or ends before.
    Nothing,
    /// None that it should have, or another one.
    Wrong(Wrong),
}

impl Corroboration {
    /// For results that are to be as `expected`.
    pub fn new(expected: Expected, is_signed: IsSigned) -> Self {
        Self {
            expected,
            is_signed,
            chains: BTreeMap::new(),
            said: HashMap::new(),
            results: Vec::new(),
            found: Findings::default(),
        }
    }

    /// A record of `node`'s chain.
    pub fn record(&mut self, node: u64, record: &Record) {
        let Some(entry) = record.entry() else { return };
        match entry.kind {
            Kind::Contributed | Kind::Endorsed => {
                let evidence = entry.evidence.as_ref();
                if !evidence.is_some_and(|evidence| (self.is_signed)(evidence, &entry.name)) {
                    self.wrong(node, entry.operation, Wrong::Unsigned);
                }
                let said = Said {
                    node,
                    kind: entry.kind,
                    attempt: entry.attempt,
                    about: About::of(entry),
                    may_be_alone: matches!(&*entry.verdict, "verify" | "unwrapKey"),
                };
                self.said.entry(entry.operation).or_default().push(said);
            }
            Kind::Outcome if entry.verdict.starts_with('2') => self.results.push(Answered {
                node,
                time: entry.time_ms,
                operation: entry.operation,
                attempt: entry.attempt,
                about: About::of(entry),
                participants: entry.participants.clone(),
            }),
            _ => {}
        }
    }

    /// The end of `node`'s chain.
    pub fn end(&mut self, node: u64, report: &Report) {
        self.chains.insert(node, Span::of(report));
    }

    /// What all of it comes to.
    pub fn findings(mut self) -> Findings {
        for result in std::mem::take(&mut self.results) {
            let participants: BTreeSet<u64> = result.participants.iter().copied().collect();
            let are_right = self.check_names(&result, &participants);
            if self.is_before(&result, &participants) {
                self.found.before += 1;
            } else {
                self.found.results += 1;
                let is_corroborated = self.check(&result, &participants) && are_right;
                self.found.corroborated += u64::from(is_corroborated);
            }
        }
        self.found
    }

    /// Whether the record names members, and each of them once.
    fn check_names(&mut self, result: &Answered, participants: &BTreeSet<u64>) -> bool {
        let strangers = participants.difference(&self.expected.members).copied();
        let mut wrong: Vec<Wrong> = strangers.map(Wrong::Stranger).collect();
        if participants.len() < result.participants.len() {
            wrong.push(Wrong::Twice);
        }
        for what in &wrong {
            self.wrong(result.node, result.operation, *what);
        }
        wrong.is_empty()
    }

    /// Whether a participant's chain begins only later. If retention has not done that, it is counted against the chain.
    fn is_before(&mut self, result: &Answered, participants: &BTreeSet<u64>) -> bool {
        let mut is_before = false;
        for node in participants {
            let Some(span) = self.chains.get(node) else {
                continue;
            };
            is_before |= span.may_begin_after(result.time);
            if span.begins_after(result.time) && span.would_keep(result.time, self.expected.retention_ms) {
                *self.found.removed.entry(*node).or_default() += 1;
            }
        }
        is_before
    }

    /// Whether everybody who took part has a record of the same signed request, and these are enough.
    fn check(&mut self, result: &Answered, participants: &BTreeSet<u64>) -> bool {
        if participants.len() < self.expected.quorum {
            match self.is_without_key(result) {
                true => self.found.without_key += 1,
                false => {
                    self.wrong(result.node, result.operation, Wrong::Alone);
                    return false;
                }
            }
        }
        let members: Vec<u64> = participants
            .intersection(&self.expected.members)
            .copied()
            .collect();
        let absent: Vec<u64> = members
            .iter()
            .copied()
            .filter(|node| !self.chains.contains_key(node))
            .collect();
        self.found.without_chain += u64::from(!absent.is_empty());
        self.found.missing.extend(absent);
        let mut holds = true;
        for node in members {
            let told = self.told(node, result);
            holds &= matches!(told, Told::Same);
            if let Told::Wrong(what) = told {
                self.wrong(node, result.operation, what);
            }
        }
        holds
    }

    /// What a participant's chain has of a result.
    fn told(&mut self, node: u64, result: &Answered) -> Told {
        let Some(span) = self.chains.get(&node) else {
            return Told::Nothing;
        };
        let said = self.said.get(&result.operation).map_or(&[][..], Vec::as_slice);
        let mut fitting = said
            .iter()
            .filter(|said| said.node == node)
            .map(|said| said.fits(result));
        match fitting.next() {
            Some(first) if first || fitting.any(|fits| fits) => Told::Same,
            Some(_) => Told::Wrong(Wrong::Differs),
            None if span.last_ms < result.time + SKEW => {
                *self.found.after_end.entry(node).or_default() += 1;
                Told::Nothing
            }
            None => Told::Wrong(Wrong::Missing),
        }
    }

    /// Whether the coordinator alone could answer: that a tag or a wrap of such a length is none needs no key.
    fn is_without_key(&self, result: &Answered) -> bool {
        let said = self.said.get(&result.operation).map_or(&[][..], Vec::as_slice);
        let own = |said: &Said| said.node == result.node && said.may_be_alone && said.fits(result);
        result.participants == [result.node] && said.iter().any(own)
    }

    fn wrong(&mut self, node: u64, operation: OperationId, what: Wrong) {
        self.found.wrong_count += 1;
        if self.found.wrong.len() < MAX_KEPT {
            self.found.wrong.push(Finding {
                node,
                operation,
                what,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Content, Signature};
    use super::*;

    const OPERATION: OperationId = OperationId {
        node: 1,
        boot: 7,
        counter: 3,
    };
    const TIME: u64 = 1_000_000;

    /// Stands for a client's signature: the first byte says so.
    fn is_signed(evidence: &Evidence, _: &[u8; 32]) -> bool {
        evidence.signature.0[0] == 1
    }

    fn entry(kind: Kind, verdict: &str, participants: &[u64]) -> Entry {
        let mut entry = Entry::new(kind, TIME, OPERATION);
        entry.attempt = 1;
        entry.request = [5; 32];
        entry.name = [6; 32];
        entry.key = Some([7; 16]);
        entry.participants = participants.to_vec();
        entry.verdict = verdict.into();
        entry.evidence = (kind != Kind::Outcome).then(|| Evidence {
            key_id: "did:key:z6Mk#z6Mk".into(),
            signing_string: "digest: mh=uEiB".into(),
            signature: Signature([1; 64]),
            capabilities: Vec::new(),
        });
        entry
    }

    /// What the chains of three nodes come to, each of which ends at `last`.
    fn findings(chains: &[(u64, Vec<Entry>)], last: u64) -> Findings {
        findings_of(chains, |_| Report {
            first_sequence: Some(1),
            first_ms: Some(0),
            last_ms: Some(last),
            ..Report::default()
        })
    }

    fn findings_of(chains: &[(u64, Vec<Entry>)], end: impl Fn(u64) -> Report) -> Findings {
        let expected = Expected {
            members: (1..=3).collect(),
            quorum: 2,
            retention_ms: 10 * TIME,
        };
        let mut corroboration = Corroboration::new(expected, is_signed);
        for (node, entries) in chains {
            for entry in entries {
                let record = Record {
                    sequence: 1,
                    synced: 0,
                    time_ms: entry.time_ms,
                    previous: [0; 32],
                    hash: [0; 32],
                    content: Content::Operation(Box::new(entry.clone())),
                };
                corroboration.record(*node, &record);
            }
            corroboration.end(*node, &end(*node));
        }
        corroboration.findings()
    }

    /// A signature by nodes 1 and 2; `change` alters what node 2 has on record.
    fn of_signature(change: impl FnOnce(&mut Entry)) -> Vec<(u64, Vec<Entry>)> {
        let own = entry(Kind::Contributed, "sign", &[1, 2]);
        let mut other = own.clone();
        change(&mut other);
        let outcome = entry(Kind::Outcome, "200", &[1, 2]);
        vec![(1, vec![own, outcome]), (2, vec![other]), (3, Vec::new())]
    }

    fn wrong(found: &Findings) -> Vec<(u64, Wrong)> {
        found.wrong.iter().map(|wrong| (wrong.node, wrong.what)).collect()
    }

    #[test]
    fn a_result_that_all_participants_recorded_alike_is_corroborated() {
        let found = findings(&of_signature(|_| ()), 2 * TIME);
        assert_eq!((found.results, found.corroborated, found.wrong_count), (1, 1, 0));
    }

    #[test]
    fn whatever_a_participant_recorded_differently_is_found() {
        let changes: [fn(&mut Entry); 7] = [
            |entry| entry.request[0] ^= 1,
            |entry| entry.name[0] ^= 1,
            |entry| entry.key = None,
            |entry| entry.keystore[0] ^= 1,
            |entry| entry.epoch += 1,
            |entry| entry.attempt += 1,
            |entry| entry.participants = vec![2, 3],
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let found = findings(&of_signature(change), 2 * TIME);
            assert_eq!(wrong(&found), [(2, Wrong::Differs)], "change {at}");
            assert_eq!(found.corroborated, 0);
        }
    }

    #[test]
    fn what_no_client_signed_is_found() {
        let unsigned = of_signature(|entry| entry.evidence.as_mut().unwrap().signature = Signature([0; 64]));
        assert_eq!(wrong(&findings(&unsigned, 2 * TIME)), [(2, Wrong::Unsigned)]);
        let without = of_signature(|entry| entry.evidence = None);
        assert_eq!(wrong(&findings(&without, 2 * TIME)), [(2, Wrong::Unsigned)]);
    }

    #[test]
    fn a_participant_without_a_record_is_named_unless_its_chain_ends_before() {
        let mut chains = of_signature(|_| ());
        chains[1].1.clear();
        assert_eq!(wrong(&findings(&chains, 2 * TIME)), [(2, Wrong::Missing)]);
        let early = findings(&chains, TIME);
        assert_eq!((early.wrong_count, early.after_end.get(&2)), (0, Some(&1)));
        assert_eq!(early.corroborated, 0);
    }

    #[test]
    fn nobody_answers_alone_but_what_needs_no_key() {
        let alone = |verdict: &str| {
            let own = entry(Kind::Contributed, verdict, &[1]);
            vec![(1, vec![own, entry(Kind::Outcome, "200", &[1])])]
        };
        assert_eq!(wrong(&findings(&alone("sign"), 2 * TIME)), [(1, Wrong::Alone)]);
        let found = findings(&alone("unwrapKey"), 2 * TIME);
        assert_eq!((found.without_key, found.wrong_count), (1, 0));
        // A refusal is no result.
        let mut refused = alone("sign");
        refused[0].1[1].verdict = "403 NotAllowedError".into();
        assert_eq!(findings(&refused, 2 * TIME).results, 0);
    }

    #[test]
    fn endorsements_of_a_change_are_of_one_request() {
        let own = entry(Kind::Endorsed, "ok", &[1]);
        let mut other = entry(Kind::Endorsed, "ok", &[2]);
        other.attempt = 2;
        let outcome = entry(Kind::Outcome, "201", &[1, 2]);
        let chains = |other: &Entry| vec![(1, vec![own.clone(), outcome.clone()]), (2, vec![other.clone()])];
        assert_eq!(findings(&chains(&other), 2 * TIME).corroborated, 1);
        other.request[0] ^= 1;
        assert_eq!(wrong(&findings(&chains(&other), 2 * TIME)), [(2, Wrong::Differs)]);
    }

    /// A result that a corrupt node 1 has on record with these participants, and a contribution that says the same.
    fn made_up(participants: &[u64]) -> Findings {
        let own = entry(Kind::Contributed, "sign", participants);
        let outcome = entry(Kind::Outcome, "200", participants);
        findings(
            &[(1, vec![own.clone(), outcome]), (2, vec![own]), (3, Vec::new())],
            2 * TIME,
        )
    }

    #[test]
    fn a_node_that_is_named_twice_counts_once() {
        let found = made_up(&[1, 1]);
        assert_eq!(wrong(&found), [(1, Wrong::Twice), (1, Wrong::Alone)]);
        assert_eq!((found.results, found.corroborated), (1, 0));
        let found = made_up(&[1, 1, 2]);
        assert_eq!(
            wrong(&found),
            [(1, Wrong::Twice)],
            "enough of them, and wrong all the same"
        );
        assert_eq!((found.results, found.corroborated), (1, 0));
    }

    #[test]
    fn who_never_was_a_member_took_no_part() {
        let found = made_up(&[1, 99]);
        assert_eq!(wrong(&found), [(1, Wrong::Stranger(99))]);
        assert_eq!((found.results, found.corroborated), (1, 0));
        assert!(found.missing.is_empty(), "nobody can have its chain");
    }

    #[test]
    fn of_a_participant_whose_chain_is_not_here_nothing_is_proven() {
        let mut chains = of_signature(|_| ());
        chains.remove(1);
        let found = findings(&chains, 2 * TIME);
        assert_eq!((found.results, found.corroborated, found.wrong_count), (1, 0, 0));
        assert_eq!((found.without_chain, found.missing), (1, BTreeSet::from([2])));
        // A chain that no result needs is not missed.
        let mut chains = of_signature(|_| ());
        chains.remove(2);
        let found = findings(&chains, 2 * TIME);
        assert_eq!((found.corroborated, found.without_chain), (1, 0));
    }

    /// What is found when the chain of node `cut` begins with record 500 at this time.
    fn begun_late(chains: &[(u64, Vec<Entry>)], cut: u64, begin: u64, last: u64) -> Findings {
        findings_of(chains, |node| Report {
            first_sequence: Some(if node == cut { 500 } else { 1 }),
            first_ms: Some(if node == cut { begin } else { 0 }),
            last_ms: Some(last),
            ..Report::default()
        })
    }

    #[test]
    fn what_retention_has_taken_is_not_missed() {
        let mut chains = of_signature(|_| ());
        chains[1].1.clear();
        let found = begun_late(&chains, 2, TIME, 2 * TIME);
        assert_eq!((found.results, found.before, found.wrong_count), (0, 1, 0));
        assert!(found.removed.is_empty(), "it may be in the chain's first moments");
        let old = begun_late(&chains, 2, 2 * TIME, 11 * TIME);
        assert_eq!((old.before, old.removed.len()), (1, 0));
    }

    #[test]
    fn what_retention_would_have_left_was_removed() {
        const LATE: u64 = 1_000 * TIME;
        let mut chains = of_signature(|_| ());
        chains[0].1.iter_mut().for_each(|entry| entry.time_ms = LATE);
        chains[1].1.clear();
        let found = begun_late(&chains, 2, LATE + 2 * SKEW, LATE + 4 * SKEW);
        assert_eq!((found.before, found.removed), (1, BTreeMap::from([(2, 1)])));
    }

    #[test]
    fn a_chain_that_begins_late_excuses_nobody_elses() {
        let mut chains = of_signature(|_| ());
        chains[1].1.clear();
        let found = begun_late(&chains, 3, 2 * TIME, 2 * TIME);
        assert_eq!((found.results, found.before), (1, 0));
        assert_eq!(wrong(&found), [(2, Wrong::Missing)]);
    }
}
