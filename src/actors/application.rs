//! The adapter between consensus and the keystore state machine: what an entry restricts, how it is applied, who is
//! told. Runs on the store thread, so it does nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use conclave_consensus::{
    Application, Configuration, GroupId, Halt, Move, Restricts, Scope, StateRead, StateTransaction,
};
use parking_lot::Mutex;

use super::directory::Directory;
use super::recheck::{self, Applied};
use crate::format::{FIRST, Format, is_read};
use crate::keystore::apply::{apply, is_endorsed};
use crate::keystore::entry::EntryError;
use crate::keystore::state::Pair;
use crate::keystore::{
    Entry, Lists, Outcome, ReadState, Rejection, Roster, Stage, StateError, WriteState, members, query,
    unknown, written,
};
use crate::membership::Membership;

/// What is told of an applied entry.
pub type Listener = Box<dyn Fn(GroupId, Option<&Entry>, &Outcome) + Send + Sync>;

/// The keystore state machine as consensus drives it.
pub struct KeystoreApplication {
    lists: Arc<Lists>,
    /// Of each group the roster that was last seen when an entry was applied, and the one before it.
    seen: Mutex<HashMap<GroupId, Vec<Arc<Roster>>>>,
    listener: Mutex<Option<Arc<Listener>>>,
    directory: Mutex<Option<Directory>>,
    recheck: Mutex<Option<recheck::Sender>>,
}

impl KeystoreApplication {
    /// With the members that the genesis statement names.
    pub fn new(genesis: Arc<Membership>) -> Self {
        Self {
            lists: Arc::new(Lists::new(genesis)),
            seen: Mutex::default(),
            listener: Mutex::new(None),
            directory: Mutex::new(None),
            recheck: Mutex::new(None),
        }
    }

    /// Who the members are, to be read from the groups' states.
    pub fn rosters(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// Keeps a group's roster: what was endorsed under it may be shown a little later.
    fn see(&self, group: GroupId, state: &impl ReadState) -> Result<(), StateError> {
        let roster = self.lists.of_group(group.0).of(state)?;
        let mut seen = self.seen.lock();
        let known = seen.entry(group).or_default();
        let same = |known: &Arc<Roster>| {
            known.current.index == roster.current.index
                && known.next.as_ref().map(|(next, stage)| (next.index, *stage))
                    == roster.next.as_ref().map(|(next, stage)| (next.index, *stage))
        };
        if !known.last().is_some_and(same) {
            known.push(roster);
            let most = known.len().saturating_sub(2);
            known.drain(..most);
        }
        Ok(())
    }

    /// Whom to tell of applied entries, from now on.
    pub fn listen(&self, listener: Listener) {
        *self.listener.lock() = Some(Arc::new(listener));
    }

    /// Who is to know of members that are named by what leaders offer, from now on.
    pub fn introduce_to(&self, directory: Directory) {
        *self.directory.lock() = Some(directory);
    }

    /// Who is to look again at what changed the state, from now on; as far as there is room in the queue.
    pub fn recheck(&self, sender: recheck::Sender) {
        *self.recheck.lock() = Some(sender);
    }

    /// Applies, and hands over what changed the state.
    fn change(&self, group: GroupId, entry: Entry, state: &mut Transaction<'_, '_>) -> Result<Outcome, Halt> {
        let halt = |error: StateError| Halt::new(error.to_string());
        let sender = self.recheck.lock().clone();
        let keystore = entry.statement.command.keystore().filter(|_| sender.is_some());
        let before = match keystore {
            Some(keystore) => query::keystore(state, &keystore).map_err(halt)?,
            None => None,
        };
        let rosters = self.lists.of_group(group.0);
        let outcome = apply(&entry, group.0, &rosters, state).map_err(halt)?;
        self.see(group, state).map_err(halt)?;
        if let (Some(sender), Outcome::Applied(_)) = (sender, &outcome) {
            let applied = Applied { group, entry, before };
            if sender.try_send(applied).is_err() {
                tracing::debug!(%group, "too much to do: a change is not looked at again");
            }
        }
        Ok(outcome)
    }
}

/// A transaction of the consensus store as the state machine's state.
struct Transaction<'a, 'b>(&'a mut StateTransaction<'b>);

impl ReadState for Transaction<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key).map_err(|error| StateError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError> {
        self.0
            .scan(prefix, None, limit)
            .map_err(|error| StateError(error.to_string()))
    }
}

