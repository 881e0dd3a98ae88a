//! A cluster of real processes with a controller, a keystore and a client for each node, which says what it did and
//! checks what came back.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conclave::client::call::KeyParameters;
use conclave::client::delegation::{self, Delegation};
use conclave::client::{
    Call, Capability, Client, ClientError, Connection, Identity, Limits, Origin, Reply, SignedRequest,
    multikey, tls,
};
use ed25519_dalek::{Signature, VerifyingKey};
use rand::rngs::OsRng;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use x25519_dalek::{PublicKey, StaticSecret};

use super::cluster::{Cluster, Node};
use super::https;

/// The usual type of a key that signs.
pub(crate) const ED25519: &str = "Ed25519VerificationKey2020";
/// The usual type of a key that agrees.
pub(crate) const X25519: &str = "X25519KeyAgreementKey2020";

/// The usual type of a key that makes tags.
pub(crate) const HMAC: &str = "Sha256HmacKey2019";
/// The usual type of a key that wraps.
pub(crate) const KEK: &str = "AesKeyWrappingKey2019";

/// A controller with a keystore, and a client for each node.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) clients: Vec<Client>,
    pub(crate) alice: Identity,
    pub(crate) bob: Identity,
    pub(crate) keystore: String,
}

/// A key as it was acknowledged.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) description: Value,
}

impl World {
    pub(crate) async fn start(nodes: u16) -> World {
        Self::start_with(nodes, &[]).await
    }

    /// The same with further arguments of `conclave dev`.
    pub(crate) async fn start_with(nodes: u16, more: &[&str]) -> World {
        let cluster = Cluster::start(nodes, more).await;
        let clients = clients_of(&cluster);
        let (alice, bob) = (Identity::generate(&mut OsRng), Identity::generate(&mut OsRng));
        let keystore = keystore(&clients[0], &alice).await;
        World {
            cluster,
            clients,
            alice,
            bob,
            keystore,
        }
    }

    /// Clients of their own, one for each node.
    pub(crate) fn new_clients(&self) -> Vec<Client> {
        clients_of(&self.cluster)
    }

    /// A client of its own for a node.
    pub(crate) fn client_of(&self, node: usize) -> Client {
        let address = self.cluster.nodes()[node].https.to_string();
        client(&self.cluster.public_url, &self.cluster.ca(), &[address])
    }

    pub(crate) async fn key(&self, node: usize, key_type: &str) -> Key {
        generate(&self.clients[node], &self.alice, &self.keystore, key_type)
            .await
            .unwrap()
    }

    /// Signs through a node and verifies.
    pub(crate) async fn sign(&self, node: usize, key: &Key) -> Result<(), ClientError> {
        sign(&self.clients[node], &self.alice, key, None).await
    }

    /// Agrees through a node and checks the secret.
    pub(crate) async fn derive(&self, node: usize, key: &Key) -> Result<(), ClientError> {
        derive(&self.clients[node], &self.alice, key).await
    }

    /// Hands the right to sign with a key to Bob.
    pub(crate) fn delegate(&self, key: &Key) -> Capability {
        delegate(&self.alice, &self.bob, key)
    }

    /// Bob signs through a node by a revoked capability: must be refused.
    pub(crate) async fn must_be_revoked(&self, node: usize, key: &Key, capability: &Capability) {
        let used = self.clients[node]
            .sign(&self.bob, &key.id, b"no", Some(capability))
            .await;
        assert_eq!(
            status(&used.unwrap_err()),
            Some(403),
            "a revoked capability at node {node}"
        );
    }

    /// A call signed by Alice as the bytes that are sent, once and for all.
    pub(crate) fn signed(&self, call: &Call) -> SignedRequest {
        let origin = self.clients[0].connection().origin();
        let window = conclave::client::Window::starting_now();
        conclave::client::signer::sign(origin, &self.alice, call, None, window).unwrap()
    }

    /// Sends the same bytes, as often as one likes.
    pub(crate) async fn send(&self, node: usize, request: &SignedRequest) -> Reply {
        self.clients[node].connection().send(request).await.unwrap()
    }

    /// What a node's admin listener tells.
    pub(crate) async fn status(&self, node: usize) -> Value {
        admin_status(&self.cluster.nodes()[node]).await
    }

