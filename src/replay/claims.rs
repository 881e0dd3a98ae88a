//! Claims: who may show a request whose result is secret (trust.md, section 5).
//!
//! A holder that is shown such a request could bring it to another holder as its own and learn the result. So the node
//! that a client reached claims the request's name with every holder before it shows the request to any. A claim is a hash: it
//! tells nothing of the name to who has not seen the request.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::audit::{self, Record};

/// Milliseconds that a claim stands: the longest that a name is remembered (20 minutes), since a claim does not say when
/// its request ends.
const LIFE_MS: u64 = 1_200_000;

/// The claim of `coordinator` on a request, by its name and the client's signature: names can be foreseen, and who could
/// claim what a client will sign in a minute would keep it from being served; signatures cannot.
pub fn claim(coordinator: u64, name: &[u8; 32], signature: &[u8; 64]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"conclave claim 1")
        .chain_update(coordinator.to_be_bytes())
        .chain_update(name)
        .chain_update(signature)
        .finalize()
        .into()
}

/// What is kept of a claim: enough that nobody finds two names that share it.
type Short = [u8; 16];

/// What a holder remembers of claims.
pub struct Claims {
    of: HashMap<u64, OfNode>,
    next: u64,
    /// Most claims of a node.
    bound: usize,
}

/// The claims of one node. What it registers under another node's name is found under its own, where nobody looks.
#[derive(Default)]
struct OfNode {
    /// When each came, as a number that goes up with all claims.
    order: HashMap<Short, u64>,
    /// (wall ms, claim), the oldest first.
    age: VecDeque<(u64, Short)>,
}

/// Too many claims of one node stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Default for Claims {
    /// At most a million claims of each node, 833 a second over their life: some 75 MB for each.
    fn default() -> Self {
        Self::new(1_000_000)
    }
}

impl Claims {
    /// Remembers at most `bound` claims of each node.
    pub fn new(bound: usize) -> Self {
        Self {
            of: HashMap::new(),
            next: 0,
            bound,
        }
    }

    /// Takes in one audit record of before the start; records of other kinds are passed over.
    pub fn restore(&mut self, record: &Record, wall_ms: u64) {
        if let Some(entry) = record.entry()
            && let (audit::Kind::Claimed, [node]) = (entry.kind, &entry.participants[..])
            && record.time_ms.saturating_add(LIFE_MS) >= wall_ms
        {
            // Only what was registered is on the record, so there was room.
            let _ = self.register(*node, &entry.name, record.time_ms);
        }
    }

    /// Takes a claim of `node`, whose identity TLS has proven. `false` if it stands already.
    ///
    /// # Errors
    /// [`Full`].
    pub fn register(&mut self, node: u64, claim: &[u8; 32], wall_ms: u64) -> Result<bool, Full> {
        let of = self.of.entry(node).or_default();
        of.forget(wall_ms);
        let short = short(claim);
        if of.order.contains_key(&short) {
            return Ok(false);
        }
        if of.order.len() >= self.bound {
            return Err(Full);
        }
        self.next += 1;
        of.order.insert(short, self.next);
        of.age.push_back((wall_ms, short));
        Ok(true)
    }

    /// Whether `coordinator` may show this request: nobody else claimed it before.
    pub fn allows(&self, coordinator: u64, name: &[u8; 32], signature: &[u8; 64]) -> bool {
        let when = |node: &u64, of: &OfNode| of.order.get(&short(&claim(*node, name, signature))).copied();
        let own = self.of.get(&coordinator).and_then(|of| when(&coordinator, of));
        let own = own.unwrap_or(u64::MAX);
        let mut others = self.of.iter().filter(|(node, _)| **node != coordinator);
        others.all(|(node, of)| when(node, of).is_none_or(|theirs| theirs > own))
    }

