//! The machines that ask one node to be seen: in its memory only, as many as there are tokens, and not for long.

use std::time::{Duration, Instant};

use super::candidate::{Admission, Candidate, Speaker, Spoken, Token};
use crate::config::Hex32;

/// Tokens that are given out and candidates that wait, together.
const MOST: usize = 16;
/// How long a token may be used.
pub const USABLE: Duration = Duration::from_hours(1);
/// How long a candidate that was seen is kept.
const KEPT: Duration = Duration::from_hours(24);

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// No token is given any more.
    #[error(
        "{MOST} machines are invited or wait already: a token is good for an hour, a candidate is kept for a day"
    )]
    Full,
    /// No token of this node stands behind it.
    #[error(
        "the token is unknown here, used by another machine, or older than an hour: ask for another with `conclave node invite`"
    )]
    Token,
    /// It cannot be a member.
    #[error("the candidate cannot become a member: {0}")]
    Fault(&'static str),
    /// No such candidate.
    #[error("no such candidate waits at this node")]
    Unknown,
    /// Certificates without an operator's signature for this candidate.
    #[error("no operator has signed these certificates for this candidate")]
    Unsigned,
}

struct Place {
    token: Token,
    until: Instant,
    candidate: Option<Candidate>,
    admission: Option<Admission>,
}

/// All places that are taken.
#[derive(Default)]
pub struct WaitingRoom {
    places: Vec<Place>,
}

impl WaitingRoom {
    /// Takes a place for whoever brings this token.
    ///
    /// # Errors
    /// [`Turned::Full`].
    pub fn invite(&mut self, token: Token, now: Instant) -> Result<(), Turned> {
        self.places.retain(|place| now < place.until);
        if self.places.len() == MOST {
            return Err(Turned::Full);
        }
        self.places.push(Place {
            token,
            until: now + USABLE,
            candidate: None,
            admission: None,
        });
        Ok(())
    }

    /// A machine shows itself; the token that it used, which answers it. The same one may do so again.
    ///
    /// # Errors
    /// [`Turned::Token`], [`Turned::Fault`].
    pub fn present(&mut self, spoken: &Spoken, now: Instant) -> Result<Token, Turned> {
        self.places.retain(|place| now < place.until);
        let mut places = self.places.iter_mut();
        let place = places
            .find(|place| place.token.said(Speaker::Candidate, spoken))
            .ok_or(Turned::Token)?;
        let candidate: Candidate =
            serde_json::from_str(&spoken.text).map_err(|_| Turned::Fault("its words are not understood"))?;
        if let Some(fault) = candidate.fault() {
            return Err(Turned::Fault(fault));
        }
        match &place.candidate {
            Some(known) if *known != candidate => return Err(Turned::Token),
            Some(_) => {}
            None => {
                place.until = now + KEPT;
                place.candidate = Some(candidate);
            }
        }
        Ok(place.token.clone())
    }

