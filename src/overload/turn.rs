//! What a task works at: of which class, for which keystore, until when. It is bound to the task, since every layer
//! between a request and the pool would have to hand it on, and a layer that forgot would do work for nobody.
//!
//! A task that is spawned begins with the default; [`Turn::inherited`] takes it along.

use std::future::Future;
use std::time::{Duration, Instant};

use super::Class;
use crate::identifier::LocalId;

tokio::task_local! {
    static CURRENT: Turn;
}

/// What work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What is given up first.
    pub class: Class,
    /// Among whom turns go round; all zero for what concerns no keystore.
    pub keystore: LocalId,
    /// When nobody waits for it any more.
    pub deadline: Option<Instant>,
}

impl Default for Turn {
    /// What nobody has said anything about is in the background.
    fn default() -> Self {
        Self {
            class: Class::Bulk,
            keystore: LocalId([0; 16]),
            deadline: None,
        }
    }
}

impl Turn {
    /// The present task's.
    pub fn current() -> Self {
        CURRENT.try_with(|turn| *turn).unwrap_or_default()
    }

    /// The same for another class.
    #[must_use]
    pub fn of_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// The same for a keystore.
    #[must_use]
    pub fn of_keystore(self, keystore: LocalId) -> Self {
        Self { keystore, ..self }
    }

    /// The same in the class above: for the last step of what every node has done its part of.
    #[must_use]
    pub fn raised(self) -> Self {
        self.of_class(self.class.raised())
    }

    /// The same until `deadline`, or until its own if that is earlier.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Self {
        let deadline = self.deadline.map_or(deadline, |own| own.min(deadline));
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// What is left of `most`.
    pub fn left(&self, most: Duration) -> Duration {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline.map_or(most, |deadline| left(deadline).min(most))
    }

    /// Works at `work` in this turn. Boxed: what serves a request is large, and there are turns within turns.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, Box::pin(work))
    }

    /// `work` in the turn of the task that calls this, wherever it is spawned.
    pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
        Self::current().scope(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_holds_inside_and_goes_along_only_where_it_is_taken() {
        let turn = Turn::default()
            .of_class(Class::Changes)
            .of_keystore(LocalId([1; 16]));
        assert_eq!(Turn::current(), Turn::default());
        let inside = turn.scope(async {
            let inner = turn.of_class(Class::Signatures);
            assert_eq!(inner.scope(async { Turn::current() }).await, inner);
            let lost = tokio::spawn(async { Turn::current() }).await.unwrap();
            assert_eq!(lost, Turn::default());
            tokio::spawn(Turn::inherited(async { Turn::current() }))
                .await
                .unwrap()
        });
        assert_eq!(inside.await, turn);
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let (soon, late) = (now + Duration::from_secs(5), now + Duration::from_secs(9));
        assert_eq!(Turn::default().until(late).until(soon).deadline, Some(soon));
        assert_eq!(Turn::default().until(soon).until(late).deadline, Some(soon));
        assert_eq!(Turn::default().left(Duration::MAX), Duration::MAX);
        assert!(Turn::default().until(soon).left(Duration::MAX) <= soon - now);
        assert_eq!(Turn::default().until(now).left(Duration::MAX), Duration::ZERO);
    }
}
