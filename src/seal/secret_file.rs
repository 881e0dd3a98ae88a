//! Files that hold secrets: made with mode 0600 and never over another file; read bounded, and refused when others
//! may read them. Folders that hold them have mode 0700.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is there already.
    #[error("{0} exists; it is not overwritten")]
    Exists(PathBuf),
    /// Others may read or change it.
    #[error("{path} has mode {mode:03o}: others may read or change a secret; run: chmod 600 {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is larger than what belongs there.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: usize,
    },
}

/// Group may read (a container's secret volume), nobody else may do anything.
const FORBIDDEN_BITS: u32 = 0o037;

/// Reads a secret of at most `limit` bytes; refuses a file that others may read or change.
pub fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let fail = |source| SecretFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fail)?;
    // Asked of the opened file, not of the path: it cannot be exchanged in between.
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
    if mode & FORBIDDEN_BITS != 0 {
        return Err(SecretFileError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    read_bounded(file, path, limit)
}

/// Reads a file that is no secret, of at most `limit` bytes.
pub fn read_public(path: &Path, limit: usize) -> Result<Vec<u8>, SecretFileError> {
    let file = File::open(path).map_err(|source| SecretFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    read_bounded(file, path, limit).map(|bytes| bytes.to_vec())
}

fn read_bounded(file: File, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    // With room for all of it no reallocation leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SecretFileError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() > limit {
        return Err(SecretFileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Writes a new file of mode 0600, on disk when this returns; whatever is there already stays as it is.
pub fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    create_with_mode(path, content, 0o600)
}

/// As [`create`], for what everybody may read (mode 0644).
pub fn create_public(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    create_with_mode(path, content, 0o644)
}

fn create_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), SecretFileError> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretFileError::Exists(path.to_owned()),
        _ => SecretFileError::Write {
            path: path.to_owned(),
            source,
        },
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(fail)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    sync_folder_of(path).map_err(fail)
}

/// Writes a file anew: readers see the old content or the new, never a part. Mode 0644.
pub fn replace_public(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let fail = |source| SecretFileError::Write {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder_of(path)
    };
    write().map_err(fail)
}

/// Makes a folder of mode 0700; it must not exist, its parent must.
pub fn create_folder(path: &Path) -> Result<(), SecretFileError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SecretFileError::Exists(path.to_owned()),
            _ => SecretFileError::Write {
                path: path.to_owned(),
                source,
            },
        })
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn creates_closed_files_and_folders_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        create_folder(&inner).unwrap();
        assert_eq!(mode(&inner), 0o700);
        assert!(matches!(create_folder(&inner), Err(SecretFileError::Exists(_))));
        let path = inner.join("secret");
        create(&path, b"one").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(matches!(create(&path, b"two"), Err(SecretFileError::Exists(_))));
        assert_eq!(*read(&path, 3).unwrap(), b"one");
        assert!(matches!(
            read(&path, 2),
            Err(SecretFileError::TooLarge { limit: 2, .. })
        ));
    }

    #[test]
    fn refuses_to_follow_a_link_that_somebody_laid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(create(&path, b"one"), Err(SecretFileError::Exists(_))));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn refuses_a_secret_that_others_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"one").unwrap();
        for (mode, accepted) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o644, false),
            (0o660, false),
            (0o604, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 10).is_ok(), accepted, "mode {mode:o}");
        }
    }

    #[test]
    fn replaces_a_file_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public");
        replace_public(&path, b"a longer first content").unwrap();
        replace_public(&path, b"second").unwrap();
        assert_eq!(read_public(&path, 100).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
