//! `conclave node join`: a new machine makes its own keys, is seen with a token, and waits for the operators.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hyper::StatusCode;
use rand::rngs::OsRng;

use super::{NodeError, TIMEOUT, orders, read};
use crate::cli::init::parse_node;
use crate::cli::seal::SealArguments;
use crate::config::{Config, Hex32, Log, LogFormat};
use crate::node::prepare_joining;
use crate::provision::candidate::{Admission, Candidate, MAX_MESSAGE, Speaker, Spoken, Token, Welcome};
use crate::provision::certificates::Certificates;
use crate::provision::cluster::{Common, JOINING_ORDERS, Joining, create_joining, node_folder};
use crate::provision::introduction::{Orders, first_members};
use crate::provision::node_files::NodeKeys;
use crate::provision::{Genesis, NewNode, ProvisionError};
use crate::seal::secret_file;
use crate::telemetry::admin::reception::Invited;
use crate::telemetry::client;

/// Between two looks for the operators' answer.
const LOOK: Duration = Duration::from_secs(1);
/// Where clients would reach it, as long as the cluster's public URL is not known; no part of a candidate.
const HTTPS: u16 = 443;
const CANDIDATE: &str = "candidate.json";

/// Gets a token from the node on this machine.
pub(super) async fn invite(admin: &str) -> Result<(), NodeError> {
    let answer = client::post(admin, "/candidates/invitation", Bytes::new(), TIMEOUT).await?;
    let invited: Invited = read(admin, &answer, "it gives no token")?;
    println!("{}", invited.token);
    eprintln!(
        "\nIt lets one machine be seen, within an hour; members are made by operators alone. On the new machine:"
    );
    eprintln!("  conclave node join --token … --node ID=PEER_HOST:PORT --admin {admin}");
    Ok(())
}

/// What a machine that asks to become a member says of itself.
#[derive(Debug, Args)]
pub(super) struct JoinArguments {
    /// What `conclave node invite` has printed on a node of the cluster.
    #[arg(long, value_name = "TOKEN")]
    token: Token,
    /// This machine as a member: a number that no node of the cluster had before, and addresses as for `conclave init`.
    #[arg(long, value_name = "ID=PEER_HOST:PORT[,HTTPS_IP:PORT[,ADMIN_IP:PORT]]")]
    node: String,
    /// The admin address of the node that gave the token.
    #[arg(long, value_name = "HOST:PORT")]
    admin: String,
    /// Where its folder, node-N, is made. If it is there from an attempt before, that one goes on.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    seal: SealArguments,
    /// How long to wait for the operators, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
}

impl JoinArguments {
    /// Makes the folder, waits until it is a member's, and says how to start it.
    pub(super) async fn run(self) -> Result<(), NodeError> {
        let number = self.parse(HTTPS)?.node;
        let folder = self.out.join(node_folder(number));
        let (candidate, config, genesis) = match folder.exists() {
            true => self.go_on(&folder).await?,
            false => self.begin(&folder).await?,
        };
        let fingerprint = candidate.fingerprint();
        println!("node {number} is seen; its fingerprint is\n\n  {fingerprint}\n");
        println!("On the operator's machine, with that fingerprint and no other:");
        println!(
            "  conclave node add --candidate {number}={fingerprint} --cluster DIR --admin {}\n",
            self.admin
        );
        std::io::stdout().flush()?;
        self.wait(&candidate, &config, &genesis).await?;
        let start = config.genesis.with_file_name("node.toml");
        if config.backup.is_none() {
            println!(
                "it makes no backups yet: put the cluster's recovery.json and [backup] into its configuration"
            );
        }
        println!("start it now: conclave server --config {}", start.display());
        Ok(())
    }

    fn parse(&self, public_port: u16) -> Result<NewNode, NodeError> {
        parse_node(&self.node, public_port).map_err(|reason| NodeError::Node(self.node.clone(), reason))
    }

