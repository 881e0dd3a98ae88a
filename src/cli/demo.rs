//! `conclave demo`: the whole story on this machine, with three real nodes, in plain lines with timings.

use crate::cli::cluster::{self, DevCluster, Node};
use crate::cli::meter::DEFAULT_PRODUCT;
use crate::cli::output::{EXIT_CODES, Facts, Failure, finish, print};
use crate::cli::vault::Vault;
use crate::client::call::{KeyParameters, keystore_of};
use crate::client::delegation::{self, Delegation};
use crate::client::multikey::{self, ED25519_PUBLIC, X25519_PUBLIC};
use crate::client::signer::unix_seconds;
use crate::client::webkms::GeneratedKey;
use crate::client::{Client, ClientError, Connection, Identity, Limits, Origin, tls};
use clap::Args;
use rand::RngCore;
use rand::rngs::OsRng;
use serde_json::Value;
use std::fmt::Display;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};

/// Signatures that are made after a node was killed.
const AFTER: usize = 6;

const EXAMPLES: &str = "\
Example:
  conclave demo

It starts three nodes on free ports under a temporary directory, uses them as a client that knows nothing of
them, kills one, and stops the rest. Nothing is left behind unless something fails; then the logs are named.";

/// Show it all on this machine: three nodes, keys, signatures, a delegation, a revocation, a killed node
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct DemoCommand {
    /// Keep the directory with the nodes' data and logs
    #[arg(long)]
    keep: bool,
}

impl DemoCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute().await)
    }

    async fn execute(self) -> Result<Facts, Failure> {
        let dir = temporary_directory()?;
        let played = tokio::select! {
            played = play(&dir) => played,
            _ = tokio::signal::ctrl_c() => Err(Failure::because("interrupted")),
        };
        if let Err(failure) = played {
            return Err(Failure::because(format!(
                "the demo failed: {failure} (data and logs: {})",
                dir.display()
            )));
        }
        if self.keep {
            say(format_args!("data and logs are kept in {}", dir.display()));
        } else {
            fs::remove_dir_all(&dir).map_err(Failure::local)?;
        }
        Ok(Facts::none())
    }
}

