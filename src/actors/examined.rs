//! A request whose signature holds, with everything that later steps ask of it, made once.

use crate::audit::{Entry, Evidence, Kind, Signature};
use crate::authorization::{Authenticated, Invoked, RawRequest, authenticate, authenticate_head};
use crate::identifier::OperationId;
use crate::operation::batch;
use crate::operation::judge::Rules;
use crate::operation::route::Route;
use crate::overload::Class;
use crate::problem::Problem;

/// An authenticated request.
pub struct Examined {
    /// Its signed part, encoded: what travels between nodes.
    pub encoded: Vec<u8>,
    /// SHA-256 of that.
    pub hash: [u8; 32],
    /// What authentication found.
    pub authenticated: Authenticated,
    /// Its route.
    pub route: Route,
}

impl Examined {
    /// Authenticates what a client sent; computes for some 50 us, so never call it on an actor's thread.
    ///
    /// # Errors
    /// The refusal as the client sees it.
    pub fn of_client(request: &RawRequest, rules: &Rules, now: u64) -> Result<Self, Problem> {
        let signed = request.signed_part()?;
        Self::examine(&signed, signed.encode(), rules, now)
    }

    /// Whether the head of a client's request is signed as it must be, so that its body is worth reading.
    ///
    /// # Errors
    /// The refusal as the client sees it.
    pub fn of_head(request: &RawRequest, rules: &Rules, now: u64) -> Result<(), Problem> {
        authenticate_head(request, &rules.policy, now)?;
        Ok(())
    }

    /// The same for what another node forwarded: it is verified as if the client had sent it here.
    ///
    /// # Errors
    /// The refusal as the client would see it.
    pub fn of_node(encoded: Vec<u8>, rules: &Rules, now: u64) -> Result<Self, Problem> {
        let request = RawRequest::decode(&encoded).map_err(|error| Problem::malformed(error.to_string()))?;
        if request.signed_part()? != request {
            return Err(Problem::malformed(
                "A forwarded request carries what its client did not sign.",
            ));
        }
        Self::examine(&request, encoded, rules, now)
    }

    fn examine(request: &RawRequest, encoded: Vec<u8>, rules: &Rules, now: u64) -> Result<Self, Problem> {
        let route = Route::parse(&request.method, &request.target)
            .ok_or_else(|| Problem::new(404, "NotFoundError", "There is no such route."))?;
        let authenticated = authenticate(request, &rules.policy, &rules.chains, now)?;
        let hash = request.hash();
        Ok(Self {
            encoded,
            hash,
            authenticated,
            route,
        })
    }

    /// The items of a batch, each as if it came alone. In place of an encoded request an item has the batch's hash and
    /// its own place: that never travels.
    ///
    /// # Errors
    /// The whole is no batch.
    pub fn items(&self, rules: &Rules) -> Result<Vec<Result<Self, Problem>>, Problem> {
        let Route::Batch(keystore) = &self.route else {
            return Err(Problem::malformed("This request is no batch."));
        };
        let url = format!("{}/kms/keystores/{}", rules.public_url, keystore.text);
        let items = batch::items(&self.authenticated, &rules.public_url, &url)?;
        let examined = |place: u8, item: batch::Item| Self {
            encoded: [&self.hash[..], &[place]].concat(),
            hash: self.hash,
            authenticated: item.authenticated,
            route: item.route,
        };
        let placed = (0..).zip(items);
        Ok(placed
            .map(|(place, item)| item.map(|item| examined(place, item)))
            .collect())
    }

    /// When the request is dead whatever the skew, ms.
    pub fn dead_after(&self) -> u64 {
        self.authenticated
            .expires
            .saturating_add(300)
            .saturating_mul(1_000)
    }

    /// Whether what it asks for is for its client alone: then who shows it claims it first.
    pub fn has_secret_result(&self) -> bool {
        matches!(&*self.authenticated.action, "deriveSecret" | "unwrapKey")
    }

    /// What is given up first under load. Whether a signature is one of a symmetric key its record says later.
    pub fn class(&self) -> Class {
        match (&self.route, &*self.authenticated.action) {
            (Route::UseKey(..), "wrapKey" | "unwrapKey" | "verify") => Class::Symmetric,
            (route, _) => route.class(),
        }
    }

    /// Whether judging it computes (proofs that were not verified before) rather than only compares.
    pub fn is_dear(&self, rules: &Rules) -> bool {
        let unknown = match &self.authenticated.capability {
            Invoked::Root(_) => false,
            Invoked::Delegated(chain) => !rules.chains.knows(chain),
        };
        unknown || matches!(self.route, Route::Revoke(_))
    }

    /// An audit entry about it; the caller adds what it decided.
    pub fn record(&self, kind: Kind, time_ms: u64, operation: OperationId, attempt: u8) -> Entry {
        let mut entry = Entry::new(kind, time_ms, operation);
        entry.attempt = attempt;
        entry.name = self.authenticated.name;
        entry.request = self.hash;
        entry.created = self.authenticated.created;
        entry.expires = self.authenticated.expires;
        entry.evidence = Some(self.evidence());
        entry
    }

    /// The signing string covers the Capability-Invocation header, so the chain is in it.
    fn evidence(&self) -> Evidence {
        Evidence {
            key_id: self.authenticated.key_id.clone(),
            signing_string: self.authenticated.signing_string.clone(),
            signature: Signature(self.authenticated.signature),
            capabilities: Vec::new(),
        }
    }
}
