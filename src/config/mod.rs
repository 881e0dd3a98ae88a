//! One node's configuration: a TOML file, read once at start. `deploy/node.example.toml` documents every key.
//!
//! Unknown keys are refused; paths are taken relative to the file's own folder. The caller runs [`crate::check::check`]
//! (the files behind the paths) before it opens anything.

pub mod fields;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use fields::{Hex32, LogFormat, MeterAdmins, PublicUrl, Twins};

/// A configuration file larger than this is refused unread.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Everything that one node is told from outside.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cluster that this node belongs to: the hash of its genesis statement.
    pub cluster: Hex32,
    /// This node's number, 1 or more; never used again once its disk is lost.
    pub node: u64,
    /// The one URL under which clients know the cluster.
    pub public_url: PublicUrl,
    /// Where databases, audit segments and the lock live.
    pub data_dir: PathBuf,
    /// The genesis statement: members with their keys, operators, number of groups.
    pub genesis: PathBuf,
    /// Of a node that joined later: the operators' orders that changed the members, up to the one that made it a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<PathBuf>,
    /// Who may create meters.
    #[serde(default)]
    pub meter_admins: MeterAdmins,
    /// Whether `X-Forwarded-For` is believed for the IP allow list.
    #[serde(default)]
    pub trust_forwarded_for: bool,
    /// Number of Raft groups; the genesis statement's number, stated again so that a copy from elsewhere is seen.
    #[serde(default = "default_groups")]
    pub groups: u32,
    /// Whether two identical requests within two seconds are both served.
    #[serde(default)]
    pub twins: Twins,
    /// The addresses that this node listens on.
    pub listen: Listen,
    /// Certificate and key of the public HTTPS listener.
    pub https: Https,
    /// Certificate and sealed keys for the other nodes.
    pub peer: PeerFiles,
    /// Where the node key comes from.
    pub seal: SealMethod,
    /// Who may change membership.
    pub operators: Operators,
    /// Where a peer is dialled when it is no longer at the address that the operators signed: node number to host:port.
    #[serde(default, with = "fields::node_keys")]
    pub addresses: BTreeMap<u64, String>,
    /// Raft timings.
    #[serde(default)]
    pub raft: Raft,
    /// The audit record's segments and retention.
    #[serde(default)]
    pub audit: Audit,
    /// When key shares are made anew.
    #[serde(default)]
    pub renewal: Renewal,
    /// Bounds at the edge and in the crypto pool.
    #[serde(default)]
    pub limits: Limits,
    /// Logs.
    #[serde(default)]
    pub log: Log,
    /// Backups; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

/// What the nodes of a cluster are told alike: one that comes later gets it from one that is there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alike {
    /// [`Config::twins`].
    pub twins: Twins,
    /// [`Config::raft`].
    pub raft: Raft,
    /// [`Config::audit`].
    pub audit: Audit,
    /// [`Config::renewal`].
    pub renewal: Renewal,
    /// [`Config::limits`].
    pub limits: Limits,
}

impl Config {
    /// What others of its cluster are to be told, too.
    pub fn alike(&self) -> Alike {
        Alike {
            twins: self.twins,
            raft: self.raft,
            audit: self.audit,
            renewal: self.renewal,
            limits: self.limits,
        }
    }
}

fn default_groups() -> u32 {
    16
}

/// The addresses that a node listens on.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Clients, over TLS.
    pub https: SocketAddr,
    /// The other nodes, over mutual TLS.
    pub peer: SocketAddr,
    /// Health, metrics, status and unseal, over plain HTTP: keep it on loopback.
    pub admin: SocketAddr,
}

/// Files of the public HTTPS listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Https {
    /// PEM chain, the node's own certificate first.
    pub certificate: PathBuf,
    /// PEM private key; mode 0600.
    pub key: PathBuf,
}

/// Files for the links between nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFiles {
    /// PEM chain; its key is the node's Ed25519 identity.
    pub certificate: PathBuf,
    /// The node's secret keys, sealed under its node key.
    pub identity: PathBuf,
    /// PEM certificate of the authority that signed every peer's certificate.
    pub ca: PathBuf,
}

/// Where the 32-byte node key comes from.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum SealMethod {
    /// A file with the key in hexadecimal, base64 or as 32 raw bytes; mode 0600. For development.
    File {
        /// The key file.
        path: PathBuf,
    },
    /// A passphrase, given after the start by `conclave unseal`.
    Passphrase {
        /// The node key sealed under the passphrase (argon2id), with salt and parameters.
        path: PathBuf,
    },
    /// A systemd credential: a file named `name` in `$CREDENTIALS_DIRECTORY`.
    Credential {
        /// The credential's name.
        name: String,
    },
    /// A command that prints the key: the door to an HSM or a cloud KMS.
    Command {
        /// Program and arguments; no shell.
        command: Vec<String>,
        /// It is stopped after this many seconds.
        #[serde(default = "default_command_seconds")]
        timeout_seconds: u64,
    },
}

