//! Distributed key generation: Pedersen's, with a hash round before it and an echo in it (threshold.md).
//!
//! Each participant calls [`Participant::begin`], then [`packages`](Participant::packages),
//! [`deal`](Participant::deal) and [`finish`](Participant::finish) with all participants' messages of the round
//! before, its own included. The caller sends each answer once, and nothing of the ceremony after a [`Fault`].
//! The share must be on disk before the transcript is signed.
//!
//! A [`renewal`] is the same ceremony about a key that is there.

pub mod renewal;

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::commitment::Commitment;
use crate::edwards25519::Edwards25519;
use crate::envelope::{self, EnvelopeKey, SealedShare};
use crate::fault::{Evidence, Fault, Reason};
use crate::group::Group;
use crate::hash::Framed;
use crate::message::{self, Message, Statement};
use crate::package::{self, Package};
use crate::polynomial::Polynomial;
use crate::session::Session;
use crate::share::KeyShare;

/// One participant of one generation. No Debug; its secrets are zeroized on drop.
pub struct Participant<G: Group = Edwards25519> {
    session: Arc<Session>,
    me: u16,
    /// None for who only receives ([`renewal`]).
    dealing: Option<Dealing<G>>,
    stage: Stage<G>,
}

/// What a dealer deals.
struct Dealing<G: Group> {
    signing_key: SigningKey,
    polynomial: Polynomial<G>,
    vector: Vec<G::Element>,
    package: Vec<u8>,
}

/// What was sent last, and what was learnt until then.
enum Stage<G: Group> {
    Begun {
        sent: Vec<u8>,
    },
    Revealed {
        sent: Vec<u8>,
        hashes: BTreeMap<u16, Vec<u8>>,
    },
    Dealt {
        sent: Vec<u8>,
        dealers: BTreeMap<u16, Dealer<G>>,
    },
    Over,
}

/// A dealer whose package was verified.
struct Dealer<G: Group> {
    statement: Statement,
    message: Vec<u8>,
    package: Package<G>,
}

/// What a participant ends with.
pub struct Outcome<G: Group = Edwards25519> {
    /// This participant's share. On disk before the transcript is signed.
    pub share: KeyShare<G>,
    /// The key's public side, for the replicated state.
    pub commitment: Commitment<G>,
    /// For each absent member one envelope of every participant, to be kept until the member has its share.
    pub envelopes: BTreeMap<u16, Vec<SealedShare>>,
    /// All dealers' round 1 messages: public, kept with the envelopes, so that a bad one can be proven.
    pub packages: BTreeMap<u16, Vec<u8>>,
    /// Digest of all packages and of all kept envelopes.
    pub record: [u8; 32],
    /// What this participant signs: [`Commitment::transcript`] of the session's digest and `record`.
    pub transcript: [u8; 32],
}

#[derive(Deserialize, Serialize)]
struct Deal {
    /// What this participant got in round 1, of each participant by rising index.
    echo: Vec<Statement>,
    /// For every other member, by rising index.
    envelopes: Vec<SealedShare>,
}

/// The longest message of a session, in bytes.
pub(crate) fn bound<G: Group>(session: &Session) -> usize {
    let members = session.terms().members.len() + session.terms().leaving.len();
    let package = members * (G::ELEMENT_BYTES + 3) + 2 * (G::SCALAR_BYTES + 3);
    let statement = 1 + 3 + 32 + 64;
    let envelope = 3 + 3 + 32 + 3 + SealedShare::ciphertext_bytes::<G>();
    128 + package + members * (statement + envelope)
}

/// Whether a signed payload is wrong whatever else was said in the ceremony.
pub(crate) fn is_wrong_by_itself<G: Group>(
    session: &Session,
    round: u8,
    sender: u16,
    payload: &[u8],
) -> bool {
    match round {
        0 => payload.len() != 32,
        1 => package::check::<G>(session, sender, payload).is_err(),
        2 => read_deal::<G>(session, sender, payload)
            .is_none_or(|deal| deal.echo.iter().any(|statement| !statement.verify(session))),
        _ => false,
    }
}

/// Whether `bytes` are what the participant `sender` signed for this round of this session, whatever they say: a
/// coordinator hands on nothing else, so that a message that nobody signed is laid at its sender's door.
pub fn is_signed<G: Group>(session: &Session, round: u8, sender: u16, bytes: &[u8]) -> bool {
    message::open(session, round, sender, bytes, bound::<G>(session)).is_ok()
}

