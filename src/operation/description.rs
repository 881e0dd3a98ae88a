//! Key descriptions: a key's public part as a JSON-LD document.

use iri_string::spec::UriSpec;
use iri_string::template::UriTemplateStr;
use iri_string::template::simple_context::SimpleContext;
use serde_json::{Map, Value, json};

use crate::identifier::LocalId;
use crate::keystore::config::KeystoreConfig;
use crate::keystore::record::{Alias, KeyRecord, KeyType};
use crate::problem::Problem;

/// Longest identifier that a template may expand to, bytes.
const MAX_ALIAS: usize = 4_096;

/// The URL of a keystore.
pub fn keystore_url(public_url: &str, keystore: &LocalId) -> String {
    format!("{public_url}/kms/keystores/{keystore}")
}

/// The answer to whoever asked for a new key.
pub fn describe_birth(url: &str, description: Value) -> Value {
    json!({ "keyId": url, "keyDescription": description })
}

/// The URL of a key.
pub fn key_url(public_url: &str, keystore: &LocalId, key: &LocalId) -> String {
    format!("{public_url}/kms/keystores/{keystore}/keys/{key}")
}

/// The description of a key whose keystore has this configuration now.
///
/// # Errors
/// 403 when the key's alias template cannot be expanded; generation checks that before it makes a key.
pub fn describe(url: &str, record: &KeyRecord, config: &KeystoreConfig) -> Result<Value, Problem> {
    let mut description = Map::new();
    description.insert("@context".into(), record.key_type.context().into());
    description.insert("id".into(), url.into());
    description.insert("type".into(), record.key_type.description_type().into());
    description.insert("controller".into(), config.controller_json());
    if let Some((member, value)) = public_part(record) {
        description.insert(member.into(), value.into());
    }
    let id = match &record.alias {
        None => return Ok(Value::Object(description)),
        Some(Alias::Fixed(alias)) => alias.clone(),
        Some(Alias::Template(template)) => expand(template, &description)?,
    };
    description.insert("id".into(), id.into());
    Ok(Value::Object(description))
}

/// Refuses an alias template that could not be expanded for any key: a key must not be made that cannot be shown.
///
/// # Errors
/// 403 with the reason in its cause.
pub fn check_alias(terms: &super::judge::NewKeyTerms) -> Result<(), Problem> {
    let Some(Alias::Template(template)) = &terms.alias else {
        return Ok(());
    };
    let mut sample = vec![
        ("id", "https://example/".to_owned()),
        ("controller", "did:key:example".to_owned()),
    ];
    sample.extend(public_key(terms.key_type, &[0xff; 32]));
    let sample = sample
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)));
    expand(template, &sample.collect())?;
    Ok(())
}

/// The member that shows the public key, and its text, where a key has one.
fn public_part(record: &KeyRecord) -> Option<(&'static str, String)> {
    let (_, key) = record.material.pair()?;
    public_key(record.key_type, key)
}

fn public_key(key_type: KeyType, key: &[u8; 32]) -> Option<(&'static str, String)> {
    if key_type == KeyType::Ed25519VerificationKey2018 {
        return Some(("publicKeyBase58", bs58::encode(key).into_string()));
    }
    Some(("publicKeyMultibase", multibase(key_type.multicodec()?, key)))
}

/// `z` + base58btc(multicodec || key).
pub fn multibase(multicodec: [u8; 2], key: &[u8; 32]) -> String {
    format!("z{}", bs58::encode([&multicodec[..], key].concat()).into_string())
}

/// Expands an RFC 6570 template over the description's own members.
fn expand(template: &str, description: &Map<String, Value>) -> Result<String, Problem> {
    let invalid =
        || Problem::not_authorized("SyntaxError", "The \"publicAliasTemplate\" cannot be expanded.");
    let template = UriTemplateStr::new(template).map_err(|_| invalid())?;
    let mut context = SimpleContext::new();
    for (name, value) in description {
        if let Some(text) = value.as_str() {
            context.insert(name.as_str(), text);
        }
    }
    let id = template
        .expand::<UriSpec, _>(&context)
        .map_err(|_| invalid())?
        .to_string();
    if id.is_empty() || id.len() > MAX_ALIAS {
        Err(invalid())
    } else {
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::record::Material;

    fn record(key_type: KeyType, alias: Option<Alias>) -> KeyRecord {
        KeyRecord {
            key_type,
            epoch: 0,
            session: [0; 32],
            material: Material::Pair {
                commitment: Vec::new(),
                public_key: [9; 32],
            },
            committee: 1,
            away: Vec::new(),
            alias,
            max_chain_length: None,
            created: 0,
            origin: None,
        }
    }

    #[test]
    fn a_template_is_expanded_before_the_id_is_replaced() {
        let config = KeystoreConfig {
            controllers: vec!["did:key:z6Mk".into()],
            single_controller: true,
            meter: LocalId([0; 16]),
            sequence: 0,
            kms_module: "ssm-v1".into(),
            ip_allow_list: None,
        };
        let alias = Alias::Template("did:key:{publicKeyMultibase}#{publicKeyMultibase}".into());
        let record = record(KeyType::Ed25519VerificationKey2020, Some(alias));
        let description = describe("https://h/k", &record, &config).unwrap();
        let key = description["publicKeyMultibase"].as_str().unwrap();
        assert!(key.starts_with("z6Mk"));
        assert_eq!(description["id"], format!("did:key:{key}#{key}"));
        let members: Vec<_> = description.as_object().unwrap().keys().collect();
        assert_eq!(
            members,
            ["@context", "id", "type", "controller", "publicKeyMultibase"]
        );
    }
}
