//! New shares of a key that is there: verifiable redistribution (threshold.md, "Repair, refresh, reshare"; Desmedt and
//! Jajodia 1997, with Feldman's commitments).
//!
//! A dealer shares its part of the key, its old share times its Lagrange coefficient among the participants, in place
//! of a fresh secret. The old commitment says what each dealer's first point has to be, so that a dealer can share
//! nothing else, and the parts add up to the same key. Everything else is the generation of [`super`]: hashes, packages,
//! echo, envelopes for whoever is away, a transcript. The new polynomial is uniform as long as one dealer is honest, so
//! that shares of the two epochs together say no more than the shares of one.
//!
//! The members of the two epochs may be others ([`crate::SessionTerms::leaving`]), and the threshold another one: the
//! dealers are as many of the old members as the old threshold wants, those that get shares are the new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::{Participant, Stage, takes_part};
use crate::commitment::Commitment;
use crate::fault::{Fault, Reason};
use crate::group::Group;
use crate::polynomial::{Polynomial, lagrange};
use crate::session::Session;
use crate::share::KeyShare;

/// The first point of each participant's vector, encoded: its old public share times its coefficient. For
/// [`crate::SessionTerms::constants`]. None if these members do not have the key between them.
pub fn constants<G: Group>(
    commitment: &Commitment<G>,
    participants: impl IntoIterator<Item = u16>,
) -> Option<BTreeMap<u16, Vec<u8>>> {
    let indexes: Vec<u16> = participants.into_iter().collect();
    if indexes.len() < commitment.threshold() {
        return None;
    }
    let point = |index: &u16| {
        let share = commitment
            .is_member(*index)
            .then(|| commitment.share_element(*index))?;
        let coefficient = lagrange::<G>(*index, &indexes)?;
        let point = G::vartime_multiscalar_mul(&[(coefficient, share)]);
        Some((*index, G::encode(&point).as_ref().to_vec()))
    };
    let points: BTreeMap<_, _> = indexes.iter().map(point).collect::<Option<_>>()?;
    (points.len() == indexes.len()).then_some(points)
}

impl<G: Group> Participant<G> {
    /// Takes part in a renewal without a share of the epoch before, lost or never delivered: deals nothing, sees everything
    /// that is dealt, and ends with its share and the same transcript. Its messages are empty and belong in no set.
    ///
    /// # Errors
    /// `me` is a dealer, or no member; or the session is not a renewal.
    pub fn receive(session: impl Into<Arc<Session>>, me: u16) -> Result<Self, Fault> {
        let session = session.into();
        let terms = session.terms();
        if terms.constants.is_empty() || terms.participants.contains(&me) || session.member(me).is_none() {
            return Err(Fault::unnamed(Reason::NotParticipant(me)));
        }
        Ok(Participant {
            session,
            me,
            dealing: None,
            stage: Stage::Begun { sent: Vec::new() },
        })
    }

    /// Begins a renewal with this participant's share of the epoch before. The signed round 0 message comes with it,
    /// as in [`Participant::begin`].
    ///
    /// # Errors
    /// `me` is no participant, `signing_key` is not the one that the session pins for it, or `share` is not the one that
    /// the session's constants speak of.
    pub fn renew(
        session: impl Into<Arc<Session>>,
        me: u16,
        signing_key: &SigningKey,
        share: &KeyShare<G>,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Self, Vec<u8>), Fault> {
        let session = session.into();
        let not_ours = || Fault::unnamed(Reason::NotParticipant(me));
        if !takes_part(&session, me, signing_key) {
            return Err(not_ours());
        }
        let terms = session.terms();
        let indexes: Vec<u16> = terms.participants.iter().copied().collect();
        let coefficient = lagrange::<G>(me, &indexes).ok_or_else(not_ours)?;
        let part = Zeroizing::new(coefficient * *share.scalar());
        let fits = share.index() == me
            && share.purpose() == terms.purpose
            && terms.constants.get(&me).map(Vec::as_slice) == Some(G::encode(&G::mul_base(&part)).as_ref());
        if !fits {
            return Err(not_ours());
        }
        let polynomial = Polynomial::<G>::random_through(&part, terms.threshold, session.digest(), rng);
        Ok(Self::with_polynomial(session, me, signing_key, polynomial, rng))
    }
}
