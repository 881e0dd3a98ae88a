//! Generating a key: four rounds with every member that is there, then the entry that all participants signed.
//! Who falls out means a new attempt without it; the key is born with a share for everybody all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use super::change::{no_quorum, rejected};
use super::{Work, busy, propose_problem};
use crate::actors::decide::Purpose;
use crate::actors::holder::ceremony_id;
use crate::actors::wire::{Answer, Beginning, Call, Round};
use crate::identifier::LocalId;
use crate::keystore::{Command, Endorsement, Entry, Outcome, Statement, query};
use crate::operation::description::{describe, key_url};
use crate::operation::judge::{Intent, NewKeyTerms};
use crate::problem::Problem;
use crate::reply::Reply;

/// Attempts, each without those that fell out of the one before.
const ATTEMPTS: u8 = 8;
/// Before everybody is asked again, times the attempt: links come and go at different moments on different nodes, and
/// a ceremony is over sooner than they agree on who is there.
const SETTLING: Duration = Duration::from_millis(50);
/// Longest wait for a participant's round: it is left out after that.
const ROUND: Duration = Duration::from_millis(1_500);

/// Why an attempt made no key.
enum Fallen {
    /// These nodes fell out: try without them.
    Without(Vec<u64>),
    /// More than may be wrong refused.
    Refused(Problem),
}

/// Generates a key and describes it.
pub(super) async fn key(work: &Work) -> Result<Reply, Problem> {
    let parts = &work.parts;
    let members = &parts.membership.members;
    let mut left_out: Vec<u64> = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let weighed = work.weigh(Purpose::Endorse).await?;
        let Intent::Generate(terms) = weighed.judgement.intent.clone() else {
            return Err(Problem::malformed("This request generates no key."));
        };
        let there =
            |node: &u64| !left_out.contains(node) && (*node == parts.node || parts.network.connected(*node));
        let nodes: Vec<u64> = members.iter().map(|member| member.node).filter(there).collect();
        if nodes.len() < parts.membership.quorum() {
            return Err(no_quorum("take part in generating a key"));
        }
        let ceremony = Ceremony {
            work,
            attempt,
            group: weighed.group,
            terms: &terms,
        };
        let (statement, endorsements) = match ceremony.run(&nodes).await? {
            Ok(done) => done,
            Err(Fallen::Refused(problem)) => return Err(problem),
            Err(Fallen::Without(fallen)) => {
                tracing::warn!(
                    ?fallen,
                    attempt,
                    "a generation starts again without those that fell out"
                );
                left_out.extend(fallen);
                if members.len() - left_out.len() < parts.membership.quorum() {
                    // So many cannot all be at fault: the keystore changed under the ceremony, or this node was slow.
                    left_out.clear();
                    let pause = SETTLING * u32::from(attempt);
                    if work.left() < pause + ROUND {
                        return Err(busy());
                    }
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
        };
        let entry = Entry {
            statement,
            request: work.request.encoded.clone(),
            endorsements,
        };
        let applied = parts
            .consensus
            .propose(weighed.group, entry.encode(), work.deadline)
            .await;
        let outcome = postcard::from_bytes(&applied.map_err(propose_problem)?.result).map_err(|_| busy())?;
        match outcome {
            Outcome::Applied(_) => {
                parts.metrics.generated.inc();
                return describe_new(work, &terms.keystore, &terms.key);
            }
            Outcome::Refused(rejection) if rejection.is_stale() && attempt < ATTEMPTS => continue,
            Outcome::Refused(rejection) => return Err(rejected(work, &entry.statement, &rejection)),
        }
    }
    Err(busy())
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
    Ok(Reply::ok(json!({ "keyId": url, "keyDescription": description })).located(url))
}

/// One attempt.
struct Ceremony<'a> {
    work: &'a Work,
    attempt: u8,
    group: conclave_consensus::GroupId,
    terms: &'a NewKeyTerms,
}

type Done = (Statement, Vec<Endorsement>);

