//! The options by which client commands ask for receipts and check them: who the members are, and what to do without one.
//!
//! The genesis statement is what is trusted; it comes from whoever made the cluster, never from a node. Orders need not be
//! trusted: the operators that it names have signed them.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::output::{Failure, note};
use crate::client::signer::unix_seconds;
use crate::membership::Membership;
use crate::provision::Genesis;
use crate::provision::genesis::MAX_GENESIS;
use crate::provision::introduction::{Orders, first_members};
use crate::receipt::{Doubt, Receipt, Subject};
use crate::seal::secret_file;

/// Whether to ask for receipts, and whom they must be of.
#[derive(Args, Clone, Debug, Default)]
pub struct ReceiptArguments {
    /// The cluster's genesis statement (genesis.json of `conclave init`): ask for the members' signatures over the answer,
    /// and check them
    #[arg(long, value_name = "FILE", env = "CONCLAVE_GENESIS")]
    pub genesis: Option<PathBuf>,
    /// The orders that have changed the members since, as `conclave node orders` prints them
    #[arg(long, value_name = "FILE", env = "CONCLAVE_ORDERS")]
    pub orders: Option<PathBuf>,
    /// Fail (exit code 5) unless a quorum of the members vouches for the answer
    #[arg(long, env = "CONCLAVE_REQUIRE_RECEIPT", value_parser = FalseyValueParser::new())]
    pub require_receipt: bool,
}

impl ReceiptArguments {
    /// Reads the files; none if no receipt is wanted.
    pub(crate) fn open(&self) -> Result<Option<Witnesses>, Failure> {
        let Some(path) = &self.genesis else {
            return match self.require_receipt || self.orders.is_some() {
                true => Err(Failure::because(
                    "receipts are checked against the members: --genesis is needed (the genesis.json of the cluster)",
                )),
                false => Ok(None),
            };
        };
        let bytes = secret_file::read_public(path, MAX_GENESIS).map_err(Failure::local)?;
        let genesis = Genesis::parse(&bytes).map_err(Failure::local)?;
        let first = first_members(&genesis)
            .ok_or_else(|| Failure::because("the genesis statement has a key that cannot be"))?;
        let orders = self.orders.as_deref().map(Orders::read).transpose();
        let orders = orders.map_err(Failure::local)?.unwrap_or_default();
        let members = orders
            .follow(first)
            .map_err(|(number, reason)| Failure::because(format!("order for members {number}: {reason}")))?;
        Ok(Some(Witnesses {
            members,
            required: self.require_receipt,
        }))
    }
}

/// The members, as the operators named them last, and whether a quorum of them must vouch.
pub(crate) struct Witnesses {
    members: Membership,
    required: bool,
}

impl Witnesses {
    #[cfg(test)]
    pub(crate) fn new(members: Membership, required: bool) -> Self {
        Self { members, required }
    }

    /// Who vouches for a reply.
    pub(crate) fn check(&self, receipt: Option<&str>, subject: Subject) -> Result<Vec<u64>, Doubt> {
        let receipt = Receipt::parse(receipt.ok_or(Doubt::Missing)?)?;
        // Where groups are placed it is the keystore's group that vouches.
        let group = subject
            .keystore()
            .map(|keystore| keystore.group(self.members.groups));
        let members = self.members.of_group(group.unwrap_or(0));
        receipt.verify(&members, subject, unix_seconds().saturating_mul(1_000))
    }

    /// Tells who vouches for `what`, or what is wrong. Who vouches is returned: nobody, if that is not required.
    ///
    /// # Errors
    /// The failure of a command whose answer is worth nothing: a receipt that is wrong, or none where one is required.
    pub(crate) fn tell(&self, what: &str, checked: Result<Vec<u64>, Doubt>) -> Result<Vec<u64>, Failure> {
        match checked {
            Ok(vouching) => {
                let nodes: Vec<String> = vouching.iter().map(u64::to_string).collect();
                let placement = self.members.placement.as_ref();
                let of = placement.map_or(self.members.members.len(), |placement| placement.committee());
                let nodes = nodes.join(", ");
                note(format_args!(
                    "{} of {of} members vouch for {what} (nodes {nodes})",
                    vouching.len()
                ));
                Ok(vouching)
            }
            Err(doubt) if doubt.is_lack() && !self.required => {
                note(format_args!("no quorum vouches for {what}: {doubt}"));
                Ok(Vec::new())
            }
            Err(doubt) => Err(Failure::unvouched(format!("{what} is not vouched for: {doubt}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::identifier::LocalId;
    use crate::membership::Member;
    use crate::membership::placement::place;
    use crate::receipt::Statement;

    fn key(node: u64) -> SigningKey {
        SigningKey::from_bytes(&[u8::try_from(node).unwrap(); 32])
    }

    #[test]
    fn where_groups_are_placed_only_the_keystores_own_nodes_vouch() {
        let member = |node: u64| Member {
            node,
            index: u16::try_from(node).unwrap(),
            address: String::new(),
            verifying_key: key(node).verifying_key(),
            envelope_key: [0; 32],
        };
        let members = Membership {
            cluster: [7; 32],
            index: 1,
            members: (1..=5).map(member).collect(),
            groups: 4,
            placement: place(4, &[1, 2, 3, 4, 5], 3, |_| Vec::new()).map(Arc::new),
            ..Membership::default()
        };
        let keystore = LocalId([3; 16]);
        let url = format!(
            "https://kms.test/kms/keystores/{keystore}/keys/{}",
            LocalId([4; 16])
        );
        let subject = Subject::description(url, b"a description");
        let own = members.of_group(keystore.group(4));
        let other = members.of_group(1 + keystore.group(4) % 3);
        assert_ne!(own.nodes(), other.nodes());
        let now = unix_seconds() * 1_000;
        let vouched = |by: &Membership| {
            let statement = Statement::new(by, subject.clone());
            let nodes = by.nodes().into_iter().take(2);
            let vouchers = nodes.map(|node| statement.vouch(node, &key(node), now)).collect();
            Receipt { members: 1, vouchers }.to_string()
        };
        let witnesses = Witnesses::new(members.clone(), true);
        let check = |receipt: String| witnesses.check(Some(&receipt), subject.clone());
        assert_eq!(check(vouched(&own)).unwrap(), own.nodes()[..2]);
        assert!(check(vouched(&other)).is_err(), "nodes of another group");
        assert!(check(vouched(&members)).is_err(), "whoever is in the cluster");
    }
}
