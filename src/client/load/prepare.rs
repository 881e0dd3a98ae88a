//! Signs requests in advance, no two alike, on a thread of its own.
//!
//! Requests that carry fresh data differ by it. Reading a key carries none: those differ by the times between
//! which they hold, which allows some 480 a second for each key.

use super::BATCH;
use super::Scenario;
use super::answer::Expected;
use super::material::{Key, Material, Sample};
use super::queue::{Ages, Queue};
use crate::client::call::{Call, KeyParameters};
use crate::client::delegation::{self, Delegation};
use crate::client::error::ClientError;
use crate::client::identity::Identity;
use crate::client::multikey::{self, X25519_PUBLIC};
use crate::client::origin::Origin;
use crate::client::signer::{self, SignedRequest, VALIDITY, Window, unix_seconds};
use rand::RngCore;
use rand::distributions::{Distribution as _, WeightedIndex};
use rand::rngs::OsRng;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use x25519_dalek::{PublicKey, StaticSecret};

/// A request older than this many seconds is signed anew instead of being sent.
const MAX_AGE: u64 = 100;

/// Requests without data hold for `VALIDITY - 0` down to `VALIDITY - SPREAD` seconds.
const SPREAD: u64 = 480;

/// How far back, in seconds, the first of them are dated.
const BACK: u64 = 30;

/// Delegations that are made to be revoked would hold for so many seconds.
const REVOKED_LIFE: u64 = 3600;

/// A signed request and what its answer must be.
pub(super) struct Prepared {
    /// Index of the part of the scenario that it was made for.
    pub(super) part: usize,
    pub(super) request: SignedRequest,
    pub(super) expected: Expected,
    created: u64,
}

impl Ages for Prepared {
    fn is_stale(&self, now: u64) -> bool {
        now > self.created + MAX_AGE
    }
}

/// Fills `queue` until it is closed.
pub(super) fn start(
    scenario: Scenario,
    parts: Arc<[Material]>,
    origin: Origin,
    queue: Arc<Queue<Prepared>>,
) -> JoinHandle<Result<(), ClientError>> {
    tokio::task::spawn_blocking(move || {
        let outcome = fill(scenario, &parts, &origin, &queue);
        // Whoever waits for requests learns that there will be none.
        queue.close();
        outcome
    })
}

fn fill(
    scenario: Scenario,
    parts: &[Material],
    origin: &Origin,
    queue: &Queue<Prepared>,
) -> Result<(), ClientError> {
    let shares = WeightedIndex::new(scenario.parts().iter().map(|(_, share)| *share))
        .map_err(|error| ClientError::Unexpected(format!("the scenario's parts: {error}")))?;
    let mut makers: Vec<Maker<'_>> = parts
        .iter()
        .enumerate()
        .map(|(part, material)| Maker::new(part, material, origin))
        .collect();
    loop {
        let open = match makers[shares.sample(&mut OsRng)].next(unix_seconds())? {
            Some(prepared) => queue.put(prepared),
            None => queue.pause(Duration::from_millis(100)),
        };
        if !open {
            return Ok(());
        }
    }
}

/// Makes requests one after the other.
struct Maker<'a> {
    part: usize,
    material: &'a Material,
    origin: &'a Origin,
    /// The windows of each key that are not used yet.
    moments: Vec<Moments>,
    /// Configurations as the requests so far leave them.
    changed: Vec<Value>,
    count: usize,
}

impl<'a> Maker<'a> {
    fn new(part: usize, material: &'a Material, origin: &'a Origin) -> Self {
        let moments = vec![Moments::since(unix_seconds() - BACK); material.keys.len()];
        Self {
            part,
            changed: material.changed.clone(),
            material,
            origin,
            moments,
            count: 0,
        }
    }

