//! A second look at what was applied (trust.md 2.3): k members judged each change before it was applied, and apply
//! believes them, so that replicas whose verifiers differ stay equal. This node judges once more in the background, by
//! its own verifier, on the state before the entry and at the endorsers' time, and raises an alarm when it would have
//! refused. It changes nothing: either k endorsers are corrupt, or two builds disagree.

use std::sync::Arc;
use std::time::Duration;

use conclave_consensus::GroupId;
use tokio::sync::mpsc;

use super::coordinator::confirm_group;
use super::examined::Examined;
use super::parts::Parts;
use super::views::GROUP_ZERO;
use crate::identifier::LocalId;
use crate::keystore::record::{Hold, KeyRecord, KeystoreRecord, Meter};
use crate::keystore::{Command, Entry, StateError, query};
use crate::operation::judge::{Case, Facts, Intent, Judgement};
use crate::overload::Overloaded;

/// Entries that wait; more are not looked at again, and counted.
const QUEUE: usize = 4_096;
/// Tries to look at one, and the longest wait between two.
const TRIES: usize = 16;
const QUIET: Duration = Duration::from_secs(5);

/// An entry that changed the state, with the keystore as it was before.
pub struct Applied {
    /// Its group.
    pub group: GroupId,
    /// The entry.
    pub entry: Entry,
    /// The keystore before it.
    pub before: Option<KeystoreRecord>,
}

/// Where entries are handed over.
pub type Sender = mpsc::Sender<Applied>;

/// A queue for [`run`].
pub fn queue() -> (Sender, mpsc::Receiver<Applied>) {
    mpsc::channel(QUEUE)
}

/// Looks at what comes, one after the other, until the node ends.
pub async fn run(parts: Arc<Parts>, mut applied: mpsc::Receiver<Applied>) {
    while let Some(applied) = applied.recv().await {
        let creates = matches!(applied.entry.statement.command, Command::CreateKeystore { .. });
        // The meter is another group's, which may lag here.
        if creates && confirm_group(&parts, GROUP_ZERO).await.is_err() {
            continue;
        }
        let (group, operation) = (applied.group, applied.entry.statement.operation);
        if let Some(reason) = look(&parts, applied).await {
            parts.metrics.verdict_alarms.inc();
            tracing::error!(
                %group, ?operation, reason,
                "ALARM: a change was applied that this node would have refused: its endorsers are corrupt, or of another build"
            );
        }
    }
}

/// In the pool, where it is the first to be given up: put off while the node has too much to do, and tried again, or a
/// flood would hide what is looked for.
async fn look(parts: &Arc<Parts>, applied: Applied) -> Option<String> {
    let applied = Arc::new(applied);
    for _ in 0..TRIES {
        let look = {
            let (parts, applied) = (parts.clone(), applied.clone());
            move || differs(&parts, &applied)
        };
        match parts.pool.run(look).await {
            Ok(difference) => return difference,
            Err(Overloaded::Panicked) => return None,
            Err(_) => parts.quiet(QUIET).await,
        }
    }
    tracing::warn!(group = %applied.group, "a change was not looked at again: this node has too much to do");
    None
}

/// What this node would have said against it, at any time within its endorsements.
fn differs(parts: &Parts, applied: &Applied) -> Option<String> {
    let times = applied
        .entry
        .endorsements
        .iter()
        .map(|endorsement| endorsement.time);
    let (first, last) = (times.clone().min()?, times.max()?);
    let verdict = judge(parts, applied, first);
    match verdict {
        Err(_) if last > first => judge(parts, applied, last).err(),
        verdict => verdict.err(),
    }
}

fn judge(parts: &Parts, applied: &Applied, now: u64) -> Result<(), String> {
    let (entry, statement) = (&applied.entry, &applied.entry.statement);
    // What no client asked for.
    if matches!(
        statement.command,
        Command::Time
            | Command::RenewShares(_)
            | Command::Order(_)
            | Command::CompleteMove(_)
            | Command::BeginMove(_)
    ) {
        return Ok(());
    }
    let request =
        Examined::of_node(entry.request.clone(), &parts.rules, now).map_err(|problem| problem.message)?;
    let case = Case {
        rules: &parts.rules,
        facts: &Before { parts, applied },
        request: &request.authenticated,
        route: &request.route,
        operation: statement.operation,
        now,
    };
    let judged = case.judge().map_err(|refused| refused.to_string())?;
    match is_what_was_asked(&judged, applied) {
        true => Ok(()),
        false => Err("the entry is not what its request asks for".into()),
    }
}

fn is_what_was_asked(judged: &Judgement, applied: &Applied) -> bool {
    let statement = &applied.entry.statement;
    let same = match (&judged.intent, &statement.command) {
        (Intent::Change(asked), made) => asked == made,
        (Intent::Generate(terms), Command::GenerateKey(made)) => {
            (terms.keystore, terms.key, terms.key_type) == (made.keystore, made.key, made.key_type)
                && (&terms.alias, terms.max_chain_length) == (&made.alias, made.max_chain_length)
        }
        _ => false,
    };
    same && judged.chain == statement.chain && judged.state_version == statement.state_version
}

/// The state as the entry found it. That no link of its chain was revoked or held back and that nothing stood where it creates was
/// apply's own finding.
struct Before<'a> {
    parts: &'a Parts,
    applied: &'a Applied,
}

impl Facts for Before<'_> {
    fn keystore(&self, id: &LocalId) -> Result<Option<KeystoreRecord>, StateError> {
        let named = self.applied.entry.statement.command.keystore();
        Ok(self.applied.before.clone().filter(|_| named.as_ref() == Some(id)))
    }

    fn meter(&self, id: &LocalId) -> Result<Option<Meter>, StateError> {
        let view = self.parts.consensus.view(GROUP_ZERO);
        query::meter(&view.map_err(|error| StateError(error.to_string()))?, id)
    }

    fn key(&self, _keystore: &LocalId, _id: &LocalId) -> Result<Option<KeyRecord>, StateError> {
        Ok(None)
    }

    fn hold(&self, _keystore: &LocalId) -> Result<Option<Hold>, StateError> {
        Ok(None)
    }

    fn revoked(&self, _keystore: &LocalId, _capability: &str, _delegator: &str) -> Result<bool, StateError> {
        Ok(false)
    }
}
