//! A machine that asks to become a member, before any operator has signed for it: it makes its keys itself, and nothing secret ever
//! leaves it. What it tells is public: whoever holds the token may have it listed, and only that. Operators name the
//! [`Candidate::fingerprint`] that the machine shows, so nobody on the way can put other keys in its place.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac as _};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::ProvisionError;
use super::certificates::{Certificates, P256Point};
use super::operator::OperatorKey;
use crate::config::fields::{encode_hex, is_host_port};
use crate::config::{Alike, Config, Hex32, MeterAdmins, PublicUrl};
use crate::membership::Pinned;
use crate::operator::OperatorSignature;
use crate::seal::secret_file;

/// The largest message between a candidate and a node, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
const FINGERPRINT_PREFIX: &[u8] = b"conclave candidate v1\0";
const ADMISSION_PREFIX: &[u8] = b"conclave operator admission v1\0";

/// Public keys and addresses of a machine that asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// What operators are asked to pin.
    pub member: Pinned,
    /// Of the public listener.
    pub https: P256Point,
}

impl Candidate {
    /// Why it cannot become a member, if its number, address or key cannot be.
    pub fn fault(&self) -> Option<&'static str> {
        if self.member.node == 0 {
            return Some("a node's number is 1 or more");
        }
        if !is_host_port(&self.member.peer) {
            return Some("its peer address is not HOST:PORT");
        }
        match VerifyingKey::from_bytes(&self.member.identity.0) {
            Ok(key) if !key.is_weak() => None,
            _ => Some("its identity is no Ed25519 key"),
        }
    }

    /// 128 bits of the hash of all that it says, in eight groups of four digits.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new_with_prefix(FINGERPRINT_PREFIX);
        hash.update(self.member.signed_bytes());
        hash.update(self.https.0);
        let digits = encode_hex(&hash.finalize()[..16]);
        let groups: Vec<&str> = (0..8).map(|at| &digits[4 * at..4 * at + 4]).collect();
        groups.join("-")
    }
}

/// What lets one machine be seen, once: the cluster that it asks, and a secret that the node which gave it knows.
#[derive(Clone)]
pub struct Token {
    cluster: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token as `conclave node invite` prints it")]
pub struct NoToken;

/// Who says it: one's words are not taken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The machine that asks.
    Candidate,
    /// The node that is asked.
    Node,
}

/// A text whose speaker knows the token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spoken {
    /// JSON.
    pub text: String,
    mac: Hex32,
}

impl Token {
    /// A new one for `cluster`.
    pub fn generate(cluster: [u8; 32], rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self { cluster, secret }
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> [u8; 32] {
        self.cluster
    }

    /// As it is printed and given.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([self.cluster, *self.secret].concat());
        Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes))
    }

    /// Says `text`; the token itself is not sent.
    pub fn say(&self, speaker: Speaker, text: String) -> Spoken {
        let mac = Hex32(self.mac(speaker, &text).finalize().into_bytes().into());
        Spoken { text, mac }
    }

    /// Whether this speaker said it, in constant time.
    pub fn said(&self, speaker: Speaker, spoken: &Spoken) -> bool {
        let mac = self.mac(speaker, &spoken.text);
        mac.verify_slice(&spoken.mac.0).is_ok()
    }

    /// HMAC-SHA-256 (RFC 2104) of cluster, speaker and text.
    fn mac(&self, speaker: Speaker, text: &str) -> Hmac<Sha256> {
        // A key of up to a block is padded with zeros.
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&*self.secret);
        let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
        mac.update(&self.cluster);
        mac.update(&[speaker as u8]);
        mac.update(text.as_bytes());
        mac
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_| NoToken)?;
        let halves = bytes.split_at_checked(32).and_then(|(cluster, secret)| {
            let secret = <[u8; 32]>::try_from(secret).ok()?;
            Some((cluster.try_into().ok()?, Zeroizing::new(secret)))
        });
        bytes.zeroize();
        let (cluster, secret) = halves.ok_or(NoToken)?;
        Ok(Self { cluster, secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What a candidate is told of the cluster, to make its configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The genesis statement, JSON; the token names its hash.
    pub genesis: String,
    /// The authority's certificate, PEM.
    pub ca: String,
    /// The cluster's public URL.
    pub public_url: PublicUrl,
    /// Who may create meters.
    pub meter_admins: MeterAdmins,
    /// Whether `X-Forwarded-For` is believed.
    pub trust_forwarded_for: bool,
    /// Timings, bounds and periods.
    #[serde(default)]
    pub alike: Alike,
}

impl Welcome {
    /// Of the cluster of a node with this configuration.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(config: &Config) -> Result<Self, ProvisionError> {
        let read = |path: &Path| {
            let bytes = secret_file::read_public(path, MAX_MESSAGE)?;
            String::from_utf8(bytes).map_err(|_| ProvisionError::Malformed {
                path: path.to_owned(),
                expected: "text in UTF-8",
            })
        };
        Ok(Self {
            genesis: read(&config.genesis)?,
            ca: read(&config.peer.ca)?,
            public_url: config.public_url.clone(),
            meter_admins: config.meter_admins.clone(),
            trust_forwarded_for: config.trust_forwarded_for,
            alike: config.alike(),
        })
    }
}

/// The certificates of a candidate that operators make a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    cluster: Hex32,
    node: u64,
    fingerprint: String,
    certificates: Certificates,
}

/// The certificates for one candidate, with an operator's signature, so that no one else can have a machine start with others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    text: String,
    signature: OperatorSignature,
}

