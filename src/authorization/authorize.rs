//! Step 2: may the signer do what it asks for? Judged against replicated state, which the caller gives as an
//! [`Expectation`]: the roots, who controls them, what is revoked, which action and target the route wants.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::authenticate::Authenticated;
use super::cache::ChainCache;
use super::capability::Delegated;
use super::chain::{ChainLink, Judge};
use super::error::{ChainFault, Refusal};
use super::invocation::Invoked;
use super::policy::{Expectation, ExpectedRoot, Policy, Revoked};
use super::target;

/// A request that its signer was entitled to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// The DID that signed the request.
    pub invoker: String,
    /// The id of the root capability.
    pub root: String,
    /// The delegations, without the root, the invoked capability last; empty when the root was invoked.
    pub chain: Vec<ChainLink>,
    /// The number of capabilities, the root included.
    pub chain_length: usize,
}

impl Authorized {
    /// Applies a key's own `maxCapabilityChainLength`, which counts the root.
    pub fn limit_chain(&self, max: usize) -> Result<(), Refusal> {
        if self.chain_length > max {
            Err(Refusal::KeyChainTooLong(max))
        } else {
            Ok(())
        }
    }
}

/// A delegated capability that was verified without being invoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedDelegation {
    /// The id of the root capability.
    pub root: String,
    /// The delegations, without the root, the given capability last; never empty.
    pub chain: Vec<ChainLink>,
    /// Every controller in the chain, the root's included, each once: who may revoke it.
    pub controllers: Vec<String>,
}

/// Verifies the invocation that an authenticated request makes. `now` is Unix milliseconds.
pub fn authorize(
    authenticated: &Authenticated,
    expectation: &Expectation<'_>,
    policy: &Policy,
    cache: &ChainCache,
    now: u64,
) -> Result<Authorized, Refusal> {
    // The route is asked for by the request that was signed, on the one authority, and by no other.
    let url_is_the_request = expectation
        .target
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_prefix(policy.authority.as_str()))
        .is_some_and(|path| path == authenticated.request_target);
    if !url_is_the_request || !target::is_strict(expectation.target) {
        return Err(Refusal::TargetNotAllowed);
    }
    let invocation = Invocation {
        capability: &authenticated.capability,
        action: &authenticated.action,
        created: authenticated.created,
        invoker: &authenticated.key,
    };
    invocation.verify(expectation, policy, cache, now)
}

/// What is invoked, by whom and when.
pub(crate) struct Invocation<'a> {
    pub(crate) capability: &'a Invoked,
    pub(crate) action: &'a str,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) invoker: &'a super::did_key::DidKey,
}

impl Invocation<'_> {
    pub(crate) fn verify(
        &self,
        expectation: &Expectation<'_>,
        policy: &Policy,
        cache: &ChainCache,
        now: u64,
    ) -> Result<Authorized, Refusal> {
        let attenuation = policy.allow_target_attenuation;
        let (root, links) = match self.capability {
            Invoked::Root(id) => {
                let root = find_root(expectation.roots, id)?;
                if policy.max_chain_length < 1 {
                    return Err(Refusal::ChainTooLong(policy.max_chain_length));
                }
                (root, &[][..])
            }
            Invoked::Delegated(delegated) => {
                let root = find_root(expectation.roots, delegated.root())?;
                let judge = Judge {
                    policy,
                    cache,
                    revoked: expectation.revoked,
                    max_delegation_ttl: expectation.max_delegation_ttl,
                    now,
                };
                judge.delegation(delegated, root)?;
                (root, delegated.links())
            }
        };
        let (controllers, allowed_target, actions) = match links.last() {
            Some(link) => (
                link.controllers.as_slice(),
                link.target.as_str(),
                link.actions.as_deref(),
            ),
            None => (root.controllers(), root.target(), None),
        };
        if self.action != expectation.action {
            return Err(Refusal::ActionMismatch {
                actual: self.action.to_owned(),
                expected: expectation.action.to_owned(),
            });
        }
        if let Some(allowed) = actions
            && !allowed.iter().any(|action| action == self.action)
        {
            return Err(Refusal::ActionNotAllowed {
                action: self.action.to_owned(),
                allowed: allowed.to_vec(),
            });
        }
        if !target::allows(allowed_target, expectation.target, attenuation) {
            return Err(Refusal::TargetNotAllowed);
        }
        if !self.invoker.is_among(controllers) {
            return Err(Refusal::WrongInvoker);
        }
        let skew = u64::from(policy.clock_skew) * 1_000;
        let invoked_at = self.created.saturating_mul(1_000);
        if links
            .iter()
            .any(|link| invoked_at.saturating_add(skew) < link.created.millis())
        {
            return Err(Refusal::DelegatedInFuture);
        }
        Ok(Authorized {
            invoker: self.invoker.did.clone(),
            root: root.id().to_owned(),
            chain: links.iter().map(ChainLink::from).collect(),
            chain_length: links.len() + 1,
        })
    }
}

/// Verifies a delegated capability that nobody invokes: the one in the body of a revocation. Its chain must hang from
/// one of `roots` and hold at `now` (Unix milliseconds), whatever its time to live; a capability that has expired or
/// that is revoked already is refused.
pub fn verify_delegation(
    capability: &Value,
    roots: &[ExpectedRoot],
    revoked: Revoked<'_>,
    policy: &Policy,
    cache: &ChainCache,
    now: u64,
) -> Result<VerifiedDelegation, Refusal> {
    let verify = || {
        let text = serde_json::to_vec(capability).map_err(|_| ChainFault::UnknownMember)?;
        let hash = Sha256::digest(text).into();
        let delegated = Arc::new(Delegated::from_json(capability, hash, policy.max_chain_length)?);
        let root = find_root(roots, delegated.root())?;
        let unlimited = Policy {
            max_delegation_ttl: None,
            ..policy.clone()
        };
        let judge = Judge {
            policy: &unlimited,
            cache,
            revoked,
            max_delegation_ttl: None,
            now,
        };
        judge.delegation(&delegated, root)?;
        let mut controllers = root.controllers().to_vec();
        for link in delegated.links() {
            for controller in link.controllers.iter().chain([&link.delegator.did]) {
                if !controllers.contains(controller) {
                    controllers.push(controller.clone());
                }
            }
        }
        Ok(VerifiedDelegation {
            root: root.id().to_owned(),
            chain: delegated.links().iter().map(ChainLink::from).collect(),
            controllers,
        })
    };
    verify().map_err(|refusal| Refusal::InvalidDelegation(Box::new(refusal)))
}

fn find_root<'a>(roots: &'a [ExpectedRoot], id: &str) -> Result<&'a ExpectedRoot, Refusal> {
    roots
        .iter()
        .find(|root| root.id() == id)
        .ok_or_else(|| Refusal::RootMismatch {
            actual: id.to_owned(),
            expected: roots.iter().map(ExpectedRoot::id).collect::<Vec<_>>().join(", "),
        })
}
