//! How well a cluster is, as one node sees it, in four words. Pure.
//!
//! *Optimal*: everything is as it should be. *Healthy*: another node may be lost, and something wants to be looked at.
//! *Degraded*: everything is served, but one more lost node stops some of it. *Unhealthy*: this node cannot serve now, or some
//! keystores are served by nobody.

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
    /// This node cannot serve, or nobody serves something.
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
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Why this node cannot serve, if it cannot.
    pub unready: Option<NotReady>,
    /// The members of each group, by its number: of one that is on other nodes, too.
    pub committees: Vec<Vec<u64>>,
    /// Members of the cluster that have no link with this node.
    pub away: Vec<u64>,
    /// Those that have one, and say that they take no part.
    pub unfit: Vec<u64>,
    /// Those whose state of a group is another than this node's at the same index.
    pub differing: Vec<u64>,
    /// Those whose audit heads contradict each other.
    pub contradicted: Vec<u64>,
    /// Keys of which this node should have a share, and has none.
    pub missing_shares: u64,
    /// Symmetric keys that need every one of their holders.
    pub unspared_keys: u64,
    /// Groups whose move to other members stands still.
    pub stalled: Vec<u32>,
    /// What is wrong with this node's backups, where some are configured.
    pub backup: Option<String>,
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
        let mut found = Vec::new();
        nodes(facts, &mut found);
        keys(facts, &mut found);
        trust(facts, &mut found);
        found.sort_by_key(|(word, _)| std::cmp::Reverse(*word));
        Self {
            health: found.first().map_or(Word::Optimal, |(word, _)| *word),
            concerns: found.into_iter().map(|(_, concern)| concern).collect(),
        }
    }
}

/// Concerns, each with the best word that it leaves.
type Found = Vec<(Word, String)>;

fn list<T: ToString>(these: &[T]) -> String {
    let these: Vec<String> = these.iter().map(T::to_string).collect();
    these.join(", ")
}

/// Which nodes are there, and how many more may be lost.
fn nodes(facts: &Facts, found: &mut Found) {
    if let Some(NotReady { reason, hint }) = &facts.unready {
        found.push((Word::Unhealthy, format!("{reason}; {hint}")));
    }
    let is_there = |node: &&u64| !facts.away.contains(node) && !facts.unfit.contains(node);
    let there = |committee: &[u64]| committee.iter().filter(is_there).count();
    let stopped: Vec<u32> = (0..)
        .zip(&facts.committees)
        .filter(|(_, committee)| there(committee) < quorum_of(committee.len()))
        .map(|(group, _)| group)
        .collect();
    if facts.unready.is_none() && !stopped.is_empty() {
        let concern = format!(
            "too few nodes of groups {} are up: their keystores are not served; start them",
            list(&stopped)
        );
        found.push((Word::Unhealthy, concern));
    }
    // How many more each group may lose; the fewest count.
    let spare = |committee: &Vec<u64>| there(committee).saturating_sub(quorum_of(committee.len()));
    let spare = facts.committees.iter().map(spare).min().unwrap_or(0);
    let (word, more) = match spare {
        0 => (Word::Degraded, "no other may be lost"),
        _ => (Word::Healthy, "one more may be lost"),
    };
    if !facts.away.is_empty() {
        let concern = format!(
            "no link with node {}: {more}; start it, or look at the network between",
            list(&facts.away)
        );
        found.push((word, concern));
    }
    if !facts.unfit.is_empty() {
        let concern = format!(
            "node {} says that it takes no part: {more}; its own status says why",
            list(&facts.unfit)
        );
        found.push((word, concern));
    }
    if facts.away.is_empty() && facts.unfit.is_empty() && spare == 0 {
        let concern = "the cluster has no node to spare: three nodes may lose one".to_owned();
        found.push((Word::Degraded, concern));
    }
}