fn default_command_seconds() -> u64 {
    30
}

/// The keys that may sign statements about membership.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Operators {
    /// Ed25519 public keys.
    pub keys: Vec<Hex32>,
    /// How many of them must sign.
    pub threshold: u32,
}

/// Raft timings. A tick is the unit; the other two are counted in ticks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Milliseconds a tick.
    pub tick_ms: u64,
    /// A leader is heard from every so many ticks.
    pub heartbeat_ticks: u32,
    /// Without a leader for so many ticks (up to twice as many) a node campaigns.
    pub election_ticks: u32,
    /// Whether a state that a leader sends is believed before another member has vouched for it. Only where the others are
    /// lost for good.
    pub believe_leaders: bool,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            tick_ms: 25,
            heartbeat_ticks: 4,
            election_ticks: 20,
            believe_leaders: false,
        }
    }
}

/// The audit record.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Size of a segment file, bytes.
    pub segment_bytes: u64,
    /// A segment is closed after this many seconds even if not full.
    pub segment_seconds: u64,
    /// Closed segments older than this are removed.
    pub retention_days: u32,
    /// Closed segments beyond this many bytes are removed, oldest first; 0: a fifth of the disk.
    pub retention_bytes: u64,
    /// With this little of the disk free, in percent, uses of keys are refused.
    pub minimum_free_percent: u8,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            segment_seconds: 3600,
            retention_days: 90,
            retention_bytes: 0,
            minimum_free_percent: 5,
        }
    }
}

/// Renewal of key shares: what was stolen of an epoch before is worth nothing after it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renewal {
    /// Shares are renewed at this age; 0: never. The same on every node.
    pub days: u32,
    /// Keys that a node renews in a second for the groups that it leads.
    pub keys_per_second: u32,
}

impl Default for Renewal {
    fn default() -> Self {
        Self {
            days: 30,
            keys_per_second: 20,
        }
    }
}

/// Bounds. What is beyond one is refused (413, 429 or 503), never queued without end.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open HTTPS connections.
    pub connections: usize,
    /// HTTP worker threads; 0: one for each core.
    pub http_workers: usize,
    /// Threads of the crypto pool; 0: one less than the cores, at least one.
    pub crypto_threads: usize,
    /// A request's body, bytes.
    pub body_bytes: usize,
    /// Requests being worked on at one time; one address or keystore may have as many as are still free.
    pub requests_in_flight: usize,
    /// Longest payload of a key wrap, bytes: 64 and more are rarely needed, and each 8 cost 1.4 MB between nodes. The
    /// same on every node.
    pub wrap_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            http_workers: 0,
            crypto_threads: 0,
            body_bytes: 100 * 1024,
            requests_in_flight: 4_096,
            wrap_bytes: 256,
        }
    }
}

/// This node's backups.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The folder for them: better on another disk, and copied away from there.
    pub folder: PathBuf,
    /// The recovery officers' public keys, as `conclave recovery init` makes them.
    pub recovery: PathBuf,
    /// One is made every so many hours; 0: only by `conclave backup`.
    #[serde(default = "default_backup_hours")]
    pub every_hours: u32,
    /// So many are kept in the folder.
    #[serde(default = "default_backups")]
    pub keep: u32,
}

fn default_backup_hours() -> u32 {
    24
}

fn default_backups() -> u32 {
    7
}

