//! The calls of WebKMS before they are signed: method, URL, action, the root capability that they need, and body.
//! Pure: one constructor per row of the protocol's endpoint table.
//!
//! Ids of keystores and keys come from the caller; that they belong to the server is checked when a call is signed.

use crate::client::capability::{Capability, encode_component};
use crate::client::origin::Origin;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET or POST.
    pub method: Method,
    /// Absolute URL, as it is signed and sent.
    pub url: String,
    /// The action that is invoked, such as `sign`.
    pub action: &'static str,
    /// Target of the root capability that the call falls under when no delegated one is given.
    pub root: String,
    /// Compact JSON; `None` for GET.
    pub body: Option<Bytes>,
}

/// What a key is made with; the names are the protocol's.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyParameters {
    /// Key type, such as `Ed25519VerificationKey2020`.
    #[serde(rename = "type")]
    pub key_type: String,
    /// Longest chain, root included, by which the key may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_capability_chain_length: Option<u32>,
    /// The id that the key's description shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_alias: Option<String>,
    /// The same as an RFC 6570 template over the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_alias_template: Option<String>,
}

impl Call {
    fn get(url: String, action: &'static str, root: String) -> Self {
        Self {
            method: Method::GET,
            url,
            action,
            root,
            body: None,
        }
    }

    fn post(url: String, action: &'static str, root: String, body: &Value) -> Self {
        Self {
            method: Method::POST,
            url,
            action,
            root,
            body: Some(Bytes::from(body.to_string())),
        }
    }

    /// `POST /meters`: a meter of `controller` for a product, a URN.
    #[must_use]
    pub fn create_meter(origin: &Origin, controller: &str, product: &str) -> Self {
        let url = origin.url("/meters");
        let body = json!({"controller": controller, "product": {"id": product}});
        Self::post(url.clone(), "write", url, &body)
    }

    /// `POST /kms/keystores`. One controller is sent as a string, several as an array.
    #[must_use]
    pub fn create_keystore(
        origin: &Origin,
        meter: &str,
        controllers: &[String],
        module: &str,
        allow: &[String],
    ) -> Self {
        let url = origin.url("/kms/keystores");
        let mut body = Map::new();
        body.insert("sequence".into(), json!(0));
        body.insert("controller".into(), one_or_many(controllers));
        body.insert("meterId".into(), json!(meter));
        body.insert("kmsModule".into(), json!(module));
        if !allow.is_empty() {
            body.insert("ipAllowList".into(), json!(allow));
        }
        Self::post(url.clone(), "write", url, &Value::Object(body))
    }

    /// `GET /kms/keystores?controller=DID`.
    #[must_use]
    pub fn list_keystores(origin: &Origin, controller: &str) -> Self {
        let root = origin.url("/kms/keystores");
        Self::get(
            format!("{root}?controller={}", encode_component(controller)),
            "read",
            root,
        )
    }

    /// `GET` a keystore's configuration.
    #[must_use]
    pub fn get_keystore(keystore: &str) -> Self {
        Self::get(keystore.to_owned(), "read", keystore.to_owned())
    }

    /// `POST` a whole new configuration to its keystore.
    #[must_use]
    pub fn update_keystore(keystore: &str, config: &Value) -> Self {
        Self::post(keystore.to_owned(), "write", keystore.to_owned(), config)
    }

    /// GenerateKeyOperation.
    #[must_use]
    pub fn generate_key(keystore: &str, parameters: &KeyParameters) -> Self {
        let body = json!({"type": "GenerateKeyOperation", "invocationTarget": parameters});
        Self::post(
            format!("{keystore}/keys"),
            "generateKey",
            keystore.to_owned(),
            &body,
        )
    }

    /// `GET` a key's public description.
    #[must_use]
    pub fn get_key(key: &str) -> Self {
        Self::get(key.to_owned(), "read", keystore_of(key).to_owned())
    }

    /// SignOperation over `data`.
    #[must_use]
    pub fn sign(key: &str, data: &[u8]) -> Self {
        Self::operation(
            key,
            "SignOperation",
            "sign",
            "verifyData",
            &json!(URL_SAFE_NO_PAD.encode(data)),
        )
    }

    /// VerifyOperation: whether `tag` is that of `data` under an HMAC key.
    #[must_use]
    pub fn verify(key: &str, data: &[u8], tag: &[u8]) -> Self {
        let body = json!({
            "type": "VerifyOperation",
            "invocationTarget": key,
            "verifyData": URL_SAFE_NO_PAD.encode(data),
            "signatureValue": URL_SAFE_NO_PAD.encode(tag),
        });
        Self::post(key.to_owned(), "verify", keystore_of(key).to_owned(), &body)
    }

    /// WrapKeyOperation.
    #[must_use]
    pub fn wrap_key(key: &str, payload: &[u8]) -> Self {
        let payload = json!(URL_SAFE_NO_PAD.encode(payload));
        Self::operation(key, "WrapKeyOperation", "wrapKey", "unwrappedKey", &payload)
    }

    /// UnwrapKeyOperation.
    #[must_use]
    pub fn unwrap_key(key: &str, wrapped: &[u8]) -> Self {
        let wrapped = json!(URL_SAFE_NO_PAD.encode(wrapped));
        Self::operation(key, "UnwrapKeyOperation", "unwrapKey", "wrappedKey", &wrapped)
    }

    /// DeriveSecretOperation with the other side's public key, given as multibase with its type.
    #[must_use]
    pub fn derive_secret(key: &str, public_type: &str, public_key: &str) -> Self {
        let public = json!({"type": public_type, "publicKeyMultibase": public_key});
        Self::operation(key, "DeriveSecretOperation", "deriveSecret", "publicKey", &public)
    }

