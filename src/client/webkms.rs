//! A client of one server: an identity's calls, signed now and sent, with answers in types.
//!
//! Every method signs with the system's clock for ten minutes, as the npm client does. `capability` is a delegated
//! capability to invoke instead of the keystore's root.

use crate::client::call::{Call, KeyParameters};
use crate::client::capability::Capability;
use crate::client::connection::Connection;
use crate::client::error::ClientError;
use crate::client::identity::Identity;
use crate::client::reply::Reply;
use crate::client::signer::{self, Window};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

/// A WebKMS server and the way to it.
pub struct Client {
    connection: Connection,
}

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
        Self { connection }
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
        self.invoke_within(identity, call, capability, Window::starting_now()).await
    }

    /// The same, signed for a window of the caller's choice.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invoke_within(
        &self,
        identity: &Identity,
        call: &Call,
        capability: Option<&Capability>,
        window: Window,
    ) -> Result<Reply, ClientError> {
        let request = signer::sign(self.connection.origin(), identity, call, capability, window)?;
        let reply = self.connection.send(&request).await?;
        if reply.is_success() { Ok(reply) } else { Err(ClientError::Refused(Box::new(reply.refusal()))) }
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
        let reply = self.invoke(identity, &Call::create_meter(origin, controller, product), None).await?;
        let Metered { meter } = parse(&reply)?;
        let url = reply.location.unwrap_or_else(|| origin.url(&format!("/meters/{}", meter.id)));
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
        self.fetch(identity, &Call::get_keystore(keystore), capability).await
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
        let Updated { config } =
            self.fetch(identity, &Call::update_keystore(keystore, config), capability).await?;
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
        self.fetch(identity, &Call::generate_key(keystore, parameters), capability).await
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

/// The raw signature in the reply to a SignOperation.
///
/// # Errors
/// [`ClientError::Unexpected`].
pub fn signature(reply: &Reply) -> Result<Vec<u8>, ClientError> {
    let Signed { signature_value } = parse(reply)?;
    decode(&signature_value)
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
    URL_SAFE_NO_PAD.decode(text).map_err(|_| ClientError::Unexpected("it is not base64url".to_owned()))
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T, ClientError> {
    reply.json().map_err(|error| ClientError::Unexpected(error.to_string()))
}
