//! What the groups of the majority worlds replicate: a counter for each scope, the key that the scope stands for, and who the
//! members are.

use conclave_consensus::{
    Application, Configuration, GroupId, Halt, Move, NodeId, Restricts, Scope, StateRead, StateTransaction,
};

/// Scopes in each group.
pub(super) const SCOPES: u8 = 3;

pub(super) const RESTRICTS: u8 = 1;
pub(super) const PLAIN: u8 = 2;
/// New shares of a scope's key are on the disks of all members of a list.
const MOVES: u8 = 3;
/// Operators order a list of members.
const ORDERS: u8 = 4;
/// Every key is with the members of a list.
const COMPLETES: u8 = 5;

/// An entry: kind, scope, operation id, and what else the kind has.
pub(super) fn entry(kind: u8, scope: u8, operation: u64) -> Vec<u8> {
    [&[kind, scope], &operation.to_be_bytes()[..]].concat()
}

/// New shares, made in the ceremony `operation`, in the place of those of the ceremony `replaces`.
pub(super) fn moved(scope: u8, operation: u64, number: u64, replaces: u64) -> Vec<u8> {
    [entry(MOVES, scope, operation), bytes(&[number, replaces])].concat()
}

pub(super) fn ordered(operation: u64, number: u64, nodes: &[NodeId]) -> Vec<u8> {
    [entry(ORDERS, 0, operation), bytes(&[number]), bytes(nodes)].concat()
}

pub(super) fn completed(operation: u64, number: u64) -> Vec<u8> {
    [entry(COMPLETES, 0, operation), bytes(&[number])].concat()
}

pub(super) fn scope(number: u8) -> Scope {
    Scope([number; 16])
}

pub(super) fn version_key(number: u8) -> Vec<u8> {
    vec![b'v', number]
}

fn key_of(number: u8) -> Vec<u8> {
    vec![b'k', number]
}

const MEMBERS: &[u8] = b"m";

fn list_key(number: u64) -> Vec<u8> {
    [&b"h"[..], &number.to_be_bytes()].concat()
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_be_bytes);
    bytes.chunks(8).map(word).collect()
}

pub(super) fn version_of(bytes: Option<Vec<u8>>) -> u64 {
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// How far a change of members has come, as in `membership/roster.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Announced,
    Joint,
    Complete,
}

/// Who the members of a group are, and who they are to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// Counts the lists, from 1.
    pub(super) number: u64,
    pub(super) current: Vec<NodeId>,
    /// The next list, whose number is one more.
    pub(super) next: Option<(Vec<NodeId>, Stage)>,
}

impl Members {
    fn encode(&self) -> Vec<u8> {
        let (next, stage) = match &self.next {
            None => (&[][..], 0),
            Some((next, Stage::Announced)) => (&next[..], 1),
            Some((next, Stage::Joint)) => (&next[..], 2),
            Some((next, Stage::Complete)) => (&next[..], 3),
        };
        let head = [self.number, stage, self.current.len() as u64];
        [bytes(&head), bytes(&self.current), bytes(next)].concat()
    }

    fn decode(stored: &[u8]) -> Option<Self> {
        let words = words(stored);
        let (head, lists) = words.split_at_checked(3)?;
        let (current, next) = lists.split_at_checked(usize::try_from(head[2]).ok()?)?;
        let stage = match head[1] {
            0 => None,
            1 => Some(Stage::Announced),
            2 => Some(Stage::Joint),
            _ => Some(Stage::Complete),
        };
        Some(Members {
            number: head[0],
            current: current.to_vec(),
            next: stage.map(|stage| (next.to_vec(), stage)),
        })
    }

    /// Whether these nodes decide: a majority of each list that counts.
    pub(super) fn is_quorum(&self, nodes: &[NodeId]) -> bool {
        let half = |list: &[NodeId]| {
            let agree = list.iter().filter(|node| nodes.contains(node)).count();
            agree > list.len() / 2
        };
        let joint = match &self.next {
            Some((next, Stage::Joint | Stage::Complete)) => half(next),
            _ => true,
        };
        half(&self.current) && joint
    }

    /// The number of the list that keys are moving to, and the list.
    pub(super) fn moving_to(&self) -> Option<(u64, &Vec<NodeId>)> {
        match &self.next {
            Some((next, Stage::Joint)) => Some((self.number + 1, next)),
            _ => None,
        }
    }
}

/// The shares of a scope's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) epoch: u64,
    /// The number of the list that holds them.
    pub(super) committee: u64,
    /// The ceremony that made them; 0: its birth.
    pub(super) session: u64,
    /// The index of the entry that says so.
    pub(super) index: u64,
}

const BORN: Key = Key {
    epoch: 0,
    committee: 1,
    session: 0,
    index: 0,
};

/// Counters, keys, members.
pub struct Register {
    first: Vec<NodeId>,
}

impl Register {
    /// With these members to begin with.
    pub fn new(first: Vec<NodeId>) -> Self {
        Register { first }
    }

    /// The members to begin with.
    pub(super) fn first(&self) -> &[NodeId] {
        &self.first
    }

    pub(super) fn members(&self, state: &dyn StateRead) -> Result<Members, Halt> {
        let stored = state.get(MEMBERS)?;
        Ok(stored
            .and_then(|stored| Members::decode(&stored))
            .unwrap_or_else(|| Members {
                number: 1,
                current: self.first.clone(),
                next: None,
            }))
    }

