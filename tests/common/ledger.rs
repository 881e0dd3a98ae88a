//! What a client was promised: every acknowledged key and revocation, kept outside the cluster and held against it.
//!
//! Calls may fail, as faults will have it; what succeeded must hold ever after, on every node.

use std::time::Duration;

use conclave::client::{Capability, Client, ClientError, Identity};
use tokio::time::{Instant, sleep};

use super::world::{self, ED25519, Key};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);

/// The one identity that may create meters and has the keystore.
pub(crate) fn controller() -> Identity {
    Identity::from_seed(&[11; 32])
}

/// A controller's keystore and what was acknowledged of it.
pub(crate) struct Ledger {
    pub(crate) alice: Identity,
    bob: Identity,
    pub(crate) keystore: String,
    pub(crate) keys: Vec<Key>,
    revoked: Vec<(Key, Capability)>,
}

/// What an attempt may take until it must have succeeded.
pub(crate) async fn retried<T, F: Future<Output = Result<T, ClientError>>>(
    within: Duration,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + within;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < until, "{what}: {error}"),
        }
        sleep(AGAIN).await;
    }
}

/// Whether a call was refused as not possible now, or not answered: nothing that a client could take for a success.
pub(crate) fn is_not_now(error: &ClientError) -> bool {
    match world::status(error) {
        Some(status) => status == 503,
        None => !matches!(error, ClientError::Unexpected(_)),
    }
}

impl Ledger {
    /// A keystore made through this client.
    pub(crate) async fn of(client: &Client) -> Ledger {
        let alice = controller();
        Ledger {
            bob: Identity::from_seed(&[12; 32]),
            keystore: world::keystore(client, &alice).await,
            alice,
            keys: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// A new key, entered once it is acknowledged.
    pub(crate) async fn make(&mut self, client: &Client) -> Result<Key, ClientError> {
        self.make_of(client, ED25519).await
    }

    /// The same of another type.
    pub(crate) async fn make_of(&mut self, client: &Client, key_type: &str) -> Result<Key, ClientError> {
        let key = world::generate(client, &self.alice, &self.keystore, key_type).await?;
        if key_type == ED25519 {
            self.keys.push(key.clone());
        }
        Ok(key)
    }

    /// A signature by the last key, verified.
    pub(crate) async fn sign(&self, client: &Client) -> Result<(), ClientError> {
        let key = self.keys.last().unwrap();
        world::sign(client, &self.alice, key, None).await
    }

    /// Delegates the last key, uses it, revokes it; entered once that is acknowledged.
    pub(crate) async fn revoke(&mut self, client: &Client) -> Result<(), ClientError> {
        let key = self.keys.last().unwrap().clone();
        let capability = world::delegate(&self.alice, &self.bob, &key);
        world::sign(client, &self.bob, &key, Some(&capability)).await?;
        client.revoke(&self.alice, &capability).await?;
        self.revoked.push((key, capability));
        Ok(())
    }

    /// A key, a signature by it, a delegation, its revocation: some of it may have been acknowledged even if not all was.
    pub(crate) async fn turn(&mut self, client: &Client) -> Result<(), ClientError> {
        self.make(client).await?;
        self.sign(client).await?;
        self.revoke(client).await
    }

    /// What must be true whatever happens: if a revoked capability is answered at all, it is refused.
    pub(crate) async fn nothing_revoked_is_accepted(&self, client: &Client) {
        if let Some((key, capability)) = self.revoked.last() {
            let used = client.sign(&self.bob, &key.id, b"no", Some(capability)).await;
            assert!(used.is_err(), "a revoked capability was accepted");
        }
    }

    /// Everything acknowledged is there on the node behind the client, and nothing revoked is accepted.
    pub(crate) async fn holds_at(&self, client: &Client) {
        for key in &self.keys {
            let found = client.get_key(&self.alice, &key.id, None).await.unwrap();
            assert_eq!(found, key.description);
            world::sign(client, &self.alice, key, None).await.unwrap();
        }
        for (key, capability) in &self.revoked {
            let used = client.sign(&self.bob, &key.id, b"no", Some(capability)).await;
            assert_eq!(world::status(&used.unwrap_err()), Some(403));
        }
    }
}
