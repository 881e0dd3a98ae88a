//! A ceremony's session: who takes part in what. Every participant derives it for itself from its own state and the
//! client's bytes, never from a coordinator's frame; [`Session::digest`] goes under every signature of the ceremony,
//! so participants with different sessions simply do not understand each other.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use hpke::Deserializable;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::hash::Framed;

/// The most members that a committee may have; bounds every message.
pub const MAX_MEMBERS: usize = 16;
/// The longest key name and key type, in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// What a key is for. Its shares answer this kind of ceremony and no other.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Purpose {
    /// Signatures: [`crate::frost`].
    Sign,
    /// Diffie-Hellman: [`crate::diffie_hellman`].
    Agree,
}

impl Purpose {
    pub(crate) fn code(self) -> u8 {
        match self {
            Purpose::Sign => 1,
            Purpose::Agree => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Purpose::Sign, Purpose::Agree]
            .into_iter()
            .find(|purpose| purpose.code() == code)
    }
}

/// A member of a committee, as the membership pins it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Where the member's share lies on the polynomial; 1 or more.
    pub index: u16,
    /// Ed25519 public key that signs its messages.
    pub verifying_key: [u8; 32],
    /// X25519 public key that its envelopes are sealed to.
    pub envelope_key: [u8; 32],
}

/// The plain facts of a session, not yet checked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionTerms {
    /// The cluster's id.
    pub cluster: [u8; 32],
    /// The ceremony's id (threshold.md, "Common"): new for every attempt.
    pub ceremony: [u8; 32],
    /// The key's name; opaque here. 1 to [`MAX_NAME_BYTES`] bytes.
    pub key: Vec<u8>,
    /// The key's type; opaque here. 1 to [`MAX_NAME_BYTES`] bytes.
    pub key_type: String,
    /// What the key is for.
    pub purpose: Purpose,
    /// The epoch of the shares that come out.
    pub epoch: u64,
    /// k: how many shares use the key; at least 2, at most the number of participants, or, in a renewal, of members.
    pub threshold: u16,
    /// All members that get a share, present or away.
    pub members: Vec<Member>,
    /// Indexes of those that deal.
    pub participants: BTreeSet<u16>,
    /// Of a renewal: participants that deal and get no share, since they are no members any more. Empty for a new key.
    pub leaving: Vec<Member>,
    /// Of a renewal ([`crate::dkg::renewal`]): the first point that each participant has to commit to, encoded. Empty for
    /// a new key.
    pub constants: BTreeMap<u16, Vec<u8>>,
}

/// Why terms do not make a session.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// Member indexes must rise from 1 without a repeat.
    #[error("member indexes are not strictly rising from 1 or more")]
    Indexes,
    /// None, or more than [`MAX_MEMBERS`].
    #[error("{0} members, but 2 to {MAX_MEMBERS} are allowed")]
    MemberCount(usize),
    /// k must be 2 or more and no more than take part.
    #[error("a threshold of {threshold} with {participants} participants")]
    Threshold {
        /// The threshold asked for.
        threshold: u16,
        /// How many take part.
        participants: usize,
    },
    /// A participant that is no member and does not leave.
    #[error("participant {0} is not a member")]
    UnknownParticipant(u16),
    /// One that leaves and is a member, or deals nothing.
    #[error("{0} leaves, and is a member or deals nothing")]
    Leaving(u16),
    /// A renewal that does not say of every participant, and of nobody else, where it begins.
    #[error("the points that the participants begin with are not one for each of them")]
    Constants,
    /// A member's signing or envelope key is not a key, weak, or another member's.
    #[error("member {0} has an unusable or repeated public key")]
    MemberKey(u16),
    /// The key's name or type is empty or too long.
    #[error("the key's name and type must have 1 to {MAX_NAME_BYTES} bytes")]
    Name,
}

/// A checked session. Members' keys are decoded once, here.
#[derive(Clone, Debug)]
pub struct Session {
    terms: SessionTerms,
    /// Of the members, then of those that leave.
    verifying_keys: Vec<VerifyingKey>,
    digest: [u8; 32],
}

