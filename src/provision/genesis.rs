//! The genesis statement: who the cluster's first members and its operators are.
//!
//! The cluster's id is the hash of the statement's body, and every configuration pins that id: a node that accepts
//! another list of members is in another cluster. An operator's signature on it shows who made it.

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::operator::OperatorKey;
use crate::config::{Hex32, Operators, fields::is_host_port};
use crate::membership::{FEWEST, MOST_NODES, Pinned, Placement};
use crate::operator::OperatorSignature;

/// The largest genesis file, in bytes.
pub const MAX_GENESIS: usize = 64 * 1024;
const HASH_PREFIX: &[u8] = b"conclave genesis v1\0";
const SIGNATURE_PREFIX: &[u8] = b"conclave operator genesis v1\0";
/// Committees have 3 to 5 members; a cluster may have more nodes, within reason, and one for a trial.
const MAX_MEMBERS: usize = 64;

/// Why a genesis statement was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not JSON of this shape.
    #[error("the genesis statement cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// A later format.
    #[error("format {0} of the genesis statement is not known to this version")]
    Format(u8),
    /// Members or operators that make no cluster.
    #[error("the genesis statement is not consistent: {0}")]
    Inconsistent(&'static str),
    /// Its hash is not the cluster's id.
    #[error("the genesis statement is that of cluster {actual}, the configuration names {expected}")]
    OtherCluster {
        /// The hash of the statement.
        actual: Hex32,
        /// What the configuration says.
        expected: Hex32,
    },
    /// The operators are not those of the configuration.
    #[error("the genesis statement and the configuration name different operators or thresholds")]
    OtherOperators,
    /// No pinned operator signed it, or a signature is wrong.
    #[error("the genesis statement is not signed by an operator that it pins")]
    Signature,
}

/// What is hashed and signed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// 1, and 2 where groups are placed.
    pub format: u8,
    /// Random: two clusters of the same members are two clusters.
    pub nonce: Hex32,
    /// Number of Raft groups, fixed for good.
    pub groups: u32,
    /// The first members, by rising number.
    pub members: Vec<Pinned>,
    /// The operators' Ed25519 public keys.
    pub operators: Vec<Hex32>,
    /// How many operators must sign a change of membership.
    pub threshold: u32,
    /// Who of the members has which group; none: everybody has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// The signed statement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    statement: Body,
    signatures: Vec<OperatorSignature>,
}

impl Body {
    /// The cluster's id: SHA-256 over a prefix and the fields in order, texts with their length before them.
    pub fn cluster_id(&self) -> [u8; 32] {
        let mut bytes = HASH_PREFIX.to_vec();
        let length = |length: usize| (length as u64).to_be_bytes();
        bytes.push(self.format);
        bytes.extend_from_slice(&self.nonce.0);
        bytes.extend_from_slice(&self.groups.to_be_bytes());
        bytes.extend_from_slice(&length(self.members.len()));
        for member in &self.members {
            bytes.extend_from_slice(&member.signed_bytes());
        }
        bytes.extend_from_slice(&length(self.operators.len()));
        for operator in &self.operators {
            bytes.extend_from_slice(&operator.0);
        }
        bytes.extend_from_slice(&self.threshold.to_be_bytes());
        if let Some(placement) = &self.placement {
            bytes.extend_from_slice(&placement.bytes());
        }
        Sha256::digest(&bytes).into()
    }

