//! Signatures in two rounds, message by message: k holders draw nonces, then each signs with its own, once.

use std::collections::{BTreeMap, BTreeSet};

use conclave_threshold::frost::{self, CommitmentList, NonceCommitments, Nonces, VerifyingContext};
use conclave_threshold::{Commitment, KeyShare};
use ed25519_dalek::{Signature, VerifyingKey};
use rand::Rng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest, Sha256};

use crate::world::{Bug, Id, World};

/// A pair of nonces in a holder's memory, for one signature.
pub(crate) struct Drawn {
    nonces: Nonces,
    public: NonceCommitments,
    /// What a planted bug draws the same pair from.
    rng: ChaCha20Rng,
}

/// A signature under way.
pub(crate) struct Signing {
    key: Id,
    /// The shares that the coordinator's state names.
    ceremony: Id,
    commitment: Commitment,
    message: [u8; 32],
    signers: BTreeSet<u16>,
    list: CommitmentList,
    shares: BTreeMap<u16, [u8; 32]>,
}

impl Signing {
    fn frame(&self) -> [u8; 32] {
        Sha256::digest(self.message).into()
    }
}

impl World {
    /// A node that knows a key asks a quorum of those that are up.
    pub(crate) fn begin_to_sign(&mut self) {
        let up = self.up();
        let coordinator = up.iter().copied().choose(&mut self.rng).unwrap();
        let keys: BTreeSet<Id> = self.log.iter().map(|committed| committed.key).collect();
        let Some(key) = keys.into_iter().choose(&mut self.rng) else {
            return;
        };
        let signers = up
            .into_iter()
            .choose_multiple(&mut self.rng, self.threshold.into());
        let message = self.rng.r#gen();
        let Some(known) = self.known(coordinator, key) else {
            return;
        };
        let signing = Signing {
            key,
            ceremony: known.ceremony,
            commitment: known.commitment.clone(),
            message,
            signers: signers.into_iter().collect(),
            list: CommitmentList::new(),
            shares: BTreeMap::new(),
        };
        self.signings.insert(self.next, signing);
        self.next += 1;
    }

    /// The share that a holder takes for a signature, with the commitment that it belongs to. None: it abstains.
    fn share_of(&mut self, index: u16, signing: &Signing) -> Option<(KeyShare, Commitment)> {
        let known = self.known(index, signing.key);
        let known = known.map(|known| (known.ceremony, known.commitment.clone()));
        let (ceremony, commitment) = match known {
            Some(known) if known.0 == signing.ceremony || self.bug == Some(Bug::UncheckedEpochs) => known,
            _ => {
                self.counts.abstained += 1;
                return None;
            }
        };
        let stored = self.nodes[&index].disk.get(&ceremony)?;
        Some((KeyShare::from_bytes(&stored.share).unwrap(), commitment))
    }

    /// One signer of one signature is asked for its next message, now and then once more for what it has given.
    pub(crate) fn sign_on(&mut self) -> Result<(), String> {
        let Some(id) = self.signings.keys().copied().choose(&mut self.rng) else {
            return Ok(());
        };
        let mut signing = self.signings.remove(&id).unwrap();
        let index = signing.signers.iter().copied().choose(&mut self.rng).unwrap();
        self.note(&id.to_be_bytes());
        self.note(&index.to_be_bytes());
        if !self.nodes[&index].up {
            // The coordinator gives up: another signature draws other nonces.
            return Ok(());
        }
        if signing.list.len() < signing.signers.len() {
            if !signing.list.contains_key(&index) {
                let Some(public) = self.draw(index, id, &signing) else {
                    return Ok(());
                };
                signing.list.insert(index, public);
            }
        } else if !signing.shares.contains_key(&index) {
            let Some(share) = self.answer(index, id, &signing)? else {
                return Ok(());
            };
            signing.shares.insert(index, share);
            if signing.shares.len() == signing.signers.len() {
                return self.add_up(&signing);
            }
        } else {
            // A corrupt coordinator that has a share wants another one under other nonces of the others.
            self.ask_again(index, id, &signing)?;
        }
        self.signings.insert(id, signing);
        Ok(())
    }

    /// Round 1 at a holder.
    fn draw(&mut self, index: u16, id: Id, signing: &Signing) -> Option<NonceCommitments> {
        let (share, _) = self.share_of(index, signing)?;
        let rng = self.rng.clone();
        let (nonces, public) = frost::commit(&share, &signing.frame(), &mut self.rng).unwrap();
        let drawn = Drawn { nonces, public, rng };
        self.nodes.get_mut(&index)?.drawn.insert(id, drawn);
        Some(public)
    }