    /// A batch, an extension of this cluster's: a signature for each (key, data), all keys of one keystore.
    #[must_use]
    pub fn sign_batch(keystore: &str, items: &[(&str, &[u8])]) -> Self {
        let operation = |(key, data): &(&str, &[u8])| {
            json!({
                "type": "SignOperation",
                "invocationTarget": key,
                "verifyData": URL_SAFE_NO_PAD.encode(data),
            })
        };
        let items: Vec<Value> = items.iter().map(operation).collect();
        let url = format!("{keystore}/operations");
        Self::post(url, "batch", keystore.to_owned(), &Value::Array(items))
    }

    /// `POST` a delegated capability to the revocations of its keystore, under the revocation's own root, which
    /// every controller in the capability's chain may invoke.
    #[must_use]
    pub fn revoke(capability: &Capability) -> Self {
        let url = format!(
            "{}/zcaps/revocations/{}",
            capability.root_target(),
            encode_component(capability.id())
        );
        Self::post(url.clone(), "write", url, capability.json())
    }

    fn operation(key: &str, kind: &str, action: &'static str, member: &str, value: &Value) -> Self {
        let body = json!({"type": kind, "invocationTarget": key, member: value});
        Self::post(key.to_owned(), action, keystore_of(key).to_owned(), &body)
    }
}

/// The keystore of a key's URL: what stands before its last `/keys/`; the URL itself when it has none.
#[must_use]
pub fn keystore_of(key: &str) -> &str {
    key.rfind("/keys/").map_or(key, |end| &key[..end])
}

/// One value as itself, several as an array: how WebKMS writes controllers.
#[must_use]
pub fn one_or_many(values: &[String]) -> Value {
    match values {
        [one] => json!(one),
        many => json!(many),
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, KeyParameters, keystore_of};
    use crate::client::capability::Capability;
    use crate::client::origin::Origin;
    use serde_json::json;

    const KEYSTORE: &str = "https://localhost:18443/kms/keystores/z1A6";

    fn text(call: &Call) -> &str {
        std::str::from_utf8(call.body.as_ref().unwrap()).unwrap()
    }

    /// Bodies byte for byte as the npm client sent them to the existing server.
    #[test]
    fn bodies_are_those_of_the_npm_client() {
        let origin = Origin::parse("https://localhost:18443").unwrap();
        let call = Call::create_meter(
            &origin,
            "did:key:z6Mk1",
            "urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41",
        );
        assert_eq!(
            text(&call),
            r#"{"controller":"did:key:z6Mk1","product":{"id":"urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41"}}"#
        );
        let call = Call::create_keystore(
            &origin,
            "https://localhost:18443/meters/z1",
            &["did:key:z6Mk1".to_owned()],
            "ssm-v1",
            &[],
        );
        assert_eq!(
            text(&call),
            r#"{"sequence":0,"controller":"did:key:z6Mk1","meterId":"https://localhost:18443/meters/z1","kmsModule":"ssm-v1"}"#
        );
        assert_eq!(
            (call.action, call.root.as_str()),
            ("write", "https://localhost:18443/kms/keystores")
        );
        let parameters = KeyParameters {
            key_type: "Ed25519VerificationKey2020".into(),
            ..Default::default()
        };
        assert_eq!(
            text(&Call::generate_key(KEYSTORE, &parameters)),
            r#"{"type":"GenerateKeyOperation","invocationTarget":{"type":"Ed25519VerificationKey2020"}}"#
        );
        let key = format!("{KEYSTORE}/keys/z19w");
        let call = Call::sign(&key, b"hello webkms");
        assert_eq!(
            text(&call),
            format!(
                r#"{{"type":"SignOperation","invocationTarget":"{key}","verifyData":"aGVsbG8gd2Via21z"}}"#
            )
        );
        assert_eq!((call.action, call.root.as_str()), ("sign", KEYSTORE));
    }

    #[test]
    fn lists_by_controller_under_the_collection() {
        let origin = Origin::parse("https://localhost:18443").unwrap();
        let call = Call::list_keystores(&origin, "did:key:z6Mk1");
        assert_eq!(
            call.url,
            "https://localhost:18443/kms/keystores?controller=did%3Akey%3Az6Mk1"
        );
        assert_eq!(call.root, "https://localhost:18443/kms/keystores");
    }

    #[test]
    fn revokes_at_the_keystore_by_escaped_id() {
        let zcap = json!({"id": "urn:uuid:1", "invocationTarget": format!("{KEYSTORE}/keys/z2"),
            "proof": {"capabilityChain":
                ["urn:zcap:root:https%3A%2F%2Flocalhost%3A18443%2Fkms%2Fkeystores%2Fz1A6"]}});
        let call = Call::revoke(&Capability::from_json(zcap).unwrap());
        assert_eq!(call.url, format!("{KEYSTORE}/zcaps/revocations/urn%3Auuid%3A1"));
        assert_eq!(call.root, call.url);
    }

    #[test]
    fn several_controllers_are_an_array() {
        let origin = Origin::parse("https://a").unwrap();
        let both = ["did:key:a".to_owned(), "did:key:b".to_owned()];
        let call = Call::create_keystore(&origin, "m", &both, "ssm-v1", &["10.0.0.0/8".to_owned()]);
        let body: serde_json::Value = serde_json::from_slice(call.body.as_ref().unwrap()).unwrap();
        assert_eq!(body["controller"], json!(both));
        assert_eq!(body["ipAllowList"], json!(["10.0.0.0/8"]));
    }

    #[test]
    fn a_keys_keystore() {
        assert_eq!(
            keystore_of("https://a/kms/keystores/z/keys/k"),
            "https://a/kms/keystores/z"
        );
        assert_eq!(
            keystore_of("https://a/kms/keystores/z"),
            "https://a/kms/keystores/z"
        );
    }
}
