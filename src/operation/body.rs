//! Request bodies as closed types. What is not exactly one of these is refused with the reason.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::validation::Validation;
use crate::identifier::LocalId;
use crate::keystore::config::{KeystoreConfig, MAX_CONTROLLERS};
use crate::keystore::record::{Alias, KeyType};
use crate::problem::Problem;

const WEBKMS_CONTEXT: &str = "https://w3id.org/webkms/v1";
/// Longest DID, alias or name in a body, bytes.
const MAX_TEXT: usize = 2_048;

/// Body of `POST /meters`.
pub struct NewMeter {
    /// Who may create keystores on it.
    pub controller: String,
    /// The product id.
    pub product: String,
}

/// Body of the two keystore POSTs.
pub struct KeystoreBody {
    /// The configuration; `meter` is `None` when an update leaves it out.
    pub controllers: Vec<String>,
    /// One DID rather than a list.
    pub single_controller: bool,
    /// As sent.
    pub sequence: u64,
    /// The meter's URL, as sent.
    pub meter: Option<String>,
    /// The module, if named.
    pub kms_module: Option<String>,
    /// CIDR blocks.
    pub ip_allow_list: Option<Vec<String>>,
    /// The `id` member of an update.
    pub id: Option<String>,
}

/// Body of `POST …/keys`.
pub struct NewKey {
    /// The type, or the name of one that is not offered.
    pub key_type: Result<KeyType, String>,
    /// In place of the URL in descriptions.
    pub alias: Option<Alias>,
    /// Longest capability chain.
    pub max_chain_length: Option<u32>,
}

/// Body of `POST …/keys/:key`.
#[derive(Debug, PartialEq)]
pub enum KeyOperation {
    /// Sign these bytes.
    Sign(Vec<u8>),
    /// A secret shared with the holder of this public key.
    DeriveSecret(PeerKey),
    /// Compare the tag of these bytes with this one.
    Verify(Vec<u8>, Vec<u8>),
    /// Wrap this.
    Wrap(Payload),
    /// Unwrap this.
    Unwrap(Payload),
    /// A known operation that no key of ours has.
    NotSupported(&'static str),
}

/// Bytes of a client's that no log and no record shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Zeroizing<Vec<u8>>);

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

/// The other party's public key.
#[derive(Debug, PartialEq)]
pub struct PeerKey {
    /// `type`.
    pub key_type: String,
    /// `publicKeyMultibase`.
    pub multibase: String,
}

fn schema_error(message: &str) -> Problem {
    Problem::new(400, "SyntaxError", message)
}

fn object(body: &Value) -> Result<&Map<String, Value>, Problem> {
    body.as_object()
        .ok_or_else(|| schema_error("The body must be a JSON object."))
}

fn text<'a>(object: &'a Map<String, Value>, member: &str) -> Result<&'a str, Problem> {
    let value = object
        .get(member)
        .and_then(Value::as_str)
        .filter(|text| text.len() <= MAX_TEXT);
    value.ok_or_else(|| schema_error(&format!("\"{member}\" must be a string.")))
}

fn only(object: &Map<String, Value>, allowed: &[&str]) -> Result<(), Problem> {
    match object.keys().find(|member| !allowed.contains(&member.as_str())) {
        Some(member) => Err(schema_error(&format!(
            "\"{member}\" is not a member of this operation."
        ))),
        None => Ok(()),
    }
}

/// Parses a new meter.
pub fn meter(body: &Value) -> Result<NewMeter, Problem> {
    let members = object(body)?;
    only(members, &["controller", "product"])?;
    let product = members.get("product").and_then(Value::as_object);
    let product = product.ok_or_else(|| schema_error("\"product\" must be an object with an \"id\"."))?;
    only(product, &["id"])?;
    Ok(NewMeter {
        controller: text(members, "controller")?.to_owned(),
        product: text(product, "id")?.to_owned(),
    })
}

/// Parses the configuration of a new keystore.
pub fn new_keystore(body: &Value) -> Result<KeystoreBody, Problem> {
    let mut validation = Validation::new("postKeystoreBody", body);
    validation.only(&["controller", "ipAllowList", "kmsModule", "meterId", "sequence"]);
    keystore(validation, true, body)
}

/// Parses the next configuration of a keystore.
pub fn keystore_update(body: &Value) -> Result<KeystoreBody, Problem> {
    let mut validation = Validation::new("updateKeystoreConfigBody", body);
    validation.only(&[
        "controller",
        "id",
        "ipAllowList",
        "kmsModule",
        "meterId",
        "sequence",
    ]);
    validation.required("id");
    keystore(validation, false, body)
}