    /// The list of this number.
    pub(super) fn list(&self, state: &dyn StateRead, number: u64) -> Result<Vec<NodeId>, Halt> {
        match number {
            1 => Ok(self.first.clone()),
            _ => Ok(words(&state.get(&list_key(number))?.unwrap_or_default())),
        }
    }

    pub(super) fn key(&self, state: &dyn StateRead, scope: u8) -> Result<Key, Halt> {
        let stored = state.get(&key_of(scope))?.map(|stored| words(&stored));
        let key = |words: Vec<u64>| match words[..] {
            [epoch, committee, session, index] => Some(Key {
                epoch,
                committee,
                session,
                index,
            }),
            _ => None,
        };
        Ok(stored.and_then(key).unwrap_or(BORN))
    }

    fn take(
        &self,
        (kind, scope, operation): (u8, u8, u64),
        words: &[u64],
        index: u64,
        state: &mut StateTransaction<'_>,
    ) -> Result<bool, Halt> {
        let members = self.members(state)?;
        match (kind, words) {
            (MOVES, [number, replaces]) => {
                let key = self.key(state, scope)?;
                let moves = members.moving_to().is_some_and(|(to, _)| to == *number);
                if !moves || key.committee == *number || key.session != *replaces {
                    return Ok(false);
                }
                let new = [key.epoch + 1, *number, operation, index];
                state.put(key_of(scope), bytes(&new));
            }
            (ORDERS, [number, nodes @ ..]) => {
                if members.next.is_some() || *number != members.number + 1 {
                    return Ok(false);
                }
                state.put(list_key(*number), bytes(nodes));
                let next = Some((nodes.to_vec(), Stage::Announced));
                state.put(MEMBERS.to_vec(), Members { next, ..members }.encode());
            }
            (COMPLETES, [number]) => {
                let Some((to, next)) = members.moving_to().filter(|(to, _)| to == number) else {
                    return Ok(false);
                };
                debug_assert_eq!(to, members.number + 1);
                let next = Some((next.clone(), Stage::Complete));
                state.put(MEMBERS.to_vec(), Members { next, ..members }.encode());
            }
            _ => return Err(Halt::new("an entry of an unknown version")),
        }
        Ok(true)
    }
}

impl Application for Register {
    fn restricts(&self, _group: GroupId, entry: &[u8]) -> Restricts {
        match entry {
            [RESTRICTS | MOVES, number, ..] => Restricts::Scope(scope(*number)),
            [PLAIN, ..] => Restricts::Nothing,
            _ => Restricts::Everything,
        }
    }

    fn apply(
        &self,
        _group: GroupId,
        index: u64,
        entry: &[u8],
        state: &mut StateTransaction<'_>,
    ) -> Result<Vec<u8>, Halt> {
        let Some((&[kind, number, ref operation @ ..], rest)) = entry.split_first_chunk::<10>() else {
            return Err(Halt::new("an entry of an unknown version"));
        };
        // An operation is applied once, however often its entry was committed.
        let done = [&b"o"[..], operation].concat();
        if let Some(answer) = state.get(&done)? {
            return Ok(answer);
        }
        let answer = match kind {
            RESTRICTS | PLAIN => {
                let key = if kind == RESTRICTS {
                    version_key(number)
                } else {
                    vec![b'p', number]
                };
                let next = (version_of(state.get(&key)?) + 1).to_be_bytes().to_vec();
                state.put(key, next.clone());
                next
            }
            _ => {
                let operation = version_of(Some(operation.to_vec()));
                let taken = self.take((kind, number, operation), &words(rest), index, state)?;
                u64::from(taken).to_be_bytes().to_vec()
            }
        };
        state.put(done, answer.clone());
        Ok(answer)
    }

    fn wanted(&self, _group: GroupId, state: &dyn StateRead) -> Result<Option<Move>, Halt> {
        let members = self.members(state)?;
        Ok(members.next.map(|(to, stage)| Move {
            from: members.current,
            to,
            begun: true,
            complete: stage == Stage::Complete,
        }))
    }

    fn configured(
        &self,
        _group: GroupId,
        _index: u64,
        configuration: &Configuration,
        state: &mut StateTransaction<'_>,
    ) -> Result<(), Halt> {
        let members = self.members(state)?;
        let Some((next, stage)) = members
            .next
            .clone()
            .filter(|(next, _)| *next == configuration.voters)
        else {
            return Ok(());
        };
        let members = match (configuration.is_joint(), stage) {
            (true, Stage::Announced) => Members {
                next: Some((next, Stage::Joint)),
                ..members
            },
            (false, Stage::Complete) => Members {
                number: members.number + 1,
                current: next,
                next: None,
            },
            _ => return Ok(()),
        };
        state.put(MEMBERS.to_vec(), members.encode());
        Ok(())
    }

    fn configuration_allowed(
        &self,
        _group: GroupId,
        configuration: &Configuration,
        _initial: &Configuration,
        state: &dyn StateRead,
    ) -> bool {
        let Ok(members) = self.members(state) else {
            return false;
        };
        let stable = Configuration::stable(&members.current);
        match members.next {
            None => *configuration == stable,
            Some((_, Stage::Announced)) => {
                configuration.voters == stable.voters && configuration.outgoing.is_empty()
            }
            Some((next, _)) => {
                let outgoing = members.current;
                let joint = Configuration {
                    outgoing,
                    ..Configuration::stable(&next)
                };
                *configuration == joint
            }
        }
    }
}
