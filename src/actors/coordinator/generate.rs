//! Generating a key: four rounds with every member that is there, then the entry that all participants signed.
//! Who falls out means a new attempt without it; the key is born with a share for everybody all the same.
//!
//! A member that gives this node nothing is asked by the others as well, so that its fault is not this node's word.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::blame::{Blame, Failed};
use super::change::{no_quorum, rejected};
use super::using::cannot_contribute;
use super::{Work, busy, presence, propose_problem};
use crate::actors::ceremonies;
use crate::actors::conduct::Abort;
use crate::actors::decide::{Purpose, Weighed};
use crate::actors::holder::{ceremony_id, convicted, says};
use crate::actors::parts::Parts;
use crate::actors::stages::Stage;
use crate::actors::wire::{Answer, Beginning, Call, Round};
use crate::identifier::LocalId;
use crate::keystore::{Endorsement, Entry, Outcome, Statement, query};
use crate::membership::Membership;
use crate::operation::description::{describe, describe_birth, key_url};
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;
use crate::reply::Reply;

/// Attempts, each without those that fell out of the one before.
const ATTEMPTS: u8 = 8;
/// Before everybody is asked again, times the attempt: links come and go at different moments on different nodes, and
/// a ceremony is over sooner than they agree on who is there.
const SETTLING: Duration = Duration::from_millis(50);
/// Longest wait for a participant's round.
const ROUND: Duration = Duration::from_millis(1_500);
/// The same for one that was silent before and answered a witness.
const SLOW: Duration = Duration::from_millis(250);

/// Why an attempt made no key.
enum Fallen {
    /// Some did not go on.
    Failed(Failed),
    /// More than may be wrong refused.
    Refused(Problem),
}

/// Generates a key and describes it.
pub(super) async fn key(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let committee = committee(work)?;
    let members: BTreeSet<u64> = committee.nodes().into_iter().collect();
    let mut blame = Blame::new(parts.node, members.clone(), committee.quorum());
    for attempt in 1..=ATTEMPTS {
        let wanted: Vec<u64> = members
            .iter()
            .copied()
            .filter(|node| !blame.leaves_out(*node))
            .collect();
        presence::wait_for(work, &wanted, |there| there.len() >= committee.quorum()).await;
        let weighed = work.weigh(Purpose::Endorse).await?;
        let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
            return Err(Problem::malformed("This request generates no key."));
        };
        let there =
            |node: &u64| !blame.leaves_out(*node) && (*node == parts.node || parts.network.connected(*node));
        let nodes: Vec<u64> = members.iter().copied().filter(there).collect();
        if nodes.len() < committee.quorum() {
            // Who would not go on may have seen a member come back before this node has: then nobody was at fault.
            if attempt < ATTEMPTS && blame.forgive() && settled(work, attempt).await {
                continue;
            }
            return Err(no_quorum("take part in generating a key"));
        }
        let ceremony = Ceremony {
            work,
            attempt,
            group: weighed.group,
            terms: &terms,
            committee: &committee,
        };
        let (statement, endorsements) = match ceremony.run(&nodes, blame.aborts()).await? {
            Ok(done) => done,
            Err(Fallen::Refused(problem)) => return Err(problem),
            Err(Fallen::Failed(failed)) => {
                if !blame.learn(failed) && !settled(work, attempt).await {
                    return Err(busy());
                }
                continue;
            }
        };
        if let Some(answer) = propose(work, &weighed, (statement, endorsements), &terms).await {
            weighed.conclude(attempt, nodes, &answer);
            return answer;
        }
    }
    Err(busy())
}

/// Waits before everybody is asked again; `false`, at once, if too little of the request's time would be left after that.
async fn settled(work: &Work, attempt: u8) -> bool {
    let pause = SETTLING * u32::from(attempt);
    let has_time = work.left() >= pause + ROUND;
    if has_time {
        tokio::time::sleep(pause).await;
    }
    has_time
}

/// Proposes a new key and describes it; none if the keystore changed meanwhile, so that another attempt is worth it.
pub(super) async fn propose(
    work: &Work,
    weighed: &Weighed,
    (statement, endorsements): Done,
    terms: &NewKeyTerms,
) -> Option<Result<Reply, Problem>> {
    let parts = &work.parts;
    let entry = Entry {
        statement,
        request: work.request.encoded.clone(),
        endorsements,
    };
    let encoded = match parts.encode_entry(weighed.group, &entry) {
        Ok(encoded) => encoded,
        Err(problem) => return Some(Err(problem)),
    };
    let proposed = parts.propose(weighed.group, encoded, work.deadline);
    let applied = match parts.metrics.stages.time(Stage::commit, proposed).await {
        Ok(applied) => applied,
        Err(error) => return Some(Err(propose_problem(error))),
    };
    let outcome = match postcard::from_bytes(&applied.result) {
        Ok(outcome) => outcome,
        Err(_) => return Some(Err(busy())),
    };
    match outcome {
        Outcome::Refused(rejection) if rejection.is_stale() => None,
        Outcome::Refused(rejection) => Some(Err(rejected(work, &entry.statement, &rejection))),
        Outcome::Applied(_) => {
            parts.metrics.generated.inc();
            Some(describe_new(work, &terms.keystore, &terms.key))
        }
    }
}

