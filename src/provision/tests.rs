//! Tests of a cluster's material: made, checked, opened; and each way in which it can be wrong.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{SeedableRng as _, rngs::StdRng};
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    cluster::{Common, Created, SealPlan, create},
    genesis::{Body, GenesisError},
    *,
};
use crate::actors::directory;
use crate::{
    check::check,
    config::{Alike, Config, Hex32, Listen, Log, MeterAdmins, fields::encode_hex},
    seal::{NodeKey, passphrase::Cost, sealed::SealedError},
};

fn plan(seal: SealPlan) -> NewCluster {
    let node = |node: u64| NewNode {
        node,
        peer: format!("node-{node}.internal:9443"),
        listen: Listen {
            https: format!("127.0.0.{node}:38443").parse().unwrap(),
            peer: format!("127.0.0.{node}:38543").parse().unwrap(),
            admin: format!("127.0.0.{node}:38643").parse().unwrap(),
        },
    };
    NewCluster {
        common: Common {
            alike: Alike::default(),
            backup: None,
            public_url: "https://kms.example.com:8443".parse().unwrap(),
            groups: 16,
            meter_admins: MeterAdmins::Anyone,
            trust_forwarded_for: false,
            seal,
            log: Log::default(),
        },
        nodes: (1..=3).map(node).collect(),
        operator: None,
        further_operators: Vec::new(),
        threshold: 1,
        committee: None,
        placement: None,
    }
}

struct Made {
    _folder: tempfile::TempDir,
    dir: PathBuf,
    created: Created,
}

fn made_with(plan: &NewCluster) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let mut rng = StdRng::from_entropy();
    let created = create(plan, &dir, OffsetDateTime::now_utc(), &mut rng, |_| Ok(())).unwrap();
    Made {
        _folder: folder,
        dir,
        created,
    }
}

fn made() -> Made {
    made_with(&plan(SealPlan::File))
}

impl Made {
    fn file(&self, node: u64, name: &str) -> PathBuf {
        self.dir.join(format!("node-{node}")).join(name)
    }

    fn config(&self, node: u64) -> Config {
        Config::load(&self.file(node, "node.toml")).unwrap()
    }

    fn key(&self, node: u64) -> NodeKey {
        let text = fs::read_to_string(self.file(node, "node.key")).unwrap();
        NodeKey::new(&text.trim().parse::<Hex32>().unwrap().0)
    }

    fn swap(&self, from: (u64, &str), to: (u64, &str)) {
        fs::copy(self.file(from.0, from.1), self.file(to.0, to.1)).unwrap();
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        }
        found.push(path);
    }
}

async fn problems(config: &Config) -> String {
    check(config, UnixTime::now())
        .await
        .unwrap_err()
        .problems
        .join("\n")
}

#[tokio::test]
async fn what_init_makes_is_what_check_wants_and_a_node_opens() {
    let made = made();
    for node in 1..=3 {
        let config = made.config(node);
        assert_eq!((config.node, config.cluster), (node, made.created.cluster));
        let report = check(&config, UnixTime::now()).await.unwrap();
        let passed = report.passed.join("\n");
        for part in [
            "https.pem covers kms.example.com",
            "is valid now",
            "3 members",
            "membership pins",
            "data_dir",
        ] {
            assert!(passed.contains(part), "{part:?} is missing in\n{passed}");
        }
        let started = Started::open(&config, &made.key(node)).unwrap();
        assert_eq!(started.introduction.members.members.len(), 3);
        let own = started.introduction.members.member(node).unwrap().pinned();
        assert_eq!(own.peer, format!("node-{node}.internal:9443"));
        assert_eq!(own.identity.0, started.identity.public());
        assert_eq!(own.envelope.0, started.identity.envelope_public());
        assert_eq!(start::ed25519_key(&started.peer_chain[0]), Some(own.identity.0));
        // The TLS library takes the key for the certificate.
        let key = started.identity.peer_private_key().into();
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(started.peer_chain, key, &provider).unwrap();
    }
}

