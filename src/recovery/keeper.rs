//! A running node's backups: made on demand and on schedule, the oldest removed, the age of the last one known.
//!
//! One at a time. A scheduled one that failed is tried again after ten minutes, and told in the log, the status and the metrics.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conclave_consensus::{GroupId, View};
use ed25519_dalek::Signer as _;
use parking_lot::Mutex;
use rand::rngs::OsRng;

use super::files::Recovery;
use super::survey::read_header;
use super::write::{Source, UNFINISHED, Written, write};
use super::{RecoveryError, time_text};
use crate::actors::parts::Parts;
use crate::actors::views::believed;
use crate::config::{self, Hex32, fields::encode_hex};
use crate::keystore::members;
use crate::provision::introduction::Orders;
use crate::telemetry;
use crate::telemetry::metrics::{Kind, Sample};
use crate::telemetry::status::BackupStatus;

const ENDING: &str = ".backup";
/// After a failure.
const RETRY_MS: u64 = 10 * 60 * 1_000;
/// The schedule is looked at as often, so that a clock that was set is noticed.
const LOOK: Duration = Duration::from_secs(30);
/// A backup that is due waits for this long at most for the node to have less to do.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// Makes a node's backups.
pub struct Keeper {
    parts: Arc<Parts>,
    genesis: Vec<u8>,
    audit: PathBuf,
    settings: config::Backup,
    recovery: Recovery,
    state: Mutex<State>,
    /// Held while one is made.
    making: Mutex<()>,
    /// Whether the node stops: what is being made is given up.
    stops: AtomicBool,
}

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    last: Option<Last>,
    made: u64,
    failed: u64,
    /// Why the last attempt failed, and when (ms); none once one has succeeded.
    failure: Option<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    file: PathBuf,
    made: u64,
    bytes: u64,
}

impl Keeper {
    /// Looks for the last backup in the configured folder. A folder that is not there stops no node: making a backup says so.
    ///
    /// # Errors
    /// Officers of another cluster, or who cannot be read.
    pub fn open(
        settings: &config::Backup,
        parts: Arc<Parts>,
        genesis: Vec<u8>,
        audit: PathBuf,
    ) -> Result<Self, RecoveryError> {
        let recovery = officers(settings, parts.cluster())?;
        let names = names(&settings.folder).unwrap_or_default();
        let keeper = Self {
            state: Mutex::default(),
            making: Mutex::new(()),
            stops: AtomicBool::new(false),
            parts,
            genesis,
            audit,
            settings: settings.clone(),
            recovery,
        };
        let newest = names.into_iter().rev().filter(|name| keeper.is_own(name));
        keeper.state.lock().last = newest
            .map(|name| keeper.settings.folder.join(name))
            .find_map(|file| {
                let header = read_header(&file).ok()?.header;
                let bytes = fs::metadata(&file).ok()?.len();
                (header.node == keeper.parts.node).then_some(Last {
                    file,
                    made: header.made,
                    bytes,
                })
            });
        Ok(keeper)
    }

    /// What the names of this node's backups begin with.
    fn prefix(&self) -> String {
        format!(
            "conclave-{}-node-{}-",
            encode_hex(&self.parts.cluster()[..4]),
            self.parts.node
        )
    }

