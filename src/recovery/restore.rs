//! Putting one node of a new cluster together from the backups: the groups' state, and the shares of its own backup under new
//! keys. The next start of the node consumes it.
//!
//! Every node of the new cluster restores from the same backups, also one whose own backup is lost: what is put into the groups
//! must be the same everywhere. A key's record is changed in two ways: it names the cluster in which the key was born, and
//! holders of a symmetric key who lost their part are on record as away, so that the others give them what they hold in
//! common. Delegations are held back ([`Hold`]) unless the operator accepts what may be lost.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use conclave_consensus::{GroupId, Restoration};
use conclave_garbled::held::{Held, inner_digest};
use conclave_garbled::sharing::Name;
use conclave_shares::{KeptEnvelope, ShareId, ShareStore};
use conclave_threshold::{Commitment, KeyShare};

use super::RecoveryError;
use super::records::{ShareRecord, StateRecord};
use super::sections::{Section, SectionReader, skip};
use super::survey::{Backup, LiveKey, Named, Survey, end};
use crate::identifier::LocalId;
use crate::keystore::layout;
use crate::keystore::record::{Hold, KeyRecord, Material};
use crate::keystore::state::decode;
use crate::membership::FIRST;

/// Where a node's old audit chain is put, in its data directory.
pub const OLD_AUDIT: &str = "restored-audit";

/// A node that is being restored.
pub struct Target<'a> {
    /// Its number.
    pub node: u64,
    /// The groups, to be filled.
    pub groups: Restoration,
    /// Its new share store.
    pub shares: &'a ShareStore,
    /// Its data directory.
    pub data: &'a Path,
    /// Whether delegations hold although revocations since the newest backup are lost.
    pub accept_lost_revocations: bool,
}

/// What was put together.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Hash over the state of all groups: the same on every node.
    pub state: [u8; 32],
    /// Keystores.
    pub keystores: u64,
    /// Keys.
    pub keys: u64,
    /// Shares of this node.
    pub shares: u64,
    /// Shares in its backup that fit no key of the state: of ceremonies that came to nothing, or damaged.
    pub unfit: Vec<Named>,
    /// Segments of its old audit chain.
    pub segments: u64,
}

/// Restores `target` from the surveyed backups. `progress` is told what begins.
///
/// # Errors
/// [`RecoveryError`]; the node does not start then, and the restore can be run again.
pub fn restore(
    mut target: Target<'_>,
    backups: &[Backup],
    survey: &Survey,
    mut progress: impl FnMut(&str),
) -> Result<Restored, RecoveryError> {
    let mut restored = Restored::default();
    let own = backups
        .iter()
        .find(|backup| backup.header.header.node == target.node);
    if let Some(own) = own {
        progress("its shares");
        shares(&target, own, survey, &mut restored).map_err(|error| error.at(&own.path))?;
        progress("its old audit chain");
        restored.segments = audit(target.data, own).map_err(|error| error.at(&own.path))?;
    }
    progress("the groups' state");
    for (at, backup) in backups.iter().enumerate() {
        state(&mut target, (at, backup), survey, &mut restored).map_err(|error| error.at(&backup.path))?;
    }
    restored.state = target.groups.finish()?;
    Ok(restored)
}

/// The groups' state for which this backup counts.
fn state(
    target: &mut Target<'_>,
    (at, backup): (usize, &Backup),
    survey: &Survey,
    restored: &mut Restored,
) -> Result<(), RecoveryError> {
    let header = &backup.header.header;
    let hold = encode(&Hold { backup: header.made })?;
    let mut group = None;
    backup.state(|record| {
        let (key, value) = match record {
            StateRecord::Group(number) => {
                let counts = survey.chosen.get(number as usize) == Some(&at);
                group = counts.then_some(GroupId(number));
                return Ok(());
            }
            StateRecord::Pair { key, value } => (key, value),
            _ => return Ok(()),
        };
        let Some(group) = group else { return Ok(()) };
        if let Some(named) = layout::names_of_key(key) {
            let live = survey.keys.get(&named);
            let record = match live {
                Some(live) => live.record.clone(),
                None => decode(value)?,
            };
            let record = reborn(record, &header.cluster, live);
            target.groups.put(group, key, &encode(&record)?)?;
            restored.keys += 1;
            return Ok(());
        }
        // The orders of the lost cluster's operators: the new one begins with its own members.
        if layout::names_members(key) {
            return Ok(());
        }
        target.groups.put(group, key, value)?;
        if let Some(keystore) = layout::named_keystore(key) {
            restored.keystores += 1;
            if !target.accept_lost_revocations {
                target.groups.put(group, &layout::hold(&keystore), &hold)?;
            }
        }
        Ok(())
    })
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, RecoveryError> {
    postcard::to_stdvec(value).map_err(|_| RecoveryError::Content("a record cannot be encoded"))
}

/// A key's record as the new cluster has it.
fn reborn(mut record: KeyRecord, cluster: &[u8; 32], live: Option<&LiveKey>) -> KeyRecord {
    record.origin.get_or_insert(*cluster);
    record.committee = FIRST;
    let bereft = live.map(LiveKey::bereft).unwrap_or_default();
    let bereft = bereft.into_iter().filter_map(|node| u16::try_from(node).ok());
    record.away.extend(bereft);
    record.away.sort_unstable();
    record.away.dedup();
    record
}

/// This node's shares, each held against the key's public part and sealed under the node's new keys.
fn shares(
    target: &Target<'_>,
    own: &Backup,
    survey: &Survey,
    restored: &mut Restored,
) -> Result<(), RecoveryError> {
    let key = own.keys.shares.as_ref();
    let key = key.ok_or(RecoveryError::Content("its shares' key was not asked for"))?;
    let mut file = own.open()?;
    skip(&mut file, Section::State)?;
    let mut section = SectionReader::new(&mut file, key, own.header.hash(), Section::Shares);
    while let Some(share) = section.record::<ShareRecord<'_>>()? {
        let named = (LocalId(share.keystore), LocalId(share.key));
        let live = survey.keys.get(&named);
        let live = live.filter(|live| live.record.session == share.session);
        let live = live.filter(|live| fits(target.node, &own.header.header.cluster, &named, live, &share));
        let Some(live) = live else {
            restored.unfit.push(named);
            continue;
        };
        put(target.shares, live, &share)?;
        restored.shares += 1;
    }
    drop(section);
    end(&mut file)
}

