//! `cluster.json`: where the nodes of a cluster on this machine are. `conclave dev` writes it, tools read it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ProvisionError;
use crate::seal::secret_file;

const MAX_FILE: usize = 64 * 1024;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClusterFile {
    /// The cluster's public URL.
    pub public_url: String,
    /// The certificate authority to trust, absolute.
    pub ca: PathBuf,
    /// The nodes by rising number.
    pub nodes: Vec<ClusterNode>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ClusterNode {
    /// Its number.
    pub id: u64,
    /// Its process, or while it is down its last one; `null` before the first.
    pub pid: Option<u32>,
    /// Its HTTPS address.
    pub https: String,
    /// Its peer address.
    pub peer: String,
    /// Its admin address.
    pub admin: String,
    /// Its data directory, absolute.
    pub data_dir: PathBuf,
    /// Its configuration, absolute.
    pub config: PathBuf,
}

impl ClusterFile {
    /// The file's place in `dir`.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    /// Reads it from `dir`.
    pub fn read(dir: &Path) -> Result<Self, ProvisionError> {
        let path = Self::path(dir);
        let bytes = secret_file::read_public(&path, MAX_FILE)?;
        serde_json::from_slice(&bytes).map_err(|_| ProvisionError::Malformed {
            path,
            expected: "a cluster.json",
        })
    }

    /// Writes it to `dir`; a reader sees the old one or the new one.
    pub fn write(&self, dir: &Path) -> Result<(), ProvisionError> {
        let path = Self::path(dir);
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|_| ProvisionError::Malformed {
            path: path.clone(),
            expected: "a path in UTF-8",
        })?;
        bytes.push(b'\n');
        Ok(secret_file::replace_public(&path, &bytes)?)
    }
}