    /// Waits until a node says by this word how well the cluster is; its concerns.
    pub(crate) async fn is_in_health(&self, node: usize, word: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = https::admin(self.cluster.nodes()[node].admin, "/health").await;
            let answer = answer.unwrap().body;
            let said: Value = serde_json::from_str(&answer).unwrap();
            if said["health"] == word {
                return said["concerns"].to_string();
            }
            assert!(Instant::now() < until, "not {word}: {answer}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Envelopes that a node keeps for members that were away.
    pub(crate) async fn open_envelopes(&self, node: usize) -> u64 {
        self.status(node).await["shares"]["open_envelopes"]
            .as_u64()
            .unwrap()
    }

    /// Which node (from 0) leads most groups, as `asked` sees it.
    pub(crate) async fn leader_of_most(&self, asked: usize) -> usize {
        let status = self.status(asked).await;
        let mut led = vec![0; self.clients.len()];
        for group in status["groups"].as_array().unwrap() {
            if let Some(leader) = group["leader"].as_u64() {
                led[usize::try_from(leader).unwrap() - 1] += 1;
            }
        }
        (0..led.len()).max_by_key(|node| led[*node]).unwrap()
    }
}

impl Key {
    /// By a library that is not ours.
    pub(crate) fn verify(&self, data: &[u8], signature: &[u8]) {
        let multibase = self.description["publicKeyMultibase"].as_str().unwrap();
        let bytes = bs58::decode(&multibase[1..]).into_vec().unwrap();
        let key = VerifyingKey::from_bytes(bytes[2..].try_into().unwrap()).unwrap();
        key.verify_strict(data, &Signature::from_slice(signature).unwrap())
            .unwrap();
    }
}

/// One client for each node.
fn clients_of(cluster: &Cluster) -> Vec<Client> {
    let nodes = cluster.nodes();
    let addresses: Vec<String> = nodes.iter().map(|node| node.https.to_string()).collect();
    clients(&cluster.public_url, &cluster.ca(), &addresses)
}

/// One client for each address.
pub(crate) fn clients(public_url: &str, ca: &Path, addresses: &[String]) -> Vec<Client> {
    let of = |address| client(public_url, ca, std::slice::from_ref(address));
    addresses.iter().map(of).collect()
}

/// A client that knows these addresses.
pub(crate) fn client(public_url: &str, ca: &Path, addresses: &[String]) -> Client {
    let trusted = tls::config(Some(ca)).unwrap();
    let origin = Origin::parse(public_url).unwrap();
    Client::new(Connection::new(origin, addresses, trusted, Limits::default()).unwrap())
}

/// A meter and a keystore on it.
pub(crate) async fn keystore(client: &Client, controller: &Identity) -> String {
    keystore_by(client, controller, controller).await
}

/// The same where only `admin` may create meters.
pub(crate) async fn keystore_by(client: &Client, admin: &Identity, controller: &Identity) -> String {
    let (meter, _) = client
        .create_meter(admin, controller.did(), "urn:uuid:test")
        .await
        .unwrap();
    let controllers = [controller.did().to_owned()];
    let config = client
        .create_keystore(controller, &meter, &controllers, "ssm-v1", &[])
        .await
        .unwrap();
    config["id"].as_str().unwrap().to_owned()
}

/// What a key of this type is made with.
pub(crate) fn of_type(key_type: &str) -> KeyParameters {
    KeyParameters {
        key_type: key_type.to_owned(),
        ..KeyParameters::default()
    }
}

/// Generates a key.
pub(crate) async fn generate(
    client: &Client,
    controller: &Identity,
    keystore: &str,
    key_type: &str,
) -> Result<Key, ClientError> {
    let made = client
        .generate_key(controller, keystore, &of_type(key_type), None)
        .await?;
    Ok(Key {
        id: made.key_id,
        description: made.key_description,
    })
}

/// Signs something new and verifies the signature.
pub(crate) async fn sign(
    client: &Client,
    signer: &Identity,
    key: &Key,
    capability: Option<&Capability>,
) -> Result<(), ClientError> {
    let data = rand::random::<[u8; 32]>();
    let signature = client.sign(signer, &key.id, &data, capability).await?;
    key.verify(&data, &signature);
    Ok(())
}

/// Agrees with a new key of another's and checks the secret by that one. What is sent is never the same twice: the same bytes
/// through another node within a second are a replay.
pub(crate) async fn derive(client: &Client, controller: &Identity, key: &Key) -> Result<(), ClientError> {
    let own = StaticSecret::random_from_rng(OsRng);
    let public = multikey::encode(multikey::X25519_PUBLIC, PublicKey::from(&own).as_bytes());
    let secret = client
        .derive_secret(controller, &key.id, X25519, &public, None)
        .await?;
    let theirs = key.description["publicKeyMultibase"].as_str().unwrap();
    let theirs = multikey::decode(multikey::X25519_PUBLIC, theirs).unwrap();
    assert_eq!(secret[..], own.diffie_hellman(&theirs.into()).as_bytes()[..]);
    Ok(())
}

/// Longest wait for what a moment without a leader may keep from being served.
const SOON: Duration = Duration::from_secs(30);

/// Does it again while nobody can serve it.
pub(crate) async fn served<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> T {
    let until = Instant::now() + SOON;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert_eq!(status(&error), Some(503), "{error}");
                assert!(Instant::now() < until, "{error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A capability to sign with a key.
pub(crate) fn delegate(from: &Identity, to: &Identity, key: &Key) -> Capability {
    let delegation = Delegation {
        id: delegation::new_id(&mut OsRng),
        target: key.id.clone(),
        controller: to.did().to_owned(),
        actions: vec!["sign".into()],
        expires: now() + 3_600,
        parent: None,
    };
    delegation.sign(from, now()).unwrap()
}

/// What a node's admin listener tells.
pub(crate) async fn admin_status(node: &Node) -> Value {
    let answer = https::admin(node.admin, "/status").await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The HTTP status of a refusal.
pub(crate) fn status(refused: &ClientError) -> Option<u16> {
    match refused {
        ClientError::Refused(refusal) => Some(refusal.status),
        _ => None,
    }
}
