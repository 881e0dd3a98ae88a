//! Denials need no order: a member that endorses a revocation or the removal of a controller refuses uses by it from
//! that moment, before the entry is applied (trust.md 2). So a corrupt leader that withholds the entry from this
//! member gains nothing by it.
//!
//! Pure. A denial ends when the group's state has passed it, or when the request that asked for it has expired. One
//! that nobody brings to an end lost its coordinator: its request is handed out to be finished.

use std::collections::HashMap;
use std::sync::Arc;

use super::examined::Examined;
use crate::identifier::{LocalId, OperationId};
use crate::keystore::Command;
use crate::keystore::record::KeystoreRecord;

/// What is denied until it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Denial {
    Link { capability: String, delegator: String },
    Controllers { kept: Vec<String>, version: u64 },
}

/// After this long (ms) a coordinator has given up or is dead: it owes its client an answer within 8 s.
const ORPHANED: u64 = 10_000;

struct Provisional<R> {
    denial: Denial,
    request: R,
    life: Life,
    /// ms; when it is next handed out.
    orphaned: u64,
}

/// When a request was endorsed and from when on it cannot be applied, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// This member's time when it endorsed.
    pub since: u64,
    /// The request is dead after this.
    pub until: u64,
}

/// Denials that this member has endorsed, by keystore and operation, each with the request that asked for it.
pub struct Denials<R = Arc<Examined>> {
    by_keystore: HashMap<LocalId, HashMap<OperationId, Provisional<R>>>,
}

impl<R> Default for Denials<R> {
    fn default() -> Self {
        Self {
            by_keystore: HashMap::new(),
        }
    }
}

impl<R: Clone> Denials<R> {
    /// Remembers what endorsing `command` denies. `version` is the keystore's state version that was endorsed.
    pub fn endorsed(
        &mut self,
        operation: OperationId,
        command: &Command,
        version: u64,
        request: R,
        life: Life,
    ) {
        let (keystore, denial) = match command {
            Command::Revoke {
                keystore,
                capability,
                delegator,
                ..
            } => (
                *keystore,
                Denial::Link {
                    capability: capability.clone(),
                    delegator: delegator.clone(),
                },
            ),
            Command::UpdateKeystore { id, config } => (
                *id,
                Denial::Controllers {
                    kept: config.controllers.clone(),
                    version,
                },
            ),
            _ => return,
        };
        self.by_keystore.entry(keystore).or_default().insert(
            operation,
            Provisional {
                denial,
                request,
                life,
                orphaned: life.since.saturating_add(ORPHANED),
            },
        );
    }

    /// Requests that were endorsed long ago and never came to an end, to be finished by whoever has them: a client
    /// that was cut off with its node is to find its change made, or not made, and the same on every node. Each is
    /// handed out again as long as it stays.
    pub fn orphans(&mut self, now: u64) -> Vec<(LocalId, OperationId, R)> {
        let mut orphans = Vec::new();
        for (keystore, denials) in &mut self.by_keystore {
            for (operation, provisional) in denials {
                if provisional.orphaned <= now && provisional.life.until >= now {
                    provisional.orphaned = now.saturating_add(ORPHANED);
                    orphans.push((*keystore, *operation, provisional.request.clone()));
                }
            }
        }
        orphans
    }

    /// The entry of this operation was applied, whatever became of it: the state says the rest.
    pub fn decided(&mut self, keystore: &LocalId, operation: &OperationId) {
        if let Some(denials) = self.by_keystore.get_mut(keystore) {
            denials.remove(operation);
            if denials.is_empty() {
                self.by_keystore.remove(keystore);
            }
        }
    }

    /// Whether a link is denied.
    pub fn denies_link(&self, keystore: &LocalId, capability: &str, delegator: &str, now: u64) -> bool {
        self.live(keystore, now).any(|denial| {
            matches!(denial, Denial::Link { capability: c, delegator: d } if c == capability && d == delegator)
        })
    }

    /// Takes out of a keystore's record the controllers whose removal is endorsed.
    pub fn restrict(&self, keystore: &LocalId, record: &mut KeystoreRecord, now: u64) {
        for denial in self.live(keystore, now) {
            if let Denial::Controllers { kept, version } = denial
                && *version >= record.version
            {
                record
                    .config
                    .controllers
                    .retain(|controller| kept.contains(controller));
            }
        }
    }