impl Ceremony<'_> {
    async fn run(&self, nodes: &[u64]) -> Result<Result<Done, Fallen>, Problem> {
        let parts = &self.work.parts;
        let mut participants = Vec::new();
        let mut unknown = Vec::new();
        for node in nodes {
            let boot = if *node == parts.node {
                Some(parts.boot)
            } else {
                parts.network.boot_of(*node)
            };
            match boot {
                Some(boot) => participants.push((*node, boot)),
                None => unknown.push(*node),
            }
        }
        if !unknown.is_empty() {
            return Ok(Err(Fallen::Without(unknown)));
        }
        let start = parts.now().map_err(|_| busy())?;
        let beginning = Beginning {
            start,
            participants,
            configuration: parts.membership.index,
        };
        let forwarded = self.work.forwarded(self.attempt, self.group, nodes.to_vec());
        let id = ceremony_id(parts, &forwarded, self.terms, &beginning, &self.work.request.hash);

        let begin = Call::Begin(forwarded, beginning);
        let mut messages = match self.round(nodes, |_| begin.clone()).await {
            Ok(answers) => match by_index(parts, answers) {
                Ok(messages) => messages,
                Err(fallen) => return Ok(Err(fallen)),
            },
            Err(fallen) => return Ok(Err(fallen)),
        };
        for round in [Round::Packages, Round::Deal] {
            let call = Call::Continue(id, round, messages);
            messages = match self.round(nodes, |_| call.clone()).await {
                Ok(answers) => match by_index(parts, answers) {
                    Ok(messages) => messages,
                    Err(fallen) => return Ok(Err(fallen)),
                },
                Err(fallen) => return Ok(Err(fallen)),
            };
        }
        let call = Call::Continue(id, Round::Finish, messages);
        match self.round(nodes, |_| call.clone()).await {
            Ok(answers) => Ok(self.signatures(answers)),
            Err(fallen) => Ok(Err(fallen)),
        }
    }

    /// Asks everybody; all must answer.
    async fn round(&self, nodes: &[u64], call: impl Fn(u64) -> Call) -> Result<Vec<(u64, Answer)>, Fallen> {
        let parts = &self.work.parts;
        let patience = ROUND.min(self.work.left());
        let asked = nodes.iter().map(|node| {
            let call = call(*node);
            async move { (*node, parts.ask(*node, &call, patience).await) }
        });
        let (mut answers, mut fallen, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(Answer::Refused(problem)) => {
                    refusals.push(*problem);
                    fallen.push(node);
                }
                Ok(answer @ (Answer::Message(_) | Answer::Generated(..))) => answers.push((node, answer)),
                Ok(Answer::Misfit(reason)) => {
                    tracing::warn!(node, reason, "a participant did not go on");
                    fallen.push(node);
                }
                _ => fallen.push(node),
            }
        }
        let tolerated = parts.membership.members.len() - parts.membership.quorum();
        match (refusals.len() > tolerated, refusals.pop()) {
            (true, Some(problem)) => Err(Fallen::Refused(problem)),
            _ if !fallen.is_empty() => Err(Fallen::Without(fallen)),
            _ => Ok(answers),
        }
    }

    /// This node's own outcome is what counts; every participant must have signed the same.
    fn signatures(&self, answers: Vec<(u64, Answer)>) -> Result<Done, Fallen> {
        let parts = &self.work.parts;
        let own = answers.iter().find_map(|(node, answer)| match answer {
            Answer::Generated(statement, _) if *node == parts.node => Some(statement.as_ref().clone()),
            _ => None,
        });
        let Some(own) = own else {
            return Err(Fallen::Refused(busy()));
        };
        let ours = matches!(&own.command, Command::GenerateKey(generated) if generated.key == self.terms.key);
        let (mut endorsements, mut fallen) = (Vec::new(), Vec::new());
        for (node, answer) in answers {
            let member = parts.membership.member(node);
            match (answer, member) {
                (Answer::Generated(_, endorsement), Some(member))
                    if ours
                        && endorsement.node == node
                        && own.is_endorsed(&endorsement, &member.verifying_key) =>
                {
                    endorsements.push(endorsement);
                }
                _ => fallen.push(node),
            }
        }
        if fallen.is_empty() {
            Ok((own, endorsements))
        } else {
            Err(Fallen::Without(fallen))
        }
    }
}

fn by_index(
    parts: &crate::actors::parts::Parts,
    answers: Vec<(u64, Answer)>,
) -> Result<BTreeMap<u16, Vec<u8>>, Fallen> {
    let mut messages = BTreeMap::new();
    for (node, answer) in answers {
        match (parts.membership.member(node), answer) {
            (Some(member), Answer::Message(message)) => drop(messages.insert(member.index, message)),
            _ => return Err(Fallen::Without(vec![node])),
        }
    }
    Ok(messages)
}
