//! Makes the world's parts: members with their keys, the application of each node, the rules, planted bugs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use conclave::actors::application::KeystoreApplication;
use conclave::authorization::{ChainCache, Policy};
use conclave::identifier::OperationId;
use conclave::keystore::{Command, Entry, KeyRecord, Rosters, Statement, layout};
use conclave::membership::{Member, Membership};
use conclave::operation::judge::Rules;
use conclave_consensus::{Application, GroupId, Halt, NodeId, StateTransaction};
use conclave_simulator::{Cluster, Disorderly, Setup, Wrapped, Wrapper};
use ed25519_dalek::SigningKey;

use crate::beginnings::Beginnings;
use crate::clerk::{Clerk, Shared};
use crate::clients::{AUTHORITY, BEGINNING, URL};
use crate::history::History;
use crate::one_list::OneListed;

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Apply believes an entry that nobody endorsed.
    UncheckedEndorsements,
    /// A holder decides without looking at revocations.
    ForgottenRevocations,
    /// Apply does not keep what an operation came to.
    ForgottenOutcomes,
    /// One replica now and then applies two entries in the other order.
    AppliesOutOfOrder,
    /// Apply takes new shares of a key without a look at which ones they are to replace.
    UncheckedReplacements,
    /// A holder contributes with its own shares, whichever the coordinator named.
    UncheckedEpochs,
    /// A read is answered from the node's own state, whoever leads.
    UnconfirmedReads,
    /// While two lists decide together, endorsements of a quorum of one of them are enough.
    CountsOneList,
    /// Members endorse that every key has moved without a look.
    LeavesEarly,
    /// Members endorse that a group begins to move without a look at group 0 and at who has come.
    BeginsUnseen,
    /// Old shares are destroyed once a key has moved, while the old members still vote.
    DestroysEarly,
}

pub(crate) struct Office {
    /// The members in the end.
    last: Vec<u64>,
    shared: Shared,
}

/// How long holders wait for pending entries, ms: as in production, or less. The rules hold for any patience.
const PATIENCES: [u64; 4] = [1_500, 1_500, 300, 100];

/// A member's key: of the world, so that a forger can be given it, or not.
pub(crate) fn member_key(node: u64) -> SigningKey {
    static KEYS: LazyLock<Vec<SigningKey>> = LazyLock::new(|| {
        let key = |node| SigningKey::from_bytes(&[node + 1; 32]);
        (0..=u8::MAX / 2).map(key).collect()
    });
    KEYS[node as usize].clone()
}

/// The key of the operator.
pub(crate) fn operator_key() -> SigningKey {
    SigningKey::from_bytes(&[0xee; 32])
}

/// A member as an operators' statement has it.
pub(crate) fn member(node: u64) -> Member {
    Member {
        node,
        index: node as u16,
        address: String::new(),
        verifying_key: member_key(node).verifying_key(),
        envelope_key: [node as u8; 32],
    }
}

/// How soon operators order the next list: one soon after the other, or with time between.
const PACES: [f64; 3] = [0.02, 0.1, 0.5];

impl Office {
    pub(crate) fn new(seed: u64, setup: &Setup, bug: Option<Bug>) -> Self {
        let membership = Membership {
            cluster: [0; 32],
            index: 1,
            members: (1..=setup.nodes).map(member).collect(),
            operators: vec![operator_key().verifying_key()],
            operator_threshold: 1,
            ..Membership::default()
        };
        let rules = Rules {
            public_url: URL.into(),
            policy: Policy::new(AUTHORITY),
            cluster: [0; 32],
            groups: 2,
            meter_admins: None,
            chains: ChainCache::new(1_024),
            wrap_bytes: 256,
        };
        let shared = Shared {
            history: Rc::default(),
            disks: Rc::default(),
            rules: Rc::new(rules),
            rosters: Arc::new(Rosters::new(Arc::new(membership))),
            beginnings: Beginnings::default(),
            orders: Rc::new(setup.moves.clone()),
            pace: PACES[(seed / 16) as usize % PACES.len()],
            bug,
            patience: PATIENCES[(seed / 4) as usize % PATIENCES.len()],
        };
        let last = setup.last_members();
        Self { last, shared }
    }

    pub(crate) fn beginnings(&self) -> Beginnings {
        self.shared.beginnings.clone()
    }

    pub(crate) fn history(&self) -> Rc<RefCell<History>> {
        self.shared.history.clone()
    }
}

