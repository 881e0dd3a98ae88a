//! This node as a garbler: everything that it sends follows from its own judgement and the secrets that it shares.

use std::sync::Arc;
use std::time::Duration;

use conclave_garbled::burned::Ticket;
use conclave_garbled::session::{Context, FirstGarbler, Kept, Misuse, PairSecret, SecondGarbler, Task};
use conclave_garbled::sharing::GarblerParts;

use super::pairing;
use super::stream::{Departures, SEGMENT, Segment, Stuck};
use crate::actors::parts::Parts;
use crate::actors::wire::{Abstention, Answer};
use crate::identifier::LocalId;
use crate::overload::{Class, Overloaded, Turn};

/// Longest time for a garbling.
const LIFE: Duration = Duration::from_secs(10);

/// One garbling, as this node has derived it.
pub(crate) struct Garbling {
    pub(crate) context: Context,
    pub(crate) task: Task,
    /// This node's parts of the secret inputs.
    pub(crate) secret: GarblerParts,
    /// What the evaluator takes the circuit to be ([`Roles::circuit`](crate::actors::wire::Roles)).
    pub(crate) circuit: [u8; 32],
}

/// Garbles for the evaluator; the answer is this node's last message. The outputs that the evaluator must not decode are
/// the caller's to decode.
///
/// # Errors
/// The answer that is none.
pub(crate) async fn garble(parts: &Arc<Parts>, garbling: Garbling) -> Result<(Answer, Kept), Answer> {
    let [first, second, evaluator] = garbling.context.roles;
    if garbling.circuit != garbling.task.id {
        tracing::warn!(
            evaluator,
            "another version: the evaluator computes this by another circuit"
        );
        return Err(Abstention::Circuit.into());
    }
    let other = if parts.node == first { second } else { first };
    // What the seeds depend on is what this node's own session with the evaluator says.
    if parts.network.boot_of(evaluator) != Some(garbling.context.boot) {
        return Err(Abstention::Unpaired.into());
    }
    let secrets = (
        pairing::with(parts, other).await?,
        pairing::with(parts, evaluator).await?,
    );
    let number = garbling.context.number;
    let turn = turn(&garbling.context);
    let departures = Departures::open(parts, evaluator, number).ok_or(Abstention::Busy)?;
    let garbled = async {
        match parts.node == first {
            true => as_first(parts, garbling, secrets, &departures).await,
            false => as_second(parts, garbling, secrets, &departures).await,
        }
    };
    // The evaluator has given up by then.
    match tokio::time::timeout(LIFE, turn.scope(garbled)).await {
        Ok(Ok(garbled)) => Ok(garbled),
        Ok(Err(Failed::Misuse(reason))) => Err(Answer::Misfit(reason)),
        Ok(Err(Failed::Overloaded | Failed::Stuck)) | Err(_) => Err(Abstention::Busy.into()),
    }
}

/// The present task's turn, for the keystore of the key: circuits are never computed before signatures, whatever they are for.
pub(super) fn turn(context: &Context) -> Turn {
    let turn = Turn::current();
    let turn = turn.of_class(turn.class.min(Class::Symmetric));
    let keystore = context.key.first_chunk();
    keystore.map_or(turn, |keystore| turn.of_keystore(LocalId(*keystore)))
}

enum Failed {
    Overloaded,
    Stuck,
    Misuse(String),
}

impl From<Overloaded> for Failed {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<Stuck> for Failed {
    fn from(_: Stuck) -> Self {
        Self::Stuck
    }
}

fn misuse(error: impl ToString) -> Failed {
    Failed::Misuse(error.to_string())
}

/// From now on this garbling is refused, whatever becomes of it.
fn burn(parts: &Parts, context: &Context) -> Result<Ticket, Failed> {
    let mut burned = parts.symmetric.burned.lock();
    let evaluator = context.roles[2];
    burned.open(evaluator, context.boot).map_err(misuse)?;
    burned
        .burn(evaluator, context.boot, context.number)
        .map_err(misuse)
}

/// How a garbler of either kind begins; the second is its first message.
type Begin<G, M> =
    fn(Ticket, &Context, &Task, (&PairSecret, &PairSecret), &GarblerParts) -> Result<(G, M), Misuse>;

/// Burns and begins; `go_on` follows in the same job of the pool, which costs as much as some hundred gates.
async fn begin<G: Send + 'static, M: Send + 'static, T: Send + 'static>(
    parts: &Arc<Parts>,
    garbling: Garbling,
    secrets: (PairSecret, PairSecret),
    begin: Begin<G, M>,
    go_on: impl FnOnce(&mut G) -> T + Send + 'static,
) -> Result<(G, M, T), Failed> {
    let begin = {
        let parts = parts.clone();
        move || {
            let Garbling {
                context,
                task,
                secret,
                ..
            } = garbling;
            let ticket = burn(&parts, &context)?;
            let (mut garbler, first) =
                begin(ticket, &context, &task, (&secrets.0, &secrets.1), &secret).map_err(misuse)?;
            let more = go_on(&mut garbler);
            Ok((garbler, first, more))
        }
    };
    parts.pool.run(begin).await?
}

/// Fills frames with tables; `false` when they are the last.
fn fill(garbler: &mut FirstGarbler, frames: &mut Vec<Vec<u8>>) -> bool {
    for at in 0..frames.len() {
        let enough = frames[at].len() + SEGMENT;
        if !garbler.tables_after(&mut frames[at], enough) {
            frames.truncate(at + 1);
            return false;
        }
    }
    true
}

async fn as_first(
    parts: &Arc<Parts>,
    garbling: Garbling,
    secrets: (PairSecret, PairSecret),
    departures: &Departures<'_>,
) -> Result<(Answer, Kept), Failed> {
    let mut frames = departures.frames().await?;
    let first = move |garbler: &mut FirstGarbler| {
        let more = fill(garbler, &mut frames);
        (frames, more)
    };
    let (mut garbler, head, (mut frames, mut more)) =
        begin(parts, garbling, secrets, FirstGarbler::begin, first).await?;
    departures.send(Segment::Head(head)).await?;
    loop {
        for frame in frames {
            departures.send_frame(frame.into()).await?;
        }
        if !more {
            let (tail, kept) = garbler.finish();
            return Ok((Answer::Garbled(tail), kept));
        }
        frames = departures.frames().await?;
        let next = move || {
            let more = fill(&mut garbler, &mut frames);
            (garbler, frames, more)
        };
        (garbler, frames, more) = parts.pool.run(next).await?;
    }
}

/// Segments that the second garbler makes in one job: nobody waits for them one by one.
const AT_ONCE: usize = 4;

async fn as_second(
    parts: &Arc<Parts>,
    garbling: Garbling,
    secrets: (PairSecret, PairSecret),
    departures: &Departures<'_>,
) -> Result<(Answer, Kept), Failed> {
    let proceed = |garbler: &mut SecondGarbler| (0..AT_ONCE).all(|_| garbler.proceed(SEGMENT));
    let (mut garbler, openings, mut more) =
        begin(parts, garbling, secrets, SecondGarbler::begin, |_| true).await?;
    departures.send(Segment::Openings(openings.into())).await?;
    while more {
        let next = move || {
            let more = proceed(&mut garbler);
            (garbler, more)
        };
        (garbler, more) = parts.pool.run(next).await?;
    }
    let (mac, kept) = garbler.finish();
    Ok((Answer::Vouched(mac), kept))
}
