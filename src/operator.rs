//! What operators order: statements that as many of them sign as the genesis statement says, on machines that need no
//! network. Every replica verifies an order when it is applied, and every holder before it acts on one.

mod signature;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::Hex32;
use crate::membership::{Membership, NewMembers, Pinned, Placement};

pub use signature::OperatorSignature;

/// The largest order, in bytes of JSON.
pub const MAX_ORDER: usize = 64 * 1024;
const PREFIX: &[u8] = b"conclave operator order v1\0";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Written", into = "Written")]
pub enum Change {
    /// Make all shares anew that are older than the order, whatever their age.
    RenewShares,
    /// Other members take the place of those that there are, in every group.
    Members(NewMembers),
}

/// A change as it is written, in files and in logs: one with a placement is a kind of its own, so that an order without one is
/// what it always was.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Written {
    RenewShares,
    Members(Listed),
    PlacedMembers(PlacedMembers),
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    number: u64,
    replaces: Hex32,
    members: Vec<Pinned>,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PlacedMembers {
    number: u64,
    replaces: Hex32,
    members: Vec<Pinned>,
    placement: Placement,
}

impl From<Written> for Change {
    fn from(written: Written) -> Self {
        match written {
            Written::RenewShares => Self::RenewShares,
            Written::Members(new) => Self::Members(NewMembers {
                number: new.number,
                replaces: new.replaces,
                members: new.members,
                placement: None,
            }),
            Written::PlacedMembers(new) => Self::Members(NewMembers {
                number: new.number,
                replaces: new.replaces,
                members: new.members,
                placement: Some(new.placement),
            }),
        }
    }
}

impl From<Change> for Written {
    fn from(change: Change) -> Self {
        let Change::Members(new) = change else {
            return Self::RenewShares;
        };
        let (number, replaces, members) = (new.number, new.replaces, new.members);
        match new.placement {
            None => Self::Members(Listed {
                number,
                replaces,
                members,
            }),
            Some(placement) => Self::PlacedMembers(PlacedMembers {
                number,
                replaces,
                members,
                placement,
            }),
        }
    }
}

impl Change {
    fn sign_into(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::RenewShares => bytes.push(1),
            Self::Members(new) => {
                bytes.push(if new.placement.is_some() { 3 } else { 2 });
                bytes.extend_from_slice(&new.number.to_be_bytes());
                bytes.extend_from_slice(&new.replaces.0);
                bytes.extend_from_slice(&(new.members.len() as u64).to_be_bytes());
                let members = new.members.iter().map(Pinned::signed_bytes);
                members.for_each(|member| bytes.extend_from_slice(&member));
                if let Some(placement) = &new.placement {
                    bytes.extend_from_slice(&placement.bytes());
                }
            }
        }
    }

    /// What it does, for whoever is about to sign it.
    pub fn explain(&self) -> String {
        match self {
            Self::RenewShares => {
                "make all key shares anew that are older than this order; keys stay the same keys".into()
            }
            Self::Members(new) => {
                let members = new.members.iter();
                let members: Vec<String> = members
                    .map(|member| format!("{} at {} with key {}", member.node, member.peer, member.identity))
                    .collect();
                let members = format!("the members are, from now on: {}", members.join("; "));
                let Some(placement) = &new.placement else {
                    return format!("{members}; every one of them has all groups");
                };
                let nodes: Vec<u64> = new.members.iter().map(|member| member.node).collect();
                format!(
                    "{members}\nand only these nodes hold keys of a group:\n{}",
                    placement.explain(&nodes)
                )
            }
        }
    }
}

/// An order: the next one after `sequence - 1` in this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The cluster's id.
    pub cluster: Hex32,
    /// Counts orders from 1; each is carried out once.
    pub sequence: u64,
    /// What is to be done.
    pub change: Change,
}

/// An order with the signatures that it has so far.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// What is ordered.
    pub order: Order,
    signatures: Vec<OperatorSignature>,
}

/// Why an order does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Another cluster's.
    #[error("the order is for another cluster")]
    OtherCluster,
    /// A signature is wrong, not an operator's, or there twice.
    #[error("a signature on the order is wrong, of no operator, or there twice")]
    Signature,
    /// More operators must sign.
    #[error("the order is signed by {signed} operators, {needed} must sign it")]
    TooFew {
        /// Who has.
        signed: usize,
        /// How many must.
        needed: usize,
    },
}

impl Order {
    /// What operators sign: a prefix and the fields in order, numbers big endian, lists and texts with their length before
    /// them.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        self.change.sign_into(&mut bytes);
        bytes
    }
}

impl SignedOrder {
    /// An order that nobody has signed yet.
    pub fn new(order: Order) -> Self {
        Self {
            order,
            signatures: Vec::new(),
        }
    }

    /// Adds an operator's signature over [`Order::signed_bytes`], in the place of one that it gave before.
    pub fn add(&mut self, signature: OperatorSignature) {
        self.signatures
            .retain(|given| given.operator != signature.operator);
        self.signatures.push(signature);
    }

    /// Operators that have signed, whether they count or not.
    pub fn signed(&self) -> usize {
        self.signatures.len()
    }