fn put(store: &ShareStore, live: &LiveKey, share: &ShareRecord<'_>) -> Result<(), RecoveryError> {
    let id = ShareId {
        keystore: share.keystore,
        key: share.key,
        session: share.session,
        key_type: share.key_type.to_owned(),
        epoch: share.epoch,
    };
    // As at a birth with a holder away: that it lacks its part is remembered, the pieces are in the share.
    let bereft = live.bereft().into_iter();
    let owed: Vec<KeptEnvelope> = bereft
        .filter_map(|node| u16::try_from(node).ok())
        .map(|member| KeptEnvelope {
            member,
            bytes: Vec::new(),
        })
        .collect();
    match store.put(&id, share.secret, &owed, share.started) {
        Err(conclave_shares::Error::Exists) => {
            // From a restore that was broken off.
            let same = store.get(&id)?;
            let same = same.is_some_and(|same| same.expose() == share.secret);
            same.then_some(())
                .ok_or_else(|| RecoveryError::Unfit("another share is there already".to_owned()))
        }
        put => Ok(put?),
    }
}

/// Whether a share is the one that the key's public part speaks of.
fn fits(node: u64, cluster: &[u8; 32], named: &Named, live: &LiveKey, share: &ShareRecord<'_>) -> bool {
    let record = &live.record;
    if share.key_type != record.key_type.name() || share.epoch != record.epoch {
        return false;
    }
    match &record.material {
        Material::Pair { commitment, .. } => {
            let commitment = postcard::from_bytes::<Commitment>(commitment);
            let Ok((commitment, share)) = commitment
                .map_err(drop)
                .and_then(|commitment| Ok((commitment, KeyShare::from_bytes(share.secret).map_err(drop)?)))
            else {
                return false;
            };
            u64::from(share.index()) == node && commitment.holds(&share)
        }
        Material::Pieces(sharing) => {
            let Ok(held) = Held::from_bytes(share.secret) else {
                return false;
            };
            let name = [named.0.0, named.1.0].concat();
            let name = Name {
                cluster: record.birthplace(cluster),
                key: &name,
                epoch: record.epoch,
                sharing: 0,
            };
            let holders = u8::try_from(sharing.holders.len()).unwrap_or(0);
            held.share.place() == (holders, sharing.number(node).unwrap_or(0))
                && held.share.verify(&name, &sharing.pieces).is_ok()
                && held.inner.as_ref().map(|inner| inner_digest(&name, inner)) == sharing.inner
        }
    }
}

/// The old chain, for `conclave audit verify` with the old genesis statement; the new node begins one of its own.
fn audit(data: &Path, own: &Backup) -> Result<u64, RecoveryError> {
    let folder = data.join(OLD_AUDIT);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let mut segments = 0;
    let mut current: Option<(File, u64)> = None;
    own.state(|record| {
        match record {
            StateRecord::Segment { name, length } => {
                let digits = name.strip_suffix(".audit").unwrap_or_default();
                if digits.len() != 20 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                    return Err(RecoveryError::Content("a file that is no audit segment"));
                }
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(folder.join(name))?;
                // Sparse: what was never written takes no space.
                file.set_len(length)?;
                segments += 1;
                current = Some((file, length));
            }
            StateRecord::Bytes { offset, bytes } => {
                let (file, length) = current
                    .as_ref()
                    .ok_or(RecoveryError::Content("bytes of no audit segment"))?;
                if offset
                    .checked_add(bytes.len() as u64)
                    .is_none_or(|end| end > *length)
                {
                    return Err(RecoveryError::Content("bytes beyond their audit segment"));
                }
                file.write_all_at(bytes, offset)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(segments)
}
