//! How a node keeps its audit folder.

use super::contents::MAX_SEGMENT;
use super::error::OpenError;

/// How long sealed segments are kept. Whichever bound is reached first removes the oldest one whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds after a segment's last record.
    pub age_ms: u64,
    /// Bytes of all segments together, as they are on the disk.
    pub bytes: u64,
}

/// Settings of one node's audit folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's id; a folder of another cluster is refused.
    pub cluster: [u8; 32],
    /// This node's id; a folder of another node is refused.
    pub node: u64,
    /// Bytes preallocated for a segment (64 MiB).
    pub segment_bytes: u64,
    /// A segment is sealed when it is older than this, in milliseconds of record time (an hour).
    pub segment_age_ms: u64,
    /// Most entries that wait to be written; more are refused as busy.
    pub queue: usize,
    /// Most bytes that wait to be written.
    pub queue_bytes: usize,
    /// At this percentage of free disk space or less, uses are refused (5).
    pub low_disk_percent: u8,
    /// How far back, in milliseconds of record time, opening reads and replays records. Must cover the replay
    /// memory of 20 minutes (25 minutes).
    pub replay_window_ms: u64,
    /// Whether sealed segments are compressed, beside the writer (yes).
    pub compress: bool,
    /// How long sealed segments stay. Nothing inside the replay window is ever removed.
    pub retention: Retention,
}

impl Settings {
    /// The defaults of trust.md, section 7, for this cluster and node; at most 64 GiB are kept.
    pub fn new(cluster: [u8; 32], node: u64) -> Settings {
        Settings {
            cluster,
            node,
            segment_bytes: 64 << 20,
            segment_age_ms: 3_600_000,
            queue: 8192,
            queue_bytes: 64 << 20,
            low_disk_percent: 5,
            replay_window_ms: 25 * 60_000,
            compress: true,
            retention: Retention {
                age_ms: 90 * 86_400_000,
                bytes: 64 << 30,
            },
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        if self.segment_bytes < 4096 || self.segment_bytes > MAX_SEGMENT {
            return Err(OpenError::Setting("a segment has 4 KiB to 1 GiB"));
        }
        if self.queue == 0 || self.queue_bytes == 0 {
            return Err(OpenError::Setting("the queue needs room for one entry"));
        }
        if self.low_disk_percent > 100 {
            return Err(OpenError::Setting("the low disk mark is a percentage"));
        }
        Ok(())
    }
}
