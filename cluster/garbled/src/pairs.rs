//! Secrets of pairs of nodes: for as long as both run, whatever becomes of the links between them.
//!
//! Each node draws an X25519 key at its start, shows its public half to its peers over links that prove who speaks, and
//! keeps what comes of it in memory only. So a pair has one secret for each pair of lives: a garbler that starts again
//! shares nothing any more with whoever knows what it garbled before.

use std::collections::HashMap;

use hkdf::Hkdf;
use rand::{CryptoRng, RngCore};
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, ReusableSecret};
use zeroize::Zeroizing;

use crate::session::PairSecret;

/// Why a peer's public half is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// It showed another one in the same life.
    #[error("the peer has shown another key in this life")]
    Other,
    /// It makes no secret: a point of small order, or this node's own.
    #[error("the peer's key makes no secret")]
    Useless,
}

/// This node's half, and what it shares with its peers.
pub struct Pairs {
    cluster: [u8; 32],
    own: Life,
    key: ReusableSecret,
    peers: HashMap<u64, (Life, PairSecret)>,
}

/// One life of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Life {
    node: u64,
    boot: [u8; 16],
    public: [u8; 32],
}

impl Pairs {
    /// A node in this life of its.
    pub fn new(cluster: [u8; 32], node: u64, boot: [u8; 16], rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let key = ReusableSecret::random_from_rng(rng);
        let public = PublicKey::from(&key).to_bytes();
        Self {
            cluster,
            own: Life { node, boot, public },
            key,
            peers: HashMap::new(),
        }
    }

    /// What this node shows to its peers.
    pub fn public(&self) -> [u8; 32] {
        self.own.public
    }

    /// What a peer has shown in a life of its: the link proves the node, and has said which life it is.
    ///
    /// # Errors
    /// [`PairError`].
    pub fn learn(&mut self, node: u64, boot: [u8; 16], public: [u8; 32]) -> Result<(), PairError> {
        let theirs = Life { node, boot, public };
        if let Some((known, _)) = self.peers.get(&node)
            && known.boot == boot
        {
            return if *known == theirs {
                Ok(())
            } else {
                Err(PairError::Other)
            };
        }
        let shared = self.key.diffie_hellman(&PublicKey::from(public));
        if node == self.own.node || public == self.own.public || !shared.was_contributory() {
            return Err(PairError::Useless);
        }
        let mut pair = [self.own, theirs];
        pair.sort_unstable();
        let mut named = Sha256::new_with_prefix(b"conclave pair 1");
        named.update(self.cluster);
        for life in pair {
            named.update(life.node.to_be_bytes());
            named.update(life.boot);
            named.update(life.public);
        }
        let mut secret = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, shared.as_bytes())
            .expand(&named.finalize(), &mut secret[..])
            .expect("one block");
        self.peers.insert(node, (theirs, secret));
        Ok(())
    }

    /// The secret shared with a peer in this life of its.
    pub fn with(&self, node: u64, boot: &[u8; 16]) -> Option<PairSecret> {
        let (life, secret) = self.peers.get(&node)?;
        (life.boot == *boot).then(|| secret.clone())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn node(node: u64, boot: u8) -> Pairs {
        let mut rng = ChaCha20Rng::from_seed([node as u8 ^ boot; 32]);
        Pairs::new([9; 32], node, [boot; 16], &mut rng)
    }

    fn meet(one: &mut Pairs, two: &mut Pairs) {
        one.learn(two.own.node, two.own.boot, two.public()).unwrap();
        two.learn(one.own.node, one.own.boot, one.public()).unwrap();
    }

    #[test]
    fn a_pair_has_one_secret_for_each_pair_of_lives() {
        let (mut one, mut two, mut three) = (node(1, 1), node(2, 1), node(3, 1));
        meet(&mut one, &mut two);
        meet(&mut one, &mut three);
        meet(&mut two, &mut three);
        let first = one.with(2, &[1; 16]).unwrap();
        assert_eq!(Some(&first), two.with(1, &[1; 16]).as_ref());
        assert_ne!(Some(&first), one.with(3, &[1; 16]).as_ref());
        assert_ne!(one.with(3, &[1; 16]), two.with(3, &[1; 16]));
        let mut again = node(2, 7);
        meet(&mut one, &mut again);
        assert_eq!(one.with(2, &[1; 16]), None, "its earlier life is over");
        let second = one.with(2, &[7; 16]).unwrap();
        assert_ne!(first, second);
        assert_eq!(Some(second), again.with(1, &[1; 16]));
    }

    #[test]
    fn a_life_has_one_key_and_a_key_makes_a_secret() {
        let (mut one, mut two) = (node(1, 1), node(2, 1));
        meet(&mut one, &mut two);
        meet(&mut one, &mut two);
        assert_eq!(one.learn(2, [1; 16], [5; 32]), Err(PairError::Other));
        assert!(one.with(2, &[1; 16]).is_some());
        assert_eq!(one.learn(3, [1; 16], [0; 32]), Err(PairError::Useless));
        let own = one.public();
        assert_eq!(one.learn(3, [1; 16], own), Err(PairError::Useless));
        assert_eq!(one.learn(1, [2; 16], two.public()), Err(PairError::Useless));
    }
}