#[test]
fn the_public_certificate_covers_host_and_loopback() {
    let made = made();
    let (chain, _) = start::read_https(&made.config(2)).unwrap();
    for name in ["kms.example.com", "localhost", "127.0.0.1", "::1"] {
        assert!(start::covers(&chain[0], name), "{name}");
    }
    for name in ["example.com", "127.0.0.2", "other.example.com", ""] {
        assert!(!start::covers(&chain[0], name), "{name}");
    }
}

#[test]
fn files_and_folders_are_closed_and_nothing_is_beside_them() {
    let made = made();
    let mut paths = vec![made.dir.clone()];
    walk(&made.dir, &mut paths);
    let public = ["ca.pem", "genesis.json", "node.toml", "https.pem", "peer.pem"];
    for path in &paths {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = match path.is_dir() {
            true => 0o700,
            false if public.contains(&name) => 0o644,
            false => 0o600,
        };
        assert_eq!(mode, expected, "{}", path.display());
    }
    assert_eq!(paths.iter().filter(|path| path.is_file()).count(), 4 + 3 * 8);
    assert_eq!(
        fs::read_dir(made.dir.parent().unwrap()).unwrap().count(),
        1,
        "the staging folder is still there"
    );
}

#[test]
fn no_secret_of_a_node_lies_open() {
    let made = made();
    let identities: Vec<_> = (1..=3)
        .map(|node| {
            Started::open(&made.config(node), &made.key(node))
                .unwrap()
                .identity
        })
        .collect();
    let mut paths = Vec::new();
    walk(&made.dir, &mut paths);
    for path in paths.iter().filter(|path| path.is_file()) {
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes).replace('\n', "");
        for identity in &identities {
            for secret in [
                identity.signing_key().as_bytes(),
                identity.envelope_secret().as_bytes(),
            ] {
                assert!(
                    !bytes.windows(32).any(|window| window == secret),
                    "{}",
                    path.display()
                );
                assert!(!text.contains(&encode_hex(secret)), "{}", path.display());
                // Base64 of three alignments, without the digits at the ends that neighbours share.
                for offset in 0..3 {
                    let encoded = BASE64_STANDARD.encode(&secret[offset..offset + 27]);
                    assert!(!text.contains(&encoded), "{}", path.display());
                }
            }
        }
    }
}

