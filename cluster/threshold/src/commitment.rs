//! The public side of a key: the summed vector of k points that the replicated state keeps. Its first point is the
//! public key; its evaluation at a member's index is that member's public share.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use crate::edwards25519::Edwards25519;
use crate::group::Group;
use crate::hash::Framed;
use crate::polynomial::evaluate_committed;
use crate::session::{MAX_MEMBERS, Purpose};
use crate::share::KeyShare;

/// The committed polynomial of a key in one epoch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commitment<G: Group = Edwards25519> {
    epoch: u64,
    purpose: Purpose,
    members: Vec<u16>,
    vector: Vec<G::Element>,
}

/// Why bytes or points are not a commitment.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitmentError {
    /// Fewer than 2 points, more than members, or members that are not rising from 1.
    #[error("not a commitment of 2 or more points for as many members")]
    Shape,
    /// A point that no honest ceremony commits to.
    #[error("point {0} of the commitment is malformed, the identity or of low order")]
    Point(usize),
}

impl<G: Group> Commitment<G> {
    pub(crate) fn new(
        epoch: u64,
        purpose: Purpose,
        members: Vec<u16>,
        vector: Vec<G::Element>,
    ) -> Result<Self, CommitmentError> {
        let rising =
            members.first().is_some_and(|first| *first != 0) && members.windows(2).all(|w| w[0] < w[1]);
        if !rising || vector.len() < 2 || vector.len() > members.len() || members.len() > MAX_MEMBERS {
            return Err(CommitmentError::Shape);
        }
        if let Some(place) = vector.iter().position(|point| *point == G::identity()) {
            return Err(CommitmentError::Point(place));
        }
        Ok(Commitment {
            epoch,
            purpose,
            members,
            vector,
        })
    }

    /// The epoch of the shares that it speaks of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the key is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// k, the number of shares that use the key.
    pub fn threshold(&self) -> usize {
        self.vector.len()
    }

    /// Indexes of the members that have a share.
    pub fn members(&self) -> &[u16] {
        &self.members
    }

    /// The public key as the group encodes it (an Ed25519 public key for edwards25519).
    pub fn public_key(&self) -> G::ElementEncoding {
        G::encode(&self.vector[0])
    }

    /// The encoded public share of a member, present, absent or future.
    pub fn public_share(&self, index: u16) -> G::ElementEncoding {
        G::encode(&self.share_element(index))
    }

    /// Whether this share is the one committed to: member, epoch, purpose, and s B = Y_i.
    pub fn holds(&self, share: &KeyShare<G>) -> bool {
        self.concerns(share) && G::mul_base(share.scalar()) == self.share_element(share.index())
    }

    /// Whether a share is of this epoch, purpose and committee, without the arithmetic.
    pub(crate) fn concerns(&self, share: &KeyShare<G>) -> bool {
        share.epoch() == self.epoch && share.purpose() == self.purpose && self.is_member(share.index())
    }

    pub(crate) fn is_member(&self, index: u16) -> bool {
        self.members.binary_search(&index).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn public_element(&self) -> &G::Element {
        &self.vector[0]
    }

    #[cfg(test)]
    pub(crate) fn vector(&self) -> &[G::Element] {
        &self.vector
    }

    pub(crate) fn share_element(&self, index: u16) -> G::Element {
        evaluate_committed::<G>(&self.vector, index)
    }

    /// What all participants of a generation sign and apply checks: SHA-256 over the session's digest, this
    /// commitment, and `record`, the digest of the packages and of the envelopes that are kept for absent members.
    pub fn transcript(&self, session: &[u8; 32], record: &[u8; 32]) -> [u8; 32] {
        let mut hash = Framed::<Sha256>::new("conclave dkg 1 transcript")
            .part(G::NAME.as_bytes())
            .part(session)
            .part(record)
            .number(self.epoch)
            .number(self.purpose.code().into())
            .number(self.members.len() as u64);
        hash = self
            .members
            .iter()
            .fold(hash, |hash, member| hash.number((*member).into()));
        self.vector
            .iter()
            .fold(hash, |hash, point| hash.part(G::encode(point).as_ref()))
            .finish()
    }
}

impl Commitment<Edwards25519> {
    /// The public key as an X25519 u-coordinate (RFC 7748).
    pub fn montgomery(&self) -> [u8; 32] {
        self.vector[0].to_montgomery().to_bytes()
    }
}

#[derive(Deserialize, Serialize)]
struct Plain {
    group: String,
    epoch: u64,
    purpose: Purpose,
    members: Vec<u16>,
    vector: Vec<Vec<u8>>,
}

impl<G: Group> Serialize for Commitment<G> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let vector = self
            .vector
            .iter()
            .map(|point| G::encode(point).as_ref().to_vec())
            .collect();
        let members = self.members.clone();
        Plain {
            group: G::NAME.into(),
            epoch: self.epoch,
            purpose: self.purpose,
            members,
            vector,
        }
        .serialize(serializer)
    }
}

impl<'de, G: Group> Deserialize<'de> for Commitment<G> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let plain = Plain::deserialize(deserializer)?;
        if plain.group != G::NAME {
            return Err(D::Error::custom("the commitment is of another group"));
        }
        if plain.vector.len() > MAX_MEMBERS {
            return Err(D::Error::custom(CommitmentError::Shape));
        }
        let mut vector = Vec::with_capacity(plain.vector.len());
        for (place, point) in plain.vector.iter().enumerate() {
            vector.push(G::decode(point).map_err(|_| D::Error::custom(CommitmentError::Point(place)))?);
        }
        Commitment::new(plain.epoch, plain.purpose, plain.members, vector).map_err(D::Error::custom)
    }
}
