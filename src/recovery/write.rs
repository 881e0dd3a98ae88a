//! Writing a backup of a node that goes on working.
//!
//! Each group's state is one snapshot of the database, taken first; the shares are read after it. A participant of a key's birth
//! or renewal has its share on disk before the state names it, and no share is removed while a backup is made: every key of the
//! state has its share in it, if this node has one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use conclave_consensus::{StoreError, View};
use conclave_shares::{ShareId, ShareStore};
use rand::{CryptoRng, RngCore};

use super::RecoveryError;
use super::header::{FORMAT, GroupHead, Header, VerifiedHeader};
use super::officers::OfficerKeys;
use super::records::{ShareRecord, StateRecord};
use super::sections::{Section, SectionWriter};
use crate::keystore::{layout, query};
use crate::provision::introduction::Orders;

/// Pairs, or shares, of one read.
const PAGE: usize = 256;
/// Bytes of an audit segment in one record.
const CHUNK: usize = 64 * 1024;

/// What a backup is made of.
pub struct Source<'a> {
    /// The cluster.
    pub cluster: [u8; 32],
    /// The cluster's URL, without a slash at the end.
    pub public_url: String,
    /// The node.
    pub node: u64,
    /// The genesis statement, JSON.
    pub genesis: Vec<u8>,
    /// The orders that changed the members since.
    pub orders: Orders,
    /// The officers who will be able to open it.
    pub officers: &'a OfficerKeys,
    /// A snapshot of each group's state, by number; none of a group that is on other nodes.
    pub views: Vec<Option<View>>,
    /// The node's shares.
    pub shares: &'a ShareStore,
    /// The folder of its audit segments.
    pub audit: &'a Path,
    /// The time, ms.
    pub now: u64,
    /// Set when it is no longer wanted.
    pub stops: &'a AtomicBool,
}

/// A backup that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its header.
    pub header: VerifiedHeader,
    /// Shares in it.
    pub shares: u64,
    /// Its length, bytes.
    pub bytes: u64,
}

fn store(error: StoreError) -> RecoveryError {
    RecoveryError::State(crate::keystore::StateError(error.to_string()))
}

/// Writes a backup to the new file `path`: beside its place first, then moved there whole. `sign` signs by the node's key.
///
/// # Errors
/// [`RecoveryError`]; nothing is left behind then.
pub fn write(
    source: Source<'_>,
    path: &Path,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Written, RecoveryError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    let unfinished = path.with_file_name(name);
    let written = fill(source, &unfinished, sign, rng).and_then(|written| {
        // A second backup of the same second would be the same one.
        if path.exists() {
            return Err(crate::seal::secret_file::SecretFileError::Exists(path.to_owned()).into());
        }
        fs::rename(&unfinished, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(written)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// What an unfinished backup's name ends with.
pub const UNFINISHED: &str = ".unfinished";

fn fill(
    source: Source<'_>,
    path: &Path,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Written, RecoveryError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let (state_key, sealed_state) = source.officers.seal_new(rng);
    let (shares_key, sealed_shares) = source.officers.seal_new(rng);
    let header = Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: source.cluster,
        public_url: source.public_url.clone(),
        node: source.node,
        made: source.now,
        genesis: source.genesis.clone(),
        officers: source.officers.to_bytes(),
        state_key: sealed_state.to_bytes(),
        shares_key: sealed_shares.to_bytes(),
        groups: source.views.iter().map(head).collect::<Result<_, _>>()?,
        orders: match source.orders.orders.is_empty() {
            true => Vec::new(),
            false => source.orders.to_json(),
        },
    };
    let header = header.sign(sign)?;
    let mut to = BufWriter::new(file);
    header.write(&mut to)?;

    let mut section = SectionWriter::new(&mut to, &state_key, header.hash(), Section::State);
    for (number, view) in (0..).zip(source.views) {
        section.record(&StateRecord::Group(number))?;
        if let Some(view) = view {
            group(&view, &mut section, source.stops)?;
        }
    }
    let mut after = None;
    while let Some(page) = page(source.shares, &mut after)? {
        go_on(source.stops)?;
        for place in page {
            section.record(&StateRecord::Holding {
                keystore: place.keystore,
                key: place.key,
                session: place.session,
            })?;
        }
    }
    audit(source.audit, &mut section, source.stops)?;
    section.finish()?;

    let mut section = SectionWriter::new(&mut to, &shares_key, header.hash(), Section::Shares);
    let (mut shares, mut after) = (0, None);
    while let Some(page) = page(source.shares, &mut after)? {
        go_on(source.stops)?;
        for place in page {
            // None is removed meanwhile; one that was put in another's place is read with the next backup.
            let Some((session, secret)) = source.shares.open_at(&place)? else {
                continue;
            };
            section.record(&ShareRecord {
                keystore: session.id.keystore,
                key: session.id.key,
                session: session.id.session,
                key_type: &session.id.key_type,
                epoch: session.id.epoch,
                started: session.started_ms,
                secret: secret.expose(),
            })?;
            shares += 1;
        }
    }
    section.finish()?;

    let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    Ok(Written {
        header,
        shares,
        bytes,
    })
}

fn page(shares: &ShareStore, after: &mut Option<ShareId>) -> Result<Option<Vec<ShareId>>, RecoveryError> {
    let page = shares.places(after.as_ref(), PAGE)?;
    if let Some(last) = page.last() {
        *after = Some(last.clone());
    }
    Ok((!page.is_empty()).then_some(page))
}

/// Calls `each` with every pair of a prefix.
fn scan(
    view: &View,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), RecoveryError>,
) -> Result<(), RecoveryError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = view.scan(prefix, after.as_deref(), PAGE).map_err(store)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, value) in &page {
            each(key, value)?;
        }
    }
}

