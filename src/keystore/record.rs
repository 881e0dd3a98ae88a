//! What the replicated state keeps. Nothing here is secret: shares never enter a log.

use serde::{Deserialize, Serialize};

use super::config::KeystoreConfig;

/// A keystore in the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreRecord {
    /// What the controller configured.
    pub config: KeystoreConfig,
    /// The state version: changes of the configuration and of a key's state advance it, other changes do not.
    /// A keystore that exists has 1 or more; what does not exist has 0.
    pub version: u64,
    /// Entry time of its creation, ms.
    pub created: u64,
}

/// The key types that are offered, each a WebKMS type with its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// `Ed25519VerificationKey2020`.
    Ed25519VerificationKey2020,
    /// `Ed25519VerificationKey2018`.
    Ed25519VerificationKey2018,
    /// `urn:webkms:multikey:Ed25519`.
    MultikeyEd25519,
    /// `X25519KeyAgreementKey2020`.
    X25519KeyAgreementKey2020,
    /// `urn:webkms:multikey:X25519`.
    MultikeyX25519,
    /// `Sha256HmacKey2019`.
    Sha256HmacKey2019,
    /// `AesKeyWrappingKey2019`.
    AesKeyWrappingKey2019,
}

/// What a key of some type can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Threshold Ed25519 signatures.
    Sign,
    /// Threshold X25519.
    DeriveSecret,
    /// HMAC-SHA-256 tags.
    Authenticate,
    /// AES key wrap.
    WrapKey,
}

impl KeyType {
    /// All of them, in the order of the contract's table.
    pub const ALL: [Self; 7] = [
        Self::Ed25519VerificationKey2020,
        Self::Ed25519VerificationKey2018,
        Self::MultikeyEd25519,
        Self::X25519KeyAgreementKey2020,
        Self::MultikeyX25519,
        Self::Sha256HmacKey2019,
        Self::AesKeyWrappingKey2019,
    ];

    /// The `type` that a GenerateKeyOperation names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519VerificationKey2020 => "Ed25519VerificationKey2020",
            Self::Ed25519VerificationKey2018 => "Ed25519VerificationKey2018",
            Self::MultikeyEd25519 => "urn:webkms:multikey:Ed25519",
            Self::X25519KeyAgreementKey2020 => "X25519KeyAgreementKey2020",
            Self::MultikeyX25519 => "urn:webkms:multikey:X25519",
            Self::Sha256HmacKey2019 => "Sha256HmacKey2019",
            Self::AesKeyWrappingKey2019 => "AesKeyWrappingKey2019",
        }
    }

    /// The type of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key_type| key_type.name() == name)
    }

    /// The `type` of its key description.
    pub fn description_type(self) -> &'static str {
        match self {
            Self::MultikeyEd25519 | Self::MultikeyX25519 => "Multikey",
            other => other.name(),
        }
    }

    /// The `@context` of its key description.
    pub fn context(self) -> &'static str {
        match self {
            Self::Ed25519VerificationKey2020 => "https://w3id.org/security/suites/ed25519-2020/v1",
            Self::Ed25519VerificationKey2018 => "https://w3id.org/security/suites/ed25519-2018/v1",
            Self::X25519KeyAgreementKey2020 => "https://w3id.org/security/suites/x25519-2020/v1",
            Self::MultikeyEd25519 | Self::MultikeyX25519 => "https://w3id.org/security/multikey/v1",
            Self::Sha256HmacKey2019 => "https://w3id.org/security/suites/hmac-2019/v1",
            Self::AesKeyWrappingKey2019 => "https://w3id.org/security/suites/aes-2019/v1",
        }
    }

    /// What its keys do.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Ed25519VerificationKey2020 | Self::Ed25519VerificationKey2018 | Self::MultikeyEd25519 => {
                Purpose::Sign
            }
            Self::X25519KeyAgreementKey2020 | Self::MultikeyX25519 => Purpose::DeriveSecret,
            Self::Sha256HmacKey2019 => Purpose::Authenticate,
            Self::AesKeyWrappingKey2019 => Purpose::WrapKey,
        }
    }

    /// Whether its keys are shared by pieces.
    pub fn is_symmetric(self) -> bool {
        matches!(self.purpose(), Purpose::Authenticate | Purpose::WrapKey)
    }

    /// The multicodec header of its public key, if it has one.
    pub fn multicodec(self) -> Option<[u8; 2]> {
        match self.purpose() {
            Purpose::Sign => Some([0xed, 0x01]),
            Purpose::DeriveSecret => Some([0xec, 0x01]),
            Purpose::Authenticate | Purpose::WrapKey => None,
        }
    }
}

/// The identifier that a key description shows in place of the key's URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alias {
    /// Shown as it is.
    Fixed(String),
    /// An RFC 6570 template over the description's members.
    Template(String),
}

