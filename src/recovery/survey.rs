//! What the backups of several nodes have together: whose state counts for each group, and which keys come back.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use conclave_threshold::Commitment;
use sha2::{Digest as _, Sha256};

use super::RecoveryError;
use super::header::VerifiedHeader;
use super::records::StateRecord;
use super::request::Keys;
use super::sections::{Section, SectionReader, skip};
use crate::identifier::LocalId;
use crate::keystore::layout;
use crate::keystore::record::{KeyRecord, Material};
use crate::keystore::state::decode;

/// Holders of a symmetric key who have all its pieces together.
const SYMMETRIC_ENOUGH: usize = 2;

/// One backup with its keys.
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// Its header.
    pub header: VerifiedHeader,
    /// Its keys.
    pub keys: Keys,
}

/// A key that comes back.
#[derive(Clone, Debug)]
pub struct LiveKey {
    /// Its record in the state that counts; with the shares of an earlier ceremony where only of that enough are left.
    pub record: KeyRecord,
    /// The nodes whose backups have its share, of those that the new cluster has.
    pub holders: Vec<u64>,
    /// Whether it comes back with shares that were replaced between two of the backups.
    pub is_earlier: bool,
}

/// By keystore and key.
pub type Named = (LocalId, LocalId);

/// What all backups have together.
#[derive(Default)]
pub struct Survey {
    /// For each group, which backup's state counts: the most recent one.
    pub chosen: Vec<usize>,
    /// Every key of that state.
    pub keys: BTreeMap<Named, LiveKey>,
    /// Keys of an older state that are not in it.
    pub vanished: Vec<Named>,
}

impl Backup {
    /// Opens the file behind its header, which must still be the one that was verified.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub fn open(&self) -> Result<BufReader<File>, RecoveryError> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&self.path)?);
        match VerifiedHeader::read(&mut file)?.hash() == self.header.hash() {
            true => Ok(file),
            false => Err(RecoveryError::Header("the file was exchanged meanwhile")),
        }
    }

    /// Calls `each` with every record of the state, then looks that the file ends where it should.
    ///
    /// # Errors
    /// [`RecoveryError`], also of `each`.
    pub fn state(
        &self,
        mut each: impl FnMut(StateRecord<'_>) -> Result<(), RecoveryError>,
    ) -> Result<(), RecoveryError> {
        let mut file = self.open()?;
        let mut section = SectionReader::new(&mut file, &self.keys.state, self.header.hash(), Section::State);
        while let Some(record) = section.record::<StateRecord<'_>>()? {
            each(record)?;
        }
        drop(section);
        skip(&mut file, Section::Shares)?;
        end(&mut file)
    }
}

/// Reads the header of a backup.
///
/// # Errors
/// [`RecoveryError`], with the path.
pub fn read_header(path: &Path) -> Result<VerifiedHeader, RecoveryError> {
    let read = || VerifiedHeader::read(&mut BufReader::new(File::open(path)?));
    read().map_err(|error| error.at(path))
}

/// That nothing follows.
///
/// # Errors
/// [`RecoveryError::Content`].
pub fn end(file: &mut impl Read) -> Result<(), RecoveryError> {
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(RecoveryError::Content("something follows its end")),
    }
}

/// Of each key a record of every ceremony whose shares some state names.
type Seen = HashMap<Named, Vec<KeyRecord>>;

/// Reads the state of every backup, for a cluster of these nodes. `progress` is told each one's node.
///
/// # Errors
/// What is damaged, with its path; two nodes whose states contradict each other.
pub fn survey(
    backups: &[Backup],
    nodes: &[u64],
    mut progress: impl FnMut(u64),
) -> Result<Survey, RecoveryError> {
    let mut survey = Survey {
        chosen: choose(backups),
        ..Survey::default()
    };
    let mut seen = Seen::new();
    let mut holdings: HashMap<(LocalId, LocalId, [u8; 32]), Vec<u64>> = HashMap::new();
    let mut states: HashMap<(u32, u64), [u8; 32]> = HashMap::new();
    for (at, backup) in backups.iter().enumerate() {
        let node = backup.header.header.node;
        progress(node);
        let mut group = Reading::default();
        let mut counted = 0;
        let mut close = |group: &mut Reading| -> Result<(), RecoveryError> {
            let Some((number, hash)) = group.take() else {
                return Ok(());
            };
            let head = backup.header.header.groups.get(number as usize);
            let head = head.filter(|_| number == counted);
            let applied = head
                .ok_or(RecoveryError::Content("its groups are not in order"))?
                .applied;
            counted += 1;
            match *states.entry((number, applied)).or_insert(hash) == hash {
                true => Ok(()),
                false => Err(RecoveryError::Unfit(format!(
                    "group {number}: node {node} has another state at index {applied} than another node; one of them is \
                     corrupt: leave its backup out"
                ))),
            }
        };
        let read = backup.state(|record| {
            match record {
                StateRecord::Group(number) => {
                    close(&mut group)?;
                    group = Reading::begin(number);
                }
                StateRecord::Pair { key, value } => {
                    let number = group.pair(key, value)?;
                    if let Some(named) = layout::names_of_key(key) {
                        let record: KeyRecord = decode(value)?;
                        contradiction(&mut seen, named, &record, node)?;
                        if survey.chosen.get(number as usize) == Some(&at) {
                            survey.keys.insert(named, LiveKey::of(record));
                        }
                    }
                }
                StateRecord::Holding {
                    keystore,
                    key,
                    session,
                } => {
                    close(&mut group)?;
                    let place = (LocalId(keystore), LocalId(key), session);
                    if nodes.contains(&node) {
                        holdings.entry(place).or_default().push(node);
                    }
                }
                StateRecord::Segment { .. } | StateRecord::Bytes { .. } => close(&mut group)?,
            }
            Ok(())
        });
        read.and_then(|()| close(&mut group))
            .map_err(|error| error.at(&backup.path))?;
        if counted as usize != backup.header.header.groups.len() {
            return Err(RecoveryError::Content("a group is missing").at(&backup.path));
        }
    }
    for (named, live) in &mut survey.keys {
        let mut held = |record: &KeyRecord| {
            let place = (named.0, named.1, record.session);
            let is_usable = record.material.sharing().is_none_or(|sharing| {
                // Without one of its holders a symmetric key cannot be computed with.
                sharing.holders.iter().all(|holder| nodes.contains(holder))
            });
            let holders = holdings.remove(&place).filter(|_| is_usable);
            holders.unwrap_or_default()
        };
        live.holders = held(&live.record);
        if !live.is_lost() {
            continue;
        }
        // Backups of different moments: the shares were replaced between two of them.
        let mut earlier = seen.remove(named).unwrap_or_default();
        earlier.sort_unstable_by_key(|record| std::cmp::Reverse(record.epoch));
        for record in earlier
            .into_iter()
            .filter(|record| record.session != live.record.session)
        {
            let candidate = live.with_shares_of(&record, held(&record));
            if !candidate.is_lost() {
                *live = candidate;
                break;
            }
        }
    }
    let vanished = seen.into_keys().filter(|named| !survey.keys.contains_key(named));
    survey.vanished = vanished.collect();
    survey.vanished.sort_unstable();
    Ok(survey)
}

