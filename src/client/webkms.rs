//! A client of one server: an identity's calls, signed now and sent, with answers in types.
//!
//! Every method signs with the system's clock for six to ten minutes, no two calls for the same time. `capability` is a delegated
//! capability to invoke instead of the keystore's root.

use crate::client::call::{Call, KeyParameters};
use crate::client::capability::Capability;
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::identity::Identity;
use crate::client::reply::{Refusal, Reply};
use crate::client::signer::{self, Window};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// A WebKMS server and the way to it.
pub struct Client {
    connection: Connection,
    /// Calls so far, from a random start: each is signed for a window of another length.
    calls: AtomicU64,
}

/// How many lengths of windows there are, one second apart.
const LENGTHS: u64 = 240;

/// A new key.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedKey {
    /// The key's URL, by which it is used.
    pub key_id: String,
    /// Its public description: `id`, `type`, `controller` and the public key.
    pub key_description: Value,
}

#[derive(Deserialize)]
struct Metered {
    meter: Meter,
}

/// A new meter, as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Meter {
    /// Its local id, not a URL.
    pub id: String,
    /// The meter as the server wrote it, `id` apart.
    #[serde(flatten)]
    pub rest: Value,
}

#[derive(Deserialize)]
struct Listed {
    results: Vec<Value>,
}

#[derive(Deserialize)]
struct Updated {
    config: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    signature_value: String,
}

#[derive(Deserialize)]
struct Derived {
    secret: String,
}

