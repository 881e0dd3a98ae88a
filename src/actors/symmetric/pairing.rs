//! What this node shares with a peer, asked for when it is needed first.

use std::sync::Arc;
use std::time::Duration;

use conclave_garbled::session::PairSecret;

use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer, Call, Half};

/// Longest wait for a peer's half.
const PATIENCE: Duration = Duration::from_secs(1);

/// The secret shared with a peer in its present life.
pub(crate) async fn with(parts: &Arc<Parts>, node: u64) -> Result<PairSecret, Abstention> {
    let boot = parts.network.boot_of(node).ok_or(Abstention::Unpaired)?;
    if let Some(secret) = parts.symmetric.pairs.lock().with(node, &boot) {
        return Ok(secret);
    }
    let answer = parts.ask(node, &Call::Pair(half(parts)), PATIENCE).await;
    let Ok(Answer::Paired(theirs)) = answer else {
        return Err(Abstention::Unpaired);
    };
    // A life that ended meanwhile pairs with nobody.
    if theirs.boot != boot || parts.network.boot_of(node) != Some(boot) {
        return Err(Abstention::Unpaired);
    }
    let mut pairs = parts.symmetric.pairs.lock();
    pairs.learn(node, boot, theirs.public).map_err(|error| {
        parts.name_liar(node, &error.to_string());
        Abstention::Unpaired
    })?;
    pairs.with(node, &boot).ok_or(Abstention::Unpaired)
}

/// A peer shows its half, and gets this node's.
pub(crate) fn answer(parts: &Arc<Parts>, from: u64, theirs: Half) -> Answer {
    if parts.network.boot_of(from) != Some(theirs.boot) {
        return Abstention::Unpaired.into();
    }
    let learnt = parts
        .symmetric
        .pairs
        .lock()
        .learn(from, theirs.boot, theirs.public);
    match learnt {
        Ok(()) => Answer::Paired(half(parts)),
        Err(error) => Answer::Misfit(error.to_string()),
    }
}

/// This node's half.
fn half(parts: &Parts) -> Half {
    Half {
        boot: parts.boot,
        public: parts.symmetric.pairs.lock().public(),
    }
}