    /// Whether it is an order of this cluster's operators: every signature right, as many as must be.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn verify(&self, members: &Membership) -> Result<(), OrderError> {
        if self.order.cluster.0 != members.cluster {
            return Err(OrderError::OtherCluster);
        }
        let message = self.order.signed_bytes();
        let mut signers = BTreeSet::new();
        for signature in &self.signatures {
            let operator = signature.operator.0;
            let counts = members.operators.iter().any(|key| key.to_bytes() == operator);
            if !counts || !signature.is_right(&message) || !signers.insert(operator) {
                return Err(OrderError::Signature);
            }
        }
        match signers.len() < members.operator_threshold {
            true => Err(OrderError::TooFew {
                signed: signers.len(),
                needed: members.operator_threshold,
            }),
            false => Ok(()),
        }
    }

    /// As it stands in a file.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and integers only: cannot fail.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    fn operator(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn members() -> Membership {
        Membership {
            cluster: [9; 32],
            index: 1,
            members: Vec::new(),
            operators: (1..=3).map(|number| operator(number).verifying_key()).collect(),
            operator_threshold: 2,
            ..Membership::default()
        }
    }

    fn signed(by: &[u8]) -> SignedOrder {
        let mut order = SignedOrder::new(Order {
            cluster: Hex32([9; 32]),
            sequence: 7,
            change: Change::RenewShares,
        });
        for number in by {
            let key = operator(*number);
            let signature = key.sign(&order.order.signed_bytes()).to_bytes();
            order.add(OperatorSignature::new(key.verifying_key().to_bytes(), &signature));
        }
        order
    }

    #[test]
    fn as_many_operators_sign_as_must() {
        assert_eq!(signed(&[1, 3]).verify(&members()), Ok(()));
        assert_eq!(signed(&[1, 2, 3]).verify(&members()), Ok(()));
        let few = OrderError::TooFew { signed: 1, needed: 2 };
        assert_eq!(signed(&[2]).verify(&members()), Err(few));
        assert_eq!(signed(&[2, 2]).verify(&members()), Err(few), "one operator twice");
        assert_eq!(signed(&[1, 2, 4]).verify(&members()), Err(OrderError::Signature));
        let mut twice = signed(&[1, 2]);
        twice.signatures[1] = twice.signatures[0].clone();
        assert_eq!(twice.verify(&members()), Err(OrderError::Signature));
    }

    #[test]
    fn every_field_is_signed() {
        let mut order = signed(&[1, 2]);
        order.order.sequence += 1;
        assert_eq!(order.verify(&members()), Err(OrderError::Signature));
        let mut order = signed(&[1, 2]);
        order.order.cluster = Hex32([8; 32]);
        assert_eq!(order.verify(&members()), Err(OrderError::OtherCluster));
        let mut elsewhere = members();
        elsewhere.cluster = [8; 32];
        assert_eq!(
            order.verify(&elsewhere),
            Err(OrderError::Signature),
            "signed for one cluster"
        );
    }

    fn other_members(placement: Option<Placement>) -> Order {
        Order {
            cluster: Hex32([9; 32]),
            sequence: 7,
            change: Change::Members(NewMembers {
                number: 2,
                replaces: Hex32([5; 32]),
                members: Vec::new(),
                placement,
            }),
        }
    }

    #[test]
    fn an_order_without_a_placement_is_what_it_always_was() {
        let order = other_members(None);
        let bytes = [
            PREFIX,
            &[9; 32],
            &[0, 0, 0, 0, 0, 0, 0, 7, 2],
            &[0, 0, 0, 0, 0, 0, 0, 2],
            &[5; 32],
            &[0; 8],
        ];
        assert_eq!(order.signed_bytes(), bytes.concat());
        let logged = [&[1, 2][..], &postcard::to_stdvec(&Hex32([5; 32])).unwrap(), &[0]].concat();
        assert_eq!(postcard::to_stdvec(&order.change).unwrap(), logged);
        let json = serde_json::to_value(&order.change).unwrap();
        assert_eq!(json["members"]["number"], 2);
        assert!(json["members"].get("placement").is_none());
    }

    #[test]
    fn a_placement_is_signed_and_written_with_the_rest() {
        let placed = |nodes: &[u64]| {
            let placement = vec![crate::membership::placement::Placed {
                group: 1,
                nodes: nodes.to_vec(),
            }];
            other_members(Some(Placement::new(placement)))
        };
        let order = placed(&[1, 2, 3]);
        assert_ne!(order.signed_bytes(), placed(&[1, 2, 4]).signed_bytes());
        assert_ne!(order.signed_bytes(), other_members(None).signed_bytes());
        let logged = postcard::to_stdvec(&order).unwrap();
        assert_eq!(postcard::from_bytes::<Order>(&logged).unwrap(), order);
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
        assert!(serde_json::from_str::<Order>(&text.replace("placed-members", "members")).is_err());
        assert!(
            order.change.explain().contains("node"),
            "{}",
            order.change.explain()
        );
    }

    #[test]
    fn a_file_is_read_back_and_nothing_else_is() {
        let order = signed(&[1, 2]);
        assert_eq!(
            serde_json::from_slice::<SignedOrder>(&order.to_json()).unwrap(),
            order
        );
        let text = String::from_utf8(order.to_json()).unwrap();
        assert!(text.contains("\"renew-shares\""));
        let unknown = text.replace("\"sequence\"", "\"force\": true, \"sequence\"");
        assert!(serde_json::from_str::<SignedOrder>(&unknown).is_err());
        assert!(serde_json::from_str::<SignedOrder>(&text.replace("renew-shares", "resign")).is_err());
    }
}
