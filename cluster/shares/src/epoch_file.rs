//! The epoch keys, in one small file outside RocksDB that is rewritten whole: what was erased from it is gone, while
//! RocksDB keeps old bytes in logs and tables until it compacts.
//!
//! Layout: magic, cluster, node, a check value of the node key, nonce, sealed list of (generation, key), SHA-256 of all
//! before. The digest tells damage from a wrong key; what protects the content is the seal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::hmac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::identity::Owner;
use crate::seal::{Key, NONCE, RawKey, TAG, epoch_file_data};
use crate::secret::NodeKey;

const MAGIC: [u8; 8] = *b"CVEPOCH1";
/// What the magic of every format begins with; then comes its digit.
const NAME: &[u8] = b"CVEPOCH";
const CHECK: usize = 16;
const HEAD: usize = 8 + 32 + 8 + CHECK + NONCE;
const DIGEST: usize = 32;
const ENTRY: usize = 8 + 32;
/// The current key, and during a rewrite its predecessor.
const MOST: usize = 2;

/// One generation of epoch keys of this node; its number has nothing to do with the epochs of keys.
pub(crate) struct EpochKey {
    pub(crate) generation: u64,
    pub(crate) key: RawKey,
}

/// Where the file is, and whose it is.
pub(crate) struct EpochFile {
    path: PathBuf,
    owner: Owner,
    node_key: NodeKey,
}

impl EpochFile {
    pub(crate) fn new(path: &Path, owner: Owner, node_key: NodeKey) -> Self {
        Self {
            path: path.to_owned(),
            owner,
            node_key,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self, source: io::Error) -> Error {
        Error::EpochFile {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Quarantine(format!("epoch file {}: {what}", self.path.display()))
    }

    fn check_value(&self) -> [u8; CHECK] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.node_key.bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"conclave node key check 1\0");
        context.update(&self.owner.cluster);
        context.update(&self.owner.node.to_be_bytes());
        let mut check = [0; CHECK];
        check.copy_from_slice(&context.sign().as_ref()[..CHECK]);
        check
    }

