//! Answers of a run and whether they are right. Signatures are verified in batches, secrets against our own
//! computation, descriptions against what was said when the key was made.

use super::material::Material;
use crate::client::reply::Reply;
use crate::client::webkms::{self, GeneratedKey};
use ed25519_dalek::{Signature, VerifyingKey};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashSet;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};

/// Signatures that are verified together.
const BATCH: usize = 128;

/// What a request must be answered with.
pub(super) enum Expected {
    /// A signature of this key over these bytes.
    Signature {
        /// Index of the key.
        key: usize,
        /// What was to be signed.
        data: [u8; 32],
    },
    /// A signature for each: index of the key, what was to be signed.
    Signatures {
        /// In the order of the request.
        items: Vec<(usize, [u8; 32])>,
    },
    /// The secret that this key shares with ours.
    Secret {
        /// Index of the key.
        key: usize,
        /// The other side.
        own: StaticSecret,
    },
    /// The description of this key.
    Description {
        /// Index of the key.
        key: usize,
    },
    /// A key that was not there before.
    NewKey {
        /// The alias that its description shows.
        alias: String,
    },
    /// This configuration of a keystore.
    Configuration {
        /// As it was sent.
        config: Value,
    },
    /// A symmetric key's own tag of its sample.
    Tag {
        /// Index of the key.
        key: usize,
    },
    /// Whether a tag is right.
    Verdict {
        /// It is.
        is_right: bool,
    },
    /// The wrap of a key's sample.
    Wrap {
        /// Index of the key.
        key: usize,
    },
    /// The sample's payload.
    Payload {
        /// Index of the key.
        key: usize,
    },
    /// Nothing.
    Nothing,
}

/// A successful reply and what it should be.
pub(super) struct Answer {
    /// Index of the part of the scenario that the request was made for.
    pub(super) part: usize,
    pub(super) expected: Expected,
    pub(super) reply: Reply,
}

/// The number of wrong answers. `seen` holds the ids of all new keys so far: none may come twice.
pub(super) fn judge(parts: &[Material], seen: &Mutex<HashSet<String>>, answers: Vec<Answer>) -> u64 {
    let mut wrong = 0;
    let mut signed = Vec::new();
    for Answer {
        part,
        expected,
        reply,
    } in answers
    {
        let material = &parts[part];
        let right = match expected {
            Expected::Signature { key, data } => match signature(material, key, &reply) {
                Some((verifying, signature)) => {
                    signed.push((data, signature, verifying));
                    true
                }
                None => false,
            },
            Expected::Signatures { items } => {
                let each = webkms::each(&reply).unwrap_or_default();
                let signatures = each.iter().zip(&items).filter_map(|(reply, (key, data))| {
                    let (verifying, signature) = signature(material, *key, reply)?;
                    Some((*data, signature, verifying))
                });
                let before = signed.len();
                signed.extend(signatures);
                each.len() == items.len() && signed.len() == before + items.len()
            }
            Expected::Secret { key, own } => {
                let public = PublicKey::from(material.keys[key].public);
                let shared = own.diffie_hellman(&public);
                webkms::secret(&reply).is_ok_and(|secret| shared.as_bytes()[..].ct_eq(&secret[..]).into())
            }
            Expected::Description { key } => reply.json::<Value>().is_ok_and(|description| {
                let key = &material.keys[key];
                description["id"] == key.id.as_str()
                    && description["publicKeyMultibase"] == key.public_text.as_str()
            }),
            Expected::NewKey { alias } => reply.json::<GeneratedKey>().is_ok_and(|generated| {
                generated.key_description["id"] == alias.as_str()
                    && material.read(&generated).is_some()
                    && seen.lock().insert(generated.key_id)
            }),
            Expected::Configuration { config } => reply
                .json::<Value>()
                .is_ok_and(|answer| answer["config"] == config),
            Expected::Tag { key } => {
                webkms::signature(&reply).is_ok_and(|tag| tag == material.keys[key].sample.result)
            }
            Expected::Verdict { is_right } => {
                webkms::verified(&reply).is_ok_and(|verdict| verdict == is_right)
            }
            Expected::Wrap { key } => {
                webkms::wrapped(&reply).is_ok_and(|wrap| wrap == material.keys[key].sample.result)
            }
            Expected::Payload { key } => webkms::unwrapped(&reply).is_ok_and(|payload| {
                payload.is_some_and(|payload| payload[..] == material.keys[key].sample.payload)
            }),
            Expected::Nothing => reply.body.is_empty(),
        };
        wrong += u64::from(!right);
    }
    wrong + signed.chunks(BATCH).map(forged).sum::<u64>()
}

fn signature(material: &Material, key: usize, reply: &Reply) -> Option<(VerifyingKey, Signature)> {
    let bytes = webkms::signature(reply).ok()?;
    let verifying = VerifyingKey::from_bytes(&material.keys[key].public).ok()?;
    Some((verifying, Signature::from_slice(&bytes).ok()?))
}