fn head(view: &Option<View>) -> Result<GroupHead, RecoveryError> {
    let Some(view) = view else {
        return Ok(GroupHead::default());
    };
    let count = |prefix: &[u8]| {
        let mut count = 0;
        scan(view, prefix, |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok::<u64, RecoveryError>(count)
    };
    Ok(GroupHead {
        applied: view.applied_index(),
        time: query::last_time(view)?,
        keystores: count(layout::KEYSTORES)?,
        keys: count(layout::KEYS)?,
    })
}

/// The state may be large, and a node that stops waits for nobody.
fn go_on(stops: &AtomicBool) -> Result<(), RecoveryError> {
    match stops.load(Ordering::Relaxed) {
        true => Err(RecoveryError::Unfit("the node stops".to_owned())),
        false => Ok(()),
    }
}

fn group<W: Write>(
    view: &View,
    section: &mut SectionWriter<'_, W>,
    stops: &AtomicBool,
) -> Result<(), RecoveryError> {
    scan(view, &[], |key, value| {
        go_on(stops)?;
        section.record(&StateRecord::Pair { key, value })
    })
}

/// The audit segments as they are now: the last one may end inside a record, as after a crash.
fn audit<W: Write>(
    folder: &Path,
    section: &mut SectionWriter<'_, W>,
    stops: &AtomicBool,
) -> Result<(), RecoveryError> {
    let mut segments: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "audit"));
    segments.sort();
    let mut chunk = vec![0; CHUNK];
    for path in segments {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Retention removes the oldest at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let length = file.metadata()?.len();
        section.record(&StateRecord::Segment { name, length })?;
        let mut offset = 0;
        while offset < length {
            let room = usize::try_from(length - offset).unwrap_or(CHUNK).min(CHUNK);
            go_on(stops)?;
            let got = file.read(&mut chunk[..room])?;
            if got == 0 {
                break;
            }
            let bytes = &chunk[..got];
            // Space that is reserved and not yet written.
            if bytes.iter().any(|byte| *byte != 0) {
                section.record(&StateRecord::Bytes { offset, bytes })?;
            }
            offset += got as u64;
        }
    }
    Ok(())
}