/// From the first node to the last.
async fn play(dir: &Path) -> Result<(), Failure> {
    let begin = Instant::now();
    let cluster = DevCluster::start(dir, 3).await?;
    let description = cluster.describe()?;
    let pids: Vec<String> = description
        .nodes
        .iter()
        .map(|node| node.pid.to_string())
        .collect();
    let started = format!(
        "three nodes serve {} (processes {})",
        description.public_url,
        pids.join(", ")
    );
    told(begin.elapsed(), started);
    let [first, second, third] = description.nodes.as_slice() else {
        return Err(Failure::because("the cluster does not have three nodes"));
    };
    let stage = Stage {
        url: &description.public_url,
        authority: cluster.authority(),
    };
    let keys = stage.make(dir, first).await?;
    stage.share(&keys, first, second, third).await?;
    stage.keep(&keys, first, second).await?;
    stage.lose(&keys, [third, first, second]).await?;

    let stopping = Instant::now();
    cluster.stop().await?;
    told(stopping.elapsed(), "all nodes are stopped");
    say(format_args!("done in {:.1} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// The server as clients see it.
struct Stage<'a> {
    url: &'a str,
    authority: PathBuf,
}

/// What the demo made.
struct Keys {
    controller: Identity,
    signing: GeneratedKey,
    agreeing: GeneratedKey,
}

impl Stage<'_> {
    /// A client whose bytes go to these nodes, in turn.
    fn client(&self, nodes: &[&Node]) -> Result<Client, Failure> {
        let origin = Origin::parse(self.url).map_err(Failure::local)?;
        let trusted = tls::config(Some(&self.authority)).map_err(Failure::local)?;
        let addresses: Vec<String> = nodes.iter().map(|node| node.https.clone()).collect();
        let connection =
            Connection::new(origin, &addresses, trusted, Limits::default()).map_err(Failure::local)?;
        Ok(Client::new(connection))
    }

    /// Identity, meter, keystore, two keys; a signature and a secret, both checked.
    async fn make(&self, dir: &Path, first: &Node) -> Result<Keys, Failure> {
        let client = self.client(&[first])?;
        let now = Instant::now();
        let controller = Identity::generate(&mut OsRng);
        controller
            .save(&dir.join("controller.json"))
            .map_err(Failure::local)?;
        told(
            now.elapsed(),
            format_args!("a controller was made: {}", controller.did()),
        );

        let now = Instant::now();
        let (meter, _) = client
            .create_meter(&controller, controller.did(), DEFAULT_PRODUCT)
            .await?;
        told(now.elapsed(), format_args!("it has a meter: {meter}"));

        let now = Instant::now();
        let owners = [controller.did().to_owned()];
        let config = client
            .create_keystore(&controller, &meter, &owners, "ssm-v1", &[])
            .await?;
        let keystore = text(&config, "id")?;
        told(now.elapsed(), format_args!("and a keystore: {keystore}"));

        let mut made = Vec::new();
        for key_type in ["Ed25519VerificationKey2020", "X25519KeyAgreementKey2020"] {
            let now = Instant::now();
            let parameters = KeyParameters {
                key_type: key_type.to_owned(),
                ..KeyParameters::default()
            };
            let key = client
                .generate_key(&controller, keystore, &parameters, None)
                .await?;
            let public = text(&key.key_description, "publicKeyMultibase")?;
            told(
                now.elapsed(),
                format_args!("in it a key that no node holds: {key_type} {public}"),
            );
            made.push(key);
        }
        let (Some(agreeing), Some(signing)) = (made.pop(), made.pop()) else {
            return Err(Failure::because("the keys were not made"));
        };
        let keys = Keys {
            controller,
            signing,
            agreeing,
        };
        let now = Instant::now();
        keys.sign_and_verify(&client, &keys.controller, None).await?;
        told(now.elapsed(), "the cluster signed; ring accepts the signature");
        let now = Instant::now();
        keys.derive_and_compare(&client).await?;
        told(
            now.elapsed(),
            "it derived a secret; the other side's own X25519 gives the same",
        );
        Ok(keys)
    }

    /// Delegate through one node, revoke through another, be refused by the third.
    async fn share(&self, keys: &Keys, first: &Node, second: &Node, third: &Node) -> Result<(), Failure> {
        let now = Instant::now();
        let delegate = Identity::generate(&mut OsRng);
        let delegation = Delegation {
            id: delegation::new_id(&mut OsRng),
            target: keys.signing.key_id.clone(),
            controller: delegate.did().to_owned(),
            actions: vec!["sign".to_owned()],
            expires: unix_seconds() + 3600,
            parent: None,
        };
        let capability = delegation
            .sign(&keys.controller, unix_seconds())
            .map_err(Failure::local)?;
        told(
            now.elapsed(),
            format_args!("the right to sign was handed to {}", delegate.did()),
        );

        let now = Instant::now();
        keys.sign_and_verify(&self.client(&[first])?, &delegate, Some(&capability))
            .await?;
        told(
            now.elapsed(),
            format_args!("which signed through node {}", first.id),
        );

        let now = Instant::now();
        self.client(&[second])?
            .revoke(&keys.controller, &capability)
            .await?;
        told(
            now.elapsed(),
            format_args!("the right was revoked through node {}", second.id),
        );

        let now = Instant::now();
        let outcome = self
            .client(&[third])?
            .sign(
                &delegate,
                &keys.signing.key_id,
                b"after the revocation",
                Some(&capability),
            )
            .await;
        match outcome {
            Err(ClientError::Refused(refusal)) if refusal.says_revoked() => {
                told(
                    now.elapsed(),
                    format_args!("and node {} refuses at once: {refusal}", third.id),
                );
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Err(Failure::because(format!(
                "node {} signed after the revocation",
                third.id
            ))),
        }
    }

    /// Encrypt a document through one node, read it through another.
    async fn keep(&self, keys: &Keys, first: &Node, second: &Node) -> Result<(), Failure> {
        let (writer, reader) = (self.client(&[first])?, self.client(&[second])?);
        let now = Instant::now();
        let vault = Vault::make(&writer, &keys.controller, keystore_of(&keys.signing.key_id)).await?;
        told(
            now.elapsed(),
            "two symmetric keys were made: AES key wrap and HMAC-SHA-256",
        );
        let now = Instant::now();
        let stored = vault.encrypt(&writer, &keys.controller).await?;
        told(
            now.elapsed(),
            format_args!(
                "a document was encrypted: its key wrapped, its index blinded, through node {}",
                first.id
            ),
        );
        let now = Instant::now();
        vault.read(&reader, &keys.controller, &stored).await?;
        told(
            now.elapsed(),
            format_args!("found and decrypted through node {}", second.id),
        );
        Ok(())
    }

    /// Kill the first of `nodes`, use the key through all three addresses.
    async fn lose(&self, keys: &Keys, nodes: [&Node; 3]) -> Result<(), Failure> {
        let client = self.client(&nodes)?;
        cluster::kill_node(nodes[0])?;
        say(format_args!(
            "node {} (process {}) was killed with SIGKILL",
            nodes[0].id, nodes[0].pid
        ));
        let mut slowest = Duration::ZERO;
        for _ in 0..AFTER {
            let now = Instant::now();
            keys.sign_and_verify(&client, &keys.controller, None).await?;
            slowest = slowest.max(now.elapsed());
        }
        told(
            slowest,
            format_args!("was the slowest of {AFTER} signatures through the two that are left"),
        );
        let now = Instant::now();
        keys.derive_and_compare(&client).await?;
        told(now.elapsed(), "and they derived a secret");
        Ok(())
    }
}

impl Keys {
    /// A fresh message, signed by the cluster and verified by ring.
    async fn sign_and_verify(
        &self,
        client: &Client,
        signer: &Identity,
        capability: Option<&crate::client::Capability>,
    ) -> Result<(), Failure> {
        let mut message = [0u8; 32];
        OsRng.fill_bytes(&mut message);
        let signature = client
            .sign(signer, &self.signing.key_id, &message, capability)
            .await?;
        let public = text(&self.signing.key_description, "publicKeyMultibase")?;
        let public = multikey::decode(ED25519_PUBLIC, public).map_err(Failure::local)?;
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &public)
            .verify(&message, &signature)
            .map_err(|_| Failure::because("the cluster's signature does not verify"))
    }

    /// A fresh key pair here; the cluster's secret with it must be the one that we compute.
    async fn derive_and_compare(&self, client: &Client) -> Result<(), Failure> {
        let own = StaticSecret::random_from_rng(OsRng);
        let own_public = multikey::encode(X25519_PUBLIC, PublicKey::from(&own).as_bytes());
        let key_type = text(&self.agreeing.key_description, "type")?;
        let secret = client
            .derive_secret(
                &self.controller,
                &self.agreeing.key_id,
                key_type,
                &own_public,
                None,
            )
            .await?;
        let theirs = text(&self.agreeing.key_description, "publicKeyMultibase")?;
        let theirs = multikey::decode(X25519_PUBLIC, theirs).map_err(Failure::local)?;
        let ours = own.diffie_hellman(&PublicKey::from(theirs));
        if ours.as_bytes()[..].ct_eq(&secret[..]).into() {
            Ok(())
        } else {
            Err(Failure::because("the cluster's secret is not the other side's"))
        }
    }
}

fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str, Failure> {
    let found = object.get(name).and_then(Value::as_str);
    found.ok_or_else(|| Failure::because(format!("the server's answer has no {name}")))
}

/// A line with how long it took.
fn told(time: Duration, what: impl Display) {
    say(format_args!("{:>9.1} ms  {what}", time.as_secs_f64() * 1000.0));
}

fn say(what: impl Display) {
    print(what);
}

/// A new private directory.
fn temporary_directory() -> Result<PathBuf, Failure> {
    let path = std::env::temp_dir().join(format!("conclave-demo-{:016x}", OsRng.next_u64()));
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(Failure::local)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::Stage;
    use crate::cli::cluster::Node;
    use crate::client::double::Kms;
    use crate::client::testing::Server;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    /// All but the processes: three servers that share their state stand for the nodes.
    #[tokio::test]
    async fn the_play_is_played_on_three_nodes() {
        let kms = Arc::new(Kms::new("kms.test:8443", 0));
        let dir = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        let mut authorities = String::new();
        for _ in 0..3 {
            let kms = Arc::clone(&kms);
            let server = Server::start("kms.test", move |request| kms.answer(&request)).await;
            authorities += &std::fs::read_to_string(server.ca()).unwrap();
            servers.push(server);
        }
        let authority = dir.path().join("ca.pem");
        std::fs::write(&authority, authorities).unwrap();
        let nodes: Vec<Node> = (1..)
            .zip(&servers)
            .map(|(id, server)| Node {
                id,
                pid: 0,
                https: server.address(),
            })
            .collect();
        let stage = Stage {
            url: "https://kms.test:8443",
            authority,
        };
        let keys = stage.make(dir.path(), &nodes[0]).await.unwrap();
        stage.share(&keys, &nodes[0], &nodes[1], &nodes[2]).await.unwrap();
        let used: Vec<usize> = servers
            .iter()
            .map(|server| server.requests.load(Ordering::SeqCst))
            .collect();
        assert_eq!(used, [7, 1, 1]);
        assert!(
            stage
                .lose(&keys, [&nodes[2], &nodes[0], &nodes[1]])
                .await
                .is_err(),
            "process 0 is no node"
        );
    }
}
