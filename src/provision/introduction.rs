//! Who the members are, as far as files say: the genesis statement, and for a node that joined later the operators' orders
//! that followed it, each verified. From the first snapshot on the groups' own states say it.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::{Genesis, ProvisionError};
use crate::config::{Config, Hex32};
use crate::membership::placement::place;
use crate::membership::{FIRST, Lineage, MOST, Member, Membership, NewMembers, Pinned};
use crate::operator::{Change, SignedOrder};
use crate::seal::secret_file;

/// The largest file of orders, in bytes.
pub const MAX_ORDERS: usize = 4 * 1024 * 1024;

/// The orders that changed the members, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// One for each list of members after the genesis statement's.
    pub orders: Vec<SignedOrder>,
}

impl Orders {
    /// Reads a file of them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ProvisionError> {
        let bytes = secret_file::read_public(path, MAX_ORDERS)?;
        serde_json::from_slice(&bytes).map_err(|_| ProvisionError::Malformed {
            path: path.to_owned(),
            expected: "the operators' orders that changed the members",
        })
    }

    /// As they stand in a file.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and integers only: cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// The next list of members: without some, and with others beside them. Groups are put on `committee` nodes each, or on as many
    /// as before.
    ///
    /// # Errors
    /// Why there cannot be such a list.
    pub fn next(
        &self,
        genesis: &Genesis,
        (come, gone): (&[Pinned], &[u64]),
        committee: Option<usize>,
    ) -> Result<NewMembers, String> {
        let lineage = self.lineage_of(genesis)?;
        let current = lineage.last();
        if let Some(node) = gone.iter().find(|node| current.member(**node).is_none()) {
            return Err(format!(
                "node {node} is no member; the members are {:?}",
                current.nodes()
            ));
        }
        let stay = current
            .members
            .iter()
            .filter(|member| !gone.contains(&member.node));
        let mut members: Vec<Pinned> = stay.map(Member::pinned).chain(come.iter().cloned()).collect();
        members.sort_by_key(|member| member.node);
        let committee = committee.or_else(|| Some(current.placement.as_ref()?.committee()));
        let nodes: Vec<u64> = members.iter().map(|member| member.node).collect();
        let placed = |committee| place(current.groups, &nodes, committee, |group| current.nodes_of(group));
        let placement = committee.and_then(placed);
        if come.is_empty() && gone.is_empty() && placement.as_ref() == current.placement.as_deref() {
            return Err("the members and their groups are so already".into());
        }
        if placement.is_none() && nodes.len() > MOST {
            return Err(format!(
                "{} nodes are more than a committee has: say with --committee how many of them are to have a group",
                nodes.len()
            ));
        }
        let new = NewMembers {
            number: current.index + 1,
            replaces: Hex32(current.digest()),
            members,
            placement,
        };
        lineage.next(&new)?;
        Ok(new)
    }

    /// What takes the last order back: the members that it started from.
    ///
    /// # Errors
    /// If there is none.
    pub fn withdrawal(&self, genesis: &Genesis) -> Result<NewMembers, String> {
        let first = first_members(genesis).ok_or("the genesis statement has a key that cannot be")?;
        self.withdrawal_of(&first)
    }

    /// The same, with the first members as they are read.
    ///
    /// # Errors
    /// As [`Orders::withdrawal`].
    pub fn withdrawal_of(&self, genesis: &Membership) -> Result<NewMembers, String> {
        let lineage = self.lineage(genesis.clone()).map_err(wrong_order)?;
        let new = NewMembers {
            number: lineage.last().index + 1,
            replaces: Hex32(lineage.base().digest()),
            members: lineage.base().members.iter().map(Member::pinned).collect(),
            placement: lineage.base().placement.as_deref().cloned(),
        };
        match lineage.takes_back(&new) {
            true => Ok(new),
            false => Err("no order has changed the members yet".into()),
        }
    }

    fn lineage_of(&self, genesis: &Genesis) -> Result<Lineage, String> {
        let first = first_members(genesis).ok_or("the genesis statement has a key that cannot be")?;
        self.lineage(first).map_err(wrong_order)
    }

    /// The members after all of them.
    ///
    /// # Errors
    /// The number of the first that does not follow from those before it, and why.
    pub fn follow(&self, genesis: Membership) -> Result<Membership, (u64, String)> {
        Ok(self.introduce(genesis)?.members)
    }

    /// The same, with those whom the last of them replaces.
    ///
    /// # Errors
    /// As [`Orders::follow`].
    pub fn introduce(&self, genesis: Membership) -> Result<Introduction, (u64, String)> {
        let lineage = self.lineage(genesis)?;
        let members = (**lineage.last()).clone();
        let gone = lineage.base().members.iter();
        let gone = gone.filter(|member| members.member(member.node).is_none());
        let mut everybody: Vec<Member> = members.members.iter().chain(gone).cloned().collect();
        everybody.sort_by_key(|member| member.node);
        Ok(Introduction { members, everybody })
    }

    /// Every list of members, the genesis statement's first.
    ///
    /// # Errors
    /// As [`Orders::follow`].
    pub fn lists(&self, genesis: Membership) -> Result<Vec<Membership>, (u64, String)> {
        let mut lists = vec![genesis.clone()];
        self.each(genesis, |lineage| lists.push((**lineage.last()).clone()))?;
        Ok(lists)
    }

    fn lineage(&self, genesis: Membership) -> Result<Lineage, (u64, String)> {
        self.each(genesis, |_| {})
    }

    /// How the lists of members follow each other; `seen` is shown it after each order.
    ///
    /// # Errors
    /// As [`Orders::follow`].
    pub fn each(
        &self,
        genesis: Membership,
        mut seen: impl FnMut(&Lineage),
    ) -> Result<Lineage, (u64, String)> {
        let mut lineage = Lineage::new(genesis.into());
        for order in &self.orders {
            let number = lineage.last().index + 1;
            let wrong = |reason: &dyn std::fmt::Display| (number, reason.to_string());
            order.verify(lineage.last()).map_err(|error| wrong(&error))?;
            let Change::Members(new) = &order.order.change else {
                return Err(wrong(&"an order that changes no members"));
            };
            lineage.follow(new).map_err(|error| wrong(&error))?;
            seen(&lineage);
        }
        Ok(lineage)
    }
}