impl Admission {
    /// Signs it.
    pub fn sign(
        cluster: Hex32,
        candidate: &Candidate,
        certificates: Certificates,
        key: &OperatorKey,
    ) -> Self {
        let statement = Statement {
            cluster,
            node: candidate.member.node,
            fingerprint: candidate.fingerprint(),
            certificates,
        };
        // Strings and integers only: cannot fail.
        let text = serde_json::to_string(&statement).unwrap_or_default();
        let signature = key.sign(&signed_bytes(&text));
        Self { text, signature }
    }

    /// The certificates, if one of these operators has signed them for this candidate of this cluster.
    pub fn certificates(
        &self,
        cluster: Hex32,
        candidate: &Candidate,
        operators: &[Hex32],
    ) -> Option<Certificates> {
        let is_operators = operators.contains(&self.signature.operator);
        if !is_operators || !self.signature.is_right(&signed_bytes(&self.text)) {
            return None;
        }
        let statement: Statement = serde_json::from_str(&self.text).ok()?;
        let for_it = statement.cluster == cluster
            && statement.node == candidate.member.node
            && statement.fingerprint == candidate.fingerprint();
        for_it.then_some(statement.certificates)
    }
}

fn signed_bytes(text: &str) -> Vec<u8> {
    [ADMISSION_PREFIX, text.as_bytes()].concat()
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// A machine that may become node `node`.
    pub(crate) fn candidate(node: u64, rng: &mut (impl CryptoRng + RngCore)) -> Candidate {
        let mut point = [9; 65];
        point[0] = 4;
        Candidate {
            member: Pinned {
                node,
                peer: "10.0.0.4:9443".into(),
                identity: Hex32(OperatorKey::generate(rng).public()),
                envelope: Hex32([7; 32]),
            },
            https: P256Point(point),
        }
    }

    /// A key that begins with this byte and has zeros after it.
    fn beginning(first: u8) -> Hex32 {
        let mut key = [0; 32];
        key[0] = first;
        Hex32(key)
    }

    #[test]
    fn words_are_taken_from_their_speaker_under_their_token_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let token = Token::generate([1; 32], &mut rng);
        let again: Token = token.to_text().parse().unwrap();
        let spoken = token.say(Speaker::Candidate, "{}".into());
        assert!(again.said(Speaker::Candidate, &spoken));
        assert!(!again.said(Speaker::Node, &spoken));
        let mut altered = spoken.clone();
        altered.text.push(' ');
        assert!(!again.said(Speaker::Candidate, &altered));
        assert!(!Token::generate([1; 32], &mut rng).said(Speaker::Candidate, &spoken));
        let elsewhere = Token {
            cluster: [2; 32],
            secret: token.secret.clone(),
        };
        assert!(!elsewhere.said(Speaker::Candidate, &spoken));
    }

    #[test]
    fn a_token_is_exactly_its_text() {
        let token = Token::generate([1; 32], &mut StdRng::seed_from_u64(2)).to_text();
        for wrong in [&token[1..], &format!("{}A", *token), "", "!"] {
            assert!(wrong.parse::<Token>().is_err());
        }
    }

    #[test]
    fn every_part_of_a_candidate_is_in_its_fingerprint() {
        let known = candidate(4, &mut StdRng::seed_from_u64(3));
        let mut seen = vec![known.fingerprint()];
        let alter: [fn(&mut Candidate); 5] = [
            |c| c.member.node += 1,
            |c| c.member.peer.push('0'),
            |c| c.member.identity.0[0] ^= 1,
            |c| c.member.envelope.0[0] ^= 1,
            |c| c.https.0[64] ^= 1,
        ];
        for alter in alter {
            let mut other = known.clone();
            alter(&mut other);
            seen.push(other.fingerprint());
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
        assert_eq!(known.fingerprint().len(), 8 * 4 + 7);
    }

    #[test]
    fn a_candidate_that_cannot_be_a_member_says_why() {
        let known = candidate(4, &mut StdRng::seed_from_u64(4));
        assert_eq!(known.fault(), None);
        let alter: [fn(&mut Candidate); 4] = [
            |c| c.member.node = 0,
            |c| c.member.peer = "nowhere".into(),
            // Of order one, and no point at all.
            |c| c.member.identity = beginning(1),
            |c| c.member.identity = beginning(2),
        ];
        for alter in alter {
            let mut other = known.clone();
            alter(&mut other);
            assert!(other.fault().is_some());
        }
    }

    #[test]
    fn certificates_count_for_one_candidate_of_one_cluster_and_by_an_operator() {
        let mut rng = StdRng::seed_from_u64(5);
        let (operator, stranger) = (OperatorKey::generate(&mut rng), OperatorKey::generate(&mut rng));
        let candidate = candidate(4, &mut rng);
        let certificates = Certificates {
            https: "h".into(),
            peer: "p".into(),
        };
        let (cluster, operators) = (Hex32([1; 32]), [Hex32(operator.public())]);
        let admission = Admission::sign(cluster, &candidate, certificates.clone(), &operator);
        assert_eq!(
            admission.certificates(cluster, &candidate, &operators),
            Some(certificates.clone())
        );
        let mut other = candidate.clone();
        other.https.0[64] ^= 1;
        assert_eq!(admission.certificates(cluster, &other, &operators), None);
        assert_eq!(
            admission.certificates(Hex32([2; 32]), &candidate, &operators),
            None
        );
        assert_eq!(
            admission.certificates(cluster, &candidate, &[Hex32(stranger.public())]),
            None
        );
        let mut altered = admission.clone();
        altered.text = altered.text.replace("\"h\"", "\"x\"");
        assert_eq!(altered.certificates(cluster, &candidate, &operators), None);
        let mut forged = Admission::sign(cluster, &candidate, certificates, &stranger);
        forged.signature.operator = Hex32(operator.public());
        assert_eq!(forged.certificates(cluster, &candidate, &operators), None);
    }
}
