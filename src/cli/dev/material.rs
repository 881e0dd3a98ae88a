//! The material under DIR: made at the first start, reused when it is what is asked for, else refused.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use rand::rngs::OsRng;
use time::OffsetDateTime;

use super::DevError;
use crate::{
    config::{Alike, Config, Listen, Log, MeterAdmins, PublicUrl},
    membership::Placement,
    provision::{
        NewCluster, NewNode, NodeMaterial, ProvisionError,
        cluster::{self, Common, HookError, SealPlan, node_folder},
        start::read_genesis,
    },
    seal::secret_file,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) nodes: u64,
    /// How many nodes each group is on; none: all.
    pub(super) committee: Option<usize>,
    pub(super) port: u16,
    pub(super) public_url: PublicUrl,
    pub(super) meter_admins: MeterAdmins,
    pub(super) trust_forwarded_for: bool,
}

/// What is there.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) public_url: PublicUrl,
    pub(super) nodes: Vec<DevNode>,
}

/// One node's part of it.
#[derive(Debug)]
pub(super) struct DevNode {
    pub(super) folder: PathBuf,
    pub(super) config_path: PathBuf,
    pub(super) config: Config,
}

impl DevNode {
    pub(super) fn id(&self) -> u64 {
        self.config.node
    }
}

impl Wanted {
    /// The addresses of node `node`. The argument parser keeps the port low enough.
    fn listen(&self, node: u64) -> Listen {
        let own = |offset: u16| {
            let port = u64::from(self.port) + u64::from(offset) + node - 1;
            SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap_or(u16::MAX)))
        };
        Listen {
            https: own(0),
            peer: own(100),
            admin: own(200),
        }
    }

    fn plan(&self) -> NewCluster {
        let node = |node| {
            let listen = self.listen(node);
            NewNode {
                node,
                peer: listen.peer.to_string(),
                listen,
            }
        };
        NewCluster {
            common: Common {
                alike: Alike::default(),
                backup: None,
                public_url: self.public_url.clone(),
                groups: 16,
                meter_admins: self.meter_admins.clone(),
                trust_forwarded_for: self.trust_forwarded_for,
                seal: SealPlan::File,
                log: Log::default(),
            },
            nodes: (1..=self.nodes).map(node).collect(),
            operator: None,
            further_operators: Vec::new(),
            threshold: 1,
            committee: self.committee,
            placement: None,
        }
    }
}

impl Material {
    /// Makes what is not there, checks what is; meter admins and trust in X-Forwarded-For follow this start.
    pub(super) fn prepare(
        dir: &Path,
        wanted: &Wanted,
        bootstrap: impl Fn(&NodeMaterial<'_>) -> Result<(), HookError>,
    ) -> Result<Self, DevError> {
        if !fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            cluster::create(
                &wanted.plan(),
                dir,
                OffsetDateTime::now_utc(),
                &mut OsRng,
                bootstrap,
            )?;
        }
        Self::read(dir, wanted)
    }

    fn read(dir: &Path, wanted: &Wanted) -> Result<Self, DevError> {
        let no_cluster = |source: ProvisionError| DevError::NotACluster {
            dir: dir.to_owned(),
            source,
        };
        let first =
            Config::load(&dir.join(node_folder(1)).join("node.toml")).map_err(|e| no_cluster(e.into()))?;
        let genesis = read_genesis(&first).map_err(no_cluster)?;
        let different = |difference: String| DevError::Different {
            dir: dir.to_owned(),
            difference,
        };
        let members = genesis.body().members.len() as u64;
        let placement = genesis.body().placement.as_ref();
        let committee = placement.map_or(genesis.body().members.len(), Placement::committee);
        if wanted.committee.is_some_and(|wanted| wanted != committee) {
            return Err(different(format!(
                "groups on {committee} nodes each there, {} asked for",
                wanted.committee.unwrap_or_default()
            )));
        }
        if members != wanted.nodes {
            return Err(different(format!(
                "{members} nodes there, {} asked for",
                wanted.nodes
            )));
        }
        let mut nodes = Vec::new();
        for id in 1..=wanted.nodes {
            let folder = dir.join(node_folder(id));
            let config_path = folder.join("node.toml");
            let mut config = Config::load(&config_path).map_err(ProvisionError::from)?;
            let listen = wanted.listen(id);
            if (config.listen.https, config.listen.peer, config.listen.admin)
                != (listen.https, listen.peer, listen.admin)
            {
                return Err(different(format!(
                    "node {id} is on {} there, not on {}",
                    config.listen.https, listen.https
                )));
            }
            if config.public_url != wanted.public_url {
                return Err(different(format!(
                    "public URL {} there, not {}",
                    config.public_url, wanted.public_url
                )));
            }
            if config.meter_admins != wanted.meter_admins
                || config.trust_forwarded_for != wanted.trust_forwarded_for
            {
                follow(&config_path, wanted)?;
                config = Config::load(&config_path).map_err(ProvisionError::from)?;
            }
            nodes.push(DevNode {
                folder,
                config_path,
                config,
            });
        }
        Ok(Self {
            public_url: wanted.public_url.clone(),
            nodes,
        })
    }
}