/// Logs, written to standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// A tracing filter, for example `info,conclave_consensus=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".to_owned(),
        }
    }
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too large to be a configuration.
    #[error("configuration {0} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge(PathBuf),
    /// Not TOML, a key that does not exist, or a value of another type.
    #[error("configuration {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that is of the right type and cannot be right.
    #[error("configuration: {key}: {reason}")]
    Invalid {
        /// The key, as it stands in the file.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Config {
    /// Reads, parses and validates `path`; relative paths inside become relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(read)?;
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        let base = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let base = std::path::absolute(base.unwrap_or(Path::new("."))).map_err(read)?;
        Self::parse(&text, &base).map_err(|error| match error {
            ConfigError::Parse { source, .. } => ConfigError::Parse {
                path: path.to_owned(),
                source,
            },
            other => other,
        })
    }

    /// Parses and validates `text`; relative paths become relative to `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: base.to_owned(),
            source: Box::new(source),
        })?;
        config.validate()?;
        for path in config.paths_mut() {
            *path = base.join(&*path);
        }
        Ok(config)
    }

    fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![
            &mut self.data_dir,
            &mut self.genesis,
            &mut self.https.certificate,
            &mut self.https.key,
            &mut self.peer.certificate,
            &mut self.peer.identity,
            &mut self.peer.ca,
        ];
        match &mut self.seal {
            SealMethod::File { path } | SealMethod::Passphrase { path } => paths.push(path),
            SealMethod::Credential { .. } | SealMethod::Command { .. } => {}
        }
        if let Some(backup) = &mut self.backup {
            paths.extend([&mut backup.folder, &mut backup.recovery]);
        }
        paths.extend(&mut self.orders);
        paths
    }

    /// What can be judged without a look at the disk.
    fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, key: &str, reason: &str| {
            if ok {
                Ok(())
            } else {
                Err(ConfigError::Invalid {
                    key: key.to_owned(),
                    reason: reason.to_owned(),
                })
            }
        };
        check(self.node > 0, "node", "nodes are numbered from 1")?;
        check(
            (2..=1024).contains(&self.groups),
            "groups",
            "from 2 (group 0 holds no keystore) to 1024",
        )?;
        let Listen { https, peer, admin } = self.listen;
        let ports = [https, peer, admin];
        check(
            ports.iter().all(|a| a.port() != 0),
            "listen",
            "every address needs a fixed port",
        )?;
        check(
            https != peer && https != admin && peer != admin,
            "listen",
            "the three addresses must differ",
        )?;
        check(
            self.renewal.keys_per_second > 0,
            "renewal.keys_per_second",
            "at least 1; to renew nothing set renewal.days to 0",
        )?;
        let operators = &self.operators;
        check(
            !operators.keys.is_empty(),
            "operators.keys",
            "at least one operator's public key is needed",
        )?;
        let distinct: std::collections::BTreeSet<_> = operators.keys.iter().collect();
        check(
            distinct.len() == operators.keys.len(),
            "operators.keys",
            "a key is listed twice",
        )?;
        let signers = 1..=operators.keys.len() as u64;
        check(
            signers.contains(&u64::from(operators.threshold)),
            "operators.threshold",
            "from 1 to the number of operator keys",
        )?;
        for (node, address) in &self.addresses {
            check(
                *node > 0 && fields::is_host_port(address),
                "addresses",
                "a node number and its host:port",
            )?;
        }
        let Raft {
            tick_ms,
            heartbeat_ticks,
            election_ticks,
            believe_leaders: _,
        } = self.raft;
        check((1..=1000).contains(&tick_ms), "raft.tick_ms", "from 1 to 1000")?;
        check(heartbeat_ticks > 0, "raft.heartbeat_ticks", "at least 1")?;
        check(
            (heartbeat_ticks.saturating_mul(2)..=1000).contains(&election_ticks),
            "raft.election_ticks",
            "at least twice heartbeat_ticks and at most 1000",
        )?;
        let audit = &self.audit;
        check(
            audit.segment_bytes >= 1 << 20,
            "audit.segment_bytes",
            "at least 1 MiB",
        )?;
        check(
            audit.segment_seconds >= 60,
            "audit.segment_seconds",
            "at least 60",
        )?;
        check(audit.retention_days >= 1, "audit.retention_days", "at least 1")?;
        check(
            (1..=50).contains(&audit.minimum_free_percent),
            "audit.minimum_free_percent",
            "from 1 to 50",
        )?;
        if let Some(backup) = &self.backup {
            check(
                backup.every_hours <= 24 * 366,
                "backup.every_hours",
                "from 1 (0: only by hand) to a year",
            )?;
            check((1..=100_000).contains(&backup.keep), "backup.keep", "at least 1")?;
        }
        let limits = &self.limits;
        check(limits.connections >= 16, "limits.connections", "at least 16")?;
        check(limits.http_workers <= 1024, "limits.http_workers", "at most 1024")?;
        check(
            (16..=4_096).contains(&limits.wrap_bytes),
            "limits.wrap_bytes",
            "16 to 4096",
        )?;
        check(
            limits.crypto_threads <= 1024,
            "limits.crypto_threads",
            "at most 1024",
        )?;
        check(
            (1024..=1 << 20).contains(&limits.body_bytes),
            "limits.body_bytes",
            "from 1 KiB to 1 MiB; WebKMS clients expect 100 KiB",
        )?;
        check(
            limits.requests_in_flight >= 1,
            "limits.requests_in_flight",
            "at least 1",
        )?;
        match &self.seal {
            SealMethod::Credential { name } => check(
                !name.is_empty() && !name.contains('/') && name != "." && name != "..",
                "seal.name",
                "a file name in $CREDENTIALS_DIRECTORY",
            )?,
            SealMethod::Command {
                command,
                timeout_seconds,
            } => {
                check(!command.is_empty(), "seal.command", "a program and its arguments")?;
                check(
                    (1..=600).contains(timeout_seconds),
                    "seal.timeout_seconds",
                    "from 1 to 600",
                )?;
            }
            SealMethod::File { .. } | SealMethod::Passphrase { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
