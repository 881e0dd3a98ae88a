//! A keystore's configuration: what its controller reads and replaces as a whole.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identifier::LocalId;

/// At most this many controllers share a keystore.
pub const MAX_CONTROLLERS: usize = 32;

/// Configuration of a keystore. The URLs of `id` and `meterId` are made from the cluster's public URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeystoreConfig {
    /// DIDs, any of which may act; never empty. The order is the client's.
    pub controllers: Vec<String>,
    /// Whether the client wrote one DID rather than a list: it gets back what it wrote.
    pub single_controller: bool,
    /// The meter that pays.
    pub meter: LocalId,
    /// Counts updates from 0.
    pub sequence: u64,
    /// As the client named it; kept, and must not change.
    pub kms_module: String,
    /// CIDR blocks, or none for every address.
    pub ip_allow_list: Option<Vec<String>>,
}

impl KeystoreConfig {
    /// The JSON form, members in the order of the wire contract.
    pub fn to_json(&self, public_url: &str, id: &LocalId) -> Value {
        let mut json = Map::new();
        json.insert("id".into(), format!("{public_url}/kms/keystores/{id}").into());
        json.insert(
            "meterId".into(),
            format!("{public_url}/meters/{}", self.meter).into(),
        );
        json.insert("sequence".into(), self.sequence.into());
        json.insert("controller".into(), self.controller_json());
        json.insert("kmsModule".into(), self.kms_module.clone().into());
        if let Some(list) = &self.ip_allow_list {
            json.insert("ipAllowList".into(), list.clone().into());
        }
        Value::Object(json)
    }

    /// The `controller` member: one string, or the list.
    pub fn controller_json(&self) -> Value {
        match (&self.controllers[..], self.single_controller) {
            ([only], true) => only.clone().into(),
            (list, _) => list.to_vec().into(),
        }
    }
}