impl Client {
    /// A client over `connection`.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            calls: AtomicU64::new(rand::random::<u32>().into()),
        }
    }

    /// The way to the server.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Signs and sends `call`; a reply that is not 2xx is an error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invoke(
        &self,
        identity: &Identity,
        call: &Call,
        capability: Option<&Capability>,
    ) -> Result<Reply, ClientError> {
        let origin = self.connection.origin();
        let request = signer::sign(origin, identity, call, capability, self.window())?;
        succeeded(self.connection.send(&request).await?)
    }

    /// The same, asking for a receipt; with the name that the cluster gives to the request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invoke_for_receipt(
        &self,
        identity: &Identity,
        call: &Call,
        capability: Option<&Capability>,
    ) -> Result<(Reply, [u8; 32]), ClientError> {
        let origin = self.connection.origin();
        let (request, name) = signer::sign_for_receipt(origin, identity, call, capability, self.window())?;
        Ok((succeeded(self.connection.send(&request).await?)?, name))
    }

    /// The same call twice in a second would be the same bytes, which servers may take for a repetition.
    fn window(&self) -> Window {
        let shorter = self.calls.fetch_add(1, Ordering::Relaxed) % LENGTHS;
        Window::starting_now().shortened(shorter)
    }

    /// Creates a meter; returns its absolute URL, which is what keystores are created with, and the meter.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_meter(
        &self,
        identity: &Identity,
        controller: &str,
        product: &str,
    ) -> Result<(String, Meter), ClientError> {
        let origin = self.connection.origin();
        let reply = self
            .invoke(identity, &Call::create_meter(origin, controller, product), None)
            .await?;
        let Metered { meter } = parse(&reply)?;
        let url = reply
            .location
            .unwrap_or_else(|| origin.url(&format!("/meters/{}", meter.id)));
        Ok((url, meter))
    }

    /// Creates a keystore under `meter`, whose controller `identity` must be; returns its configuration.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_keystore(
        &self,
        identity: &Identity,
        meter: &str,
        controllers: &[String],
        module: &str,
        allow: &[String],
    ) -> Result<Value, ClientError> {
        let call = Call::create_keystore(self.connection.origin(), meter, controllers, module, allow);
        self.fetch(identity, &call, None).await
    }

    /// The configurations of a controller's keystores, at most 100.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_keystores(
        &self,
        identity: &Identity,
        controller: &str,
    ) -> Result<Vec<Value>, ClientError> {
        let call = Call::list_keystores(self.connection.origin(), controller);
        let Listed { results } = self.fetch(identity, &call, None).await?;
        Ok(results)
    }

    /// A keystore's configuration.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_keystore(
        &self,
        identity: &Identity,
        keystore: &str,
        capability: Option<&Capability>,
    ) -> Result<Value, ClientError> {
        self.fetch(identity, &Call::get_keystore(keystore), capability)
            .await
    }

    /// Replaces a keystore's configuration; its `sequence` must be one more than the stored one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update_keystore(
        &self,
        identity: &Identity,
        keystore: &str,
        config: &Value,
        capability: Option<&Capability>,
    ) -> Result<Value, ClientError> {
        let Updated { config } = self
            .fetch(identity, &Call::update_keystore(keystore, config), capability)
            .await?;
        Ok(config)
    }

    /// Generates a key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn generate_key(
        &self,
        identity: &Identity,
        keystore: &str,
        parameters: &KeyParameters,
        capability: Option<&Capability>,
    ) -> Result<GeneratedKey, ClientError> {
        self.fetch(identity, &Call::generate_key(keystore, parameters), capability)
            .await
    }

    /// A key's public description.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_key(
        &self,
        identity: &Identity,
        key: &str,
        capability: Option<&Capability>,
    ) -> Result<Value, ClientError> {
        self.fetch(identity, &Call::get_key(key), capability).await
    }

    /// Signs `data`; returns the raw signature.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sign(
        &self,
        identity: &Identity,
        key: &str,
        data: &[u8],
        capability: Option<&Capability>,
    ) -> Result<Vec<u8>, ClientError> {
        let reply = self.invoke(identity, &Call::sign(key, data), capability).await?;
        signature(&reply)
    }

    /// Whether `tag` is that of `data` under an HMAC key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn verify(
        &self,
        identity: &Identity,
        key: &str,
        (data, tag): (&[u8], &[u8]),
        capability: Option<&Capability>,
    ) -> Result<bool, ClientError> {
        let reply = self
            .invoke(identity, &Call::verify(key, data, tag), capability)
            .await?;
        verified(&reply)
    }

    /// Wraps a payload of 16 bytes or more, in steps of 8 (RFC 3394).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn wrap_key(
        &self,
        identity: &Identity,
        key: &str,
        payload: &[u8],
        capability: Option<&Capability>,
    ) -> Result<Vec<u8>, ClientError> {
        let reply = self
            .invoke(identity, &Call::wrap_key(key, payload), capability)
            .await?;
        wrapped(&reply)
    }

    /// The payload of a wrap; none if this key has not wrapped that.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unwrap_key(
        &self,
        identity: &Identity,
        key: &str,
        wrapped: &[u8],
        capability: Option<&Capability>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, ClientError> {
        let reply = self
            .invoke(identity, &Call::unwrap_key(key, wrapped), capability)
            .await?;
        unwrapped(&reply)
    }

    /// Signs several things in one request, an extension of this cluster's; one answer for each, in order.
    ///
    /// # Errors
    /// [`ClientError`] for the whole; each item has its own refusal.
    pub async fn sign_batch(
        &self,
        identity: &Identity,
        keystore: &str,
        items: &[(&str, &[u8])],
        capability: Option<&Capability>,
    ) -> Result<Vec<Result<Vec<u8>, Refusal>>, ClientError> {
        let call = Call::sign_batch(keystore, items);
        let reply = self.invoke(identity, &call, capability).await?;
        let answers = each(&reply)?;
        if answers.len() != items.len() {
            return Err(ClientError::Unexpected(
                "a batch has another number of answers".to_owned(),
            ));
        }
        let signature = |answer: &Reply| match answer.is_success() {
            true => signature(answer).map(Ok),
            false => Ok(Err(answer.refusal())),
        };
        answers.iter().map(signature).collect()
    }

    /// Derives the secret that `key` shares with the other side's public key; raw bytes, not yet a key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn derive_secret(
        &self,
        identity: &Identity,
        key: &str,
        public_type: &str,
        public_key: &str,
        capability: Option<&Capability>,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let call = Call::derive_secret(key, public_type, public_key);
        let reply = self.invoke(identity, &call, capability).await?;
        secret(&reply)
    }

    /// Revokes a delegated capability; any controller in its chain may. A capability that is revoked already is
    /// an error, see [`crate::client::Refusal::is_already_revoked`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke(&self, identity: &Identity, revoked: &Capability) -> Result<Reply, ClientError> {
        self.invoke(identity, &Call::revoke(revoked), None).await
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        identity: &Identity,
        call: &Call,
        capability: Option<&Capability>,
    ) -> Result<T, ClientError> {
        parse(&self.invoke(identity, call, capability).await?)
    }
}