    /// The node stops: a backup that is being made is given up.
    pub fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
    }

    fn is_own(&self, name: &str) -> bool {
        name.starts_with(&self.prefix()) && name.ends_with(ENDING)
    }

    /// Makes one now; blocks on the disk for as long as it takes.
    ///
    /// # Errors
    /// When another one is under way, or what went wrong.
    pub fn make(&self) -> Result<(PathBuf, Written), RecoveryError> {
        let Some(_making) = self.making.try_lock() else {
            return Err(RecoveryError::Unfit("a backup is under way".to_owned()));
        };
        let now = Parts::system_ms();
        let made = self.make_at(now);
        let mut state = self.state.lock();
        match &made {
            Ok((file, written)) => {
                state.made += 1;
                state.failure = None;
                state.last = Some(Last {
                    file: file.clone(),
                    made: now,
                    bytes: written.bytes,
                });
                tracing::info!(file = %file.display(), bytes = written.bytes, shares = written.shares, "a backup was made");
            }
            Err(error) => {
                state.failed += 1;
                state.failure = Some((text(error), now));
                tracing::error!(error = text(error), "a backup failed");
            }
        }
        made
    }

    fn make_at(&self, now: u64) -> Result<(PathBuf, Written), RecoveryError> {
        let (parts, folder) = (&self.parts, &self.settings.folder);
        if !folder.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(folder)?;
        }
        for name in names(folder)? {
            if name.starts_with(&self.prefix()) && name.ends_with(UNFINISHED) {
                // Of a process that ended meanwhile: nobody else writes under this node's name.
                fs::remove_file(folder.join(name))?;
            }
        }
        // From before the state is read until the last share is: what a key's record names is still there then.
        let _all = parts.removal.read();
        // A state that is one node's word takes no good backup's place.
        let of_group = |group| match parts.is_outside(group) {
            // Its own nodes back it up.
            true => Ok(None),
            false => believed(parts, group).map(Some),
        };
        let views = (0..parts.rules.groups).map(GroupId).map(of_group);
        let views = views.collect::<Result<_, _>>();
        let views: Vec<Option<View>> =
            views.map_err(|reason| RecoveryError::State(crate::keystore::StateError(reason.to_string())))?;
        let zero = views.first().and_then(Option::as_ref);
        let orders = zero.map(members::orders).transpose()?.unwrap_or_default();
        let source = Source {
            orders: Orders { orders },
            cluster: *parts.cluster(),
            public_url: parts.rules.public_url.clone(),
            node: parts.node,
            genesis: self.genesis.clone(),
            officers: &self.recovery.keys,
            views,
            shares: &parts.shares,
            audit: &self.audit,
            now,
            stops: &self.stops,
        };
        let stamp = time_text(now).replace(['-', ':'], "");
        let file = folder.join(format!("{}{stamp}{ENDING}", self.prefix()));
        let sign = |message: &[u8]| parts.signing_key.sign(message).to_bytes();
        let written = write(source, &file, sign, &mut OsRng)?;
        let own: Vec<String> = names(folder)?
            .into_iter()
            .filter(|name| self.is_own(name))
            .collect();
        for old in surplus(&own, self.settings.keep as usize) {
            fs::remove_file(folder.join(old))?;
        }
        Ok((file, written))
    }

    /// Makes them on schedule, for as long as the node runs.
    pub async fn run(self: Arc<Self>) {
        if self.settings.every_hours == 0 {
            return;
        }
        let every = u64::from(self.settings.every_hours) * 3_600_000;
        loop {
            let state = self.state.lock().clone();
            if is_due(&state, every, Parts::system_ms()) {
                let keeper = self.clone();
                self.parts.quiet(QUIET).await;
                // It logs by itself what goes wrong.
                let _ = tokio::task::spawn_blocking(move || keeper.make().map(drop)).await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// For `/status`.
    pub fn status(&self) -> BackupStatus {
        let state = self.state.lock().clone();
        let now = Parts::system_ms();
        BackupStatus {
            folder: self.settings.folder.display().to_string(),
            officers: format!(
                "{} of {}, {}",
                self.recovery.quorum(),
                self.recovery.officers,
                encode_hex(&self.recovery.keys.fingerprint()[..8])
            ),
            every_hours: self.settings.every_hours,
            last: state.last.as_ref().map(|last| time_text(last.made)),
            age_seconds: state
                .last
                .as_ref()
                .map(|last| now.saturating_sub(last.made) / 1_000),
            bytes: state.last.as_ref().map(|last| last.bytes),
            file: state.last.map(|last| last.file.display().to_string()),
            failure: state.failure.map(|(reason, _)| reason),
        }
    }

    /// Registers its metrics.
    pub fn register(self: &Arc<Self>, metrics: &telemetry::Metrics) {
        let keeper = self.clone();
        metrics.sample(
            "backup_age_seconds",
            "Age of this node's last backup; absent while there is none",
            Kind::Gauge,
            move || {
                let age = keeper.status().age_seconds;
                age.map(Sample::plain).into_iter().collect()
            },
        );
        let keeper = self.clone();
        metrics.sample("backups", "Backups since the start", Kind::Counter, move || {
            let state = keeper.state.lock();
            vec![
                Sample::labelled("outcome", "made", state.made),
                Sample::labelled("outcome", "failed", state.failed),
            ]
        });
    }
}

/// The officers that a configuration names; they must be this cluster's.
///
/// # Errors
/// [`RecoveryError`].
pub fn officers(settings: &config::Backup, cluster: &[u8; 32]) -> Result<Recovery, RecoveryError> {
    let recovery = Recovery::read(&settings.recovery)?;
    match recovery.cluster == *cluster {
        true => Ok(recovery),
        false => Err(RecoveryError::Unfit(format!(
            "the officers of {} are those of cluster {}: run `conclave recovery init` for this one",
            settings.recovery.display(),
            Hex32(recovery.cluster)
        ))),
    }
}

/// All names in the folder, sorted: of one node's by time.
fn names(folder: &Path) -> Result<Vec<String>, RecoveryError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Those beyond `keep`, oldest first, out of names sorted by time.
fn surplus(names: &[String], keep: usize) -> &[String] {
    &names[..names.len().saturating_sub(keep)]
}

/// Whether a scheduled one is to be made at `now`: the first of a period that began when the clock showed a multiple of `every`, so
/// that all nodes make theirs at about one moment. A clock that ran back does not put it off.
fn is_due(state: &State, every: u64, now: u64) -> bool {
    let rested = state
        .failure
        .as_ref()
        .is_none_or(|(_, failed)| now < *failed || now - failed >= RETRY_MS);
    let of_another_period = |last: &Last| last.made / every != now / every;
    rested && state.last.as_ref().is_none_or(of_another_period)
}

/// An error with everything behind it.
pub fn text(error: &RecoveryError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn state(last: Option<u64>, failure: Option<u64>) -> State {
        State {
            last: last.map(|made| Last {
                file: PathBuf::new(),
                made,
                bytes: 1,
            }),
            failure: failure.map(|at| (String::new(), at)),
            ..State::default()
        }
    }

    #[test]
    fn it_is_due_when_the_last_one_is_old_and_no_failure_is_young() {
        let now = 96 * HOUR;
        // In the middle of a period it is the same: nothing counts but the period.
        assert!(!is_due(&state(Some(now), None), 24 * HOUR, now + 24 * HOUR - 1));
        assert!(is_due(
            &state(Some(now + 23 * HOUR), None),
            24 * HOUR,
            now + 24 * HOUR
        ));
        for (last, failure, due) in [
            (None, None, true),
            (Some(now - 1), None, true),
            (Some(now), None, false),
            (Some(now + 24 * HOUR), None, true),
            (None, Some(now - RETRY_MS + 1), false),
            (None, Some(now - RETRY_MS), true),
            (Some(now), Some(now - HOUR), false),
        ] {
            assert_eq!(
                is_due(&state(last, failure), 24 * HOUR, now),
                due,
                "{last:?} {failure:?}"
            );
        }
    }

    #[test]
    fn the_oldest_beyond_those_to_keep_go() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(surplus(&names, 2), ["a"]);
        assert!(surplus(&names, 3).is_empty() && surplus(&names, 9).is_empty());
    }
}