    /// Those who wait.
    pub fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let places = self.places.iter().filter(|place| now < place.until);
        places.filter_map(|place| place.candidate.clone()).collect()
    }

    /// Certificates come for the candidate of this fingerprint.
    ///
    /// # Errors
    /// [`Turned::Unknown`], [`Turned::Unsigned`].
    pub fn admit(
        &mut self,
        (cluster, operators): (Hex32, &[Hex32]),
        fingerprint: &str,
        admission: Admission,
    ) -> Result<(), Turned> {
        let place = self.place(fingerprint).ok_or(Turned::Unknown)?;
        let signed = place
            .candidate
            .as_ref()
            .and_then(|candidate| admission.certificates(cluster, candidate, operators));
        if signed.is_none() {
            return Err(Turned::Unsigned);
        }
        place.admission = Some(admission);
        Ok(())
    }

    /// What came for the candidate of this fingerprint; none yet.
    ///
    /// # Errors
    /// [`Turned::Unknown`].
    pub fn admission(&mut self, fingerprint: &str) -> Result<Option<Admission>, Turned> {
        let place = self.place(fingerprint).ok_or(Turned::Unknown)?;
        Ok(place.admission.clone())
    }

    fn place(&mut self, fingerprint: &str) -> Option<&mut Place> {
        let is_it = |place: &&mut Place| {
            let candidate = place.candidate.as_ref();
            candidate.is_some_and(|candidate| candidate.fingerprint() == fingerprint)
        };
        self.places.iter_mut().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::provision::OperatorKey;
    use crate::provision::candidate::tests::candidate;
    use crate::provision::certificates::Certificates;

    const CLUSTER: Hex32 = Hex32([1; 32]);

    fn says(token: &Token, candidate: &Candidate) -> Spoken {
        token.say(Speaker::Candidate, serde_json::to_string(candidate).unwrap())
    }

    #[test]
    fn a_token_lets_one_machine_be_seen_and_for_an_hour_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        let (token, late) = (
            Token::generate(CLUSTER.0, &mut rng),
            Token::generate(CLUSTER.0, &mut rng),
        );
        room.invite(token.clone(), now).unwrap();
        room.invite(late.clone(), now).unwrap();
        let (four, five) = (candidate(4, &mut rng), candidate(5, &mut rng));
        assert!(room.candidates(now).is_empty());
        room.present(&says(&token, &four), now).unwrap();
        room.present(&says(&token, &four), now).unwrap();
        assert_eq!(room.present(&says(&token, &five), now).err(), Some(Turned::Token));
        assert_eq!(room.candidates(now), std::slice::from_ref(&four));
        let stranger = Token::generate(CLUSTER.0, &mut rng);
        assert_eq!(
            room.present(&says(&stranger, &five), now).err(),
            Some(Turned::Token)
        );
        assert_eq!(
            room.present(&says(&late, &five), now + USABLE).err(),
            Some(Turned::Token)
        );
        assert_eq!(room.candidates(now + USABLE), [four]);
        assert!(room.candidates(now + KEPT).is_empty());
    }

    #[test]
    fn places_are_few_and_come_free() {
        let mut rng = StdRng::seed_from_u64(2);
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        for _ in 0..MOST {
            room.invite(Token::generate(CLUSTER.0, &mut rng), now).unwrap();
        }
        let more = Token::generate(CLUSTER.0, &mut rng);
        assert_eq!(room.invite(more.clone(), now), Err(Turned::Full));
        room.invite(more, now + USABLE).unwrap();
    }

    #[test]
    fn what_cannot_be_a_member_takes_no_place() {
        let mut rng = StdRng::seed_from_u64(3);
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        let token = Token::generate(CLUSTER.0, &mut rng);
        room.invite(token.clone(), now).unwrap();
        let none = candidate(0, &mut rng);
        assert!(matches!(
            room.present(&says(&token, &none), now),
            Err(Turned::Fault(_))
        ));
        let nonsense = token.say(Speaker::Candidate, "[]".into());
        assert!(matches!(room.present(&nonsense, now), Err(Turned::Fault(_))));
        room.present(&says(&token, &candidate(4, &mut rng)), now).unwrap();
    }

    #[test]
    fn certificates_reach_their_candidate_by_an_operators_signature() {
        let mut rng = StdRng::seed_from_u64(4);
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        let token = Token::generate(CLUSTER.0, &mut rng);
        let (operator, stranger) = (OperatorKey::generate(&mut rng), OperatorKey::generate(&mut rng));
        let operators = [Hex32(operator.public())];
        let four = candidate(4, &mut rng);
        let fingerprint = four.fingerprint();
        let certificates = Certificates {
            https: "h".into(),
            peer: "p".into(),
        };
        let signed = |key| Admission::sign(CLUSTER, &four, certificates.clone(), key);
        let admit =
            |room: &mut WaitingRoom, key| room.admit((CLUSTER, &operators), &fingerprint, signed(key));
        assert_eq!(admit(&mut room, &operator), Err(Turned::Unknown));
        room.invite(token.clone(), now).unwrap();
        room.present(&says(&token, &four), now).unwrap();
        assert_eq!(room.admission(&fingerprint), Ok(None));
        assert_eq!(admit(&mut room, &stranger), Err(Turned::Unsigned));
        assert_eq!(room.admission(&fingerprint), Ok(None));
        admit(&mut room, &operator).unwrap();
        assert_eq!(room.admission(&fingerprint), Ok(Some(signed(&operator))));
    }
}
