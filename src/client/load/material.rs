//! What a run of load needs before it starts: identity, meter, keystore, keys and a delegation. Not counted.

use super::Scenario;
use crate::client::call::KeyParameters;
use crate::client::capability::Capability;
use crate::client::delegation::{self, Delegation};
use crate::client::error::ClientError;
use crate::client::identity::Identity;
use crate::client::multikey::{self, ED25519_PUBLIC, X25519_PUBLIC};
use crate::client::signer;
use crate::client::webkms::{Client, GeneratedKey};
use rand::rngs::OsRng;
use serde_json::Value;

/// Meters of load are made for this product.
const PRODUCT: &str = "urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41";

/// The module that keeps the keys, by the name that every WebKMS server so far gives it.
const MODULE: &str = "ssm-v1";

/// Keystores whose configuration changes in turn: between two changes of one lie as many requests of others.
const CHANGED: usize = 64;

/// A key that a run uses.
pub(super) struct Key {
    /// URL.
    pub(super) id: String,
    /// `publicKeyMultibase`.
    pub(super) public_text: String,
    /// The same, decoded.
    pub(super) public: [u8; 32],
    /// Capability of the one who invokes, when that is not the controller.
    pub(super) capability: Option<Capability>,
    /// Of a symmetric key: what it was used on once, and what came of it. It must come of it every time.
    pub(super) sample: Sample,
}

/// A payload and its tag or its wrap.
#[derive(Default)]
pub(super) struct Sample {
    pub(super) payload: [u8; 32],
    pub(super) result: Vec<u8>,
}

/// Everything that requests are made from.
pub(super) struct Material {
    pub(super) scenario: Scenario,
    /// Who signs the requests.
    pub(super) invoker: Identity,
    pub(super) keystore: String,
    /// At least one, but for the scenarios that use none.
    pub(super) keys: Vec<Key>,
    /// Configurations of keystores of their own, for the scenario that changes them.
    pub(super) changed: Vec<Value>,
}

impl Scenario {
    /// The type of the keys that it uses or generates, with the header of their public keys.
    pub(super) fn key_type(self) -> (&'static str, Option<[u8; 2]>) {
        match self {
            Self::Derive => ("X25519KeyAgreementKey2020", Some(X25519_PUBLIC)),
            Self::Hmac | Self::HmacVerify => ("Sha256HmacKey2019", None),
            Self::Wrap | Self::Unwrap => ("AesKeyWrappingKey2019", None),
            _ => ("Ed25519VerificationKey2020", Some(ED25519_PUBLIC)),
        }
    }
}

impl Material {
    /// Makes it all through `client`.
    pub(super) async fn make(client: &Client, scenario: Scenario, keys: usize) -> Result<Self, ClientError> {
        let controller = Identity::generate(&mut OsRng);
        let (meter, _) = client
            .create_meter(&controller, controller.did(), PRODUCT)
            .await?;
        let controllers = [controller.did().to_owned()];
        let create = || client.create_keystore(&controller, &meter, &controllers, MODULE, &[]);
        let config = create().await?;
        let mut changed = Vec::new();
        if scenario == Scenario::Change {
            for _ in 0..CHANGED {
                changed.push(create().await?);
            }
        }
        let keystore = config.get("id").and_then(Value::as_str).map(str::to_owned);
        let keystore =
            keystore.ok_or_else(|| ClientError::Unexpected("the keystore has no id".to_owned()))?;

        let mut material = Self {
            scenario,
            invoker: controller,
            keystore,
            keys: Vec::new(),
            changed,
        };
        let needs_none = matches!(scenario, Scenario::Generate | Scenario::Change);
        let count = if needs_none { 0 } else { keys };
        for _ in 0..count {
            let mut key = material.generate(client).await?;
            key.sample = material.sample(client, &key.id).await?;
            material.keys.push(key);
        }
        if scenario == Scenario::SignDelegated {
            material.delegate()?;
        }
        Ok(material)
    }

    /// One more key.
    async fn generate(&self, client: &Client) -> Result<Key, ClientError> {
        let parameters = KeyParameters {
            key_type: self.scenario.key_type().0.to_owned(),
            ..KeyParameters::default()
        };
        let generated = client
            .generate_key(&self.invoker, &self.keystore, &parameters, None)
            .await?;
        self.read(&generated)
            .ok_or_else(|| ClientError::Unexpected("the new key has no public key".to_owned()))
    }

    /// What a symmetric key makes of a payload.
    async fn sample(&self, client: &Client, key: &str) -> Result<Sample, ClientError> {
        let payload: [u8; 32] = rand::random();
        let result = match self.scenario {
            Scenario::Hmac | Scenario::HmacVerify => client.sign(&self.invoker, key, &payload, None).await?,
            Scenario::Wrap | Scenario::Unwrap => client.wrap_key(&self.invoker, key, &payload, None).await?,
            _ => return Ok(Sample::default()),
        };
        Ok(Sample { payload, result })
    }

    /// The key in an answer; `None` when it is not a key of this keystore and type.
    pub(super) fn read(&self, generated: &GeneratedKey) -> Option<Key> {
        let (key_type, header) = self.scenario.key_type();
        let text = |name: &str| generated.key_description.get(name).and_then(Value::as_str);
        let local = generated
            .key_id
            .strip_prefix(self.keystore.as_str())?
            .strip_prefix("/keys/")?;
        let (public_text, public) = match header {
            Some(header) => {
                let public_text = text("publicKeyMultibase")?.to_owned();
                let public = multikey::decode(header, &public_text).ok()?;
                (public_text, public)
            }
            None => (String::new(), [0; 32]),
        };
        let whole = !local.is_empty() && !local.contains('/') && text("type") == Some(key_type);
        whole.then(|| Key {
            id: generated.key_id.clone(),
            public_text,
            public,
            capability: None,
            sample: Sample::default(),
        })
    }

    /// Hands the use of the keys to a second identity, which becomes the one who invokes.
    fn delegate(&mut self) -> Result<(), ClientError> {
        let now = signer::unix_seconds();
        let delegate = Identity::generate(&mut OsRng);
        for key in &mut self.keys {
            let delegation = Delegation {
                id: delegation::new_id(&mut OsRng),
                target: key.id.clone(),
                controller: delegate.did().to_owned(),
                actions: vec!["sign".to_owned()],
                expires: now + 86_400,
                parent: None,
            };
            key.capability = Some(delegation.sign(&self.invoker, now)?);
        }
        self.invoker = delegate;
        Ok(())
    }
}
