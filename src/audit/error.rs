//! What can go wrong with the audit folder, one enum per question: append, open, verify.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an entry is not on disk. Whoever gets one must not contribute, endorse or answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The queue is full: 503 at the client, and another holder may be asked.
    #[error("the audit queue is full")]
    Busy,
    /// Too little disk is left for this kind of record, or a new segment does not fit.
    #[error("too little disk space is left for the audit record")]
    DiskFull,
    /// A write or fsync failed once; nothing is acknowledged any more until the process starts anew.
    #[error("the audit file could not be written; this node records nothing more until it is restarted")]
    Failed,
    /// The entry is outside the format's bounds.
    #[error("the entry cannot be recorded: {0}")]
    Unrecordable(&'static str),
}

/// Why the audit folder could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Something that was durable is damaged. The node must not serve until an operator has looked at it.
    #[error(
        "audit segment {} is damaged at byte {offset}: {reason}; keep the folder as evidence and ask the peers for what they remember",
        .file.display()
    )]
    Quarantined {
        /// The damaged segment.
        file: PathBuf,
        /// The byte at which it stops making sense.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The folder belongs to another cluster, node or format.
    #[error("audit segment {} is not ours: {reason}", .file.display())]
    Foreign {
        /// The first segment that differs.
        file: PathBuf,
        /// Which of cluster, node and format differs.
        reason: &'static str,
    },
    /// Another process has the folder open.
    #[error("audit folder {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A setting makes no sense.
    #[error("audit setting: {0}")]
    Setting(&'static str),
    /// The disk said no.
    #[error("audit folder {}", .path.display())]
    Disk {
        /// What was being read or written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Disk { path, source }
    }
}

/// Where a folder stops being a valid chain, and why.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{} at byte {offset}: {reason}", .file.display())]
pub struct VerifyError {
    /// The segment, or the folder itself.
    pub file: PathBuf,
    /// The first byte of the record in question; 0 for a header or the folder.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}