/// The most recent state of each group; of equally recent ones the lowest node's.
fn choose(backups: &[Backup]) -> Vec<usize> {
    let groups = backups
        .first()
        .map_or(0, |backup| backup.header.header.groups.len());
    let applied = |at: usize, group: usize| {
        let head = backups[at].header.header.groups.get(group);
        head.map_or(0, |head| head.applied)
    };
    (0..groups)
        .map(|group| {
            let newest = (0..backups.len()).max_by_key(|at| (applied(*at, group), std::cmp::Reverse(*at)));
            newest.unwrap_or(0)
        })
        .collect()
}

/// A key stays the same key for ever, and what is public of its shares is fixed with their ceremony: whoever has another one lies.
fn contradiction(seen: &mut Seen, named: Named, record: &KeyRecord, node: u64) -> Result<(), RecoveryError> {
    let records = seen.entry(named).or_default();
    let agrees = |other: &KeyRecord| match other.session == record.session {
        true => {
            (other.key_type, other.epoch) == (record.key_type, record.epoch)
                && other.material == record.material
        }
        false => other.key_type == record.key_type && other.material.is_same_key(&record.material),
    };
    if !records.iter().all(agrees) {
        return Err(RecoveryError::Unfit(format!(
            "node {node} has another public part of key {} than another node; one of them is corrupt: leave its backup out",
            named.1
        )));
    }
    if records.iter().all(|other| other.session != record.session) {
        records.push(record.clone());
    }
    Ok(())
}

/// A group that is being read.
#[derive(Default)]
struct Reading(Option<(u32, Sha256)>);

impl Reading {
    fn begin(number: u32) -> Self {
        Self(Some((number, Sha256::new())))
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<u32, RecoveryError> {
        let (number, hash) = self
            .0
            .as_mut()
            .ok_or(RecoveryError::Content("a pair of no group"))?;
        for part in [key, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Ok(*number)
    }

    fn take(&mut self) -> Option<(u32, [u8; 32])> {
        self.0
            .take()
            .map(|(number, hash)| (number, hash.finalize().into()))
    }
}

impl LiveKey {
    fn of(record: KeyRecord) -> Self {
        Self {
            record,
            holders: Vec::new(),
            is_earlier: false,
        }
    }

    /// The same key with the shares that it had by another record.
    fn with_shares_of(&self, other: &KeyRecord, holders: Vec<u64>) -> Self {
        let record = KeyRecord {
            epoch: other.epoch,
            session: other.session,
            committee: other.committee,
            material: other.material.clone(),
            away: other.away.clone(),
            ..self.record.clone()
        };
        Self {
            record,
            holders,
            is_earlier: true,
        }
    }

    /// How many holders' shares bring it back.
    pub fn needed(&self) -> usize {
        match &self.record.material {
            Material::Pieces(_) => SYMMETRIC_ENOUGH,
            Material::Pair { commitment, .. } => postcard::from_bytes::<Commitment>(commitment)
                .map_or(usize::MAX, |commitment| commitment.threshold()),
        }
    }

    /// Whether too few backups have its share.
    pub fn is_lost(&self) -> bool {
        self.holders.len() < self.needed()
    }

    /// Holders of a symmetric key whose part is in no backup: they get it from the others.
    pub fn bereft(&self) -> Vec<u64> {
        let sharing = self.record.material.sharing();
        let holders = sharing
            .map(|sharing| sharing.holders.as_slice())
            .unwrap_or_default();
        let lacks = |node: &&u64| !self.holders.contains(node);
        holders.iter().filter(lacks).copied().collect()
    }
}

impl Survey {
    /// Keys whose shares are in too few backups.
    pub fn lost(&self) -> Vec<Named> {
        let lost = self.keys.iter().filter(|(_, live)| live.is_lost());
        lost.map(|(named, _)| *named).collect()
    }

    /// How many keys come back with shares that had been replaced.
    pub fn earlier(&self) -> usize {
        self.keys.values().filter(|live| live.is_earlier).count()
    }
}