    /// The next request; `None` when all that can differ in this second are made.
    fn next(&mut self, now: u64) -> Result<Option<Prepared>, ClientError> {
        let mut index = self.count % self.material.keys.len().max(1);
        self.count += 1;
        let mut window = Window::starting_at(now);
        let (call, expected) = match self.material.scenario {
            Scenario::SignRoot | Scenario::SignDelegated => {
                let data = random();
                (
                    Call::sign(&self.material.keys[index].id, &data),
                    Expected::Signature { key: index, data },
                )
            }
            Scenario::SignBatch => {
                let keys = self.material.keys.len();
                let items: Vec<(usize, [u8; 32])> = (0..BATCH)
                    .map(|place| ((index + place) % keys, random()))
                    .collect();
                let named: Vec<(&str, &[u8])> = items
                    .iter()
                    .map(|(key, data)| (self.material.keys[*key].id.as_str(), &data[..]))
                    .collect();
                let call = Call::sign_batch(&self.material.keystore, &named);
                (call, Expected::Signatures { items })
            }
            Scenario::Derive => {
                let own = StaticSecret::random_from_rng(OsRng);
                let public = multikey::encode(X25519_PUBLIC, PublicKey::from(&own).as_bytes());
                let key_type = self.material.scenario.key_type().0;
                let call = Call::derive_secret(&self.material.keys[index].id, key_type, &public);
                (call, Expected::Secret { key: index, own })
            }
            Scenario::GetKey | Scenario::Hmac | Scenario::HmacVerify | Scenario::Wrap | Scenario::Unwrap => {
                let Some(free) = (0..self.moments.len())
                    .map(|step| (index + step) % self.moments.len())
                    .find(|index| self.moments[*index].has(now))
                else {
                    return Ok(None);
                };
                index = free;
                window = self.moments[index].take();
                self.same_again(index)
            }
            Scenario::Change => self.change(now)?,
            // Filling signs as it goes, a mixture is its parts.
            Scenario::Fill | Scenario::Mixed => return Ok(None),
            Scenario::Generate => {
                // An alias that nobody shares makes each request another one.
                let alias = format!("urn:uuid:{}", crate::client::delegation::uuid(&mut OsRng));
                let parameters = KeyParameters {
                    key_type: self.material.scenario.key_type().0.to_owned(),
                    public_alias: Some(alias.clone()),
                    ..KeyParameters::default()
                };
                (
                    Call::generate_key(&self.material.keystore, &parameters),
                    Expected::NewKey { alias },
                )
            }
        };
        let capability = self
            .material
            .keys
            .get(index)
            .and_then(|key| key.capability.as_ref());
        let request = signer::sign(self.origin, &self.material.invoker, &call, capability, window)?;
        Ok(Some(Prepared {
            part: self.part,
            request,
            expected,
            created: window.created,
        }))
    }

    /// What differs from other requests of its kind by its window alone.
    fn same_again(&self, index: usize) -> (Call, Expected) {
        let Key { id, sample, .. } = &self.material.keys[index];
        let Sample { payload, result } = sample;
        match self.material.scenario {
            Scenario::Hmac => (Call::sign(id, payload), Expected::Tag { key: index }),
            Scenario::HmacVerify => {
                let is_right = self.count.is_multiple_of(2);
                let mut tag = result.clone();
                tag[self.count % 32] ^= u8::from(!is_right);
                (Call::verify(id, payload, &tag), Expected::Verdict { is_right })
            }
            Scenario::Wrap => (Call::wrap_key(id, payload), Expected::Wrap { key: index }),
            Scenario::Unwrap => (Call::unwrap_key(id, result), Expected::Payload { key: index }),
            _ => (Call::get_key(id), Expected::Description { key: index }),
        }
    }

    /// An update of the next keystore, or the revocation of a delegation of it.
    fn change(&mut self, now: u64) -> Result<(Call, Expected), ClientError> {
        let turn = self.count;
        let place = turn / 2 % self.changed.len();
        let config = &mut self.changed[place];
        let keystore = config["id"].as_str().unwrap_or_default().to_owned();
        if turn.is_multiple_of(2) {
            let delegation = Delegation {
                id: delegation::new_id(&mut OsRng),
                target: keystore,
                controller: Identity::generate(&mut OsRng).did().to_owned(),
                actions: vec!["sign".to_owned()],
                expires: now + REVOKED_LIFE,
                parent: None,
            };
            let capability = delegation.sign(&self.material.invoker, now)?;
            return Ok((Call::revoke(&capability), Expected::Nothing));
        }
        config["sequence"] = (config["sequence"].as_u64().unwrap_or_default() + 1).into();
        let config = config.clone();
        Ok((
            Call::update_keystore(&keystore, &config),
            Expected::Configuration { config },
        ))
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

/// Windows of which no two are alike.
#[derive(Clone)]
struct Moments {
    created: u64,
    used: u64,
}

impl Moments {
    fn since(created: u64) -> Self {
        Self { created, used: 0 }
    }

    /// Whether there is one that does not begin after `now`.
    fn has(&self, now: u64) -> bool {
        self.created <= now
    }

    fn take(&mut self) -> Window {
        let window = Window {
            created: self.created,
            expires: self.created + VALIDITY - self.used,
        };
        self.used += 1;
        if self.used == SPREAD {
            self.used = 0;
            self.created += 1;
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use super::{Moments, SPREAD};
    use std::collections::HashSet;

    #[test]
    fn no_two_windows_are_alike_and_none_begins_in_the_future() {
        let mut moments = Moments::since(1000);
        let mut seen = HashSet::new();
        while moments.has(1002) {
            let window = moments.take();
            assert!(window.created <= 1002 && window.expires > window.created + 100);
            assert!(window.expires <= window.created + 600);
            assert!(seen.insert((window.created, window.expires)));
        }
        assert_eq!(seen.len() as u64, 3 * SPREAD);
    }
}