fn keystore(
    mut validation: Validation<'_>,
    meter_required: bool,
    body: &Value,
) -> Result<KeystoreBody, Problem> {
    let mut controllers = Vec::new();
    let mut single_controller = false;
    match validation.required("controller") {
        Some(Value::String(did)) if is_text(did) => {
            controllers.push(did.clone());
            single_controller = true;
        }
        Some(value @ Value::Array(list)) => {
            for item in list.iter().take(MAX_CONTROLLERS + 1) {
                match item
                    .as_str()
                    .filter(|did| is_text(did) && !controllers.iter().any(|seen| seen == did))
                {
                    Some(did) => controllers.push(did.to_owned()),
                    None => validation.wrong_type(".controller", "a list of distinct strings", item),
                }
            }
            if list.is_empty() || list.len() > MAX_CONTROLLERS {
                let message = format!("should have 1 to {MAX_CONTROLLERS} items");
                validation.error(
                    ".controller",
                    "#/properties/controller",
                    message,
                    Value::Null,
                    value,
                );
            }
        }
        Some(value) => validation.wrong_type(".controller", "string", value),
        None => {}
    }
    let mut sequence = 0;
    if let Some(value) = validation.required("sequence") {
        match value.as_u64().filter(|sequence| *sequence <= (1 << 53) - 2) {
            Some(number) => sequence = number,
            None => validation.wrong_type(".sequence", "integer", value),
        }
    }
    if meter_required {
        validation.required("meterId");
    }
    let mut optional_text = |member: &str| match body.get(member) {
        Some(Value::String(value)) if is_text(value) => Some(value.clone()),
        Some(value) => {
            validation.wrong_type(&format!(".{member}"), "string", value);
            None
        }
        None => None,
    };
    let (meter, kms_module, id) = (
        optional_text("meterId"),
        optional_text("kmsModule"),
        optional_text("id"),
    );
    if let Some(module) = kms_module.as_deref().filter(|name| !is_module_name(name)) {
        let value = Value::String(module.to_owned());
        validation.error(
            ".kmsModule",
            "#/properties/kmsModule",
            "should be a plain name",
            Value::Null,
            &value,
        );
    }
    let ip_allow_list = validation.ip_allow_list();
    validation.finish()?;
    Ok(KeystoreBody {
        controllers,
        single_controller,
        sequence,
        meter,
        kms_module,
        ip_allow_list,
        id,
    })
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT
}

/// A module is named, never addressed: a path in it would be somebody's attempt to reach a file.
fn is_module_name(name: &str) -> bool {
    name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.contains("..")
}

impl KeystoreBody {
    /// The configuration, on `meter`.
    pub fn into_config(self, meter: LocalId, kms_module: String) -> KeystoreConfig {
        KeystoreConfig {
            controllers: self.controllers,
            single_controller: self.single_controller,
            meter,
            sequence: self.sequence,
            kms_module,
            ip_allow_list: self.ip_allow_list,
        }
    }
}

/// The outer shape of a delegated capability that is to be revoked; its `id`. The verifier looks at the rest.
pub fn delegated_capability(body: &Value) -> Result<&str, Problem> {
    let mut validation = Validation::new("delegatedZcap", body);
    validation.only(&[
        "@context",
        "id",
        "controller",
        "parentCapability",
        "invocationTarget",
        "allowedAction",
        "expires",
        "proof",
    ]);
    for member in [
        "controller",
        "expires",
        "id",
        "invocationTarget",
        "parentCapability",
        "proof",
    ] {
        validation.required(member);
    }
    if let Some(context) = validation
        .required("@context")
        .filter(|context| !context.is_array())
    {
        validation.wrong_type("['@context']", "array", context);
    }
    let id = body.get("id").and_then(Value::as_str).filter(|id| is_text(id));
    if let (None, Some(value)) = (id, body.get("id")) {
        validation.wrong_type(".id", "string", value);
    }
    validation.finish()?;
    id.ok_or_else(|| schema_error("\"id\" must be a string."))
}