impl WriteState for Transaction<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.0.put(key, value);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StateError> {
        self.0.delete(key);
        Ok(())
    }
}

/// A state of consensus' as the state machine reads it.
struct Read<'a>(&'a dyn StateRead);

impl ReadState for Read<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.0.get(key).map_err(|error| StateError(error.to_string()))
    }

    fn scan(&self, prefix: &[u8], limit: usize) -> Result<Vec<Pair>, StateError> {
        self.0
            .scan(prefix, None, limit)
            .map_err(|error| StateError(error.to_string()))
    }
}

fn not_endorsed(reason: &str) -> Outcome {
    Outcome::Refused(Rejection::NotEndorsed(reason.into()))
}

/// What the group has taken, builds that do not know its format can no more come after.
fn take_note(format: Format, outcome: &Outcome, state: &mut Transaction<'_, '_>) -> Result<(), Halt> {
    if let Outcome::Refused(Rejection::NotEndorsed(_)) = outcome {
        return Ok(());
    }
    written::raise(format, state).map_err(|error| Halt::new(error.to_string()))
}

/// A state that a later version has written, which came in a snapshot or was on disk, may mean what this build cannot read.
fn check_format(state: &impl ReadState) -> Result<(), Halt> {
    let format = written::format(state).map_err(|error| Halt::new(error.to_string()))?;
    match is_read(format) {
        true => Ok(()),
        false => Err(Halt::new(EntryError::UnknownFormat(format).to_string())),
    }
}

/// Whether a configuration is one that a group with this roster can have.
fn fits(configuration: &Configuration, roster: &Roster) -> bool {
    let current = roster.current.nodes();
    match &roster.next {
        None => *configuration == Configuration::stable(&current),
        Some((next, Stage::Announced | Stage::Begun)) => {
            let newcomers = next.nodes().into_iter().filter(|node| !current.contains(node));
            let learners: Vec<u64> = newcomers.collect();
            *configuration == Configuration::stable(&current)
                || *configuration
                    == Configuration {
                        learners,
                        ..Configuration::stable(&current)
                    }
        }
        Some((next, Stage::Joint | Stage::Complete)) => {
            *configuration
                == Configuration {
                    outgoing: current,
                    ..Configuration::stable(&next.nodes())
                }
        }
    }
}