/// A round 2 payload of the right shape: one echo per participant, one envelope per other member.
fn read_deal<G: Group>(session: &Session, dealer: u16, payload: &[u8]) -> Option<Deal> {
    let deal: Deal = message::decode_owned(payload)?;
    let echoed = deal.echo.iter().map(|statement| statement.sender);
    let dealt = deal.envelopes.iter().map(|sealed| sealed.member);
    let shaped = echoed.eq(session.terms().participants.iter().copied())
        && deal.echo.iter().all(|statement| statement.round == 1)
        && dealt.eq(session.indexes().filter(|index| *index != dealer))
        && deal.envelopes.iter().all(|sealed| {
            sealed.dealer == dealer && sealed.ciphertext.len() == SealedShare::ciphertext_bytes::<G>()
        });
    shaped.then_some(deal)
}

impl<G: Group> Participant<G> {
    /// Draws the polynomial of participant `me` and gives the signed round 0 message: a hash of its package.
    ///
    /// # Errors
    /// `me` is no participant, or `signing_key` is not the one that the session pins for it.
    pub fn begin(
        session: impl Into<Arc<Session>>,
        me: u16,
        signing_key: &SigningKey,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Vec<u8>), Fault> {
        let session = session.into();
        if !takes_part(&session, me, signing_key) || !session.terms().constants.is_empty() {
            return Err(Fault::unnamed(Reason::NotParticipant(me)));
        }
        let polynomial = Polynomial::random(session.terms().threshold, session.digest(), rng);
        Ok(Self::with_polynomial(session, me, signing_key, polynomial, rng))
    }

