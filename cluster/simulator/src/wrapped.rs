//! An application around another one: what a wrapper does not say itself, the other one says.

use conclave_consensus::{
    Application, Configuration, GroupId, Halt, Move, Restricts, StateRead, StateTransaction,
};

/// What is done otherwise than the application inside would. Everything has a default, which is to hand on.
pub trait Wrapper: Send + Sync + 'static {
    /// The application inside.
    fn inner(&self) -> &dyn Application;

    /// In place of [`Application::apply`].
    ///
    /// # Errors
    /// As there.
    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        self.inner().apply(group, index, entry, state)
    }

    /// In place of [`Application::applied`].
    fn applied(&self, group: GroupId, index: u64, entry: &[u8], result: &[u8]) {
        self.inner().applied(group, index, entry, result);
    }

    /// In place of [`Application::configured`].
    ///
    /// # Errors
    /// As there.
    fn configured(
        &self,
        group: GroupId,
        index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        self.inner().configured(group, index, configuration, state)
    }
}

/// A wrapper with what is inside of it.
pub struct Wrapped<W>(pub W);

// What an application may do besides has a default there, and must be handed on all the same.
#[deny(clippy::missing_trait_methods)]
impl<W: Wrapper> Application for Wrapped<W> {
    fn restricts(&self, group: GroupId, entry: &[u8]) -> Restricts {
        self.0.inner().restricts(group, entry)
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        self.0.apply(group, index, entry, state)
    }

    fn applied(&self, group: GroupId, index: u64, entry: &[u8], result: &[u8]) {
        self.0.applied(group, index, entry, result);
    }

    fn genuine(&self, group: GroupId, entry: &[u8]) -> bool {
        self.0.inner().genuine(group, entry)
    }

    fn wanted(&self, group: GroupId, state: &dyn StateRead) -> Result<Option<Move>, Halt> {
        self.0.inner().wanted(group, state)
    }

    fn configured(
        &self,
        group: GroupId,
        index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        self.0.configured(group, index, configuration, state)
    }

    fn configuration_allowed(
        &self,
        group: GroupId,
        configuration: &Configuration,
        initial: &Configuration,
        state: &dyn StateRead,
    ) -> bool {
        let inner = self.0.inner();
        inner.configuration_allowed(group, configuration, initial, state)
    }

    fn follows(&self, group: GroupId, own: &dyn StateRead, state: &dyn StateRead) -> bool {
        self.0.inner().follows(group, own, state)
    }

    fn offered(&self, group: GroupId, state: &dyn StateRead) {
        self.0.inner().offered(group, state);
    }
}