/// Parses a GenerateKeyOperation.
pub fn new_key(body: &Value) -> Result<NewKey, Problem> {
    let members = object(body)?;
    only(members, &["@context", "type", "invocationTarget"])?;
    match members.get("@context") {
        None => {}
        Some(Value::Array(list)) if matches!(&list[..], [Value::String(first), Value::String(_)] if first == WEBKMS_CONTEXT) =>
            {}
        Some(_) => {
            return Err(schema_error(
                "\"@context\" is not that of a GenerateKeyOperation.",
            ));
        }
    }
    if text(members, "type")? != "GenerateKeyOperation" {
        return Err(schema_error("\"type\" must be \"GenerateKeyOperation\"."));
    }
    let target = members.get("invocationTarget").and_then(Value::as_object);
    let target = target.ok_or_else(|| schema_error("\"invocationTarget\" must be an object."))?;
    only(
        target,
        &[
            "type",
            "maxCapabilityChainLength",
            "publicAlias",
            "publicAliasTemplate",
        ],
    )?;
    let name = text(target, "type")?;
    let alias = match (target.get("publicAlias"), target.get("publicAliasTemplate")) {
        (None, None) => None,
        (Some(_), None) => Some(Alias::Fixed(alias_text(text(target, "publicAlias")?)?)),
        (None, Some(_)) => Some(Alias::Template(alias_text(text(target, "publicAliasTemplate")?)?)),
        (Some(_), Some(_)) => {
            return Err(schema_error(
                "Only one of \"publicAlias\" and \"publicAliasTemplate\" may be given.",
            ));
        }
    };
    let max_chain_length = match target.get("maxCapabilityChainLength") {
        None => None,
        Some(value) => {
            let length = value.as_u64().filter(|length| (1..=10).contains(length));
            let length =
                length.ok_or_else(|| schema_error("\"maxCapabilityChainLength\" must be 1 to 10."))?;
            u32::try_from(length).ok()
        }
    };
    Ok(NewKey {
        key_type: KeyType::parse(name).ok_or_else(|| name.to_owned()),
        alias,
        max_chain_length,
    })
}

fn alias_text(text: &str) -> Result<String, Problem> {
    let clean = text.len() <= 1_024
        && !text.is_empty()
        && text
            .chars()
            .all(|c| !c.is_control() && !c.is_whitespace() && c != '\\')
        && !text
            .split(['/', '?', '#'])
            .any(|segment| segment == "." || segment == "..");
    if clean {
        Ok(text.to_owned())
    } else {
        Err(schema_error("The alias is not an absolute identifier."))
    }
}

/// Parses an operation on the key at `key_url`.
pub fn key_operation(body: &Value, key_url: &str) -> Result<KeyOperation, Problem> {
    let members = object(body)?;
    match members.get("@context") {
        None => {}
        Some(Value::String(context)) if context == WEBKMS_CONTEXT => {}
        Some(_) => {
            return Err(schema_error(
                "\"@context\" must be \"https://w3id.org/webkms/v1\".",
            ));
        }
    }
    let with = |names: &[&str]| -> Result<(), Problem> {
        only(
            members,
            &[&["@context", "type", "invocationTarget"], names].concat(),
        )?;
        for name in names {
            if !members.contains_key(*name) {
                return Err(schema_error(&format!("\"{name}\" is missing.")));
            }
        }
        Ok(())
    };
    let operation = match text(members, "type")? {
        "SignOperation" => {
            with(&["verifyData"])?;
            KeyOperation::Sign(bytes(members, "verifyData")?)
        }
        "DeriveSecretOperation" => {
            with(&["publicKey"])?;
            KeyOperation::DeriveSecret(peer_key(members)?)
        }
        "VerifyOperation" => {
            with(&["verifyData", "signatureValue"])?;
            KeyOperation::Verify(bytes(members, "verifyData")?, bytes(members, "signatureValue")?)
        }
        "WrapKeyOperation" => {
            with(&["unwrappedKey"])?;
            KeyOperation::Wrap(bytes(members, "unwrappedKey")?.into())
        }
        "UnwrapKeyOperation" => {
            with(&["wrappedKey"])?;
            KeyOperation::Unwrap(bytes(members, "wrappedKey")?.into())
        }
        "DeleteKeyOperation" => KeyOperation::NotSupported("deleteKey"),
        "ExportKeyOperation" => KeyOperation::NotSupported("exportKey"),
        "UpdateKeyOperation" => KeyOperation::NotSupported("updateKey"),
        "RevokeKeyOperation" => KeyOperation::NotSupported("revokeKey"),
        _ => return Err(schema_error("The operation's \"type\" is not known.")),
    };
    if text(members, "invocationTarget")? != key_url {
        return Err(Problem::malformed(
            "\"invocationTarget\" does not match the request URL.",
        ));
    }
    Ok(operation)
}

fn bytes(members: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Problem> {
    let value = members.get(member).and_then(Value::as_str);
    let decoded = value.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    decoded.ok_or_else(|| schema_error(&format!("\"{member}\" must be base64url without padding.")))
}

fn peer_key(members: &Map<String, Value>) -> Result<PeerKey, Problem> {
    let key = members.get("publicKey").and_then(Value::as_object);
    let key = key.ok_or_else(|| schema_error("\"publicKey\" must be an object."))?;
    Ok(PeerKey {
        key_type: text(key, "type")?.to_owned(),
        multibase: text(key, "publicKeyMultibase")?.to_owned(),
    })
}

impl KeyOperation {
    /// The capability action that it needs.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Sign(_) => "sign",
            Self::DeriveSecret(_) => "deriveSecret",
            Self::Verify(..) => "verify",
            Self::Wrap(_) => "wrapKey",
            Self::Unwrap(_) => "unwrapKey",
            Self::NotSupported(action) => action,
        }
    }
}