fn succeeded(reply: Reply) -> Result<Reply, ClientError> {
    match reply.is_success() {
        true => Ok(reply),
        false => Err(ClientError::Refused(Box::new(reply.refusal()))),
    }
}

/// The raw signature in the reply to a SignOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn signature(reply: &Reply) -> Result<Vec<u8>, ClientError> {
    let Signed { signature_value } = parse(reply)?;
    decode(&signature_value)
}

/// The verdict in the reply to a VerifyOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn verified(reply: &Reply) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    struct Verified {
        verified: bool,
    }
    let Verified { verified } = parse(reply)?;
    Ok(verified)
}

/// The wrap in the reply to a WrapKeyOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn wrapped(reply: &Reply) -> Result<Vec<u8>, ClientError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        wrapped_key: String,
    }
    let Wrapped { wrapped_key } = parse(reply)?;
    decode(&wrapped_key)
}

/// The payload in the reply to an UnwrapKeyOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn unwrapped(reply: &Reply) -> Result<Option<Zeroizing<Vec<u8>>>, ClientError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Unwrapped {
        unwrapped_key: Option<String>,
    }
    let Unwrapped { unwrapped_key } = parse(reply)?;
    let payload = unwrapped_key.map(Zeroizing::new);
    payload.map(|text| decode(&text).map(Zeroizing::new)).transpose()
}

/// The answers to a batch, each as the reply that it would be alone.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn each(reply: &Reply) -> Result<Vec<Reply>, ClientError> {
    #[derive(Deserialize)]
    struct Each {
        status: u16,
        body: Value,
    }
    let answers: Vec<Each> = parse(reply)?;
    let alone = |answer: Each| {
        let status = StatusCode::from_u16(answer.status);
        Ok(Reply {
            status: status.map_err(|_| ClientError::Unexpected("a status that is none".to_owned()))?,
            location: None,
            retry_after: None,
            request_id: reply.request_id.clone(),
            notice: None,
            receipt: None,
            body: Bytes::from(answer.body.to_string()),
            endpoint: reply.endpoint.clone(),
        })
    };
    answers.into_iter().map(alone).collect()
}

/// The raw secret in the reply to a DeriveSecretOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn secret(reply: &Reply) -> Result<Zeroizing<Vec<u8>>, ClientError> {
    let Derived { secret } = parse(reply)?;
    let secret = Zeroizing::new(secret);
    decode(&secret).map(Zeroizing::new)
}