fn wrong_order((number, reason): (u64, String)) -> String {
    format!("order for members {number}: {reason}")
}

/// Whom a node knows before it has any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The members, by the last order.
    pub members: Membership,
    /// They and those whom the last order replaces, who decide until it is carried out.
    pub everybody: Vec<Member>,
}

/// The members that the genesis statement names; none if one of its keys cannot be, which its own check excludes.
pub fn first_members(genesis: &Genesis) -> Option<Membership> {
    let body = genesis.body();
    let operators = body
        .operators
        .iter()
        .map(|key| VerifyingKey::from_bytes(&key.0).ok());
    Some(Membership {
        cluster: genesis.cluster_id(),
        index: FIRST,
        members: body.members.iter().map(Member::of).collect::<Option<_>>()?,
        operators: operators.collect::<Option<_>>()?,
        operator_threshold: body.threshold as usize,
        groups: body.groups,
        placement: body.placement.clone().map(Arc::new),
    })
}

/// The members as this node's files name them last; it must be one of them.
///
/// # Errors
/// What is wrong with the orders, or that this node is no member.
pub fn read(config: &Config, genesis: &Genesis) -> Result<Introduction, ProvisionError> {
    let path = config.orders.as_deref();
    let mismatch = |path: &Path, reason: String| ProvisionError::Mismatch {
        path: path.to_owned(),
        reason,
    };
    let first = first_members(genesis)
        .ok_or_else(|| mismatch(&config.genesis, "a member's key or number cannot be".into()))?;
    let orders = path.map(Orders::read).transpose()?.unwrap_or_default();
    let introduced = orders.introduce(first).map_err(|(number, reason)| {
        let path = path.unwrap_or(&config.genesis);
        mismatch(path, format!("order for members {number}: {reason}"))
    })?;
    if introduced.members.member(config.node).is_none() {
        let reason = format!("node {} is not one of the members", config.node);
        return Err(mismatch(path.unwrap_or(&config.genesis), reason));
    }
    Ok(introduced)
}