/// Whether every key has its holders, and they are as young as they are to be.
fn keys(facts: &Facts, found: &mut Found) {
    let mut concern = |count: u64, word: Word, text: String| {
        if count > 0 {
            found.push((word, text));
        }
    };
    let count = facts.missing_shares;
    let text = format!(
        "this node lacks its shares of {count} keys, which have one holder less: `conclave operator sign renew-shares` gives it new \
         ones, or replace the node"
    );
    concern(count, Word::Degraded, text);
    let count = facts.open_envelopes;
    let text = format!(
        "{count} shares wait here for members that were away: until those have been back, each key lacks holders"
    );
    concern(count, Word::Healthy, text);
    let count = facts.due_for_renewal;
    let text = format!("the shares of {count} keys are due for renewal: every member has to be up for it");
    concern(count, Word::Healthy, text);
    let count = facts.unspared_keys;
    let text = format!(
        "{count} symmetric keys need every one of their three holders: they wait for any that is away; four holders may lose one"
    );
    concern(count, Word::Healthy, text);
    let count = facts.stalled.len() as u64;
    let text = format!(
        "groups {} have come no nearer to their new members for ten minutes; the logs of their leaders say why",
        list(&facts.stalled)
    );
    concern(count, Word::Healthy, text);
    if let Some(backup) = &facts.backup {
        found.push((Word::Healthy, backup.clone()));
    }
}

/// Whether all nodes say the same.
fn trust(facts: &Facts, found: &mut Found) {
    if !facts.differing.is_empty() {
        let concern = format!(
            "node {} has another state than this one at the same index: one of them is not to be trusted; see \"States that differ\" in \
             the documentation",
            list(&facts.differing)
        );
        found.push((Word::Degraded, concern));
    }
    if !facts.contradicted.is_empty() {
        let concern = format!(
            "node {} has signed less of its audit chain than before, or another one: it has an older copy of its disk, or lies",
            list(&facts.contradicted)
        );
        found.push((Word::Degraded, concern));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(members: usize, away: &[u64]) -> Facts {
        Facts {
            committees: vec![(1..=members as u64).collect()],
            away: away.to_vec(),
            ..Facts::default()
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
        assert_eq!(health.health, Word::Unhealthy);
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
        facts.unready = Some(NotReady::new("no leader", "wait"));
        let health = Health::of(&facts);
        assert_eq!(health.health, Word::Unhealthy);
        assert_eq!(health.concerns[0], "no leader; wait");
        assert!(health.concerns[1].contains("node 3"), "{:?}", health.concerns);
        assert_eq!(health.concerns.len(), 4);
    }
    #[test]
    fn a_member_that_takes_no_part_is_as_good_as_away() {
        let mut facts = facts(5, &[]);
        facts.unfit = vec![2];
        let health = Health::of(&facts);
        assert_eq!(health.health, Word::Healthy);
        assert!(
            health.concerns[0].contains("node 2 says"),
            "{:?}",
            health.concerns
        );
        facts.away = vec![4];
        assert_eq!(word(&facts), Word::Degraded, "three of five are left");
    }

    #[test]
    fn each_fact_alone_is_a_concern() {
        type Change = fn(&mut Facts);
        let each: [(Change, Word, &str); 6] = [
            (
                |facts| facts.missing_shares = 3,
                Word::Degraded,
                "lacks its shares of 3 keys",
            ),
            (
                |facts| facts.differing = vec![2],
                Word::Degraded,
                "node 2 has another state",
            ),
            (
                |facts| facts.contradicted = vec![3],
                Word::Degraded,
                "node 3 has signed less",
            ),
            (|facts| facts.unspared_keys = 4, Word::Healthy, "4 symmetric keys"),
            (|facts| facts.stalled = vec![5, 6], Word::Healthy, "groups 5, 6"),
            (|facts| facts.backup = Some("old".into()), Word::Healthy, "old"),
        ];
        for (change, expected, text) in each {
            let mut facts = facts(3, &[]);
            change(&mut facts);
            let health = Health::of(&facts);
            assert_eq!((health.health, health.concerns.len()), (expected, 1), "{text}");
            assert!(health.concerns[0].contains(text), "{:?}", health.concerns);
        }
    }
}