#[test]
fn nothing_is_overwritten_and_a_failure_leaves_nothing() {
    let made = made();
    let mut rng = StdRng::seed_from_u64(2);
    let now = OffsetDateTime::now_utc();
    let again = create(&plan(SealPlan::File), &made.dir, now, &mut rng, |_| Ok(()));
    assert!(matches!(again, Err(ProvisionError::File(_))));
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let failing = create(&plan(SealPlan::File), &dir, now, &mut rng, |node| {
        if node.config.node == 2 {
            Err("no".into())
        } else {
            Ok(())
        }
    });
    assert!(matches!(failing, Err(ProvisionError::Bootstrap { node: 2, .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_hook_sees_each_node_with_an_empty_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    let mut rng = StdRng::seed_from_u64(3);
    let hook = |material: &NodeMaterial<'_>| {
        assert_eq!(fs::read_dir(&material.config.data_dir)?.count(), 0);
        Started::open(material.config, material.node_key)?;
        fs::write(material.config.data_dir.join("first"), "record")?;
        seen.borrow_mut().push(material.config.node);
        Ok(())
    };
    // An empty folder that exists is taken.
    create(
        &plan(SealPlan::File),
        folder.path(),
        OffsetDateTime::now_utc(),
        &mut rng,
        hook,
    )
    .unwrap();
    assert_eq!(*seen.borrow(), [1, 2, 3]);
    assert!(folder.path().join("node-3/data/first").is_file());
}

#[test]
fn an_identity_opens_for_its_node_with_its_key_only() {
    let made = made();
    let open = |node, key| match Started::open(&made.config(node), &made.key(key)) {
        Ok(_) => None,
        Err(ProvisionError::Identity { source, .. }) => Some(source),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(open(1, 1), None);
    assert_eq!(open(1, 2), Some(SealedError::WrongKey));
    // Another node's sealed keys, with that node's key: bound to the number.
    made.swap((2, "identity.sealed"), (1, "identity.sealed"));
    assert_eq!(open(1, 2), Some(SealedError::WrongKey));
}

#[test]
fn keys_that_membership_does_not_pin_are_refused() {
    let made = made();
    let (config, key) = (made.config(1), made.key(1));
    // Sealed for the right node of the right cluster under the right key, and not the node's own.
    let mut rng = StdRng::seed_from_u64(7);
    fs::remove_file(&config.peer.identity).unwrap();
    let stranger = Identity::generate(&mut rng);
    stranger
        .create(&config.peer.identity, &config.cluster.0, 1, &key, &mut rng)
        .unwrap();
    let refused = Started::open(&config, &key).err().unwrap();
    assert!(matches!(refused, ProvisionError::Mismatch { path, .. } if path == config.peer.identity));
}

#[tokio::test]
async fn check_names_what_is_wrong() {
    type Case<'a> = (&'a str, &'a dyn Fn(&Made), &'a str);
    let cases: [Case<'_>; 9] = [
        (
            "a peer certificate of another node",
            &|m| m.swap((2, "peer.pem"), (1, "peer.pem")),
            "not the one that the operators",
        ),
        (
            "a key of another node",
            &|m| m.swap((2, "https.key"), (1, "https.key")),
            "does not belong to the certificate",
        ),
        (
            "no certificate",
            &|m| fs::write(m.file(1, "https.pem"), "").unwrap(),
            "https.pem is not one or more",
        ),
        (
            "a missing file",
            &|m| fs::remove_file(m.file(1, "ca.pem")).unwrap(),
            "ca.pem",
        ),
        (
            "no data directory",
            &|m| fs::remove_dir(m.file(1, "data")).unwrap(),
            "data_dir",
        ),
        (
            "an open key file",
            &|m| {
                fs::set_permissions(m.file(1, "node.key"), fs::Permissions::from_mode(0o644)).unwrap();
            },
            "has mode 644",
        ),
        (
            "another node's key",
            &|m| m.swap((3, "node.key"), (1, "node.key")),
            "sealed under another key",
        ),
        (
            "a damaged identity",
            &|m| {
                let mut bytes = fs::read(m.file(1, "identity.sealed")).unwrap();
                bytes[50] ^= 1;
                fs::write(m.file(1, "identity.sealed"), bytes).unwrap();
            },
            "damaged",
        ),
        (
            "an edited genesis",
            &|m| {
                let text = fs::read_to_string(m.file(1, "genesis.json")).unwrap();
                fs::write(
                    m.file(1, "genesis.json"),
                    text.replace("node-2.internal", "node-2.external"),
                )
                .unwrap();
            },
            "not signed by an operator",
        ),
    ];
    for (name, spoil, expected) in cases {
        let made = made();
        spoil(&made);
        let text = problems(&made.config(1)).await;
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[tokio::test]
async fn check_judges_hosts_dates_and_authorities() {
    let made = made();
    let mut config = made.config(1);
    config.public_url = "https://elsewhere.example".parse().unwrap();
    assert!(
        problems(&config)
            .await
            .contains("does not name elsewhere.example")
    );
    let later = |days: u64| {
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + days * 86_400))
    };
    let config = made.config(1);
    check(&config, later(820)).await.unwrap();
    let expired = check(&config, later(830)).await.unwrap_err().problems.join("\n");
    assert!(
        expired.contains("https.pem") && !expired.contains("peer.pem"),
        "{expired}"
    );
    let expired = check(&config, later(3660)).await.unwrap_err().problems.join("\n");
    assert!(expired.contains("peer.pem"), "{expired}");
    let other = self::made();
    fs::copy(other.file(1, "ca.pem"), made.file(1, "ca.pem")).unwrap();
    assert!(problems(&config).await.contains("not signed by"));
}

#[tokio::test]
async fn a_node_accepts_no_other_clusters_genesis() {
    let (made, other) = (made(), made());
    fs::copy(other.file(1, "genesis.json"), made.file(1, "genesis.json")).unwrap();
    assert!(problems(&made.config(1)).await.contains("is that of cluster"));
    let key = made.key(1);
    let error = Started::open(&made.config(1), &key).err().unwrap();
    assert!(matches!(
        error,
        ProvisionError::Genesis(GenesisError::OtherCluster { .. })
    ));
}

#[test]
fn other_seals_leave_no_key_beside_the_identity() {
    let cost = Cost {
        memory_kib: 8,
        iterations: 1,
        parallelism: 1,
    };
    let passphrase = Zeroizing::new(b"correct horse battery".to_vec());
    let made = made_with(&plan(SealPlan::Passphrase(passphrase, cost)));
    assert!(made.file(1, "passphrase.json").is_file() && !made.file(1, "node.key").exists());
    assert!(!made.dir.join("keys").exists());
    let seals = [
        SealPlan::Credential("name".to_owned()),
        SealPlan::Command(vec!["/bin/print".to_owned()]),
    ];
    for seal in seals {
        let made = made_with(&plan(seal));
        assert!(!made.file(2, "node.key").exists());
        let text = fs::read_to_string(made.dir.join("keys/node-2.key")).unwrap();
        let key = NodeKey::new(&text.trim().parse::<Hex32>().unwrap().0);
        Started::open(&made.config(2), &key).unwrap();
    }
}

#[test]
fn a_cluster_of_more_nodes_than_a_committee_says_who_has_what() {
    let mut placed = plan(SealPlan::File);
    placed.nodes = (1..=3).flat_map(|_| placed.nodes.clone()).take(5).collect();
    for (node, at) in (1..).zip(&mut placed.nodes) {
        (at.node, at.peer) = (node, format!("node-{node}.internal:9443"));
    }
    placed.committee = Some(3);
    let made = made_with(&placed);
    let config = made.config(2);
    let genesis = super::start::read_genesis(&config).unwrap();
    let body = genesis.body();
    let placement = body.placement.as_ref().unwrap();
    assert_eq!((body.format, placement.committee()), (2, 3));
    assert_eq!(placement.groups_of(2).count(), 9);
    // Another place is another cluster, and a statement that says none where one belongs is none.
    let text = String::from_utf8(genesis.to_json()).unwrap();
    assert!(Genesis::parse(text.as_bytes()).is_ok());
    let refused = |text: &str, why: &str| {
        let error = Genesis::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let groups = value["statement"]["placement"].as_array_mut().unwrap();
    groups[3]["nodes"] = serde_json::json!([1, 3, 5]);
    refused(&value.to_string(), "not signed by an operator");
    value["statement"]["placement"][3]["nodes"] = serde_json::json!([1, 3]);
    refused(&value.to_string(), "3 to 5 nodes");
    value["statement"]["placement"][3]["nodes"] = serde_json::json!([1, 3, 7]);
    refused(&value.to_string(), "no member");
    value["statement"]["placement"].as_array_mut().unwrap().remove(3);
    refused(&value.to_string(), "not placed");
    value["statement"].as_object_mut().unwrap().remove("placement");
    refused(&value.to_string(), "format 2");
}

#[test]
fn an_operator_key_that_exists_is_used_and_not_copied() {
    let operator = OperatorKey::generate(&mut StdRng::seed_from_u64(4));
    let public = Hex32(operator.public());
    let further = Hex32(OperatorKey::generate(&mut StdRng::seed_from_u64(5)).public());
    let plan = NewCluster {
        operator: Some(operator),
        further_operators: vec![further],
        threshold: 2,
        ..plan(SealPlan::File)
    };
    let made = made_with(&plan);
    assert_eq!(made.created.operator, public);
    assert!(!made.dir.join("operator.key").exists());
    let operators = made.config(1).operators;
    assert_eq!((operators.keys, operators.threshold), (vec![public, further], 2));
}

#[test]
fn an_operator_key_file_reads_back() {
    let made = made();
    let path = made.dir.join("operator.key");
    let key = OperatorKey::read(&path).unwrap();
    assert_eq!(Hex32(key.public()), made.created.operator);
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace(&made.created.operator.to_string(), &"0".repeat(64));
    fs::write(&path, text).unwrap();
    assert!(matches!(
        OperatorKey::read(&path),
        Err(ProvisionError::Malformed { .. })
    ));
}

fn genesis() -> (Genesis, OperatorKey) {
    let made = made();
    let key = OperatorKey::read(&made.dir.join("operator.key")).unwrap();
    (
        Genesis::parse(&fs::read(made.dir.join("genesis.json")).unwrap()).unwrap(),
        key,
    )
}

#[test]
fn every_field_of_the_genesis_is_in_the_clusters_id() {
    let (genesis, _) = genesis();
    let edits: [fn(&mut Body); 9] = [
        |body| body.format = 2,
        |body| body.nonce.0[31] ^= 1,
        |body| body.groups += 1,
        |body| body.members[2].node += 1,
        |body| body.members[0].peer.push('0'),
        |body| body.members[1].identity.0[0] ^= 1,
        |body| body.members[1].envelope.0[0] ^= 1,
        |body| body.operators[0].0[0] ^= 1,
        |body| body.threshold += 1,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut body = genesis.body().clone();
        edit(&mut body);
        assert_ne!(body.cluster_id(), genesis.cluster_id(), "edit {number}");
    }
    let mut body = genesis.body().clone();
    body.members.swap(0, 1);
    assert_ne!(body.cluster_id(), genesis.cluster_id());
}

#[test]
fn a_genesis_is_signed_by_an_operator_that_it_pins() {
    let (genesis, key) = genesis();
    let stranger = OperatorKey::generate(&mut StdRng::seed_from_u64(6));
    assert!(matches!(
        Genesis::sign(genesis.body().clone(), &stranger),
        Err(GenesisError::Signature)
    ));
    let again = Genesis::sign(genesis.body().clone(), &key).unwrap();
    assert_eq!(Genesis::parse(&again.to_json()).unwrap(), genesis);
    let mut json: serde_json::Value = serde_json::from_slice(&genesis.to_json()).unwrap();
    let signatures = json["signatures"].as_array_mut().unwrap();
    let twice = vec![signatures[0].clone(), signatures[0].clone()];
    for signatures in [vec![], twice] {
        json["signatures"] = signatures.into();
        let bytes = serde_json::to_vec(&json).unwrap();
        assert!(matches!(Genesis::parse(&bytes), Err(GenesisError::Signature)));
    }
}

#[test]
fn a_genesis_that_makes_no_cluster_is_not_signed() {
    let (genesis, key) = genesis();
    let edits: [fn(&mut Body); 9] = [
        |body| body.members.clear(),
        |body| body.members[0].node = 0,
        |body| body.members[1].node = 1,
        |body| body.members.swap(0, 2),
        |body| body.members[1].identity = body.members[0].identity,
        |body| body.members[1].envelope = body.members[0].identity,
        |body| body.members[0].peer = "nowhere".to_owned(),
        |body| body.groups = 1,
        |body| body.threshold = 2,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut body = genesis.body().clone();
        edit(&mut body);
        let refused = Genesis::sign(body, &key);
        assert!(
            matches!(refused, Err(GenesisError::Inconsistent(_))),
            "edit {number}"
        );
    }
    // The neutral point as an identity: everybody could sign for it.
    let mut body = genesis.body().clone();
    body.members[0].identity = Hex32([0; 32]);
    body.members[0].identity.0[0] = 1;
    assert!(matches!(
        Genesis::sign(body, &key),
        Err(GenesisError::Inconsistent(_))
    ));
}

#[test]
fn peers_are_dialled_where_the_configuration_says() {
    let made = made();
    let mut config = made.config(1);
    config.addresses.insert(2, "10.0.0.22:9443".to_owned());
    let started = Started::open(&config, &made.key(1)).unwrap();
    let members = started.introduction.everybody.iter();
    let addresses: Vec<_> = members
        .map(|member| directory::peer_of(member, &config.addresses).address)
        .collect();
    assert_eq!(
        addresses,
        ["node-1.internal:9443", "10.0.0.22:9443", "node-3.internal:9443"]
    );
}