/// Who will hold the keys that are born now in the keystore that the request names.
pub(super) fn committee(work: &Work) -> Result<Arc<Membership>, Problem> {
    let keystore = work.request.route.keystore().and_then(|named| named.id);
    let keystore = keystore.ok_or_else(|| Problem::malformed("This request generates no key."))?;
    let roster = work.parts.roster_of(&keystore).map_err(cannot_contribute)?;
    Ok(roster.births().clone())
}

fn describe_new(work: &Work, keystore: &LocalId, key: &LocalId) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let view = parts
        .consensus
        .view(parts.group_of(keystore))
        .map_err(|_| busy())?;
    let stored = query::keystore(&view, keystore)
        .map_err(|_| busy())?
        .ok_or_else(busy)?;
    let record = query::key(&view, keystore, key)
        .map_err(|_| busy())?
        .ok_or_else(busy)?;
    let url = key_url(&parts.rules.public_url, keystore, key);
    let description = describe(&url, &record, &stored.config)?;
    Ok(Reply::ok(describe_birth(&url, description)).located(url))
}

/// The present lives of nodes, this one among them; or those whose life is not known.
pub(super) fn lives(parts: &Parts, nodes: &[u64]) -> Result<Vec<(u64, [u8; 16])>, Vec<u64>> {
    let (mut lives, mut unknown) = (Vec::new(), Vec::new());
    for node in nodes {
        let boot = match *node == parts.node {
            true => Some(parts.boot),
            false => parts.network.boot_of(*node),
        };
        match boot {
            Some(boot) => lives.push((*node, boot)),
            None => unknown.push(*node),
        }
    }
    match unknown.is_empty() {
        true => Ok(lives),
        false => Err(unknown),
    }
}

/// One attempt.
struct Ceremony<'a> {
    work: &'a Work,
    attempt: u8,
    group: conclave_consensus::GroupId,
    terms: &'a NewKeyTerms,
    committee: &'a Membership,
}

pub(super) type Done = (Statement, Vec<Endorsement>);
type Answers = BTreeMap<u64, Answer>;