    /// Claims that are remembered.
    pub fn len(&self) -> usize {
        self.of.values().map(|of| of.order.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl OfNode {
    fn forget(&mut self, wall_ms: u64) {
        while let Some((since, claim)) = self.age.front()
            && since.saturating_add(LIFE_MS) < wall_ms
        {
            self.order.remove(claim);
            self.age.pop_front();
        }
    }
}

fn short(claim: &[u8; 32]) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&claim[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::{Claims, Full, LIFE_MS, claim};
    use crate::audit::{Content, Entry, Kind, OperationId, Record};

    const NAME: [u8; 32] = [7; 32];
    const SIGNATURE: [u8; 64] = [8; 64];

    /// Of node `node` on the request of this name.
    fn of(node: u64, name: &[u8; 32]) -> [u8; 32] {
        claim(node, name, &SIGNATURE)
    }

    #[test]
    fn the_first_who_claims_may_show() {
        let mut claims = Claims::new(10);
        assert!(claims.allows(1, &NAME, &SIGNATURE), "nobody claimed it");
        claims.register(1, &of(1, &NAME), 0).unwrap();
        assert!(claims.allows(1, &NAME, &SIGNATURE));
        assert!(!claims.allows(2, &NAME, &SIGNATURE));
        claims.register(2, &of(2, &NAME), 1).unwrap();
        assert!(
            !claims.allows(2, &NAME, &SIGNATURE),
            "a later claim is worth nothing"
        );
        assert!(claims.allows(1, &NAME, &SIGNATURE));
        assert!(claims.allows(2, &[8; 32], &SIGNATURE), "another request");
        assert!(claims.allows(2, &NAME, &[9; 64]), "the same name, not signed yet");
    }

    #[test]
    fn a_claim_under_another_nodes_name_is_worth_nothing() {
        let mut claims = Claims::new(10);
        claims.register(3, &of(1, &NAME), 0).unwrap();
        assert!(claims.allows(2, &NAME, &SIGNATURE));
        claims.register(2, &of(2, &NAME), 0).unwrap();
        assert!(!claims.allows(3, &NAME, &SIGNATURE));
        assert!(!claims.allows(1, &NAME, &SIGNATURE));
    }

    #[test]
    fn a_restart_finds_the_claims_that_stand() {
        let record = |kind, node: u64, time_ms| {
            let operation = OperationId {
                node,
                boot: 1,
                counter: 1,
            };
            let mut entry = Entry::new(kind, time_ms, operation);
            (entry.name, entry.participants) = (of(node, &NAME), vec![node]);
            Record {
                sequence: 1,
                synced: 0,
                time_ms,
                previous: [0; 32],
                hash: [0; 32],
                content: Content::Operation(Box::new(entry)),
            }
        };
        let mut claims = Claims::new(10);
        claims.restore(&record(Kind::Outcome, 1, 50), 100);
        claims.restore(&record(Kind::Claimed, 1, 50), 51 + LIFE_MS);
        assert!(claims.is_empty());
        claims.restore(&record(Kind::Claimed, 1, 50), 100);
        claims.restore(&record(Kind::Claimed, 2, 60), 100);
        assert!(claims.allows(1, &NAME, &SIGNATURE) && !claims.allows(2, &NAME, &SIGNATURE));
    }

    #[test]
    fn claims_end_and_are_bounded_by_node() {
        let mut claims = Claims::new(2);
        for name in 0..2 {
            claims.register(1, &of(1, &[name; 32]), 0).unwrap();
        }
        assert_eq!(claims.register(1, &of(1, &[2; 32]), 0), Err(Full));
        claims.register(2, &of(2, &[2; 32]), 0).unwrap();
        assert_eq!(
            claims.register(1, &of(1, &[0; 32]), 0),
            Ok(false),
            "the same again"
        );
        assert_eq!(claims.register(1, &of(1, &[3; 32]), LIFE_MS + 1), Ok(true));
        assert_eq!(claims.len(), 2);
    }
}
