//! The rules between the links of a chain (contract 3.3 to 3.6): who delegates what to whom, for how long, and whether
//! it still holds at `now`. Cheap checks first: root, revocation, delegators, proofs, then attenuation and time.

use std::sync::Arc;
use std::time::Duration;

use super::cache::ChainCache;
use super::capability::{Delegated, Link};
use super::error::{ChainFault, Refusal};
use super::policy::{ExpectedRoot, Policy, Revoked};
use super::proof;
use super::target;

/// One delegation of a verified chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The capability's id.
    pub id: String,
    /// The DID that signed its delegation. With the id, what a revocation names.
    pub delegator: String,
    /// Its controllers: DIDs or verification methods.
    pub controllers: Vec<String>,
    /// Its target.
    pub target: String,
    /// When it ends, in Unix seconds, rounded up.
    pub expires: u64,
}

impl From<&Link> for ChainLink {
    fn from(link: &Link) -> Self {
        Self {
            id: link.id.clone(),
            delegator: link.delegator.did.clone(),
            controllers: link.controllers.clone(),
            target: link.target.clone(),
            expires: link.expires.seconds + u64::from(link.expires.nanos > 0),
        }
    }
}

/// What a chain is judged against.
pub(crate) struct Judge<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) cache: &'a ChainCache,
    pub(crate) revoked: Revoked<'a>,
    pub(crate) max_delegation_ttl: Option<Duration>,
    /// Unix milliseconds.
    pub(crate) now: u64,
}

impl Judge<'_> {
    /// Everything about a delegated capability but its invocation.
    pub(crate) fn delegation(&self, delegated: &Arc<Delegated>, root: &ExpectedRoot) -> Result<(), Refusal> {
        let links = delegated.links();
        if links.len() >= self.policy.max_chain_length {
            return Err(Refusal::ChainTooLong(self.policy.max_chain_length));
        }
        if links
            .iter()
            .any(|link| (self.revoked)(&link.id, &link.delegator.did))
        {
            return Err(Refusal::Revoked);
        }
        delegators(links, root)?;
        let proofs = match self.cache.proofs(delegated.hash()) {
            Some(proofs) => proofs,
            None => {
                let proofs = proof::verify_all(delegated)?;
                self.cache.remember(delegated, proofs);
                proofs
            }
        };
        // What the whole verdict stands on, said once more where it cannot be missed.
        if proofs == 0 || proofs != links.len() {
            return Err(ChainFault::Proof.into());
        }
        self.attenuation(links, root)?;
        self.times(links)
    }

    fn attenuation(&self, links: &[Link], root: &ExpectedRoot) -> Result<(), Refusal> {
        let attenuation = self.policy.allow_target_attenuation;
        let (mut parent_target, mut actions) = (root.target(), None);
        for link in links {
            if !target::allows(parent_target, &link.target, attenuation) {
                return Err(ChainFault::Target.into());
            }
            if !is_subset(link.actions.as_deref(), actions) {
                return Err(ChainFault::Action.into());
            }
            (parent_target, actions) = (&link.target, link.actions.as_deref());
        }
        Ok(())
    }

    fn times(&self, links: &[Link]) -> Result<(), Refusal> {
        let skew = u64::from(self.policy.clock_skew) * 1_000;
        let ttl = [self.max_delegation_ttl, self.policy.max_delegation_ttl]
            .into_iter()
            .flatten()
            .min();
        let mut parent: Option<&Link> = None;
        for link in links {
            if parent.is_some_and(|parent| link.expires > parent.expires) {
                return Err(ChainFault::Expires.into());
            }
            if parent.is_some_and(|parent| link.created < parent.created) || link.created > link.expires {
                return Err(ChainFault::Created.into());
            }
            if link.created.millis() > self.now.saturating_add(skew) {
                return Err(Refusal::DelegatedInFuture);
            }
            if ttl.is_some_and(|ttl| lifetime(link) > ttl) {
                return Err(Refusal::TtlTooLong);
            }
            // A child ends with its parent at the latest, so this says it of the invoked capability too.
            if link.expires.millis().saturating_add(skew) < self.now {
                return Err(Refusal::CapabilityExpired);
            }
            parent = Some(link);
        }
        Ok(())
    }
}

/// Each delegation is said to be by a controller of its parent. Before the proofs, so that a stranger's chain costs
/// no more than one verification: its first link must name a controller of the root, and fails.
fn delegators(links: &[Link], root: &ExpectedRoot) -> Result<(), ChainFault> {
    let mut controllers = root.controllers();
    for link in links {
        if !link.delegator.is_among(controllers) {
            return Err(ChainFault::Delegator);
        }
        controllers = &link.controllers;
    }
    Ok(())
}

/// A child may do what its parent may; one that says nothing may do everything, so its parent must.
fn is_subset(child: Option<&[String]>, parent: Option<&[String]>) -> bool {
    match (child, parent) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(child), Some(parent)) => child.iter().all(|action| parent.contains(action)),
    }
}

fn lifetime(link: &Link) -> Duration {
    let since = |time: super::time::Timestamp| Duration::new(time.seconds, time.nanos);
    since(link.expires).saturating_sub(since(link.created))
}
