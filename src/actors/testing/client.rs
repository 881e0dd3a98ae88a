//! A client: an identity, the requests that it signs, and what it makes on a cluster.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use rand::rngs::OsRng;
use serde_json::{Value, json};

use super::cluster::{AUTHORITY, Cluster, Node, URL};
use crate::actors::parts::Parts;
use crate::authorization::issue::{Capability, Delegation, Invocation};
use crate::authorization::{DidKey, RawRequest, Suite, encode_component};
use crate::identifier::LocalId;
use crate::problem::Problem;
use crate::reply::Reply;

/// An identity.
pub(super) struct Client {
    pub(super) key: SigningKey,
    pub(super) did: String,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    Parts::system_ms() / 1_000
}

impl Client {
    pub(super) fn new() -> Self {
        let key = SigningKey::generate(&mut OsRng);
        let did = DidKey::of(&key.verifying_key()).did;
        Self { key, did }
    }

    /// A signed request that was made `age` seconds ago.
    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        (capability, action): (Capability<'_>, &str),
        body: Option<&Value>,
        age: u64,
    ) -> RawRequest {
        let body = body.map(Value::to_string);
        let created = now() - age;
        let invocation = Invocation {
            key: &self.key,
            method,
            authority: AUTHORITY,
            target: path,
            capability,
            action,
            created,
            expires: created + 300,
            body: body.as_deref().map(str::as_bytes),
        };
        invocation.sign().unwrap()
    }

    /// A meter and a keystore on it, made through `node`.
    pub(super) async fn keystore(&self, node: &Node) -> Keystore {
        self.keystore_of(node, json!(self.did)).await
    }

    /// A keystore with these controllers.
    pub(super) async fn keystore_of(&self, node: &Node, controller: Value) -> Keystore {
        let meters = format!("{URL}/meters");
        let body = json!({ "controller": self.did, "product": { "id": "urn:uuid:test" } });
        let invoked = (Capability::Root(&meters), "write");
        let request = self.request("POST", "/meters", invoked, Some(&body), 0);
        let made = node.serve(request).await.unwrap();
        let meter = made.body.unwrap()["meter"]["id"].as_str().unwrap().to_owned();

        let keystores = format!("{URL}/kms/keystores");
        let meter = format!("{URL}/meters/{meter}");
        let body = json!({ "controller": controller, "sequence": 0, "meterId": meter });
        let invoked = (Capability::Root(&keystores), "write");
        let request = self.request("POST", "/kms/keystores", invoked, Some(&body), 0);
        let made = node.serve(request).await.unwrap();
        assert_eq!(made.status, 201);
        let url = made.location.unwrap();
        let path = url.strip_prefix(URL).unwrap().to_owned();
        let id = LocalId::parse(path.rsplit('/').next().unwrap()).unwrap();
        Keystore { url, path, id, meter }
    }

    /// The request for a new key of this type. `salt` makes it another one within the same second.
    pub(super) fn generate(&self, keystore: &Keystore, key_type: &str, salt: &str) -> RawRequest {
        let mut target = json!({ "type": key_type });
        if !salt.is_empty() {
            target["publicAlias"] = json!(format!("urn:{salt}"));
        }
        let body = json!({ "type": "GenerateKeyOperation", "invocationTarget": target });
        let path = format!("{}/keys", keystore.path);
        let invoked = (Capability::Root(&keystore.url), "generateKey");
        self.request("POST", &path, invoked, Some(&body), 0)
    }

    /// A new key, made through `node`.
    pub(super) async fn key(&self, node: &Node, keystore: &Keystore, key_type: &str) -> Key {
        static SALT: AtomicU64 = AtomicU64::new(0);
        let salt = format!("key-{}", SALT.fetch_add(1, Ordering::Relaxed));
        let request = self.generate(keystore, key_type, &salt);
        Key::of(&node.serve(request).await.unwrap())
    }

    /// The next configuration of a keystore, with these controllers.
    pub(super) fn update(&self, keystore: &Keystore, sequence: u64, controllers: &Value) -> RawRequest {
        let body = json!({
            "id": keystore.url, "controller": controllers, "sequence": sequence, "meterId": keystore.meter,
        });
        let invoked = (Capability::Root(&keystore.url), "write");
        self.request("POST", &keystore.path, invoked, Some(&body), 0)
    }

    /// Delegates a key for signing.
    pub(super) fn delegate(&self, keystore: &Keystore, key: &Key, to: &Client, id: &str) -> Value {
        let delegation = Delegation {
            key: &self.key,
            parent: Capability::Root(&keystore.url),
            id,
            controllers: &[&to.did],
            target: &key.url,
            actions: Some(&["sign"]),
            created: now(),
            expires: now() + 3_600,
            suite: Suite::Ed25519Signature2020,
        };
        delegation.sign().unwrap()
    }

    /// Revokes a capability.
    pub(super) fn revoke(&self, keystore: &Keystore, capability: &Value) -> RawRequest {
        let id = encode_component(capability["id"].as_str().unwrap());
        let path = format!("{}/zcaps/revocations/{id}", keystore.path);
        let invoked = (Capability::Root(&keystore.url), "write");
        self.request("POST", &path, invoked, Some(capability), 0)
    }

