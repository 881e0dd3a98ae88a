//! How well a cluster is, as one node sees it, in four words. Pure.
//!
//! *Optimal*: everything is as it should be. *Healthy*: another node may be lost, and something wants to be looked at.
//! *Degraded*: everything is served, but one more lost node stops it. *Unhealthy*: this node cannot serve now.

use serde::{Deserialize, Serialize};

use super::NotReady;
use crate::membership::quorum_of;

/// The word; the worse one is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// As it should be.
    Optimal,
    /// One more node may be lost; the concerns say what wants to be looked at.
    Healthy,
    /// Served, but not with one more node lost.
    Degraded,
    /// This node cannot serve.
    #[default]
    Unhealthy,
}

impl Word {
    /// The word in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optimal => "optimal",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What it is judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether this node can serve.
    pub ready: Result<(), NotReady>,
    /// The members of each group, by its number: of one that is on other nodes, too.
    pub committees: Vec<Vec<u64>>,
    /// Members of the cluster that have no link with this node.
    pub away: Vec<u64>,
    /// Envelopes that this node keeps for members that have not got their shares.
    pub open_envelopes: u64,
    /// Keys whose shares are older than they are to be, in the groups that this node leads.
    pub due_for_renewal: u64,
}

/// The word, and why it is not a better one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Health {
    /// The word.
    pub health: Word,
    /// Why, the gravest first; each says what helps.
    pub concerns: Vec<String>,
}

impl Health {
    /// A node's that waits for its node key.
    pub fn sealed() -> Self {
        let NotReady { reason, hint } = NotReady::sealed();
        Self {
            health: Word::Unhealthy,
            concerns: vec![format!("{reason}; {hint}")],
        }
    }

    /// Judges.
    pub fn of(facts: &Facts) -> Self {
        let mut found: Vec<(Word, String)> = Vec::new();
        if let Err(NotReady { reason, hint }) = &facts.ready {
            found.push((Word::Unhealthy, format!("{reason}; {hint}")));
        }
        let there = |committee: &[u64]| committee.iter().filter(|node| !facts.away.contains(node)).count();
        let stopped: Vec<String> = (0..)
            .zip(&facts.committees)
            .filter(|(_, committee)| there(committee) < quorum_of(committee.len()))
            .map(|(group, _): (u32, _)| group.to_string())
            .collect();
        if facts.ready.is_ok() && !stopped.is_empty() {
            let groups = stopped.join(", ");
            let concern = format!(
                "too few nodes of groups {groups} are up: their keystores are not served; start them"
            );
            found.push((Word::Degraded, concern));
        }
        // How many more each group may lose; the fewest count.
        let spare = |committee: &Vec<u64>| there(committee).saturating_sub(quorum_of(committee.len()));
        let spare = facts.committees.iter().map(spare).min().unwrap_or(0);
        if !facts.away.is_empty() {
            let nodes: Vec<String> = facts.away.iter().map(u64::to_string).collect();
            let (word, more) = match spare {
                0 => (Word::Degraded, "no other may be lost"),
                _ => (Word::Healthy, "one more may be lost"),
            };
            let nodes = nodes.join(", ");
            let concern =
                format!("no link with node {nodes}: {more}; start it, or look at the network between");
            found.push((word, concern));
        } else if spare == 0 {
            let concern = "the cluster has no node to spare: three nodes may lose one".to_owned();
            found.push((Word::Degraded, concern));
        }
        if facts.open_envelopes > 0 {
            let count = facts.open_envelopes;
            let concern = format!(
                "{count} shares wait here for members that were away: until those have been back, each key lacks holders"
            );
            found.push((Word::Healthy, concern));
        }
        if facts.due_for_renewal > 0 {
            let count = facts.due_for_renewal;
            let concern =
                format!("the shares of {count} keys are due for renewal: every member has to be up for it");
            found.push((Word::Healthy, concern));
        }
        found.sort_by_key(|(word, _)| std::cmp::Reverse(*word));
        Self {
            health: found.first().map_or(Word::Optimal, |(word, _)| *word),
            concerns: found.into_iter().map(|(_, concern)| concern).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(members: usize, away: &[u64]) -> Facts {
        Facts {
            ready: Ok(()),
            committees: vec![(1..=members as u64).collect()],
            away: away.to_vec(),
            open_envelopes: 0,
            due_for_renewal: 0,
        }
    }

    fn word(facts: &Facts) -> Word {
        Health::of(facts).health
    }

    #[test]
    fn a_whole_cluster_is_optimal_and_has_no_concerns() {
        for members in [3, 4, 5] {
            assert_eq!(
                Health::of(&facts(members, &[])),
                Health {
                    health: Word::Optimal,
                    concerns: Vec::new()
                }
            );
        }
    }

    #[test]
    fn it_is_healthy_while_one_more_may_be_lost_and_degraded_after_that() {
        assert_eq!(word(&facts(5, &[4])), Word::Healthy);
        assert_eq!(word(&facts(5, &[1, 4])), Word::Degraded);
        assert_eq!(word(&facts(4, &[4])), Word::Degraded);
        assert_eq!(word(&facts(3, &[2])), Word::Degraded);
        assert_eq!(word(&facts(1, &[])), Word::Degraded, "a trial of one");
    }

    #[test]
    fn where_groups_are_on_some_nodes_the_one_with_the_fewest_to_spare_counts() {
        let mut facts = facts(5, &[]);
        facts.committees.extend([vec![1, 2, 3], vec![3, 4, 5]]);
        assert_eq!(word(&facts), Word::Optimal);
        facts.away = vec![1];
        assert_eq!(
            word(&facts),
            Word::Degraded,
            "group 1 has none to spare, though the cluster has"
        );
        facts.away = vec![1, 2];
        let health = Health::of(&facts);
        assert_eq!(health.health, Word::Degraded);
        assert!(health.concerns[0].contains("groups 1 "), "{:?}", health.concerns);
    }

    #[test]
    fn what_wants_to_be_looked_at_is_said_and_the_gravest_comes_first() {
        let mut facts = facts(3, &[]);
        facts.open_envelopes = 2;
        facts.due_for_renewal = 7;
        let health = Health::of(&facts);
        assert_eq!((health.health, health.concerns.len()), (Word::Healthy, 2));
        facts.away = vec![3];
        facts.ready = Err(NotReady::new("no leader", "wait"));
        let health = Health::of(&facts);
        assert_eq!(health.health, Word::Unhealthy);
        assert_eq!(health.concerns[0], "no leader; wait");
        assert!(health.concerns[1].contains("node 3"), "{:?}", health.concerns);
        assert_eq!(health.concerns.len(), 4);
    }
}