/// What everybody may know of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Material {
    /// A key pair whose private key is shared by a polynomial.
    Pair {
        /// The summed vector of k points of its ceremony, encoded by the threshold crate: public key and the public
        /// share of every member follow from it.
        commitment: Vec<u8>,
        /// The raw public key: Ed25519 point or Montgomery u, 32 bytes.
        public_key: [u8; 32],
    },
    /// A symmetric key that is the XOR of pieces.
    Pieces(Sharing),
}

/// A sharing by pieces, of which each holder lacks one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// The nodes that hold it, ascending: the first lacks the first piece, and so on.
    pub holders: Vec<u64>,
    /// A commitment to each piece.
    pub pieces: Vec<[u8; 32]>,
    /// The secret is the XOR of all pieces and of this: at an HMAC key's birth its outer state was opened under a mask.
    pub correction: [u8; 32],
    /// Of an HMAC key: a hash of its inner state, which every holder keeps beside its pieces.
    pub inner: Option<[u8; 32]>,
    /// What the secret is checked by: a part of a hash over the key's name and it.
    pub check: [u8; 16],
}

impl Sharing {
    /// Holders that compute together, and without which no key is made.
    pub const TRIO: usize = 3;
    /// Most holders of one key.
    pub const MOST: usize = 4;

    /// The number of a node among the holders, from 1.
    pub fn number(&self, node: u64) -> Option<u8> {
        number_of(&self.holders, node)
    }
}

/// The number of a node among the holders of a symmetric key, from 1.
pub fn number_of(holders: &[u64], node: u64) -> Option<u8> {
    let at = holders.iter().position(|holder| *holder == node)?;
    u8::try_from(at + 1).ok()
}

impl Material {
    /// The commitment and the public key of a key pair.
    pub fn pair(&self) -> Option<(&[u8], &[u8; 32])> {
        match self {
            Self::Pair {
                commitment,
                public_key,
            } => Some((commitment, public_key)),
            Self::Pieces(_) => None,
        }
    }

    /// Whether both are of one key, whatever its shares are.
    pub fn is_same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Pair { public_key, .. },
                Self::Pair {
                    public_key: others, ..
                },
            ) => public_key == others,
            (Self::Pieces(own), Self::Pieces(other)) => {
                (own.correction, own.inner, own.check) == (other.correction, other.inner, other.check)
            }
            _ => false,
        }
    }

    /// The sharing of a symmetric key.
    pub fn sharing(&self) -> Option<&Sharing> {
        match self {
            Self::Pair { .. } => None,
            Self::Pieces(sharing) => Some(sharing),
        }
    }
}

/// A key in the replicated state: its public part, and which ceremony made its shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its type.
    pub key_type: KeyType,
    /// The epoch of its shares, from 0.
    pub epoch: u64,
    /// The ceremony whose shares are live.
    pub session: [u8; 32],
    /// What that ceremony made.
    pub material: Material,
    /// The number of the group's list of members that hold the shares of this epoch.
    pub committee: u64,
    /// Members that had no share on disk when the key was born (they have envelopes).
    pub away: Vec<u16>,
    /// In place of the URL in descriptions.
    pub alias: Option<Alias>,
    /// Longest capability chain that may use it, the root included.
    pub max_chain_length: Option<u32>,
    /// Entry time of its creation, ms.
    pub created: u64,
    /// The cluster in which it was born, if a restore brought it into another one: what its holders committed to then names
    /// that cluster.
    pub origin: Option<[u8; 32]>,
}

impl KeyRecord {
    /// The cluster in which the key was born, seen from `here`, the cluster that has it.
    pub fn birthplace<'a>(&'a self, here: &'a [u8; 32]) -> &'a [u8; 32] {
        self.origin.as_ref().unwrap_or(here)
    }
}

/// A keystore whose delegations are held back: it was restored from a backup, and revocations that are younger may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When that backup was made, ms.
    pub backup: u64,
}

/// A meter: who pays. In group 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// The DID that may create keystores on it.
    pub controller: String,
    /// The product id, as given.
    pub product: String,
    /// Counts updates from 0.
    pub sequence: u64,
}

/// What operators have ordered. In group 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The number of the last order; 0: none yet.
    pub sequence: u64,
    /// Shares that were made before this are to be made anew, ms of entry time.
    pub renew_before: u64,
}

/// A revocation of one link: a capability id together with the DID that signed its delegation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRecord {
    /// When it may be forgotten, by the group's applied time, ms.
    pub expires: u64,
    /// Who counts against the bound, or none for a controller of the keystore.
    pub revoker: Option<String>,
}

/// How often a request of one name was applied in this group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// Entry time of the first, ms.
    pub first: u64,
    /// Times applied.
    pub count: u8,
}
