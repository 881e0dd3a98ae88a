//! One node's folder: its keys, its configuration, and what it knows of the cluster.

use std::path::{Path, PathBuf};

use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::candidate::Candidate;
use super::certificates::{Certificates, HttpsKey};
use super::cluster::{BackupPlan, Common, SealPlan, node_folder};
use super::{Genesis, Identity, NewNode, ProvisionError};
use crate::config::fields::encode_hex;
use crate::config::{Config, Hex32, Https, Operators, PeerFiles, SealMethod};
use crate::membership::Pinned;
use crate::seal::passphrase::SealedNodeKey;
use crate::seal::{NodeKey, secret_file};

/// A node's own secrets, made where the node is to be.
pub struct NodeKeys {
    pub(super) identity: Identity,
    pub(super) node_key: NodeKey,
    https: HttpsKey,
}

impl NodeKeys {
    /// New random keys.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Result<Self, ProvisionError> {
        Ok(Self {
            identity: Identity::generate(rng),
            node_key: NodeKey::generate(rng),
            https: HttpsKey::generate()?,
        })
    }

    /// What operators pin of it.
    pub fn member(&self, node: &NewNode) -> Pinned {
        Pinned {
            node: node.node,
            peer: node.peer.clone(),
            identity: Hex32(self.identity.public()),
            envelope: Hex32(self.identity.envelope_public()),
        }
    }

    /// What operators pin of it and certify.
    ///
    /// # Errors
    /// As [`HttpsKey::public`].
    pub fn candidate(&self, node: &NewNode) -> Result<Candidate, ProvisionError> {
        Ok(Candidate {
            member: self.member(node),
            https: self.https.public()?,
        })
    }
}

impl Certificates {
    /// Writes them where the configuration has them.
    ///
    /// # Errors
    /// The file.
    pub fn write(&self, config: &Config) -> Result<(), ProvisionError> {
        secret_file::replace_public(&config.https.certificate, self.https.as_bytes())?;
        Ok(secret_file::replace_public(
            &config.peer.certificate,
            self.peer.as_bytes(),
        )?)
    }
}

/// What one node's folder is made of, but for its certificates.
pub(super) struct NodeFiles<'a> {
    pub(super) common: &'a Common,
    pub(super) root: &'a Path,
    pub(super) node: &'a NewNode,
    pub(super) keys: &'a NodeKeys,
    pub(super) genesis: &'a Genesis,
    /// The authority's certificate, PEM.
    pub(super) ca: &'a str,
    /// Of a node that joins later: where the orders that made it a member are.
    pub(super) orders: Option<PathBuf>,
}

impl NodeFiles<'_> {
    /// Makes the folder; its configuration, as it can be loaded from there.
    pub(super) fn write(&self, rng: &mut (impl CryptoRng + RngCore)) -> Result<Config, ProvisionError> {
        let (node, keys) = (self.node.node, self.keys);
        let folder = self.root.join(node_folder(node));
        secret_file::create_folder(&folder)?;
        secret_file::create_folder(&folder.join("data"))?;
        let cluster = self.genesis.cluster_id();
        let config = self.config();
        secret_file::create(&folder.join(&config.https.key), keys.https.to_pem().as_bytes())?;
        secret_file::create_public(&folder.join(&config.peer.ca), self.ca.as_bytes())?;
        secret_file::create_public(&folder.join(&config.genesis), &self.genesis.to_json())?;
        let identity = folder.join(&config.peer.identity);
        keys.identity
            .create(&identity, &cluster, node, &keys.node_key, rng)?;
        self.write_node_key(&folder, &config, rng)?;
        if let Some(backup) = &self.common.backup {
            backup.write(&folder)?;
        }
        let path = folder.join("node.toml");
        secret_file::create_public(&path, &config_text(&config)?)?;
        Ok(Config::load(&path)?)
    }

    fn write_node_key(
        &self,
        folder: &Path,
        config: &Config,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(), ProvisionError> {
        let (cluster, node, key) = (self.genesis.cluster_id(), self.node.node, &self.keys.node_key);
        let text = || Zeroizing::new(format!("{}\n", *Zeroizing::new(encode_hex(key.expose()))));
        match (&self.common.seal, &config.seal) {
            (SealPlan::Passphrase(passphrase, cost), SealMethod::Passphrase { path }) => {
                let sealed = SealedNodeKey::seal(key, passphrase, *cost, &cluster, node, rng)?;
                secret_file::create(&folder.join(path), &sealed.to_json())?;
            }
            (_, SealMethod::File { path }) => secret_file::create(&folder.join(path), text().as_bytes())?,
            _ => {
                let keys = self.root.join("keys");
                if !keys.is_dir() {
                    secret_file::create_folder(&keys)?;
                }
                let path = keys.join(format!("{}.key", node_folder(node)));
                secret_file::create(&path, text().as_bytes())?;
            }
        }
        Ok(())
    }

    /// With paths relative to the node's folder.
    fn config(&self) -> Config {
        let (body, alike) = (self.genesis.body(), self.common.alike);
        Config {
            cluster: Hex32(self.genesis.cluster_id()),
            node: self.node.node,
            public_url: self.common.public_url.clone(),
            data_dir: "data".into(),
            genesis: "genesis.json".into(),
            orders: self.orders.clone(),
            meter_admins: self.common.meter_admins.clone(),
            trust_forwarded_for: self.common.trust_forwarded_for,
            groups: self.common.groups,
            twins: alike.twins,
            listen: self.node.listen,
            https: Https {
                certificate: "https.pem".into(),
                key: "https.key".into(),
            },
            peer: PeerFiles {
                certificate: "peer.pem".into(),
                identity: "identity.sealed".into(),
                ca: "ca.pem".into(),
            },
            seal: match &self.common.seal {
                SealPlan::File => SealMethod::File {
                    path: "node.key".into(),
                },
                SealPlan::Passphrase(..) => SealMethod::Passphrase {
                    path: "passphrase.json".into(),
                },
                SealPlan::Credential(name) => SealMethod::Credential { name: name.clone() },
                SealPlan::Command(command) => SealMethod::Command {
                    command: command.clone(),
                    timeout_seconds: 30,
                },
            },
            operators: Operators {
                keys: body.operators.clone(),
                threshold: body.threshold,
            },
            addresses: Default::default(),
            raft: alike.raft,
            audit: alike.audit,
            renewal: alike.renewal,
            limits: alike.limits,
            log: self.common.log.clone(),
            backup: self.common.backup.as_ref().map(BackupPlan::settings),
        }
    }
}

/// A configuration as a file, with a pointer to where its keys are explained.
pub fn config_text(config: &Config) -> Result<Vec<u8>, ProvisionError> {
    let text = toml::to_string_pretty(config)
        .map_err(|error| ProvisionError::Plan(format!("the configuration cannot be written: {error}")))?;
    Ok(format!(
        "# One node of a Conclave cluster. Every key is explained in deploy/node.example.toml.\n\n{text}"
    )
    .into_bytes())
}
