//! What stands in the database: keys of records, and a share's record with its clear header.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;
use crate::identity::{Owner, Session, ShareId};
use crate::seal::{Key, NONCE, RawKey, share_data, wrapping_data};
use crate::secret::SecretBytes;

/// The format of everything in the database; another one is not opened.
pub(crate) const FORMAT: u16 = 1;

/// The first record's key.
pub(crate) const IDENTITY: &[u8] = b"I";
/// Shares: `S`, keystore, key, session.
pub(crate) const SHARE: u8 = b'S';
/// Envelopes: `E`, member, keystore, key, session.
pub(crate) const ENVELOPE: u8 = b'E';
/// Shares whose session nobody has called live yet: `U`, start, keystore, key, session.
pub(crate) const UNSETTLED: u8 = b'U';

/// The first record: whose store this is.
#[derive(Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    pub(crate) format: u16,
    pub(crate) cluster: [u8; 32],
    pub(crate) node: u64,
}

impl IdentityRecord {
    /// The format stands first for ever; what follows it is a later version's to say.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match postcard::take_from_bytes::<u16>(bytes) {
            Ok((FORMAT, _)) => decode(bytes),
            Ok((found, _)) => Err(Error::Format {
                what: "the share store",
                found,
                known: FORMAT,
            }),
            Err(_) => Err(damaged("a record cannot be read")),
        }
    }
}

/// An envelope's record.
#[derive(Serialize, Deserialize)]
pub(crate) struct EnvelopeRecord {
    pub(crate) key_type: String,
    pub(crate) epoch: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A share's record. All but `generation` and the wrapped key is bound to the share by its seal.
#[derive(Serialize, Deserialize)]
pub(crate) struct ShareRecord {
    pub(crate) key_type: String,
    pub(crate) epoch: u64,
    pub(crate) started_ms: u64,
    /// For whom envelopes were kept with it.
    pub(crate) members: Vec<u16>,
    /// Which epoch key wraps the wrapping key.
    pub(crate) generation: u64,
    wrapping_nonce: [u8; NONCE],
    wrapped: Vec<u8>,
    share_nonce: [u8; NONCE],
    sealed: Vec<u8>,
}

fn place(prefix: &[u8], id: &ShareId) -> Vec<u8> {
    [prefix, &id.keystore, &id.key, &id.session].concat()
}

pub(crate) fn share_key(id: &ShareId) -> Vec<u8> {
    place(&[SHARE], id)
}

/// What all shares of a key begin with.
pub(crate) fn shares_of(keystore: &[u8; 16], key: &[u8; 16]) -> Vec<u8> {
    [&[SHARE][..], keystore, key].concat()
}

pub(crate) fn envelope_key(member: u16, id: &ShareId) -> Vec<u8> {
    let [high, low] = member.to_be_bytes();
    place(&[ENVELOPE, high, low], id)
}

pub(crate) fn unsettled_key(started_ms: u64, id: &ShareId) -> Vec<u8> {
    let mut prefix = vec![UNSETTLED];
    prefix.extend_from_slice(&started_ms.to_be_bytes());
    place(&prefix, id)
}

/// The name at the end of any record's key, type and epoch still unknown.
pub(crate) fn id_of(record_key: &[u8]) -> Result<ShareId, Error> {
    let from = record_key
        .len()
        .checked_sub(64)
        .ok_or_else(|| damaged("a record's key is too short"))?;
    let bytes = &record_key[from..];
    let mut id = ShareId {
        keystore: [0; 16],
        key: [0; 16],
        session: [0; 32],
        key_type: String::new(),
        epoch: 0,
    };
    id.keystore.copy_from_slice(&bytes[..16]);
    id.key.copy_from_slice(&bytes[16..32]);
    id.session.copy_from_slice(&bytes[32..]);
    Ok(id)
}

/// The smallest key above all that begin with `prefix`; prefixes here begin with a letter, so there is one.
pub(crate) fn above(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

pub(crate) fn damaged(what: &str) -> Error {
    Error::Quarantine(what.to_owned())
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(value).map_err(|_| Error::Seal)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(damaged("a record cannot be read")),
    }
}

/// Fresh randomness for one record.
pub(crate) struct Fresh {
    pub(crate) wrapping_key: RawKey,
    pub(crate) wrapping_nonce: [u8; NONCE],
    pub(crate) share_nonce: [u8; NONCE],
}

impl ShareRecord {
    /// Seals a share under a wrapping key of its own, and that under the epoch key.
    pub(crate) fn seal(
        owner: &Owner,
        session: &Session,
        members: Vec<u16>,
        secret: &[u8],
        (generation, epoch_key): (u64, &Key),
        fresh: &Fresh,
    ) -> Result<ShareRecord, Error> {
        let id = &session.id;
        let data = share_data(owner, id, session.started_ms, &members);
        let sealed = Key::new(&fresh.wrapping_key)?.seal(fresh.share_nonce, &data, secret)?;
        let data = wrapping_data(owner, id, generation);
        let wrapped = epoch_key.seal(fresh.wrapping_nonce, &data, fresh.wrapping_key.as_slice())?;
        Ok(ShareRecord {
            key_type: id.key_type.clone(),
            epoch: id.epoch,
            started_ms: session.started_ms,
            members,
            generation,
            wrapping_nonce: fresh.wrapping_nonce,
            wrapped,
            share_nonce: fresh.share_nonce,
            sealed,
        })
    }

