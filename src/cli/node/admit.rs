//! What operators do for a machine that has made its own keys: find it by its fingerprint, and certify its keys.

use std::path::Path;

use bytes::Bytes;
use clap::Args;
use time::OffsetDateTime;

use super::change::status;
use super::prepare::authority;
use super::{NodeError, OperatorArguments, TIMEOUT, read};
use crate::config::{Hex32, PublicUrl};
use crate::provision::candidate::{Admission, Candidate};
use crate::provision::{Genesis, OperatorKey};
use crate::telemetry::admin::reception::Waiting;
use crate::telemetry::client;

/// Which machine, and with what it is certified.
#[derive(Debug, Args)]
pub(super) struct AdmitArguments {
    /// The machine: its number, and the fingerprint that `conclave node join` shows on it.
    #[arg(value_name = "ID=FINGERPRINT")]
    candidate: String,
    #[command(flatten)]
    operator: OperatorArguments,
    /// The admin address of the node that invited the machine.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9600")]
    admin: String,
}

impl AdmitArguments {
    /// Brings a machine its certificates; the order that makes it a member is another matter.
    pub(super) async fn run(self) -> Result<(), NodeError> {
        let (genesis, key) = (self.operator.genesis()?, self.operator.key()?);
        let asking = Asking::find(std::slice::from_ref(&self.admin), &self.candidate).await?;
        asking.admit(&self.operator.cluster, &genesis, &key).await
    }
}

/// A machine that waits, and the node at which it does.
pub(super) struct Asking {
    pub(super) candidate: Candidate,
    admin: String,
}

impl Asking {
    /// Looks for `ID=FINGERPRINT` at each of these nodes.
    pub(super) async fn find(admins: &[String], text: &str) -> Result<Self, NodeError> {
        let malformed = || {
            let reason = "want a candidate's number and fingerprint, ID=FINGERPRINT, as `conclave node join` shows them";
            NodeError::Members(reason.into())
        };
        let (node, fingerprint) = text.split_once('=').ok_or_else(malformed)?;
        let node: u64 = node.parse().map_err(|_| malformed())?;
        for admin in admins {
            let Ok(answer) = client::get(admin, "/candidates", TIMEOUT).await else {
                continue;
            };
            let waiting: Vec<Waiting> = read(admin, &answer, "it tells no candidates")?;
            let candidates = waiting.into_iter().map(|waiting| waiting.candidate);
            // By what it says itself, not by what the node calls it.
            let mut it =
                candidates.filter(|candidate| candidate.member.node == node && candidate.fault().is_none());
            if let Some(candidate) = it.find(|candidate| candidate.fingerprint() == fingerprint) {
                return Ok(Self {
                    candidate,
                    admin: admin.clone(),
                });
            }
        }
        Err(NodeError::Members(format!(
            "no candidate {node} with this fingerprint waits at {}: give the --admin of the node that invited it",
            admins.join(", ")
        )))
    }

    /// Certifies its keys, and brings the certificates to where it waits.
    pub(super) async fn admit(
        &self,
        cluster: &Path,
        genesis: &Genesis,
        key: &OperatorKey,
    ) -> Result<(), NodeError> {
        let id = genesis.cluster_id();
        let now = OffsetDateTime::now_utc();
        // Whoever answers here could name another host, of which the certificate's key would be this machine's all the same.
        let url = status(&self.admin).await?.public_url;
        let url: PublicUrl = url.parse().map_err(|_| NodeError::Answer {
            admin: self.admin.clone(),
            reason: "it tells no public URL".into(),
        })?;
        let authority = authority(cluster, genesis, now)?;
        let certificates = authority.certify(&self.candidate, &id, &url, now)?;
        let admission = Admission::sign(Hex32(id), &self.candidate, certificates, key);
        // Strings and integers only: cannot fail.
        let body = Bytes::from(serde_json::to_vec(&admission).unwrap_or_default());
        let path = format!("/candidates/{}/admission", self.candidate.fingerprint());
        let answer = client::post(&self.admin, &path, body, TIMEOUT).await?;
        if !answer.status.is_success() {
            return read(&self.admin, &answer, "it does not take the certificates");
        }
        println!(
            "node {}: its keys are certified for {url}",
            self.candidate.member.node
        );
        Ok(())
    }
}