    /// The request for a signature by the controller.
    pub(super) fn sign(&self, keystore: &Keystore, key: &Key, message: &[u8]) -> RawRequest {
        self.sign_by(Capability::Root(&keystore.url), key, message, 0)
    }

    /// The request for a signature, made `age` seconds ago.
    pub(super) fn sign_by(
        &self,
        capability: Capability<'_>,
        key: &Key,
        message: &[u8],
        age: u64,
    ) -> RawRequest {
        let data = URL_SAFE_NO_PAD.encode(message);
        let body = json!({ "type": "SignOperation", "invocationTarget": key.url, "verifyData": data });
        self.request("POST", &key.path, (capability, "sign"), Some(&body), age)
    }

    /// The request for a secret shared with the holder of `peer`.
    pub(super) fn derive(
        &self,
        keystore: &Keystore,
        key: &Key,
        peer: &x25519_dalek::PublicKey,
    ) -> RawRequest {
        let multibase = bs58::encode([&[0xec, 0x01][..], peer.as_bytes()].concat()).into_string();
        let body = json!({
            "type": "DeriveSecretOperation",
            "invocationTarget": key.url,
            "publicKey": { "type": "X25519KeyAgreementKey2020", "publicKeyMultibase": format!("z{multibase}") },
        });
        let invoked = (Capability::Root(&keystore.url), "deriveSecret");
        self.request("POST", &key.path, invoked, Some(&body), 0)
    }
}

/// A keystore as its client knows it.
pub(super) struct Keystore {
    pub(super) url: String,
    pub(super) path: String,
    pub(super) id: LocalId,
    pub(super) meter: String,
}

/// A key as its client knows it.
pub(super) struct Key {
    pub(super) url: String,
    pub(super) path: String,
    pub(super) id: LocalId,
    pub(super) public: [u8; 32],
}

impl Key {
    /// The key that a reply describes.
    pub(super) fn of(reply: &Reply) -> Self {
        let body = reply.body.as_ref().unwrap();
        let url = body["keyId"].as_str().unwrap().to_owned();
        let multibase = body["keyDescription"]["publicKeyMultibase"].as_str().unwrap();
        let bytes = bs58::decode(&multibase[1..]).into_vec().unwrap();
        let path = url.strip_prefix(URL).unwrap().to_owned();
        let id = LocalId::parse(path.rsplit('/').next().unwrap()).unwrap();
        let public = bytes[2..].try_into().unwrap();
        Self {
            url,
            path,
            id,
            public,
        }
    }

    /// Whether a reply is a signature of this key over `message`.
    pub(super) fn verifies(&self, message: &[u8], reply: &Reply) -> bool {
        let value = reply.body.as_ref().unwrap()["signatureValue"].as_str().unwrap();
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(value).unwrap()).unwrap();
        let key = VerifyingKey::from_bytes(&self.public).unwrap();
        key.verify_strict(message, &signature).is_ok()
    }
}

/// Signs through a node and checks the signature.
pub(super) async fn sign_well(node: &Node, client: &Client, keystore: &Keystore, key: &Key, message: &[u8]) {
    let reply = node.serve(client.sign(keystore, key, message)).await.unwrap();
    assert!(
        key.verifies(message, &reply),
        "a wrong signature left node {}",
        node.parts.node
    );
}

/// Derives through a node and compares with the other side's own computation.
pub(super) async fn derive_well(node: &Node, client: &Client, keystore: &Keystore, key: &Key) {
    let other = x25519_dalek::StaticSecret::random_from_rng(OsRng);
    let request = client.derive(keystore, key, &x25519_dalek::PublicKey::from(&other));
    let reply = node.serve(request).await.unwrap();
    let secret = reply.body.unwrap()["secret"].as_str().unwrap().to_owned();
    let theirs = other.diffie_hellman(&x25519_dalek::PublicKey::from(key.public));
    assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap(), theirs.as_bytes());
}

/// A client with a keystore, a signing key and an agreement key, on a fresh cluster of `n`.
pub(super) async fn furnished(n: u64) -> (Cluster, Client, Keystore, Key, Key) {
    furnished_in(Cluster::start(n).await).await
}

/// The same on a cluster that is there.
pub(super) async fn furnished_in(cluster: Cluster) -> (Cluster, Client, Keystore, Key, Key) {
    let client = Client::new();
    let keystore = client.keystore(cluster.node(1)).await;
    let signing = client.key(cluster.node(1), &keystore, ED25519).await;
    let agreement = client.key(cluster.node(1), &keystore, X25519).await;
    cluster.catch_up(&keystore.id).await;
    (cluster, client, keystore, signing, agreement)
}

pub(super) const ED25519: &str = "Ed25519VerificationKey2020";
pub(super) const X25519: &str = "X25519KeyAgreementKey2020";

/// The status that a client sees.
pub(super) fn status(served: &Result<Reply, Problem>) -> u16 {
    match served {
        Ok(reply) => reply.status,
        Err(problem) => problem.status,
    }
}