    /// Nothing is written before the cluster has answered.
    async fn begin(&self, folder: &Path) -> Result<(Candidate, Config, Genesis), NodeError> {
        let keys = NodeKeys::generate(&mut OsRng)?;
        let candidate = keys.candidate(&self.parse(HTTPS)?)?;
        let (welcome, genesis) = self.present(&candidate).await?;
        let node = self.parse(welcome.public_url.port())?;
        let common = Common {
            public_url: welcome.public_url,
            groups: genesis.body().groups,
            meter_admins: welcome.meter_admins,
            trust_forwarded_for: welcome.trust_forwarded_for,
            seal: self.seal.plan()?,
            log: Log {
                format: LogFormat::Json,
                ..Log::default()
            },
            alike: welcome.alike,
            // Whose officers they are is not a node's to say.
            backup: None,
        };
        let joining = Joining {
            common: &common,
            node: &node,
            keys: &keys,
            genesis: &genesis,
            ca: &welcome.ca,
        };
        let config = create_joining(&joining, &self.out, &mut OsRng, prepare_joining)?;
        // Strings and integers only: cannot fail.
        let json = serde_json::to_vec_pretty(&candidate).unwrap_or_default();
        secret_file::create_public(&folder.join(CANDIDATE), &json)?;
        Ok((candidate, config, genesis))
    }

    /// Shows what an attempt before has made.
    async fn go_on(&self, folder: &Path) -> Result<(Candidate, Config, Genesis), NodeError> {
        let path = folder.join(CANDIDATE);
        let json = secret_file::read_public(&path, MAX_MESSAGE)?;
        let candidate = serde_json::from_slice(&json).map_err(|_| ProvisionError::Malformed {
            path,
            expected: "the candidate of an attempt to join",
        })?;
        let config = Config::load(&folder.join("node.toml"))?;
        let (_, genesis) = self.present(&candidate).await?;
        Ok((candidate, config, genesis))
    }

    /// The cluster's word to this candidate, under the token.
    async fn present(&self, candidate: &Candidate) -> Result<(Welcome, Genesis), NodeError> {
        // Strings and integers only: cannot fail.
        let text = serde_json::to_string(candidate).unwrap_or_default();
        let spoken = self.token.say(Speaker::Candidate, text);
        let body = Bytes::from(serde_json::to_vec(&spoken).unwrap_or_default());
        let answer = client::post(&self.admin, "/candidates", body, TIMEOUT).await?;
        self.believed(&read(&self.admin, &answer, "it does not take this machine")?)
    }

    /// What a node says, if it is the one that gave the token and speaks of the token's cluster.
    fn believed(&self, spoken: &Spoken) -> Result<(Welcome, Genesis), NodeError> {
        let wrong = |reason: &str| NodeError::Answer {
            admin: self.admin.clone(),
            reason: reason.to_owned(),
        };
        if !self.token.said(Speaker::Node, spoken) {
            return Err(wrong("its answer is not that of the node that gave the token"));
        }
        let welcome: Welcome =
            serde_json::from_str(&spoken.text).map_err(|_| wrong("its answer is of another version"))?;
        let genesis = Genesis::parse(welcome.genesis.as_bytes())?;
        if genesis.cluster_id() != self.token.cluster() {
            return Err(wrong("it shows another cluster than the token names"));
        }
        Ok((welcome, genesis))
    }

