//! The first frame of each side: what it can speak, who it is, for which cluster, on which lane. Fixed size, read before
//! anything else. Magic and formats stand where they stand for ever, so that builds which have nothing in common can say so.

use crate::counters::Refusal;
use crate::formats::Formats;
use crate::network::{Lane, NodeId};
use crate::settings::Boot;

const MAGIC: [u8; 8] = *b"conclave";
/// Magic, lowest and highest format, cluster, from, to, boot, lane, verdict.
pub(crate) const SIZE: usize = 8 + 2 + 32 + 8 + 8 + 16 + 1 + 1;

/// What a side states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) formats: Formats,
    pub(crate) cluster: [u8; 32],
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) boot: Boot,
    pub(crate) lane: Lane,
    /// Of the accepting side: whether it takes the connection. The dialling side says `true`.
    pub(crate) accepted: bool,
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&[self.formats.lowest(), self.formats.highest()]);
        bytes[10..42].copy_from_slice(&self.cluster);
        bytes[42..50].copy_from_slice(&self.from.to_be_bytes());
        bytes[50..58].copy_from_slice(&self.to.to_be_bytes());
        bytes[58..74].copy_from_slice(&self.boot);
        bytes[74] = self.lane.index() as u8;
        bytes[75] = u8::from(self.accepted);
        bytes
    }

    /// What the other side speaks, whatever else it says.
    pub(crate) fn formats(bytes: &[u8; SIZE]) -> Result<Formats, Refusal> {
        if bytes[..8] != MAGIC {
            return Err(Refusal::Hello);
        }
        Formats::new(bytes[8], bytes[9]).ok_or(Refusal::Hello)
    }

    pub(crate) fn decode(bytes: &[u8; SIZE]) -> Result<Hello, Refusal> {
        let formats = Self::formats(bytes)?;
        if bytes[75] > 1 {
            return Err(Refusal::Hello);
        }
        let mut hello = Hello {
            formats,
            cluster: [0; 32],
            from: node(bytes, 42),
            to: node(bytes, 50),
            boot: [0; 16],
            lane: Lane::from_index(bytes[74]).ok_or(Refusal::Hello)?,
            accepted: bytes[75] == 1,
        };
        hello.cluster.copy_from_slice(&bytes[10..42]);
        hello.boot.copy_from_slice(&bytes[58..74]);
        Ok(hello)
    }

    /// Refuses a hello that is not from `peer` (the TLS identity) to `own` in this cluster.
    pub(crate) fn check(&self, cluster: &[u8; 32], peer: NodeId, own: NodeId) -> Result<(), Refusal> {
        if self.cluster != *cluster {
            return Err(Refusal::Cluster);
        }
        if self.from != peer || self.to != own {
            return Err(Refusal::Node);
        }
        Ok(())
    }
}

fn node(bytes: &[u8; SIZE], at: usize) -> NodeId {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    NodeId::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_counts() {
        let hello = Hello {
            formats: Formats::new(1, 2).unwrap(),
            cluster: [7; 32],
            from: 1,
            to: 2,
            boot: [9; 16],
            lane: Lane::Bulk,
            accepted: true,
        };
        let bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello.clone()));
        assert_eq!(hello.check(&[7; 32], 1, 2), Ok(()));
        assert_eq!(hello.check(&[8; 32], 1, 2), Err(Refusal::Cluster));
        assert_eq!(hello.check(&[7; 32], 3, 2), Err(Refusal::Node));
        assert_eq!(hello.check(&[7; 32], 1, 3), Err(Refusal::Node));
        // The lowest format above the highest, a lane and a verdict that are none.
        for at in [0, 8, 74, 75] {
            let mut wrong = bytes;
            wrong[at] ^= 0x80;
            assert_eq!(Hello::decode(&wrong), Err(Refusal::Hello), "byte {at}");
        }
    }
}