/// How many signatures of a batch are wrong: all at once, and one by one only if that fails.
fn forged(batch: &[([u8; 32], Signature, VerifyingKey)]) -> u64 {
    let messages: Vec<&[u8]> = batch.iter().map(|(data, ..)| data.as_slice()).collect();
    let signatures: Vec<Signature> = batch.iter().map(|(_, signature, _)| *signature).collect();
    let keys: Vec<VerifyingKey> = batch.iter().map(|(.., key)| *key).collect();
    if ed25519_dalek::verify_batch(&messages, &signatures, &keys).is_ok() {
        return 0;
    }
    batch
        .iter()
        .filter(|(data, signature, key)| key.verify_strict(data, signature).is_err())
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::{Answer, Expected, judge};
    use crate::client::Identity;
    use crate::client::load::Scenario;
    use crate::client::load::material::{Key, Material, Sample};
    use crate::client::multikey::{self, ED25519_PUBLIC, X25519_PUBLIC};
    use crate::client::reply::Reply;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use bytes::Bytes;
    use ed25519_dalek::{Signer as _, SigningKey};
    use parking_lot::Mutex;
    use rand::rngs::OsRng;
    use serde_json::{Value, json};
    use x25519_dalek::{PublicKey, StaticSecret};

    const KEYSTORE: &str = "https://a/kms/keystores/z1";

    fn material(scenario: Scenario, public: [u8; 32]) -> Material {
        let public_text = multikey::encode(scenario.key_type().1.unwrap(), &public);
        let key = Key {
            id: format!("{KEYSTORE}/keys/k"),
            public_text,
            public,
            capability: None,
            sample: Sample::default(),
        };
        Material {
            scenario,
            invoker: Identity::generate(&mut OsRng),
            keystore: KEYSTORE.to_owned(),
            keys: vec![key],
            changed: vec![],
        }
    }

    fn answer(expected: Expected, body: &Value) -> Answer {
        let reply = Reply {
            status: hyper::StatusCode::OK,
            location: None,
            retry_after: None,
            request_id: None,
            notice: None,
            receipt: None,
            body: Bytes::from(body.to_string()),
            endpoint: String::new(),
        };
        Answer {
            part: 0,
            expected,
            reply,
        }
    }

    fn wrong(material: &Material, answers: Vec<Answer>) -> u64 {
        judge(std::slice::from_ref(material), &Mutex::default(), answers)
    }

    #[test]
    fn finds_the_wrong_signatures_of_a_batch() {
        let key = SigningKey::generate(&mut OsRng);
        let material = material(Scenario::SignRoot, key.verifying_key().to_bytes());
        let answers = |bad: &[u8]| {
            (0..200u8)
                .map(|n| {
                    let over = if bad.contains(&n) { [255; 32] } else { [n; 32] };
                    let value = URL_SAFE_NO_PAD.encode(key.sign(&over).to_bytes());
                    answer(
                        Expected::Signature {
                            key: 0,
                            data: [n; 32],
                        },
                        &json!({"signatureValue": value}),
                    )
                })
                .collect()
        };
        assert_eq!(wrong(&material, answers(&[])), 0);
        assert_eq!(wrong(&material, answers(&[3, 150, 151])), 3);
        let odd = answer(
            Expected::Signature {
                key: 0,
                data: [0; 32],
            },
            &json!({"signatureValue": "AA"}),
        );
        assert_eq!(wrong(&material, vec![odd]), 1);
    }

    #[test]
    fn compares_secrets_with_its_own() {
        let theirs = StaticSecret::random_from_rng(OsRng);
        let material = material(Scenario::Derive, PublicKey::from(&theirs).to_bytes());
        let own = StaticSecret::random_from_rng(OsRng);
        let secret = theirs.diffie_hellman(&PublicKey::from(&own)).to_bytes();
        let reply = |secret: &[u8]| {
            vec![answer(
                Expected::Secret {
                    key: 0,
                    own: own.clone(),
                },
                &json!({"secret": URL_SAFE_NO_PAD.encode(secret)}),
            )]
        };
        assert_eq!(wrong(&material, reply(&secret)), 0);
        assert_eq!(wrong(&material, reply(&[0; 32])), 1);
        assert_eq!(wrong(&material, reply(&secret[..31])), 1);
        assert_eq!(
            multikey::decode(X25519_PUBLIC, &material.keys[0].public_text).unwrap(),
            material.keys[0].public
        );
    }

    #[test]
    fn a_key_is_described_as_it_was_made_and_made_once() {
        let public = SigningKey::generate(&mut OsRng).verifying_key().to_bytes();
        let material = material(Scenario::GetKey, public);
        let text = multikey::encode(ED25519_PUBLIC, &public);
        let id = format!("{KEYSTORE}/keys/k");
        let described = |id: &str| {
            answer(
                Expected::Description { key: 0 },
                &json!({"id": id, "publicKeyMultibase": text}),
            )
        };
        assert_eq!(wrong(&material, vec![described(&id), described("other")]), 1);

        let made = |id: &str, alias: &str| {
            let description =
                json!({"id": "urn:uuid:1", "type": "Ed25519VerificationKey2020", "publicKeyMultibase": text});
            answer(
                Expected::NewKey {
                    alias: alias.to_owned(),
                },
                &json!({"keyId": id, "keyDescription": description}),
            )
        };
        let good = format!("{KEYSTORE}/keys/a");
        assert_eq!(wrong(&material, vec![made(&good, "urn:uuid:1")]), 0);
        assert_eq!(
            wrong(
                &material,
                vec![made(&good, "urn:uuid:1"), made(&good, "urn:uuid:1")]
            ),
            1
        );
        assert_eq!(wrong(&material, vec![made(&good, "urn:uuid:2")]), 1);
        assert_eq!(
            wrong(
                &material,
                vec![made("https://b/kms/keystores/z1/keys/a", "urn:uuid:1")]
            ),
            1
        );
    }
}