    /// Until the operators have made it a member, and its certificates and their orders are in its folder.
    async fn wait(&self, candidate: &Candidate, config: &Config, genesis: &Genesis) -> Result<(), NodeError> {
        let begun = Instant::now();
        loop {
            if let Some((certificates, orders)) = self.admitted(candidate, genesis).await? {
                let path = config.genesis.with_file_name(JOINING_ORDERS);
                secret_file::replace_public(&path, &orders.to_json())?;
                return Ok(certificates.write(config)?);
            }
            if begun.elapsed() > Duration::from_secs(self.timeout) {
                return Err(NodeError::Members(
                    "no operator has made this machine a member yet; run this again to wait on".into(),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Its certificates and the orders that make it a member; none as long as either is missing, or the node does not answer.
    async fn admitted(
        &self,
        candidate: &Candidate,
        genesis: &Genesis,
    ) -> Result<Option<(Certificates, Orders)>, NodeError> {
        let path = format!("/candidates/{}/admission", candidate.fingerprint());
        // A node that restarts meanwhile is asked again; one that says no is believed.
        let answer = match client::get(&self.admin, &path, TIMEOUT).await {
            Ok(answer) if answer.status != StatusCode::NO_CONTENT => answer,
            _ => return Ok(None),
        };
        let hint = "it forgets candidates when it restarts: get another token and run this again";
        let admission: Admission = read(&self.admin, &answer, hint)?;
        let (cluster, operators) = (Hex32(genesis.cluster_id()), &genesis.body().operators);
        let certificates = admission.certificates(cluster, candidate, operators);
        let certificates = certificates.ok_or_else(|| NodeError::Answer {
            admin: self.admin.clone(),
            reason: "no operator has signed the certificates that it shows".into(),
        })?;
        let orders = orders(&self.admin).await?;
        let first = first_members(genesis)
            .ok_or_else(|| NodeError::Members("the genesis statement has a key that cannot be".into()))?;
        let members = orders.follow(first);
        let members = members.map_err(|(_, reason)| NodeError::Members(reason))?;
        let own = members.member(candidate.member.node);
        let is_member = own.is_some_and(|own| own.pinned() == candidate.member);
        Ok(is_member.then_some((certificates, orders)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::config::Alike;
    use crate::config::MeterAdmins;
    use crate::membership::Pinned;
    use crate::provision::OperatorKey;
    use crate::provision::genesis::Body;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        join: JoinArguments,
    }

    /// A cluster of one node.
    fn genesis(seed: u8) -> Genesis {
        let mut rng = StdRng::from_seed([seed; 32]);
        let operator = OperatorKey::generate(&mut rng);
        let body = Body {
            format: 1,
            nonce: Hex32([seed; 32]),
            groups: 16,
            members: vec![Pinned {
                node: 1,
                peer: "10.0.0.1:9443".into(),
                identity: Hex32(OperatorKey::generate(&mut rng).public()),
                envelope: Hex32([7; 32]),
            }],
            operators: vec![Hex32(operator.public())],
            threshold: 1,
            placement: None,
        };
        Genesis::sign(body, &operator).unwrap()
    }

    fn welcome(genesis: &Genesis) -> String {
        let welcome = Welcome {
            genesis: String::from_utf8(genesis.to_json()).unwrap(),
            ca: String::new(),
            public_url: "https://kms.example.com".parse().unwrap(),
            meter_admins: MeterAdmins::Anyone,
            trust_forwarded_for: false,
            alike: Alike::default(),
        };
        serde_json::to_string(&welcome).unwrap()
    }

    #[test]
    fn believes_the_giver_of_its_token_about_the_cluster_of_the_token_alone() {
        let mut rng = StdRng::from_seed([3; 32]);
        let (own, other) = (genesis(1), genesis(2));
        let token = Token::generate(own.cluster_id(), &mut rng);
        let text = token.to_text();
        let words = [
            "join",
            "--node",
            "4=10.0.0.4:9443",
            "--admin",
            "10.0.0.1:9600",
            "--token",
            &text,
        ];
        let join = Command::parse_from(words).join;
        let believed = |spoken: Spoken| join.believed(&spoken).map_err(|error| error.to_string());

        let (_, shown) = believed(token.say(Speaker::Node, welcome(&own))).unwrap();
        assert_eq!(shown, own);
        let refused = believed(token.say(Speaker::Node, welcome(&other))).unwrap_err();
        assert!(refused.contains("another cluster"), "{refused}");
        let stranger = Token::generate(own.cluster_id(), &mut rng);
        for spoken in [
            stranger.say(Speaker::Node, welcome(&own)),
            token.say(Speaker::Candidate, welcome(&own)),
        ] {
            let refused = believed(spoken).unwrap_err();
            assert!(refused.contains("not that of the node"), "{refused}");
        }
    }
}
