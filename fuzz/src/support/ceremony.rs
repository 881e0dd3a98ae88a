//! A generation of three members and one that is away, in which member 3 may say anything over its own signature.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use conclave_threshold::dkg::{Outcome, Participant};
use conclave_threshold::envelope::EnvelopeKey;
use conclave_threshold::{Fault, Member, Purpose, Session, SessionTerms, SignatureBytes};
use ed25519_dalek::{Signer as _, SigningKey};
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Who lies.
pub(crate) const CORRUPT: u16 = 3;
/// Who is away.
pub(crate) const AWAY: u16 = 4;

/// Messages of one round by their senders.
pub(crate) type Round = BTreeMap<u16, Vec<u8>>;

/// A member's keys, the same in every run.
pub(crate) fn signing_key(member: u16) -> SigningKey {
    SigningKey::from_bytes(&[member as u8; 32])
}

/// The key that opens a member's envelopes.
pub(crate) fn envelope_key(member: u16) -> EnvelopeKey {
    EnvelopeKey::from_bytes(&[100 + member as u8; 32])
}

/// The session, for keys of this purpose.
pub(crate) fn session(purpose: Purpose) -> Arc<Session> {
    let member = |index: u16| Member {
        index,
        verifying_key: signing_key(index).verifying_key().to_bytes(),
        envelope_key: envelope_key(index).public(),
    };
    let terms = SessionTerms {
        cluster: [1; 32],
        ceremony: [2; 32],
        key: b"urn:key".to_vec(),
        key_type: "a type".into(),
        purpose,
        epoch: 0,
        threshold: 2,
        members: (1..=AWAY).map(member).collect(),
        participants: BTreeSet::from([1, 2, CORRUPT]),
        leaving: Vec::new(),
        constants: BTreeMap::new(),
    };
    Arc::new(Session::new(terms).expect("a sound session"))
}

/// The generation, up to where its honest members have come.
pub(crate) struct Generation {
    session: Arc<Session>,
    participants: BTreeMap<u16, Participant>,
    rng: ChaCha20Rng,
}

impl Generation {
    /// The members begin; their messages of round 0.
    pub(crate) fn begin(purpose: Purpose, members: &[u16]) -> (Self, Round) {
        let session = session(purpose);
        let (mut participants, mut sent) = (BTreeMap::new(), Round::new());
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        for member in members {
            let begun = Participant::begin(session.clone(), *member, &signing_key(*member), &mut rng);
            let (participant, message) = begun.expect("a member of the session");
            participants.insert(*member, participant);
            sent.insert(*member, message);
        }
        let generation = Self {
            session,
            participants,
            rng,
        };
        (generation, sent)
    }

    /// Round 1.
    pub(crate) fn packages(&mut self, round0: &Round) -> Result<Round, Fault> {
        let participants = self.participants.iter_mut();
        participants
            .map(|(member, participant)| Ok((*member, participant.packages(round0)?)))
            .collect()
    }

    /// Round 2.
    pub(crate) fn deal(&mut self, round1: &Round) -> Result<Round, Fault> {
        let participants = self.participants.iter_mut();
        participants
            .map(|(member, participant)| Ok((*member, participant.deal(round1, &mut self.rng)?)))
            .collect()
    }

    /// What they end with.
    pub(crate) fn finish(self, round2: &Round) -> Result<BTreeMap<u16, Outcome>, Fault> {
        let participants = self.participants.into_iter();
        participants
            .map(|(member, participant)| Ok((member, participant.finish(round2, &envelope_key(member))?)))
            .collect()
    }

    /// The session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}

/// The three rounds of an honest generation, and what comes of it.
pub(crate) fn honest(purpose: Purpose) -> ([Round; 3], BTreeMap<u16, Outcome>) {
    let run = || -> Result<_, Fault> {
        let (mut generation, round0) = Generation::begin(purpose, &[1, 2, CORRUPT]);
        let round1 = generation.packages(&round0)?;
        let round2 = generation.deal(&round1)?;
        let outcomes = generation.finish(&round2)?;
        Ok(([round0, round1, round2], outcomes))
    };
    run().expect("nobody lies")
}

/// A signed message as it travels.
#[derive(Deserialize, Serialize)]
pub(crate) struct Message {
    /// The round.
    pub(crate) round: u8,
    /// Who says it.
    pub(crate) sender: u16,
    /// What.
    pub(crate) payload: Vec<u8>,
    signature: SignatureBytes,
}

impl Message {
    /// Reads an honest one.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).expect("the message of an honest member")
    }
}

static TERMS: LazyLock<BTreeMap<u8, [u8; 32]>> = LazyLock::new(|| {
    let digest = |purpose: Purpose| (purpose as u8, *session(purpose).digest());
    BTreeMap::from([digest(Purpose::Sign), digest(Purpose::Agree)])
});

/// Anything, as the corrupt member signs it for a round (threshold.md, "Common").
pub(crate) fn said_by_corrupt(purpose: Purpose, round: u8, payload: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"dkg");
    part(&1u64.to_be_bytes());
    part(&[1; 32]);
    part(&[2; 32]);
    part(&TERMS[&(purpose as u8)]);
    for number in [u64::from(round), CORRUPT.into(), 0] {
        part(&number.to_be_bytes());
    }
    part(&Sha256::digest(payload));
    let signed = [b"conclave ceremony 1\0", &hash.finalize()[..]].concat();
    let signature = signing_key(CORRUPT).sign(&signed);
    // R and s travel as an array of 32 bytes each.
    let halves = (*signature.r_bytes(), *signature.s_bytes());
    postcard::to_stdvec(&(round, CORRUPT, payload, halves)).expect("integers and bytes always encode")
}