impl Session {
    /// Checks the terms: rising indexes, distinct usable keys, 2 <= threshold <= participants, participants are
    /// members, bounds of names.
    pub fn new(terms: SessionTerms) -> Result<Self, SessionError> {
        let count = terms.members.len();
        if !(2..=MAX_MEMBERS).contains(&count) {
            return Err(SessionError::MemberCount(count));
        }
        let rise = |members: &[Member]| {
            members.first().is_none_or(|first| first.index > 0)
                && members.windows(2).all(|pair| pair[0].index < pair[1].index)
        };
        if !rise(&terms.members) || !rise(&terms.leaving) {
            return Err(SessionError::Indexes);
        }
        let all = count + terms.leaving.len();
        if all > MAX_MEMBERS {
            return Err(SessionError::MemberCount(all));
        }
        let idle = |member: &&Member| {
            !terms.participants.contains(&member.index) || position(&terms.members, member.index).is_some()
        };
        if let Some(member) = terms.leaving.iter().find(idle) {
            return Err(SessionError::Leaving(member.index));
        }
        let named = |length: usize| (1..=MAX_NAME_BYTES).contains(&length);
        if !named(terms.key.len()) || !named(terms.key_type.len()) {
            return Err(SessionError::Name);
        }
        if let Some(unknown) = terms
            .participants
            .iter()
            .find(|index| terms.place(**index).is_none())
        {
            return Err(SessionError::UnknownParticipant(*unknown));
        }
        let able = match terms.constants.is_empty() {
            true => terms.participants.len(),
            false => count,
        };
        if terms.threshold < 2 || usize::from(terms.threshold) > able {
            let participants = terms.participants.len();
            return Err(SessionError::Threshold {
                threshold: terms.threshold,
                participants,
            });
        }
        let renews = !terms.constants.is_empty();
        if (renews || !terms.leaving.is_empty()) && !terms.constants.keys().eq(terms.participants.iter()) {
            return Err(SessionError::Constants);
        }
        let mut seen = BTreeSet::new();
        let mut verifying_keys = Vec::with_capacity(all);
        for member in terms.members.iter().chain(&terms.leaving) {
            let key = VerifyingKey::from_bytes(&member.verifying_key)
                .ok()
                .filter(|key| !key.is_weak());
            let envelope = crate::envelope::PublicKey::from_bytes(&member.envelope_key);
            let distinct = seen.insert(member.verifying_key) && seen.insert(member.envelope_key);
            match (key, envelope) {
                (Some(key), Ok(_)) if distinct => verifying_keys.push(key),
                _ => return Err(SessionError::MemberKey(member.index)),
            }
        }
        let digest = digest(&terms);
        Ok(Session {
            terms,
            verifying_keys,
            digest,
        })
    }

    /// The facts that were checked.
    pub fn terms(&self) -> &SessionTerms {
        &self.terms
    }

    /// SHA-256 over all terms; under every signature of the ceremony.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The member of this index.
    pub fn member(&self, index: u16) -> Option<&Member> {
        position(&self.terms.members, index).map(|place| &self.terms.members[place])
    }

    /// The members that do not deal, by rising index.
    pub fn absent(&self) -> impl Iterator<Item = u16> + '_ {
        self.indexes()
            .filter(|index| !self.terms.participants.contains(index))
    }

    /// Indexes of all members, rising.
    pub fn indexes(&self) -> impl Iterator<Item = u16> + '_ {
        self.terms.members.iter().map(|member| member.index)
    }

    pub(crate) fn verifying_key(&self, index: u16) -> Option<&VerifyingKey> {
        self.terms.place(index).map(|place| &self.verifying_keys[place])
    }
}

impl SessionTerms {
    /// The place of whoever has this index, among the members and then those that leave.
    fn place(&self, index: u16) -> Option<usize> {
        let leaving = || Some(self.members.len() + position(&self.leaving, index)?);
        position(&self.members, index).or_else(leaving)
    }
}

fn position(members: &[Member], index: u16) -> Option<usize> {
    members.binary_search_by_key(&index, |member| member.index).ok()
}

fn digest(terms: &SessionTerms) -> [u8; 32] {
    let mut hash = Framed::<Sha256>::new("conclave session 1")
        .part(&terms.cluster)
        .part(&terms.ceremony)
        .part(&terms.key)
        .part(terms.key_type.as_bytes())
        .number(terms.purpose.code().into())
        .number(terms.epoch)
        .number(terms.threshold.into())
        .number(terms.members.len() as u64);
    for member in &terms.members {
        hash = hash
            .number(member.index.into())
            .part(&member.verifying_key)
            .part(&member.envelope_key);
    }
    hash = hash.number(terms.participants.len() as u64);
    for participant in &terms.participants {
        hash = hash.number((*participant).into());
    }
    for member in &terms.leaving {
        hash = hash
            .number(member.index.into())
            .part(&member.verifying_key)
            .part(&member.envelope_key);
    }
    for (participant, point) in &terms.constants {
        hash = hash.number((*participant).into()).part(point);
    }
    hash.finish()
}