    /// Whether there is anything to look up for this keystore.
    pub fn concern(&self, keystore: &LocalId) -> bool {
        self.by_keystore.contains_key(keystore)
    }

    /// Forgets what has expired.
    pub fn sweep(&mut self, now: u64) {
        for denials in self.by_keystore.values_mut() {
            denials.retain(|_, provisional| provisional.life.until >= now);
        }
        self.by_keystore.retain(|_, denials| !denials.is_empty());
    }

    fn live(&self, keystore: &LocalId, now: u64) -> impl Iterator<Item = &Denial> {
        let denials = self
            .by_keystore
            .get(keystore)
            .into_iter()
            .flat_map(HashMap::values);
        denials
            .filter(move |provisional| provisional.life.until >= now)
            .map(|provisional| &provisional.denial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::KeystoreConfig;

    /// Endorsed at 10, dead after 100 000.
    const LIFE: Life = Life {
        since: 10,
        until: 100_000,
    };
    const KS: LocalId = LocalId([1; 16]);

    fn operation(counter: u64) -> OperationId {
        OperationId {
            node: 1,
            boot: 1,
            counter,
        }
    }

    fn revoke() -> Command {
        Command::Revoke {
            keystore: KS,
            capability: "urn:c".into(),
            delegator: "did:a".into(),
            expires: 0,
            revoker: None,
        }
    }

    fn record(controllers: &[&str], version: u64) -> KeystoreRecord {
        let config = KeystoreConfig {
            controllers: controllers.iter().map(|text| text.to_string()).collect(),
            single_controller: false,
            meter: LocalId([0; 16]),
            sequence: version - 1,
            kms_module: "m".into(),
            ip_allow_list: None,
        };
        KeystoreRecord {
            config,
            version,
            created: 0,
        }
    }

    #[test]
    fn an_endorsed_revocation_denies_its_link_until_decided_or_expired() {
        let mut denials = Denials::default();
        denials.endorsed(operation(1), &revoke(), 1, "request", LIFE);
        assert!(denials.denies_link(&KS, "urn:c", "did:a", LIFE.until));
        assert!(
            !denials.denies_link(&KS, "urn:c", "did:b", LIFE.until),
            "the same id by another delegator is not hit"
        );
        assert!(!denials.denies_link(&KS, "urn:c", "did:a", LIFE.until + 1));
        denials.decided(&KS, &operation(1));
        assert!(!denials.denies_link(&KS, "urn:c", "did:a", LIFE.until));
    }

    #[test]
    fn an_endorsed_removal_denies_the_controller_until_the_version_has_passed() {
        let mut denials = Denials::default();
        let update = Command::UpdateKeystore {
            id: KS,
            config: record(&["did:b"], 2).config,
        };
        denials.endorsed(operation(1), &update, 1, "request", LIFE);
        let mut before = record(&["did:a", "did:b"], 1);
        denials.restrict(&KS, &mut before, 50);
        assert_eq!(before.config.controllers, ["did:b"]);
        let mut after = record(&["did:a"], 2);
        denials.restrict(&KS, &mut after, 50);
        assert_eq!(
            after.config.controllers,
            ["did:a"],
            "what came later is not denied"
        );
    }
    #[test]
    fn what_nobody_finishes_is_handed_out_until_it_is_decided() {
        let mut denials = Denials::default();
        denials.endorsed(operation(1), &revoke(), 1, "request", LIFE);
        let due = LIFE.since + ORPHANED;
        assert_eq!(denials.orphans(due - 1), []);
        assert_eq!(denials.orphans(due), [(KS, operation(1), "request")]);
        assert_eq!(denials.orphans(due + 1), [], "once a while");
        assert_eq!(denials.orphans(due + ORPHANED).len(), 1);
        assert_eq!(denials.orphans(LIFE.until + 1), [], "dead");
        denials.decided(&KS, &operation(1));
        assert_eq!(denials.orphans(due + 2 * ORPHANED), []);
    }
}
