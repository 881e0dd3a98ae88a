//! Client number n controls the keystore at sequence n and hands it on to client n + 1: whoever has handed it on must
//! never be served again.

use std::cell::RefCell;
use std::collections::HashMap;

use conclave::authorization::issue::{Capability, Delegation, Invocation};
use conclave::authorization::{DidKey, RawRequest, Suite};
use conclave::identifier::LocalId;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

pub(crate) const URL: &str = "https://kms.example";
pub(crate) const AUTHORITY: &str = "kms.example";
/// Unix seconds at the world's beginning.
pub(crate) const BEGINNING: u64 = 1_800_000_000;

thread_local! {
    /// Keys and DIDs of clients: to derive them costs as much as a signature.
    static IDENTITIES: RefCell<HashMap<u64, (SigningKey, String)>> = RefCell::default();
}

fn identity(client: u64) -> (SigningKey, String) {
    let derive = || {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&client.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let did = DidKey::of(&key.verifying_key()).did;
        (key, did)
    };
    IDENTITIES.with_borrow_mut(|known| known.entry(client).or_insert_with(derive).clone())
}

fn key(client: u64) -> SigningKey {
    identity(client).0
}

pub(crate) fn did(client: u64) -> String {
    identity(client).1
}

/// Who gets delegations; never a controller.
pub(crate) const DELEGATE: u64 = 1 << 40;

pub(crate) fn keystore_url(keystore: &LocalId) -> String {
    format!("{URL}/kms/keystores/{keystore}")
}

fn signed(
    client: u64,
    target: &str,
    capability: Capability<'_>,
    action: &str,
    body: &Value,
    now: u64,
) -> RawRequest {
    let body = body.to_string();
    let invocation = Invocation {
        key: &key(client),
        method: "POST",
        authority: AUTHORITY,
        target,
        capability,
        action,
        created: now,
        expires: now + 300,
        body: Some(body.as_bytes()),
    };
    invocation.sign().unwrap()
}

pub(crate) fn create_meter(now: u64) -> RawRequest {
    let body = json!({ "controller": did(0), "product": { "id": "urn:uuid:p" } });
    signed(
        0,
        "/meters",
        Capability::Root(&format!("{URL}/meters")),
        "write",
        &body,
        now,
    )
}

pub(crate) fn create_keystore(meter: &LocalId, now: u64) -> RawRequest {
    let body = json!({ "sequence": 0, "controller": did(0), "meterId": format!("{URL}/meters/{meter}") });
    let root = format!("{URL}/kms/keystores");
    signed(0, "/kms/keystores", Capability::Root(&root), "write", &body, now)
}

/// Hands the keystore from client `sequence - 1` to client `sequence`.
pub(crate) fn hand_on(keystore: &LocalId, sequence: u64, now: u64) -> RawRequest {
    let url = keystore_url(keystore);
    let body = json!({ "id": url, "sequence": sequence, "controller": did(sequence) });
    signed(
        sequence - 1,
        &url[URL.len()..],
        Capability::Root(&url),
        "write",
        &body,
        now,
    )
}

pub(crate) fn generate(keystore: &LocalId, client: u64, now: u64) -> RawRequest {
    let url = keystore_url(keystore);
    let body = json!({ "type": "GenerateKeyOperation", "invocationTarget": { "type": "urn:webkms:multikey:Ed25519" } });
    signed(
        client,
        &format!("{}/keys", &url[URL.len()..]),
        Capability::Root(&url),
        "generateKey",
        &body,
        now,
    )
}

/// How long a delegation is good, seconds.
pub(crate) const DELEGATION: u64 = 3_600;

pub(crate) fn delegate(keystore: &LocalId, client: u64, id: &str, now: u64) -> Value {
    let url = keystore_url(keystore);
    let delegation = Delegation {
        key: &key(client),
        parent: Capability::Root(&url),
        id,
        controllers: &[&did(DELEGATE)],
        target: &url,
        actions: Some(&["sign"]),
        created: now,
        expires: now + DELEGATION,
        suite: Suite::Ed25519Signature2020,
    };
    delegation.sign().unwrap()
}

pub(crate) fn revoke(keystore: &LocalId, client: u64, capability: &Value, now: u64) -> RawRequest {
    let url = keystore_url(keystore);
    let id = conclave::authorization::encode_component(capability["id"].as_str().unwrap());
    let target = format!("{}/zcaps/revocations/{id}", &url[URL.len()..]);
    signed(client, &target, Capability::Root(&url), "write", capability, now)
}

/// A signature by `client`: as controller, or by a delegation.
pub(crate) fn sign(
    keystore: &LocalId,
    key_id: &LocalId,
    client: u64,
    delegated: Option<&Value>,
    nonce: u64,
    now: u64,
) -> RawRequest {
    use base64::Engine;
    let root = keystore_url(keystore);
    let url = format!("{root}/keys/{key_id}");
    let data = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(nonce.to_be_bytes());
    let body = json!({ "type": "SignOperation", "invocationTarget": url, "verifyData": data });
    let capability = delegated.map_or(Capability::Root(&root), Capability::Delegated);
    signed(client, &url[URL.len()..], capability, "sign", &body, now)
}