    fn check(&self) -> Result<(), GenesisError> {
        let check = |ok: bool, what| {
            if ok {
                Ok(())
            } else {
                Err(GenesisError::Inconsistent(what))
            }
        };
        if !(1..=2).contains(&self.format) {
            return Err(GenesisError::Format(self.format));
        }
        check(
            (self.format == 2) == self.placement.is_some(),
            "a statement of format 2 says where groups are, and one of format 1 does not",
        )?;
        check(
            (1..=MAX_MEMBERS).contains(&self.members.len()),
            "from 1 to 64 members",
        )?;
        check(self.members[0].node > 0, "nodes are numbered from 1")?;
        check(
            self.members.is_sorted_by(|a, b| a.node < b.node),
            "members are listed once, by rising number",
        )?;
        check(
            self.members.iter().all(|m| is_host_port(&m.peer)),
            "a peer address is host:port",
        )?;
        let distinct = |keys: Vec<&Hex32>| keys.iter().collect::<BTreeSet<_>>().len() == keys.len();
        let keys = self
            .members
            .iter()
            .flat_map(|m| [&m.identity, &m.envelope])
            .chain(&self.operators)
            .collect();
        check(distinct(keys), "no key may appear twice")?;
        let valid = |key: &Hex32| VerifyingKey::from_bytes(&key.0).is_ok_and(|key| !key.is_weak());
        check(
            self.members
                .iter()
                .map(|m| &m.identity)
                .chain(&self.operators)
                .all(valid),
            "a key is not a sound Ed25519 public key",
        )?;
        check((2..=1024).contains(&self.groups), "from 2 to 1024 groups")?;
        if let Some(placement) = &self.placement {
            check(
                (FEWEST..=MOST_NODES).contains(&self.members.len()),
                "a cluster whose groups are placed has 3 to 16 nodes",
            )?;
            let is_member = |node| self.members.iter().any(|member| member.node == node);
            let placed = placement.check(self.groups, is_member);
            placed.map_err(GenesisError::Inconsistent)?;
        }
        check(
            (1..=self.operators.len()).contains(&(self.threshold as usize)),
            "a threshold that operators can meet",
        )
    }
}

impl Genesis {
    /// Signs `body`; `operator` must be one of those that it pins.
    pub fn sign(body: Body, operator: &OperatorKey) -> Result<Self, GenesisError> {
        body.check()?;
        let signature = operator.sign(&signed_bytes(&body.cluster_id()));
        let genesis = Self {
            statement: body,
            signatures: vec![signature],
        };
        genesis.verify_signatures()?;
        Ok(genesis)
    }

    /// Parses and verifies a statement; the caller compares [`Genesis::cluster_id`] or uses [`Genesis::expect`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_slice(bytes)?;
        genesis.statement.check()?;
        genesis.verify_signatures()?;
        Ok(genesis)
    }

    /// Checks that this is the genesis that a configuration pins.
    pub fn expect(&self, cluster: Hex32, groups: u32, operators: &Operators) -> Result<(), GenesisError> {
        let actual = Hex32(self.cluster_id());
        if actual != cluster {
            return Err(GenesisError::OtherCluster {
                actual,
                expected: cluster,
            });
        }
        let set = |keys: &[Hex32]| keys.iter().copied().collect::<BTreeSet<_>>();
        let Body {
            operators: pinned,
            threshold,
            ..
        } = &self.statement;
        if set(pinned) != set(&operators.keys) || *threshold != operators.threshold {
            return Err(GenesisError::OtherOperators);
        }
        if self.statement.groups != groups {
            return Err(GenesisError::Inconsistent(
                "the configuration has another number of groups",
            ));
        }
        Ok(())
    }

    /// One signature or more, each right, each by another pinned operator.
    fn verify_signatures(&self) -> Result<(), GenesisError> {
        let message = signed_bytes(&self.cluster_id());
        let mut signers = BTreeSet::new();
        for signature in &self.signatures {
            let operator = &signature.operator;
            let counts = self.statement.operators.contains(operator) && signature.is_right(&message);
            if !counts || !signers.insert(operator) {
                return Err(GenesisError::Signature);
            }
        }
        if signers.is_empty() {
            Err(GenesisError::Signature)
        } else {
            Ok(())
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> [u8; 32] {
        self.statement.cluster_id()
    }

    /// The verified statement.
    pub fn body(&self) -> &Body {
        &self.statement
    }

    /// Who has signed it, each an operator that it pins.
    pub fn signers(&self) -> impl Iterator<Item = &Hex32> {
        self.signatures.iter().map(|signature| &signature.operator)
    }

    /// The members' numbers, rising.
    pub fn nodes(&self) -> Vec<u64> {
        self.statement.members.iter().map(|member| member.node).collect()
    }

    /// The member with number `node`.
    pub fn member(&self, node: u64) -> Option<&Pinned> {
        self.statement.members.iter().find(|member| member.node == node)
    }

    /// As it stands on disk.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and integers only: cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

fn signed_bytes(cluster: &[u8; 32]) -> Vec<u8> {
    [SIGNATURE_PREFIX, cluster.as_slice()].concat()
}