    /// The share's name, type and epoch as the record has them; true only if [`ShareRecord::open`] succeeds.
    pub(crate) fn session(&self, place: &ShareId) -> Session {
        let id = ShareId {
            key_type: self.key_type.clone(),
            epoch: self.epoch,
            ..place.clone()
        };
        Session {
            id,
            started_ms: self.started_ms,
        }
    }

    fn wrapping_key(&self, owner: &Owner, place: &ShareId, epoch_key: &Key) -> Result<RawKey, Error> {
        let data = wrapping_data(owner, place, self.generation);
        epoch_key
            .open_key(self.wrapping_nonce, &data, &self.wrapped)
            .ok_or_else(|| damaged("the epoch key does not open a share's wrapping key"))
    }

    /// The share at this place, if record and place are what they were.
    pub(crate) fn open(&self, owner: &Owner, place: &ShareId, epoch_key: &Key) -> Result<SecretBytes, Error> {
        let wrapping = Key::new(&*self.wrapping_key(owner, place, epoch_key)?)?;
        let session = self.session(place);
        let data = share_data(owner, &session.id, self.started_ms, &self.members);
        wrapping
            .open(self.share_nonce, &data, &self.sealed)
            .ok_or_else(|| damaged("a share is not what was sealed at its place"))
    }

    /// Wraps the wrapping key anew; the share stays as it is.
    pub(crate) fn rewrap(
        &mut self,
        owner: &Owner,
        place: &ShareId,
        old: &Key,
        (generation, new): (u64, &Key),
        nonce: [u8; NONCE],
    ) -> Result<(), Error> {
        let wrapping = self.wrapping_key(owner, place, old)?;
        self.wrapped = new.seal(
            nonce,
            &wrapping_data(owner, place, generation),
            wrapping.as_slice(),
        )?;
        self.wrapping_nonce = nonce;
        self.generation = generation;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_a_later_format_is_told_from_damage() {
        let record = IdentityRecord {
            format: FORMAT + 1,
            cluster: [1; 32],
            node: 1,
        };
        let later = [&encode(&record).unwrap()[..], b"more"].concat();
        let known = IdentityRecord::decode(&later);
        assert!(matches!(known, Err(Error::Format { found, known: FORMAT, .. }) if found == FORMAT + 1));
        let cut = encode(&IdentityRecord {
            format: FORMAT,
            ..record
        });
        let cut = &cut.unwrap()[..20];
        assert!(matches!(IdentityRecord::decode(cut), Err(Error::Quarantine(_))));
    }

    const OWNER: Owner = Owner {
        cluster: [1; 32],
        node: 2,
    };

    fn session() -> Session {
        let id = ShareId {
            keystore: [3; 16],
            key: [4; 16],
            session: [5; 32],
            key_type: "Ed25519".into(),
            epoch: 6,
        };
        Session { id, started_ms: 7 }
    }

    fn sealed() -> (ShareRecord, Key) {
        let epoch_key = Key::new(&[8; 32]).unwrap();
        let fresh = Fresh {
            wrapping_key: RawKey::new([9; 32]),
            wrapping_nonce: [10; 12],
            share_nonce: [11; 12],
        };
        let record =
            ShareRecord::seal(&OWNER, &session(), vec![3], b"share", (1, &epoch_key), &fresh).unwrap();
        (record, epoch_key)
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (record, epoch_key) = sealed();
        let bytes = encode(&record).unwrap();
        let open = |bytes: &[u8]| decode::<ShareRecord>(bytes)?.open(&OWNER, &session().id, &epoch_key);
        assert!(open(&bytes).unwrap().expose() == b"share");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&flipped), Err(Error::Quarantine(_))), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(open(&bytes[..end]).is_err());
        }
        assert!(open(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn the_seal_is_bound_to_its_place_and_owner() {
        let (record, epoch_key) = sealed();
        let id = session().id;
        let elsewhere = [
            (
                OWNER,
                ShareId {
                    keystore: [0; 16],
                    ..id.clone()
                },
            ),
            (
                OWNER,
                ShareId {
                    key: [0; 16],
                    ..id.clone()
                },
            ),
            (
                OWNER,
                ShareId {
                    session: [0; 32],
                    ..id.clone()
                },
            ),
            (Owner { node: 3, ..OWNER }, id.clone()),
            (
                Owner {
                    cluster: [0; 32],
                    ..OWNER
                },
                id,
            ),
        ];
        for (owner, place) in elsewhere {
            assert!(record.open(&owner, &place, &epoch_key).is_err());
        }
    }

    #[test]
    fn the_end_of_a_range_is_above_its_prefix() {
        assert_eq!(above(b"S"), b"T");
        assert_eq!(above(&[b'E', 0, 255]), [b'E', 1]);
        assert_eq!(above(&[b'E', 255, 255]), b"F");
    }
}
