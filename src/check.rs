//! `conclave server --check`: what a configuration points at, looked at without starting anything.
//!
//! All problems are reported, not only the first. Nothing is written and no seal command is run; secrets that a
//! person or a command would have to give are left out and the report says so.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use rustls::{
    CertificateError, Error as TlsError, RootCertStore, client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring::default_provider, server::ParsedCertificate,
};
use rustls_pki_types::UnixTime;

use crate::{
    config::{Config, LogFormat, MeterAdmins, SealMethod},
    provision::introduction,
    provision::start::{Chain, Started, read_genesis, read_https, read_peer_certificates},
    recovery::keeper,
    seal,
};

/// What was found in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was checked and is right.
    pub passed: Vec<String>,
    /// What works and deserves a look.
    pub warnings: Vec<String>,
}

/// What would keep the node from working.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.problems.join("\n"))]
pub struct Problems {
    /// Each with the file or key that it is about.
    pub problems: Vec<String>,
    /// What else was found.
    pub report: Report,
}

/// A public certificate that ends this soon deserves a warning.
const RENEWAL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks at every file, key and certificate that `config` names; `now` judges validity dates.
pub async fn check(config: &Config, now: UnixTime) -> Result<Report, Problems> {
    let mut check = Check {
        config,
        now,
        report: Report::default(),
        problems: Vec::new(),
    };
    check.https();
    check.membership();
    check.seal().await;
    check.data_dir();
    check.backup();
    check.log();
    check.edges();
    let Check { report, problems, .. } = check;
    if problems.is_empty() {
        Ok(report)
    } else {
        Err(Problems { problems, report })
    }
}

struct Check<'a> {
    config: &'a Config,
    now: UnixTime,
    report: Report,
    problems: Vec<String>,
}

