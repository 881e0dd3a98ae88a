//! What everybody knows of the sharing that a key lives by: the replicated state has it.

use sha2::{Digest, Sha256};

use crate::held::{Held, inner_digest};
use crate::portion::Wanted;
use crate::sharing::{Name, SharingError};

/// A live sharing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The cluster.
    pub cluster: [u8; 32],
    /// The key.
    pub key: Vec<u8>,
    /// Its epoch.
    pub epoch: u64,
    /// Which of the sharings that the key has.
    pub sharing: u8,
    /// Commitments to its pieces, in their order: as many as it has holders.
    pub commitments: Vec<[u8; 32]>,
    /// Of an HMAC key: [`inner_digest`], the same in every epoch.
    pub inner: Option<[u8; 32]>,
}

impl Live {
    /// Its name.
    pub fn name(&self) -> Name<'_> {
        Name {
            cluster: &self.cluster,
            key: &self.key,
            epoch: self.epoch,
            sharing: self.sharing,
        }
    }

    /// The name of the one that follows.
    pub(crate) fn next(&self) -> Result<Name<'_>, SharingError> {
        let epoch = self.epoch.checked_add(1).ok_or(SharingError::Epoch)?;
        Ok(Name { epoch, ..self.name() })
    }

    /// How many holders it has; none if more than can be numbered.
    pub(crate) fn holders(&self) -> u8 {
        u8::try_from(self.commitments.len()).unwrap_or(0)
    }

    /// What a holder's part of it is, for one that is to get it from the others.
    pub fn wanted(&self, holder: u8) -> Wanted<'_> {
        Wanted {
            name: self.name(),
            commitments: &self.commitments,
            inner: self.inner,
            holder,
        }
    }

    /// Whether this is the part of `holder`.
    ///
    /// # Errors
    /// [`SharingError::Pieces`] for a part of another holder, [`SharingError::Commitment`] for pieces or an inner state that
    /// nobody committed to: another epoch's, too.
    pub fn verify(&self, held: &Held, holder: u8) -> Result<(), SharingError> {
        if held.share.place() != (self.holders(), holder) {
            return Err(SharingError::Pieces);
        }
        held.share.verify(&self.name(), &self.commitments)?;
        let inner = held.inner.as_ref().map(|inner| inner_digest(&self.name(), inner));
        match inner == self.inner {
            true => Ok(()),
            false => Err(SharingError::Commitment),
        }
    }

    /// Adds all of it to a hash.
    pub(crate) fn hash(&self, hash: Sha256) -> Sha256 {
        let hash = hash
            .chain_update(self.cluster)
            .chain_update((self.key.len() as u64).to_be_bytes())
            .chain_update(&self.key)
            .chain_update(self.epoch.to_be_bytes())
            .chain_update([self.sharing])
            .chain_update((self.commitments.len() as u64).to_be_bytes());
        let hash = self.commitments.iter().fold(hash, Sha256::chain_update);
        hash.chain_update([u8::from(self.inner.is_some())])
            .chain_update(self.inner.unwrap_or_default())
    }
}
