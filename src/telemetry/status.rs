//! What `/status` answers and `conclave status` prints: one node's view of itself and of its groups.

use serde::{Deserialize, Serialize};

use super::health::Health;

/// One node's view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeStatus {
    /// The node's number.
    pub node: u64,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// What it speaks, and what its groups' logs are written in.
    pub formats: FormatStatus,
    /// The cluster's id, hexadecimal.
    pub cluster: String,
    /// The cluster's public URL.
    pub public_url: String,
    /// How far it is.
    pub state: NodeState,
    /// Whether it can serve now.
    pub ready: bool,
    /// If not: why.
    pub reason: Option<String>,
    /// If not: what to do.
    pub hint: Option<String>,
    /// How well the cluster is, as this node sees it.
    #[serde(flatten)]
    pub health: Health,
    /// Its Raft groups; none while sealed.
    pub groups: Vec<GroupStatus>,
    /// Its links to the other nodes.
    pub links: Vec<LinkStatus>,
    /// What it holds.
    pub shares: ShareStatus,
    /// Who the members are, and how far a change of them is.
    pub members: MembersStatus,
    /// The number of the operators' last order; 0: none yet.
    pub last_order: u64,
    /// Keys with shares older than they are to be, in the groups that this node leads.
    pub due_for_renewal: u64,
    /// Its backups, if they are configured.
    pub backup: Option<BackupStatus>,
}

/// The formats of calls and entries (docs/operations.md, "Upgrading").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct FormatStatus {
    /// The oldest that this node speaks.
    pub oldest: u8,
    /// The newest, its own.
    pub newest: u8,
    /// What the next entry of every group is written in at least: what every member speaks, as this node has heard. 0 while
    /// sealed.
    pub agreed: u8,
    /// The newest that is in any group's state: a build that does not read it cannot come back. 0 while sealed.
    pub written: u8,
}

/// Who the members are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MembersStatus {
    /// The number of the last list of members that operators have ordered; 1: that of the genesis statement.
    pub number: u64,
    /// The nodes on it.
    pub nodes: Vec<u64>,
    /// The groups that have not come to it yet.
    pub under_way: Vec<MoveStatus>,
}

/// A group on its way to other members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct MoveStatus {
    /// The group.
    pub group: u32,
    /// The nodes that it comes from.
    pub from: Vec<u64>,
    /// The nodes that take their place.
    pub to: Vec<u64>,
    /// `waiting`, `announced`, `joint` or `complete`; `unknown` of a group that is on other nodes, none of which has told.
    pub stage: String,
    /// Keys that are to be moved yet, where that is known: the group's leader knows.
    pub keys: Option<u64>,
    /// Why the last keys did not move, and which peer that is about: the group's leader knows.
    pub waits: Option<String>,
}

/// A node's backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct BackupStatus {
    /// Where they are.
    pub folder: String,
    /// Who can open them: quorum, number, and the first bytes of the fingerprint of their keys.
    pub officers: String,
    /// Hours between two; 0: by hand.
    pub every_hours: u32,
    /// When the last one was made.
    pub last: Option<String>,
    /// How long ago that was.
    pub age_seconds: Option<u64>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Its file.
    pub file: Option<String>,
    /// Why the last attempt failed, until one succeeds.
    pub failure: Option<String>,
}

impl BackupStatus {
    /// What is wrong with them, if something is: the last attempt failed, or the last one is older than two periods.
    pub fn concern(&self) -> Option<String> {
        if let Some(reason) = &self.failure {
            return Some(format!("the last backup failed: {reason}"));
        }
        let most = 2 * u64::from(self.every_hours) * 3_600;
        let age = self.age_seconds.filter(|age| most > 0 && *age > most)?;
        Some(format!("the last backup is {} hours old", age / 3_600))
    }
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Without its node key.
    #[default]
    Sealed,
    /// With its node key, opening its stores and joining its groups.
    Starting,
    /// Without a bootstrap record and without data: it serves no group.
    Joining,
    /// Up. Whether it can serve this very moment is `ready`.
    Serving,
    /// It found its own data wrong and takes no part.
    Quarantined,
    /// On its way down.
    Stopping,
}

/// One Raft group as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct GroupStatus {
    /// The group.
    pub group: u32,
    /// `leader`, `follower`, `candidate`, `pre-candidate` or `halted`; `elsewhere` of a group that is on other nodes.
    pub role: String,
    /// Who leads, if known.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// The last index of the log.
    pub last: u64,
    /// The highest index known to be committed.
    pub committed: u64,
    /// The highest index applied.
    pub applied: u64,
    /// The voters; the holders of its keystores' keys are the same nodes until a move.
    pub voters: Vec<u64>,
    /// The holders of its keystores' keys.
    pub holders: Vec<u64>,
    /// The format of its next entry.
    pub agreed: u8,
    /// The newest format of the entries in its state.
    pub written: u8,
    /// Why it applies nothing more, with what to do.
    pub halted: Option<String>,
}

/// The link to one other node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct LinkStatus {
    /// The other node.
    pub node: u64,
    /// Where it is dialled.
    pub address: String,
    /// Whether the link stands.
    pub up: bool,
    /// The newest format that the other node speaks, by its own word; none before it has said anything to this node.
    pub newest: Option<u8>,
}

/// A node's share store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ShareStatus {
    /// Whether it has any: a node that was removed and has none can be switched off.
    pub holds_any: bool,
    /// Envelopes kept for members that have not confirmed their share.
    pub open_envelopes: u64,
    /// The first of those.
    pub open: Vec<OpenEnvelope>,
}

/// An envelope that waits for its member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct OpenEnvelope {
    /// The keystore's id.
    pub keystore: String,
    /// The key's id.
    pub key: String,
    /// The member that has not yet fetched its share.
    pub member: u64,
}

/// Symmetric keys as one node sees its peers and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SymmetricStatus {
    /// Symmetric keys.
    pub keys: u64,
    /// How many of their keystores would stop with one more node down.
    pub at_risk: u64,
    /// How many have a key that too few of its holders are there for.
    pub stopped: u64,
    /// The first of both kinds, [`MAX_OPEN_LISTED`] at most.
    pub keystores: Vec<String>,
    /// Whether all of the state was looked at.
    pub complete: bool,
}

/// How many [`ShareStatus::open`] and [`SymmetricStatus::keystores`] list at most.
pub const MAX_OPEN_LISTED: usize = 100;

impl NodeStatus {
    /// Takes over a readiness verdict.
    pub fn with_readiness(mut self, ready: Result<(), super::NotReady>) -> Self {
        self.ready = ready.is_ok();
        (self.reason, self.hint) = match ready {
            Ok(()) => (None, None),
            Err(super::NotReady { reason, hint }) => (Some(reason), Some(hint)),
        };
        self
    }
}