impl Check<'_> {
    fn passed(&mut self, text: impl Into<String>) {
        self.report.passed.push(text.into());
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.report.warnings.push(text.into());
    }

    fn problem(&mut self, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // A transparent or quoting error has said it already.
            if !text.contains(&cause.to_string()) {
                text.push_str(&format!(": {cause}"));
            }
            source = cause.source();
        }
        self.problems.push(text);
    }

    fn backup(&mut self) {
        let Some(backup) = &self.config.backup else {
            self.warn("there is no [backup]: who loses the nodes' disks loses every key");
            return;
        };
        match keeper::officers(backup, &self.config.cluster.0) {
            Ok(recovery) => self.passed(format!(
                "{} has {} recovery officers, {} of them open a backup",
                backup.recovery.display(),
                recovery.officers,
                recovery.quorum()
            )),
            Err(error) => self.problem(&error),
        }
        let folder = &backup.folder;
        let parent = folder.parent().is_some_and(|parent| parent.is_dir());
        match folder.is_dir() || (parent && !folder.exists()) {
            true => self.passed(format!("{} is the folder of backups", folder.display())),
            false => self.problems.push(format!(
                "{} is no folder and cannot be made one",
                folder.display()
            )),
        }
    }

    fn https(&mut self) {
        let path = self.config.https.certificate.display().to_string();
        match read_https(self.config) {
            Ok((chain, _key)) => {
                self.passed(format!(
                    "{path} covers {} and fits its key",
                    self.config.public_url.host_name()
                ));
                match validity(&chain, &[], self.now) {
                    Validity::Valid => {
                        let soon =
                            UnixTime::since_unix_epoch(Duration::from_secs(self.now.as_secs()) + RENEWAL);
                        if matches!(validity(&chain, &[], soon), Validity::Invalid(_)) {
                            self.warn(format!("{path} expires within 30 days"));
                        }
                    }
                    Validity::Invalid(reason) => self.problems.push(format!("{path}: {reason}")),
                    Validity::Unknown => match read_roots(self.config) {
                        Some(roots) => match validity(&chain, &roots, self.now) {
                            Validity::Valid => {
                                self.passed(format!("{path} is valid now, signed by the cluster's authority"))
                            }
                            Validity::Invalid(reason) => self.problems.push(format!("{path}: {reason}")),
                            Validity::Unknown => self.warn(format!(
                                "{path}: its issuer is not in the file, so its dates were not checked"
                            )),
                        },
                        None => self.warn(format!("{path}: its dates were not checked")),
                    },
                }
            }
            Err(error) => self.problem(&error),
        }
    }

    fn membership(&mut self) {
        let genesis = match read_genesis(self.config) {
            Ok(genesis) => genesis,
            Err(error) => return self.problem(&error),
        };
        let committee = match introduction::read(self.config, &genesis) {
            Ok(introduced) => introduced.members,
            Err(error) => return self.problem(&error),
        };
        let members = committee.members.len();
        self.passed(format!(
            "cluster {}: {members} members, signed by an operator",
            self.config.cluster
        ));
        if members < 3 {
            self.warn(format!(
                "{members} member(s): with fewer than 3, no node may fail"
            ));
        }
        match read_peer_certificates(self.config, &committee) {
            Ok((chain, roots)) => {
                let path = self.config.peer.certificate.display().to_string();
                match validity(&chain, &roots, self.now) {
                    Validity::Valid => {
                        self.passed(format!("{path} is valid and has the key that membership pins"))
                    }
                    Validity::Invalid(reason) => self.problems.push(format!("{path}: {reason}")),
                    Validity::Unknown => self
                        .problems
                        .push(format!("{path}: not signed by {}", self.config.peer.ca.display())),
                }
            }
            Err(error) => self.problem(&error),
        }
        for node in self.config.addresses.keys() {
            if committee.member(*node).is_none() {
                self.problems.push(format!("addresses.{node}: no such member"));
            }
        }
    }

    async fn seal(&mut self) {
        let config = self.config;
        match &config.seal {
            SealMethod::File { .. } => {
                self.warn(
                    "seal.method = \"file\": the node key lies beside what it opens; for development only",
                );
            }
            SealMethod::Credential { .. } if std::env::var_os("CREDENTIALS_DIRECTORY").is_some() => {}
            SealMethod::Credential { name } => {
                return self.warn(format!(
                    "the credential {name} is there only when systemd starts the node: not checked"
                ));
            }
            SealMethod::Command { command, .. } => {
                return self.warn(format!(
                    "the seal command {command:?} was not run: identity not checked"
                ));
            }
            SealMethod::Passphrase { path } => {
                match seal::passphrase::SealedNodeKey::read(path) {
                    Ok(_) => self.passed(format!(
                        "{} is whole; it waits for `conclave unseal`",
                        path.display()
                    )),
                    Err(error) => self.problem(&error),
                }
                if let Err(error) = fs::File::open(&config.peer.identity) {
                    self.problems
                        .push(format!("cannot read {}: {error}", config.peer.identity.display()));
                }
                return;
            }
        }
        let (_door, attempts) = seal::unseal::door();
        let key = match seal::obtain(&config.seal, &config.cluster.0, config.node, attempts).await {
            Ok(key) => key,
            Err(error) => return self.problem(&error),
        };
        match Started::open(config, &key) {
            Ok(_) => {
                self.passed("the node key opens the identity, and its keys are those that membership pins")
            }
            // What is wrong with genesis or certificate has been said.
            Err(error @ crate::provision::ProvisionError::Identity { .. }) => self.problem(&error),
            Err(error) if self.problems.is_empty() => self.problem(&error),
            Err(_) => {}
        }
    }

    fn data_dir(&mut self) {
        let path = &self.config.data_dir;
        let text = path.display();
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                self.problems.push(format!("data_dir {text} is not a folder"))
            }
            Ok(metadata) => {
                use std::os::unix::fs::PermissionsExt as _;
                if metadata.permissions().mode() & 0o077 != 0 {
                    self.warn(format!(
                        "data_dir {text} is open to others; run: chmod 700 {text}"
                    ));
                }
                match nix::unistd::access(
                    path,
                    nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK,
                ) {
                    Ok(()) => self.passed(format!("data_dir {text} can be written")),
                    Err(errno) => self
                        .problems
                        .push(format!("data_dir {text} cannot be written: {errno}")),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.problems.push(format!(
                    "data_dir {text} does not exist; `conclave init` makes it"
                ));
            }
            Err(error) => self.problems.push(format!("data_dir {text}: {error}")),
        }
    }

    fn log(&mut self) {
        match tracing_subscriber::EnvFilter::builder().parse(&self.config.log.filter) {
            Ok(_) => {
                let format = match self.config.log.format {
                    LogFormat::Human => "human",
                    LogFormat::Json => "json",
                };
                self.passed(format!("logs: {format}, {}", self.config.log.filter));
            }
            Err(error) => self.problems.push(format!("log.filter: {error}")),
        }
    }

    /// Addresses and openness towards the outside.
    fn edges(&mut self) {
        let listen = self.config.listen;
        for (key, address) in [
            ("https", listen.https),
            ("peer", listen.peer),
            ("admin", listen.admin),
        ] {
            match free(address) {
                Ok(()) => self.passed(format!("listen.{key} {address} is free")),
                Err(error) => self.warn(format!("listen.{key} {address}: {error} (is the node running?)")),
            }
        }
        if !listen.admin.ip().is_loopback() {
            self.warn(format!(
                "listen.admin {} is not on loopback: it speaks plain HTTP; `conclave unseal` works from this machine only",
                listen.admin
            ));
        }
        match &self.config.meter_admins {
            MeterAdmins::Anyone => self.warn("meter_admins = \"anyone\": everybody may create meters"),
            MeterAdmins::These(list) if list.is_empty() => {
                self.warn("meter_admins is empty: nobody can create meters, and without a meter no keystore");
            }
            MeterAdmins::These(list) => self.passed(format!("{} meter admin(s)", list.len())),
        }
    }
}

fn free(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

fn read_roots(config: &Config) -> Option<Chain> {
    crate::provision::start::read_chain(&config.peer.ca).ok()
}

enum Validity {
    Valid,
    Invalid(String),
    /// No trust anchor for it among those given and its own chain.
    Unknown,
}

/// Judges a certificate's dates and signature by `roots` and by the last certificate of its own chain.
fn validity(chain: &Chain, roots: &[rustls_pki_types::CertificateDer<'static>], now: UnixTime) -> Validity {
    let mut store = RootCertStore::empty();
    // What cannot be an anchor is left out; then the verdict is `Unknown`.
    store.add_parsable_certificates(roots.iter().cloned().chain(chain.iter().skip(1).last().cloned()));
    if store.is_empty() {
        return Validity::Unknown;
    }
    let Ok(parsed) = ParsedCertificate::try_from(&chain[0]) else {
        return Validity::Invalid("not a certificate".to_owned());
    };
    let algorithms = default_provider().signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &store, &chain[1..], now, algorithms) {
        Ok(()) => Validity::Valid,
        Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => Validity::Unknown,
        Err(error) => Validity::Invalid(error.to_string()),
    }
}