    /// Round 2 at a holder: the pair is taken before anything is computed.
    fn answer(&mut self, index: u16, id: Id, signing: &Signing) -> Result<Option<[u8; 32]>, String> {
        let Some(drawn) = self.nodes.get_mut(&index).unwrap().drawn.remove(&id) else {
            return Ok(None);
        };
        // The epoch may have passed between the rounds.
        let Some((share, commitment)) = self.share_of(index, signing) else {
            return Ok(None);
        };
        let context = VerifyingContext::new(&commitment).unwrap();
        let Drawn { nonces, public, rng } = drawn;
        let signed = frost::sign(nonces, &share, &context, &signing.message, &signing.list);
        let Ok(signed) = signed else {
            return Ok(None);
        };
        if self.bug == Some(Bug::KeepsNonces) {
            let (nonces, public) = frost::commit(&share, &signing.frame(), &mut rng.clone()).unwrap();
            let drawn = Drawn { nonces, public, rng };
            self.nodes.get_mut(&index).unwrap().drawn.insert(id, drawn);
        }
        self.use_up(public)?;
        Ok(Some(signed))
    }

    fn use_up(&mut self, public: NonceCommitments) -> Result<(), String> {
        let pair = [public.hiding, public.binding].concat().try_into().unwrap();
        match self.used.insert(pair) {
            true => Ok(()),
            false => Err("a pair of nonces is used twice".into()),
        }
    }

    fn ask_again(&mut self, index: u16, id: Id, signing: &Signing) -> Result<(), String> {
        self.counts.asked_again += 1;
        let others: Vec<u16> = signing
            .signers
            .iter()
            .copied()
            .filter(|other| *other != index)
            .collect();
        let other = *others.choose(&mut self.rng).unwrap();
        let Some(stored) = self.nodes[&other].disk.get(&signing.ceremony) else {
            return Ok(());
        };
        let share: KeyShare = KeyShare::from_bytes(&stored.share).unwrap();
        let (_, public) = frost::commit(&share, &signing.frame(), &mut self.rng).unwrap();
        let mut list = signing.list.clone();
        list.insert(other, public);
        let asked = Signing {
            commitment: signing.commitment.clone(),
            signers: signing.signers.clone(),
            list,
            shares: BTreeMap::new(),
            ..*signing
        };
        match self.answer(index, id, &asked)? {
            None => Ok(()),
            Some(_) => Err(format!("node {index} signed twice with one pair of nonces")),
        }
    }

    /// The coordinator adds the shares up: the signature is what everybody accepts.
    fn add_up(&mut self, signing: &Signing) -> Result<(), String> {
        let key = signing.key;
        let context = VerifyingContext::new(&signing.commitment).unwrap();
        let signature = frost::aggregate(&context, &signing.message, &signing.list, &signing.shares);
        let signature =
            signature.map_err(|culprits| format!("key {key}: a signature does not verify: {culprits}"))?;
        // By the key as it was born.
        let born = self.log.iter().find(|committed| committed.key == key).unwrap();
        let verifying = VerifyingKey::from_bytes(&born.commitment.public_key()).unwrap();
        let verified = verifying.verify_strict(&signing.message, &Signature::from_bytes(&signature));
        self.counts.signatures += 1;
        verified.map_err(|_| format!("key {key}: a signature does not verify"))
    }

    /// When everybody is there and knows everything: any quorum signs, with shares that fit.
    pub(crate) fn sign_at_once(&mut self, key: Id) -> Result<(), String> {
        let indexes = self.nodes.keys().copied();
        let signers = indexes.choose_multiple(&mut self.rng, self.threshold.into());
        let known = self.known(signers[0], key).unwrap();
        let mut signing = Signing {
            key,
            ceremony: known.ceremony,
            commitment: known.commitment.clone(),
            message: [7; 32],
            signers: signers.iter().copied().collect(),
            list: CommitmentList::new(),
            shares: BTreeMap::new(),
        };
        let id = self.next;
        self.next += 1;
        let abstains = |index: u16| format!("key {key}: node {index} does not sign");
        for index in &signers {
            let (share, commitment) = self.share_of(*index, &signing).ok_or(abstains(*index))?;
            if !commitment.holds(&share) {
                return Err(format!("key {key}: node {index} holds another share"));
            }
            let public = self.draw(*index, id, &signing).ok_or(abstains(*index))?;
            signing.list.insert(*index, public);
        }
        for index in &signers {
            let share = self.answer(*index, id, &signing)?.ok_or(abstains(*index))?;
            signing.shares.insert(*index, share);
        }
        self.add_up(&signing)
    }
}