fn decode(text: &str) -> Result<Vec<u8>, ClientError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| ClientError::Unexpected("it is not base64url".to_owned()))
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T, ClientError> {
    reply
        .json()
        .map_err(|error| ClientError::Unexpected(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::Client;
    use crate::client::call::KeyParameters;
    use crate::client::delegation::{self, Delegation};
    use crate::client::double::Kms;
    use crate::client::multikey::{self, ED25519_PUBLIC, X25519_PUBLIC};
    use crate::client::signer::unix_seconds;
    use crate::client::testing::Server;
    use crate::client::{Connection, Identity, Limits, Origin, tls};
    use rand::rngs::OsRng;
    use x25519_dalek::{PublicKey, StaticSecret};

    /// Every call of the protocol against a server that verifies as ours does.
    #[tokio::test]
    async fn the_life_of_a_keystore() {
        let kms = Kms::new("kms.test:8443", 0);
        let server = Server::start("kms.test", move |request| kms.answer(&request)).await;
        let origin = Origin::parse("https://kms.test:8443").unwrap();
        let trusted = tls::config(Some(&server.ca())).unwrap();
        let client =
            Client::new(Connection::new(origin, &[server.address()], trusted, Limits::default()).unwrap());
        let [alice, bob] = [1, 2].map(|n| Identity::from_seed(&[n; 32]));

        let (meter, _) = client
            .create_meter(&alice, alice.did(), "urn:uuid:1")
            .await
            .unwrap();
        let owners = [alice.did().to_owned()];
        let config = client
            .create_keystore(&alice, &meter, &owners, "ssm-v1", &[])
            .await
            .unwrap();
        let keystore = config["id"].as_str().unwrap();
        assert_eq!(client.get_keystore(&alice, keystore, None).await.unwrap(), config);
        assert_eq!(
            client.list_keystores(&alice, alice.did()).await.unwrap(),
            std::slice::from_ref(&config)
        );
        assert_eq!(
            client
                .get_keystore(&bob, keystore, None)
                .await
                .unwrap_err()
                .refusal()
                .unwrap()
                .status,
            403
        );

        let wanted = |key_type: &str| KeyParameters {
            key_type: key_type.to_owned(),
            ..Default::default()
        };
        let ed = wanted("Ed25519VerificationKey2020");
        let key = client.generate_key(&alice, keystore, &ed, None).await.unwrap();
        assert_eq!(
            client.get_key(&alice, &key.key_id, None).await.unwrap(),
            key.key_description
        );
        let signature = client.sign(&alice, &key.key_id, b"hello", None).await.unwrap();
        let public = key.key_description["publicKeyMultibase"].as_str().unwrap();
        let public = multikey::decode(ED25519_PUBLIC, public).unwrap();
        let verifier = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public);
        verifier.verify(b"hello", &signature).unwrap();

        let x = wanted("X25519KeyAgreementKey2020");
        let agreeing = client.generate_key(&alice, keystore, &x, None).await.unwrap();
        let own = StaticSecret::random_from_rng(OsRng);
        let own_public = multikey::encode(X25519_PUBLIC, PublicKey::from(&own).as_bytes());
        let secret = client
            .derive_secret(&alice, &agreeing.key_id, &x.key_type, &own_public, None)
            .await
            .unwrap();
        let theirs = agreeing.key_description["publicKeyMultibase"].as_str().unwrap();
        let theirs = PublicKey::from(multikey::decode(X25519_PUBLIC, theirs).unwrap());
        assert_eq!(own.diffie_hellman(&theirs).as_bytes()[..], secret[..]);

        let capability = Delegation {
            id: delegation::new_id(&mut OsRng),
            target: key.key_id.clone(),
            controller: bob.did().to_owned(),
            actions: vec!["sign".to_owned()],
            expires: unix_seconds() + 600,
            parent: None,
        }
        .sign(&alice, unix_seconds())
        .unwrap();
        assert!(client.sign(&bob, &key.key_id, b"bob", None).await.is_err());
        let signature = client
            .sign(&bob, &key.key_id, b"bob", Some(&capability))
            .await
            .unwrap();
        verifier.verify(b"bob", &signature).unwrap();
        client.revoke(&bob, &capability).await.unwrap();
        let refused = client
            .sign(&bob, &key.key_id, b"again", Some(&capability))
            .await
            .unwrap_err();
        assert!(refused.refusal().unwrap().says_revoked(), "{refused}");
        let refused = client.revoke(&alice, &capability).await.unwrap_err();
        assert!(refused.refusal().unwrap().is_already_revoked(), "{refused}");

        let mut changed = config.clone();
        changed["sequence"] = 1.into();
        changed["controller"] = bob.did().into();
        assert_eq!(
            client
                .update_keystore(&alice, keystore, &changed, None)
                .await
                .unwrap(),
            changed
        );
        assert!(client.sign(&alice, &key.key_id, b"late", None).await.is_err());
        client.sign(&bob, &key.key_id, b"mine now", None).await.unwrap();
    }
}