impl Application for KeystoreApplication {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match Entry::decode(entry) {
            Ok(entry) if !entry.statement.command.restricts() => Restricts::Nothing,
            Ok(entry) => match entry.statement.command.keystore() {
                Some(keystore) => Restricts::Scope(Scope(keystore.0)),
                None => Restricts::Everything,
            },
            // Bytes that are no entry change nothing; those of a later format could change anything.
            Err(EntryError::Malformed) => Restricts::Nothing,
            Err(EntryError::UnknownFormat(_)) => Restricts::Everything,
        }
    }

    fn apply(
        &self,
        group: GroupId,
        _index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let mut outcome = match Entry::decode(entry) {
            Ok(decoded) => {
                let mut state = Transaction(state);
                let outcome = self.change(group, decoded, &mut state)?;
                take_note(Entry::format(entry).unwrap_or(FIRST), &outcome, &mut state)?;
                outcome
            }
            Err(EntryError::Malformed) => not_endorsed("not an entry"),
            Err(error @ EntryError::UnknownFormat(_)) => {
                let roster = self.lists.of_group(group.0).of(&Transaction(state));
                let roster = roster.map_err(|error| Halt::new(error.to_string()))?;
                if unknown::is_endorsed(entry, &roster) {
                    return Err(Halt::new(error.to_string()));
                }
                not_endorsed("of an unknown format, and no quorum has signed it")
            }
        };
        if let Outcome::Refused(Rejection::NotEndorsed(reason)) = &outcome {
            tracing::warn!(%group, reason, "an entry that is not endorsed changed nothing");
            // The outcome goes into what replicas compare, and versions may find other reasons.
            outcome = not_endorsed("the reason is in the log");
        }
        postcard::to_stdvec(&outcome).map_err(|error| Halt::new(error.to_string()))
    }

    fn genuine(&self, group: GroupId, entry: &[u8]) -> bool {
        let Ok(entry) = Entry::decode(entry) else {
            return false;
        };
        let seen = self.seen.lock().get(&group).cloned().unwrap_or_default();
        let genesis = Roster::stable(self.lists.genesis().of_group(group.0).into());
        let endorsed = |roster: &Roster| is_endorsed(&entry, group.0, roster);
        match seen.is_empty() {
            true => endorsed(&genesis),
            // Whoever shows an entry may be further in a change of members than this node.
            false => seen
                .iter()
                .any(|roster| endorsed(roster) || roster.becomes().any(|later| endorsed(&later))),
        }
    }

    fn wanted(&self, group: GroupId, state: &dyn StateRead) -> Result<Option<Move>, Halt> {
        // Also at a start and after a snapshot, before anything is applied: after that, every
        // applied entry and every configuration is seen as it is made.
        check_format(&Read(state))?;
        self.see(group, &Read(state))
            .map_err(|error| Halt::new(error.to_string()))?;
        let wanted = members::wanted(&self.lists.of_group(group.0), &Read(state));
        let wanted = wanted.map_err(|error| Halt::new(error.to_string()))?;
        Ok(wanted.map(|wanted| Move {
            from: wanted.from,
            to: wanted.to,
            begun: wanted.begun,
            complete: wanted.complete,
        }))
    }

    fn configured(
        &self,
        group: GroupId,
        _index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        let halt = |error: StateError| Halt::new(error.to_string());
        let mut state = Transaction(state);
        let voters = (&configuration.voters[..], configuration.is_joint());
        members::configured(&self.lists.of_group(group.0), voters, &mut state).map_err(halt)?;
        self.see(group, &state).map_err(halt)
    }

    fn configuration_allowed(
        &self,
        group: GroupId,
        configuration: &Configuration,
        _initial: &Configuration,
        state: &dyn StateRead,
    ) -> bool {
        let state = Read(state);
        let rosters = self.lists.of_group(group.0);
        let Ok(roster) = rosters.of(&state) else {
            return false;
        };
        let ordered = members::is_ordered(&rosters, &state).unwrap_or(false);
        if !ordered {
            tracing::error!(%group, "a snapshot names members that the operators have not ordered");
        }
        ordered && fits(configuration, &roster)
    }

    fn offered(&self, group: GroupId, state: &dyn StateRead) {
        let directory = self.directory.lock().clone();
        if let (Some(directory), Ok(roster)) = (directory, self.lists.of_group(group.0).of(&Read(state))) {
            directory.offered(group, roster);
        }
    }

    fn follows(&self, group: GroupId, own: &dyn StateRead, state: &dyn StateRead) -> bool {
        let rosters = self.lists.of_group(group.0);
        let known = rosters.of(&Read(own));
        let follows = known.and_then(|known| members::goes_on(&rosters, &known, &Read(state)));
        let follows = follows.unwrap_or(false);
        if !follows {
            tracing::error!(%group, "a snapshot knows fewer lists of the group's members than this node, or others");
        }
        follows
    }

    fn applied(&self, group: GroupId, _index: u64, entry: &[u8], result: &[u8]) {
        let Some(listener) = self.listener.lock().clone() else {
            return;
        };
        // Also of one that nobody can read: that somebody brought it wants to be known.
        if let Ok(outcome) = postcard::from_bytes(result) {
            listener(group, Entry::decode(entry).ok().as_ref(), &outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use conclave_consensus::StoreError;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::format::NEWEST;
    use crate::keystore::layout;

    /// A state as consensus shows it.
    #[derive(Default)]
    struct State(BTreeMap<Vec<u8>, Vec<u8>>);

    impl StateRead for State {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Pair>, StoreError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_state_that_a_later_version_has_written_halts_its_group_without_an_entry() {
        let application = KeystoreApplication::new(Arc::new(Membership {
            cluster: [7; 32],
            index: 1,
            members: Vec::new(),
            operators: vec![SigningKey::from_bytes(&[1; 32]).verifying_key()],
            operator_threshold: 1,
            ..Membership::default()
        }));
        let mut state = State::default();
        let mut written = |format: Format| {
            state.0.insert(layout::FORMAT.to_vec(), vec![format]);
            application.wanted(GroupId(1), &state)
        };
        assert!(written(NEWEST).is_ok());
        let halt = written(NEWEST + 1).unwrap_err();
        for part in [&format!("format {}", NEWEST + 1), "install the version"] {
            assert!(
                halt.reason.contains(part),
                "{part:?} is missing in {}",
                halt.reason
            );
        }
    }
}