    fn with_polynomial(
        session: Arc<Session>,
        me: u16,
        signing_key: &SigningKey,
        polynomial: Polynomial<G>,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> (Self, Vec<u8>) {
        let (package, Package { vector }) = package::build(&session, me, &polynomial, rng);
        let hash = package::hash::<G>(&session, me, &package);
        let sent = message::seal(&session, 0, me, &hash, signing_key);
        let stage = Stage::Begun { sent: sent.clone() };
        let dealing = Some(Dealing {
            signing_key: signing_key.clone(),
            polynomial,
            vector,
            package,
        });
        let this = Participant {
            session,
            me,
            dealing,
            stage,
        };
        (this, sent)
    }

    /// The session that it runs in.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Takes everybody's round 0 message and reveals the package: the signed round 1 message, empty from who deals nothing.
    pub fn packages(&mut self, round0: &BTreeMap<u16, Vec<u8>>) -> Result<Vec<u8>, Fault> {
        let Stage::Begun { sent } = self.take_stage() else {
            return Err(Fault::unnamed(Reason::OutOfTurn));
        };
        for (sender, message) in self.open_set(0, &sent, round0)? {
            if message.payload.len() != 32 {
                let evidence = Evidence::Message(round0[&sender].clone());
                return Err(Fault::proven(sender, Reason::Malformed(sender), evidence));
            }
        }
        let sent = self.dealing.as_ref().map_or_else(Vec::new, |dealing| {
            message::seal(&self.session, 1, self.me, &dealing.package, &dealing.signing_key)
        });
        self.stage = Stage::Revealed {
            sent: sent.clone(),
            hashes: round0.clone(),
        };
        Ok(sent)
    }

    /// Takes everybody's package, verifies it, and deals: the signed round 2 message with an echo of all packages
    /// and an envelope for every other member, present or away; empty from who deals nothing.
    pub fn deal(
        &mut self,
        round1: &BTreeMap<u16, Vec<u8>>,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Vec<u8>, Fault> {
        let Stage::Revealed { sent, hashes } = self.take_stage() else {
            return Err(Fault::unnamed(Reason::OutOfTurn));
        };
        let mut dealers = BTreeMap::new();
        for (dealer, message) in self.open_set(1, &sent, round1)? {
            let bytes = &round1[&dealer];
            let package = self.verify_package(dealer, &message, bytes, &hashes[&dealer])?;
            dealers.insert(
                dealer,
                Dealer {
                    statement: message.statement,
                    message: bytes.clone(),
                    package,
                },
            );
        }
        let sent = match &self.dealing {
            Some(dealing) => self.envelopes(dealing, &dealers, rng)?,
            None => Vec::new(),
        };
        self.stage = Stage::Dealt {
            sent: sent.clone(),
            dealers,
        };
        Ok(sent)
    }

    /// The signed round 2 message.
    fn envelopes(
        &self,
        dealing: &Dealing<G>,
        dealers: &BTreeMap<u16, Dealer<G>>,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Vec<u8>, Fault> {
        let (session, key) = (&self.session, &dealing.signing_key);
        let echo = dealers.values().map(|dealer| dealer.statement).collect();
        let mut envelopes = Vec::with_capacity(session.terms().members.len());
        for member in session.indexes().filter(|index| *index != self.me) {
            let share = dealing.polynomial.evaluate(member);
            let sealed = envelope::seal::<G>(session, self.me, member, &share, key, rng);
            envelopes.push(sealed.ok_or(Fault::accused(member, Reason::Envelope(member)))?);
        }
        let payload =
            postcard::to_allocvec(&Deal { echo, envelopes }).expect("integers and bytes always encode");
        Ok(message::seal(session, 2, self.me, &payload, key))
    }

    /// Takes everybody's deal: compares the echoes, opens the own envelopes, and ends with share and commitment.
    pub fn finish(mut self, round2: &BTreeMap<u16, Vec<u8>>, key: &EnvelopeKey) -> Result<Outcome<G>, Fault> {
        let Stage::Dealt { sent, dealers } = self.take_stage() else {
            return Err(Fault::unnamed(Reason::OutOfTurn));
        };
        if self
            .session
            .member(self.me)
            .is_none_or(|member| member.envelope_key != key.public())
        {
            return Err(Fault::unnamed(Reason::NotParticipant(self.me)));
        }
        let mut deals = BTreeMap::new();
        for (dealer, message) in self.open_set(2, &sent, round2)? {
            let evidence = || Evidence::Message(round2[&dealer].clone());
            let deal = read_deal::<G>(&self.session, dealer, message.payload)
                .ok_or_else(|| Fault::proven(dealer, Reason::Malformed(dealer), evidence()))?;
            deals.insert(dealer, deal);
        }
        // All echoes before any share: a dealer that told two stories is to be named for that.
        for (teller, deal) in &deals {
            self.compare_echo(*teller, deal, &dealers, &round2[teller])?;
        }
        let commitment = self.sum_packages(&dealers)?;
        let share = self.sum_shares(&deals, &dealers, key, &commitment)?;
        let envelopes = self
            .session
            .absent()
            .map(|absent| (absent, envelopes_for(absent, &deals)))
            .collect();
        let record = record(&dealers, &envelopes);
        let transcript = commitment.transcript(self.session.digest(), &record);
        let packages = dealers
            .into_iter()
            .map(|(index, dealer)| (index, dealer.message))
            .collect();
        Ok(Outcome {
            share,
            commitment,
            envelopes,
            packages,
            record,
            transcript,
        })
    }

    /// The stage, which is over unless the caller sets the next one: a fault ends the ceremony for good.
    fn take_stage(&mut self) -> Stage<G> {
        std::mem::replace(&mut self.stage, Stage::Over)
    }

    fn open_set<'a>(
        &self,
        round: u8,
        sent: &[u8],
        set: &'a BTreeMap<u16, Vec<u8>>,
    ) -> Result<BTreeMap<u16, Message<'a>>, Fault> {
        if !set.keys().eq(self.session.terms().participants.iter()) {
            return Err(Fault::unnamed(Reason::IncompleteSet));
        }
        let bound = bound::<G>(&self.session);
        let mut messages = BTreeMap::new();
        for (sender, bytes) in set {
            let message = if *sender == self.me {
                // Our own signature needs no verification, only that these are the bytes that we sent.
                message::read(bytes)
                    .filter(|_| bytes == sent)
                    .ok_or(Fault::unnamed(Reason::NotOurs))?
            } else {
                message::open(&self.session, round, *sender, bytes, bound)?
            };
            messages.insert(*sender, message);
        }
        Ok(messages)
    }

    fn verify_package(
        &self,
        dealer: u16,
        message: &Message<'_>,
        bytes: &[u8],
        round0: &[u8],
    ) -> Result<Package<G>, Fault> {
        let hash = message::read(round0)
            .map(|message| message.payload.to_vec())
            .unwrap_or_default();
        if package::hash::<G>(&self.session, dealer, message.payload)[..] != hash[..] {
            let evidence = Evidence::Broken {
                hash: round0.to_vec(),
                package: bytes.to_vec(),
            };
            return Err(Fault::proven(dealer, Reason::NotCommitted(dealer), evidence));
        }
        if let Some(dealing) = self.dealing.as_ref().filter(|_| dealer == self.me) {
            return Ok(Package {
                vector: dealing.vector.clone(),
            });
        }
        package::check(&self.session, dealer, message.payload).map_err(|error| {
            Fault::proven(
                dealer,
                Reason::Package(dealer, error),
                Evidence::Message(bytes.to_vec()),
            )
        })
    }

    /// Whether a participant got the packages that we got. If not: either their dealer signed two, and both
    /// signatures together prove it, or the participant made one up, and its own message proves that.
    fn compare_echo(
        &self,
        teller: u16,
        deal: &Deal,
        dealers: &BTreeMap<u16, Dealer<G>>,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        for (told, (index, dealer)) in deal.echo.iter().zip(dealers) {
            if told.payload == dealer.statement.payload {
                continue;
            }
            if !told.verify(&self.session) {
                let evidence = Evidence::Message(bytes.to_vec());
                return Err(Fault::proven(teller, Reason::FalseEcho(teller), evidence));
            }
            let evidence = Evidence::Equivocation {
                first: dealer.statement,
                second: *told,
            };
            return Err(Fault::proven(*index, Reason::Equivocation(*index), evidence));
        }
        Ok(())
    }

    fn sum_packages(&self, dealers: &BTreeMap<u16, Dealer<G>>) -> Result<Commitment<G>, Fault> {
        let terms = self.session.terms();
        let mut sum = vec![G::identity(); terms.threshold.into()];
        for dealer in dealers.values() {
            for (total, point) in sum.iter_mut().zip(&dealer.package.vector) {
                *total = *total + *point;
            }
        }
        Commitment::new(terms.epoch, terms.purpose, self.session.indexes().collect(), sum)
            .map_err(|_| Fault::unnamed(Reason::NoKey))
    }

    fn sum_shares(
        &self,
        deals: &BTreeMap<u16, Deal>,
        dealers: &BTreeMap<u16, Dealer<G>>,
        key: &EnvelopeKey,
        commitment: &Commitment<G>,
    ) -> Result<KeyShare<G>, Fault> {
        let mut opened = BTreeMap::new();
        for (dealer, deal) in deals.iter().filter(|(dealer, _)| **dealer != self.me) {
            let sealed = deal.envelopes.iter().find(|sealed| sealed.member == self.me);
            let plain = sealed.and_then(|sealed| envelope::unseal::<G>(&self.session, sealed, key));
            opened.insert(
                *dealer,
                plain.ok_or(Fault::accused(*dealer, Reason::Envelope(*dealer)))?,
            );
        }
        // One check of the sum; the single shares are looked at only when it fails.
        let own = self
            .dealing
            .as_ref()
            .map(|dealing| dealing.polynomial.evaluate(self.me));
        let share = envelope::add_up::<G>(&self.session, self.me, own.as_deref(), &opened);
        if let Some(share) = share.filter(|share| commitment.holds(share)) {
            return Ok(share);
        }
        for (index, plain) in &opened {
            let dealer = &dealers[index];
            envelope::check_share(
                &self.session,
                *index,
                self.me,
                plain,
                &dealer.package,
                &dealer.message,
            )?;
        }
        Err(Fault::unnamed(Reason::NoKey))
    }
}

/// Whether the session has `me` as a participant with this key.
fn takes_part(session: &Session, me: u16, signing_key: &SigningKey) -> bool {
    let pinned = session.verifying_key(me);
    session.terms().participants.contains(&me)
        && pinned.is_some_and(|key| *key == signing_key.verifying_key())
}

fn envelopes_for(member: u16, deals: &BTreeMap<u16, Deal>) -> Vec<SealedShare> {
    deals
        .values()
        .filter_map(|deal| deal.envelopes.iter().find(|sealed| sealed.member == member))
        .cloned()
        .collect()
}

fn record<G: Group>(
    dealers: &BTreeMap<u16, Dealer<G>>,
    envelopes: &BTreeMap<u16, Vec<SealedShare>>,
) -> [u8; 32] {
    let mut hash = Framed::<Sha256>::new("conclave dkg 1 record").number(dealers.len() as u64);
    for (index, dealer) in dealers {
        hash = hash.number((*index).into()).part(&dealer.statement.payload);
    }
    for (member, sealed) in envelopes {
        hash = hash.number((*member).into()).number(sealed.len() as u64);
        hash = sealed
            .iter()
            .fold(hash, |hash, sealed| hash.part(&sealed.digest()));
    }
    hash.finish()
}

#[cfg(test)]
mod tests;