impl Ceremony<'_> {
    async fn run(&self, nodes: &[u64], aborts: Vec<Abort>) -> Result<Result<Done, Fallen>, Problem> {
        let parts = &self.work.parts;
        let participants = match lives(parts, nodes) {
            Ok(participants) => participants,
            Err(unknown) => return Ok(Err(Fallen::Failed(Failed::without(unknown)))),
        };
        let start = parts.now().map_err(|_| busy())?;
        let beginning = Beginning {
            start,
            participants,
            configuration: self.committee.index,
        };
        let forwarded = self.work.forwarded(self.attempt, self.group, nodes.to_vec());
        let id = ceremony_id(
            self.committee,
            &forwarded,
            self.terms,
            &beginning,
            &self.work.request.hash,
        );
        let begin = Call::Begin(forwarded, beginning, aborts);
        Ok(self.rounds(id, nodes, begin).await)
    }

    async fn rounds(&self, id: ceremonies::Id, nodes: &[u64], begin: Call) -> Result<Done, Fallen> {
        let mut slow = BTreeSet::new();
        let (mut round, mut call) = (Round::Hash, begin);
        loop {
            let asked = self.round(&id, round, nodes, &call, &mut slow);
            let answers = self.work.parts.metrics.stages.time(Stage::round, asked).await?;
            round = match round {
                Round::Hash => Round::Package,
                Round::Package => Round::Deal,
                Round::Deal => Round::Outcome,
                Round::Outcome => return self.signatures(answers),
            };
            call = Call::Continue(id, round, self.by_index(answers));
        }
    }

    /// Asks everybody; all must say something that they signed, to this node or to a witness.
    async fn round(
        &self,
        id: &ceremonies::Id,
        round: Round,
        nodes: &[u64],
        call: &Call,
        slow: &mut BTreeSet<u64>,
    ) -> Result<Answers, Fallen> {
        let parts = &self.work.parts;
        let asked = nodes.iter().map(|node| {
            let patience = if slow.contains(node) { SLOW } else { ROUND };
            let patience = patience.min(self.work.left());
            async move { (*node, parts.ask(*node, call, patience).await) }
        });
        let (mut said, mut failed, mut refusals) = (Answers::new(), Failed::default(), Vec::new());
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(answer @ (Answer::Message(_) | Answer::Generated(..))) => drop(said.insert(node, answer)),
                Ok(Answer::Refused(problem)) => {
                    refusals.push(*problem);
                    failed.silent.insert(node);
                }
                Ok(Answer::Aborted(abort)) if self.is_own(node, id, &abort) => {
                    let convicted = convicted(parts, parts.node, &abort);
                    failed.aborts.push((*abort, convicted));
                }
                Ok(Answer::Misfit(reason)) => {
                    tracing::warn!(node, reason, "a participant did not go on");
                    failed.silent.insert(node);
                }
                _ => drop(failed.silent.insert(node)),
            }
        }
        if !said.contains_key(&parts.node) {
            // Without its own part this node cannot tell what others say.
            return Err(Fallen::Failed(failed));
        }
        let unusable = self.unusable(id, round, &mut said).await;
        failed.silent.extend(unusable);
        let tolerated = self.committee.members.len() - self.committee.quorum();
        if refusals.len() > tolerated
            && let Some(problem) = refusals.pop()
        {
            return Err(Fallen::Refused(problem));
        }
        // What has ended for somebody cannot be mended by witnesses.
        if failed.aborts.is_empty() {
            let gave_nothing: Vec<u64> = nodes
                .iter()
                .copied()
                .filter(|node| !said.contains_key(node))
                .collect();
            for node in gave_nothing {
                if let Some(answer) = self.by_witness(id, round, node, call, &said).await {
                    slow.insert(node);
                    said.insert(node, answer);
                }
            }
        }
        if said.len() == nodes.len() {
            return Ok(said);
        }
        failed.silent.retain(|node| !said.contains_key(node));
        let silent = &failed.silent;
        let aborted: Vec<u64> = failed.aborts.iter().map(|(abort, _)| abort.node).collect();
        let attempt = self.attempt;
        tracing::warn!(?silent, ?aborted, attempt, "an attempt to generate a key failed");
        Err(Fallen::Failed(failed))
    }

    /// Takes out what was not signed by whoever said it: nothing of it is handed on.
    async fn unusable(&self, id: &ceremonies::Id, round: Round, said: &mut Answers) -> Vec<u64> {
        let parts = self.work.parts.clone();
        let (id, answers) = (*id, std::mem::take(said));
        let others: Vec<u64> = answers.keys().copied().collect();
        let checked = self.work.parts.pool.run(move || {
            let session = parts.ceremonies.lock().session(&id, parts.node);
            let usable = |node: &u64, answer: &Answer| {
                let signed = |session| says(&parts, (session, &id), round, *node, answer);
                *node == parts.node || session.as_ref().is_some_and(|(session, _)| signed(session))
            };
            let (usable, unusable): (Answers, Answers) = answers
                .into_iter()
                .partition(|(node, answer)| usable(node, answer));
            (usable, unusable.into_keys().collect::<Vec<u64>>())
        });
        match checked.await {
            Ok((usable, unusable)) => {
                *said = usable;
                for node in &unusable {
                    self.work.parts.name_liar(*node, "a message that it did not sign");
                }
                unusable
            }
            Err(_) => others,
        }
    }

    /// Has the others ask a participant that gave this node nothing.
    async fn by_witness(
        &self,
        id: &ceremonies::Id,
        round: Round,
        node: u64,
        call: &Call,
        said: &Answers,
    ) -> Option<Answer> {
        let parts = &self.work.parts;
        let session = parts.ceremonies.lock().session(id, parts.node);
        let (session, _) = session.filter(|_| node != parts.node)?;
        let witnesses = said.keys().filter(|witness| **witness != parts.node);
        let asked = witnesses.map(|other| async move {
            let call = call.encode_in(parts.speaks(*other)).unwrap_or_default();
            let witness = Call::Witness(call, node);
            parts.ask(*other, &witness, ROUND.min(self.work.left())).await
        });
        let answers = join_all(asked).await.into_iter().flatten();
        let mut usable = answers.filter(|answer| says(parts, (&session, id), round, node, answer));
        usable.next()
    }

    fn is_own(&self, node: u64, id: &ceremonies::Id, abort: &Abort) -> bool {
        let member = self.committee.member(node);
        abort.node == node
            && abort.ceremony == *id
            && abort.operation == self.work.operation
            && member.is_some_and(|member| abort.is_signed(&member.verifying_key))
    }

    fn by_index(&self, answers: Answers) -> BTreeMap<u16, Vec<u8>> {
        let membership = self.committee;
        let messages = answers.into_iter().filter_map(|(node, answer)| match answer {
            Answer::Message(message) => Some((membership.member(node)?.index, message)),
            _ => None,
        });
        messages.collect()
    }

    /// This node's own outcome is what counts; every participant has signed the same, which was checked.
    fn signatures(&self, answers: Answers) -> Result<Done, Fallen> {
        let own = match answers.get(&self.work.parts.node) {
            Some(Answer::Generated(statement, _)) => statement.as_ref().clone(),
            _ => return Err(Fallen::Refused(busy())),
        };
        let endorsements = answers.into_values().filter_map(|answer| match answer {
            Answer::Generated(_, endorsement) => Some(endorsement),
            _ => None,
        });
        Ok((own, endorsements.collect()))
    }
}