/// Rewrites the two keys of a node's configuration that each start may choose anew; the others stay.
fn follow(path: &Path, wanted: &Wanted) -> Result<(), DevError> {
    let malformed = || ProvisionError::Malformed {
        path: path.to_owned(),
        expected: "a configuration",
    };
    let bytes = secret_file::read_public(path, 1 << 18).map_err(ProvisionError::from)?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let mut table: toml::Table = text.parse().map_err(|_| malformed())?;
    let admins = toml::Value::try_from(&wanted.meter_admins).map_err(|_| malformed())?;
    table.insert("meter_admins".to_owned(), admins);
    table.insert(
        "trust_forwarded_for".to_owned(),
        wanted.trust_forwarded_for.into(),
    );
    let text = toml::to_string_pretty(&table).map_err(|_| malformed())?;
    Ok(secret_file::replace_public(path, text.as_bytes()).map_err(ProvisionError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            nodes: 3,
            committee: None,
            port: 8443,
            public_url: "https://localhost:9000".parse().unwrap(),
            meter_admins: MeterAdmins::Anyone,
            trust_forwarded_for: false,
        }
    }

    fn prepare(dir: &Path, wanted: &Wanted) -> Result<Material, DevError> {
        Material::prepare(dir, wanted, |_| Ok(()))
    }

    #[test]
    fn material_is_made_once_and_reused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let first = prepare(&dir, &wanted()).unwrap();
        let second = prepare(&dir, &wanted()).unwrap();
        assert_eq!(first.nodes.len(), 3);
        assert_eq!(first.nodes[0].config.cluster, second.nodes[0].config.cluster);
        assert_eq!(
            first.nodes[2].config.listen.https,
            "127.0.0.1:8445".parse().unwrap()
        );
        assert_eq!(
            first.nodes[2].config.listen.peer,
            "127.0.0.1:8545".parse().unwrap()
        );
        assert_eq!(
            first.nodes[2].config.listen.admin,
            "127.0.0.1:8645".parse().unwrap()
        );
        assert!(first.nodes[1].config.data_dir.is_dir());
    }

    #[test]
    fn another_cluster_than_asked_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        prepare(&dir, &wanted()).unwrap();
        let others = [
            Wanted { nodes: 4, ..wanted() },
            Wanted {
                port: 8500,
                ..wanted()
            },
            Wanted {
                public_url: "https://localhost:9001".parse().unwrap(),
                ..wanted()
            },
        ];
        for other in others {
            assert!(
                matches!(prepare(&dir, &other), Err(DevError::Different { .. })),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_folder_with_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("letter"), "dear").unwrap();
        assert!(matches!(
            prepare(folder.path(), &wanted()),
            Err(DevError::NotACluster { .. })
        ));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn meter_admins_and_trust_follow_each_start() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let first = prepare(&dir, &wanted()).unwrap();
        let did = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK".to_owned();
        let admins = MeterAdmins::These(vec![did]);
        let other = Wanted {
            meter_admins: admins.clone(),
            trust_forwarded_for: true,
            ..wanted()
        };
        let second = prepare(&dir, &other).unwrap();
        for (before, after) in first.nodes.iter().zip(&second.nodes) {
            assert_eq!(after.config.meter_admins, admins);
            assert!(after.config.trust_forwarded_for);
            assert_eq!(before.config.cluster, after.config.cluster);
            assert_eq!(before.config.data_dir, after.config.data_dir);
        }
    }
}