/// An entry that every member endorses.
fn endorsed_by_all(statement: Statement, request: Vec<u8>, nodes: &[u64], time: u64) -> Entry {
    let endorsements = nodes
        .iter()
        .map(|node| statement.endorse(*node, &member_key(*node), time))
        .collect();
    Entry {
        statement,
        request,
        endorsements,
    }
}

impl Cluster for Office {
    type Process = Clerk;

    fn application(&mut self, node: NodeId) -> Arc<dyn Application> {
        let real = KeystoreApplication::new(self.shared.rosters.genesis().clone());
        real.listen(self.shared.beginnings.listener(node));
        let nodes = self.shared.rosters.genesis().nodes();
        match self.shared.bug {
            Some(Bug::UncheckedEndorsements) => Arc::new(Wrapped(Credulous { real, nodes })),
            Some(Bug::UncheckedReplacements) => Arc::new(Wrapped(Replacing { real, nodes })),
            Some(Bug::AppliesOutOfOrder) if node == 1 => Arc::new(Disorderly::new(real)),
            Some(Bug::ForgottenOutcomes) => Arc::new(Wrapped(Forgetful(real))),
            Some(Bug::CountsOneList) => Arc::new(Wrapped(OneListed(real))),
            _ => Arc::new(real),
        }
    }

    fn process(&mut self, _node: NodeId, life: u64) -> Clerk {
        Clerk::new(self.shared.clone(), life)
    }

    fn probe(&mut self, group: GroupId, number: u64) -> Vec<u8> {
        let statement = Statement {
            cluster: [0; 32],
            group: group.0,
            operation: OperationId {
                node: 1 << 50,
                boot: 0,
                counter: number,
            },
            request: [0; 32],
            name: [0; 32],
            expires: 0,
            command: Command::Time,
            state_version: 0,
            chain: Vec::new(),
        };
        endorsed_by_all(statement, Vec::new(), &self.last, BEGINNING * 1_000 + 120_000).encode()
    }
}

/// Apply as it would be if it did not check endorsements: whatever comes is taken as if all had signed it.
struct Credulous {
    real: KeystoreApplication,
    nodes: Vec<u64>,
}

impl Wrapper for Credulous {
    fn inner(&self) -> &dyn Application {
        &self.real
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let believed = Entry::decode(entry).map(|entry| {
            let time = entry
                .endorsements
                .iter()
                .map(|endorsement| endorsement.time)
                .min()
                .unwrap_or(0);
            endorsed_by_all(entry.statement, entry.request, &self.nodes, time).encode()
        });
        self.real
            .apply(group, index, believed.as_deref().unwrap_or(entry), state)
    }
}

/// Apply as it would be if it did not keep what operations came to.
struct Forgetful(KeystoreApplication);

impl Wrapper for Forgetful {
    fn inner(&self) -> &dyn Application {
        &self.0
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        if let Ok(entry) = Entry::decode(entry) {
            state.delete(layout::operation(&entry.statement.operation));
        }
        self.0.apply(group, index, entry, state)
    }
}

/// Apply as it would be if it did not look at which shares new ones are to replace: the entry is made to name those that are
/// there.
struct Replacing {
    real: KeystoreApplication,
    nodes: Vec<u64>,
}

impl Replacing {
    fn made_to_fit(&self, entry: &[u8], state: &StateTransaction<'_>) -> Option<Vec<u8>> {
        let Entry {
            mut statement,
            request,
            endorsements,
        } = Entry::decode(entry).ok()?;
        let Command::RenewShares(renewed) = &mut statement.command else {
            return None;
        };
        for new in &mut renewed.keys {
            let stored = state.get(&layout::of_key(&renewed.keystore, &new.key)).ok()??;
            let record: KeyRecord = postcard::from_bytes(&stored).ok()?;
            new.replaces = record.session;
            new.epoch = record.epoch + 1;
        }
        let time = endorsements.iter().map(|endorsement| endorsement.time).min()?;
        Some(endorsed_by_all(statement, request, &self.nodes, time).encode())
    }
}

impl Wrapper for Replacing {
    fn inner(&self) -> &dyn Application {
        &self.real
    }

    fn apply(
        &self,
        group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let fitting = self.made_to_fit(entry, state);
        self.real
            .apply(group, index, fitting.as_deref().unwrap_or(entry), state)
    }
}