    /// The keys, oldest first, one or two; `None` if there is no file.
    pub(crate) fn read(&self) -> Result<Option<Vec<EpochKey>>, Error> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let most = HEAD + MOST * ENTRY + TAG + DIGEST;
        let mut bytes = Vec::new();
        file.take(most as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.io(error))?;
        self.decode(&bytes).map(Some)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<EpochKey>, Error> {
        if bytes.len() < HEAD + ENTRY + TAG + DIGEST || bytes.len() > HEAD + MOST * ENTRY + TAG + DIGEST {
            return Err(self.damaged("wrong size"));
        }
        let (body, digest) = bytes.split_at(bytes.len() - DIGEST);
        if Sha256::digest(body).as_slice() != digest {
            return Err(self.damaged("wrong digest"));
        }
        let (head, sealed) = body.split_at(HEAD);
        if head[..8] != MAGIC {
            return Err(match head[..8].strip_prefix(NAME) {
                Some([digit @ b'2'..=b'9']) => Error::Format {
                    what: "the epoch file",
                    found: u16::from(digit - b'0'),
                    known: 1,
                },
                _ => self.damaged("unknown format"),
            });
        }
        let mut found = Owner {
            cluster: [0; 32],
            node: 0,
        };
        found.cluster.copy_from_slice(&head[8..40]);
        let mut node = [0; 8];
        node.copy_from_slice(&head[40..48]);
        found.node = u64::from_be_bytes(node);
        if found != self.owner {
            return Err(Error::Foreign {
                found: found.to_string(),
                expected: self.owner.to_string(),
            });
        }
        // Public bytes, compared with a value that tells nothing about the key.
        if head[48..48 + CHECK] != self.check_value() {
            return Err(Error::WrongNodeKey);
        }
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&head[48 + CHECK..]);
        let key = Key::new(self.node_key.bytes())?;
        let opened = key.open(nonce, &epoch_file_data(&self.owner), sealed);
        let opened = opened.ok_or_else(|| self.damaged("the node key does not open it"))?;
        if opened.expose().len() % ENTRY != 0 {
            return Err(self.damaged("wrong size"));
        }
        let entry = |bytes: &[u8]| {
            let mut generation = [0; 8];
            generation.copy_from_slice(&bytes[..8]);
            let mut key = RawKey::default();
            key.copy_from_slice(&bytes[8..]);
            EpochKey {
                generation: u64::from_be_bytes(generation),
                key,
            }
        };
        let keys: Vec<_> = opened.expose().chunks_exact(ENTRY).map(entry).collect();
        if keys.is_empty() || !keys.is_sorted_by(|a, b| a.generation < b.generation) {
            return Err(self.damaged("generations out of order"));
        }
        Ok(keys)
    }

    /// Replaces the file: whole and durable when this returns, else as it was. The nonce is random per write.
    pub(crate) fn write(&self, keys: &[&EpochKey], nonce: [u8; NONCE]) -> Result<(), Error> {
        let mut plain = Zeroizing::new(Vec::with_capacity(MOST * ENTRY));
        for key in keys {
            plain.extend_from_slice(&key.generation.to_be_bytes());
            plain.extend_from_slice(key.key.as_slice());
        }
        let sealed = Key::new(self.node_key.bytes())?.seal(nonce, &epoch_file_data(&self.owner), &plain)?;
        let mut bytes = Vec::with_capacity(HEAD + sealed.len() + DIGEST);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.owner.cluster);
        bytes.extend_from_slice(&self.owner.node.to_be_bytes());
        bytes.extend_from_slice(&self.check_value());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        self.replace(&bytes).map_err(|error| self.io(error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // One that a crash left behind holds nothing that counts.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, node: u64, key: u8) -> EpochFile {
        let owner = Owner {
            cluster: [1; 32],
            node,
        };
        EpochFile::new(
            &folder.join("epoch-keys"),
            owner,
            NodeKey::new(Box::new([key; 32])),
        )
    }

    fn keys() -> [EpochKey; 2] {
        [
            EpochKey {
                generation: 3,
                key: RawKey::new([30; 32]),
            },
            EpochKey {
                generation: 4,
                key: RawKey::new([40; 32]),
            },
        ]
    }

    #[test]
    fn what_was_written_is_read_and_what_was_erased_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path(), 1, 9);
        assert!(file.read().unwrap().is_none());
        let [old, new] = keys();
        file.write(&[&old, &new], [1; 12]).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!((read.len(), read[0].generation, read[1].generation), (2, 3, 4));
        assert_eq!(*read[1].key, [40; 32]);
        file.write(&[&new], [2; 12]).unwrap();
        let read = file.read().unwrap().unwrap();
        assert_eq!((read.len(), read[0].generation), (1, 4));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn wrong_key_other_node_and_every_flipped_byte_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let right = file(folder.path(), 1, 9);
        let [old, _] = keys();
        right.write(&[&old], [1; 12]).unwrap();
        assert!(matches!(
            file(folder.path(), 1, 8).read(),
            Err(Error::WrongNodeKey)
        ));
        assert!(matches!(
            file(folder.path(), 2, 9).read(),
            Err(Error::Foreign { .. })
        ));
        let bytes = fs::read(right.path()).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(
                matches!(right.decode(&flipped), Err(Error::Quarantine(_))),
                "byte {at}"
            );
            // Also when whoever flipped it mended the digest: nothing opens.
            let end = flipped.len() - DIGEST;
            let digest = Sha256::digest(&flipped[..end]);
            flipped[end..].copy_from_slice(&digest);
            assert_eq!(right.decode(&flipped).is_ok(), at >= end, "byte {at}");
        }
        let mut later = bytes.clone();
        later[7] = b'2';
        let end = later.len() - DIGEST;
        let digest = Sha256::digest(&later[..end]);
        later[end..].copy_from_slice(&digest);
        assert!(matches!(
            right.decode(&later),
            Err(Error::Format {
                found: 2,
                known: 1,
                ..
            })
        ));
        assert!(right.decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(right.decode(&[]).is_err());
    }
}
