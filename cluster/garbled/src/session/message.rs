//! What garblers send.

use serde::{Deserialize, Serialize};

/// The first garbler's first message; tables follow, then [`Tail`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its openings, covered: 16 bytes for each bit of secret input.
    pub openings: Vec<u8>,
    /// Key of the label hash.
    pub hash: [u8; 16],
    /// 16 bytes for each value of each opened half: the first garbler's, then the second's.
    pub commitments: Vec<u8>,
}

/// The first garbler's last message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// A bit for each output that the evaluator may decode, the lowest of each byte first.
    pub decode: Vec<u8>,
}
