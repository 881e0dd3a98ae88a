//! A use of a key under way: this node's own part, the holders that are asked, and what is on record of it.
//!
//! The coordinator's record says the same attempt and participants as the holders' do. It is written beside the first
//! wave, and again if another wave brought the answer; an *outcome* closes it.

use std::future::Future;
use std::sync::Arc;

use conclave_threshold::Commitment;

use super::gather::{Contribution, Holders, Wave};
use super::{Work, busy};
use crate::actors::decide::Weighed;
use crate::actors::parts::OpenKey;
use crate::actors::stages::Stage;
use crate::actors::wire::{Abstention, Answer, Call, Forwarded};
use crate::identifier::LocalId;
use crate::keystore::KeyRecord;
use crate::overload::Turn;
use crate::problem::Problem;
use crate::reply::Reply;

/// The key that is used.
pub(super) struct Target {
    pub(super) keystore: LocalId,
    pub(super) key: LocalId,
    pub(super) record: Box<KeyRecord>,
}

impl Target {
    /// The client's request on its way to the holders of one attempt.
    pub(super) fn forwarded(&self, work: &Work, attempt: u8, participants: Vec<u64>) -> Forwarded {
        let group = work.parts.group_of(&self.keystore);
        Forwarded {
            epoch: Some(self.record.epoch),
            ..work.forwarded(attempt, group, participants)
        }
    }
}

/// One use.
pub(super) struct Use<'a> {
    pub(super) work: &'a Work,
    pub(super) target: &'a Target,
    /// This node's own share, if it has arrived.
    pub(super) own: Option<Arc<OpenKey>>,
    pub(super) holders: Holders,
    weighed: Weighed,
    recorded: Option<Wave>,
    /// Who brought the last answers.
    last: Option<Wave>,
}

impl<'a> Use<'a> {
    /// With the holders of the attempts before, if there were any.
    pub(super) async fn new(
        work: &'a Work,
        weighed: Weighed,
        target: &'a Target,
        holders: Option<Holders>,
    ) -> Result<Self, Problem> {
        let own = open(work, target).await;
        let committee = work.parts.committee(&target.keystore, &target.record);
        let committee = committee.map_err(cannot_contribute)?;
        let mut holders = holders.unwrap_or_default();
        holders.contribute(work, committee, own.is_some());
        Ok(Self {
            work,
            target,
            holders,
            own,
            weighed,
            recorded: None,
            last: None,
        })
    }

    /// Gathers contributions, and puts this node's own decision on record meanwhile.
    pub(super) async fn gather<T, F>(
        &mut self,
        fits: fn(&Answer) -> bool,
        ask: impl Fn(u64, Wave) -> F,
    ) -> Result<(Wave, Vec<Contribution<T>>), Problem>
    where
        F: Future<Output = Result<(T, Call), Problem>>,
    {
        let stages = &self.work.parts.metrics.stages;
        let first = self.holders.next_wave().filter(|_| self.recorded.is_none());
        let (gathered, recorded) = futures::join!(
            stages.time(Stage::round, self.holders.gather(self.work, fits, ask)),
            record(&self.weighed, first.as_ref())
        );
        if recorded? {
            self.recorded = first;
        }
        let (wave, contributions) = gathered?;
        if self.recorded.as_ref() != Some(&wave) {
            record(&self.weighed, Some(&wave)).await?;
            self.recorded = Some(wave.clone());
        }
        self.last = Some(wave.clone());
        Ok((wave, contributions))
    }

    /// Puts partial results together, in the pool.
    pub(super) async fn aggregate<T: Send + 'static>(
        &self,
        aggregate: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let parts = &self.work.parts;
        let aggregated = parts
            .metrics
            .stages
            .time(
                Stage::aggregate,
                // Every node has done its part by now.
                parts.pool.run_in(Turn::current().raised(), aggregate),
            )
            .await;
        aggregated.map_err(Problem::from)
    }

    /// Names liars by share index: counted, logged, and not asked again.
    pub(super) fn name(&mut self, liars: &[u16]) {
        for index in liars {
            let member = self
                .holders
                .committee()
                .by_index(*index)
                .map(|member| member.node);
            if let Some(node) = member {
                self.holders
                    .name(self.work, node, "a contribution that does not verify");
            }
        }
    }

    /// The share index of a node that contributed.
    pub(super) fn index(&self, node: u64) -> Result<u16, Problem> {
        let member = self.holders.committee().member(node);
        member.map(|member| member.index).ok_or_else(busy)
    }

    /// Closes the record of it, without waiting.
    pub(super) fn conclude(self, answer: Result<Reply, Problem>) -> Result<Reply, Problem> {
        let wave = self.last.or(self.recorded);
        if let Some(Wave {
            attempt,
            participants,
        }) = wave
        {
            self.weighed.conclude(attempt, participants, &answer);
        }
        answer
    }
}

/// Puts the decision on record as one of `wave`; `false` if there is none.
async fn record(weighed: &Weighed, wave: Option<&Wave>) -> Result<bool, Problem> {
    let Some(Wave {
        attempt,
        participants,
    }) = wave
    else {
        return Ok(false);
    };
    let recorded = weighed.append(*attempt, participants.clone()).await;
    recorded.map_err(cannot_contribute)?;
    Ok(true)
}

/// Why this node has no part in an answer.
pub(super) fn cannot_contribute(abstention: Abstention) -> Problem {
    match abstention {
        Abstention::Busy => busy(),
        other => Problem::unavailable(format!(
            "This node cannot contribute now ({other}); try another node."
        )),
    }
}

/// The committed vector of a key pair.
pub(super) fn committed(record: &KeyRecord) -> Result<Commitment, Problem> {
    let (commitment, _) = record.material.pair().ok_or_else(busy)?;
    postcard::from_bytes(commitment).map_err(|_| busy())
}

/// This node's own share, if it has one.
async fn open(work: &Work, target: &Target) -> Option<Arc<OpenKey>> {
    let (keystore, key) = (target.keystore, target.key);
    if let Some(open) = work.parts.opened_key(&keystore, &key, &target.record) {
        return Some(open);
    }
    let (parts, record) = (work.parts.clone(), target.record.clone());
    let opened = parts.pool.run({
        let parts = parts.clone();
        move || parts.open_key(&keystore, &key, &record)
    });
    match opened.await {
        Ok(Ok(open)) => Some(open),
        Ok(Err(error)) => {
            tracing::debug!(%error, "this node coordinates without a share of its own");
            None
        }
        Err(_) => None,
    }
}
