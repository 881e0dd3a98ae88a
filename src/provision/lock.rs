//! One process a data directory: an advisory lock that ends with its holder, however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process uses {0}; stop it first")]
    Held(PathBuf),
    /// The folder cannot be used.
    #[error("cannot lock {path}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes the lock of `directory`, which must exist, or says at once that another process has it.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let fail = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(directory.to_owned())),
            Err(TryLockError::Error(source)) => Err(fail(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(folder.path()).unwrap();
        assert!(matches!(
            DirectoryLock::take(folder.path()),
            Err(LockError::Held(_))
        ));
        drop(first);
        DirectoryLock::take(folder.path()).unwrap();
    }
}
