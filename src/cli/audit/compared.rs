//! The chains of several nodes, each by itself and then all of them against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use serde_json::{Value, json};

use super::{beginning, facts, tell};
use crate::audit::{
    self, Corroboration, Evidence, Expected, Findings, HeadFindings, Heads, Record, Report, Wrong,
};
use crate::authorization::name_of_signed;
use crate::membership::quorum_of;
use crate::operation::batch;
use crate::provision::Genesis;
use crate::provision::genesis::MAX_GENESIS;
use crate::provision::introduction::{Orders, first_members};
use crate::seal::secret_file;

/// Whose chains they may be: everybody who ever was a member, by the keys that the operators have pinned.
pub(super) struct Pinned {
    cluster: [u8; 32],
    keys: BTreeMap<u64, VerifyingKey>,
    /// Who is a member by the last list.
    present: BTreeSet<u64>,
    /// The smallest that a list of members had: a record does not tell which list it rests on.
    quorum: usize,
}

impl Pinned {
    pub(super) fn read(genesis: &Path, orders: Option<&Path>) -> Result<Self, String> {
        let bytes = secret_file::read_public(genesis, MAX_GENESIS).map_err(|error| error.to_string())?;
        let genesis = Genesis::parse(&bytes).map_err(|error| error.to_string())?;
        let first = first_members(&genesis).ok_or("the genesis statement has a key that cannot be")?;
        let orders = orders.map(Orders::read).transpose();
        let orders = orders.map_err(|error| error.to_string())?.unwrap_or_default();
        let mut pinned = Pinned {
            cluster: genesis.cluster_id(),
            keys: BTreeMap::new(),
            present: BTreeSet::new(),
            quorum: usize::MAX,
        };
        let lists = orders.lists(first);
        for members in lists.map_err(|(number, reason)| format!("order for members {number}: {reason}"))? {
            let committees = members.placement.iter().flat_map(|placement| placement.each());
            let quorums = committees.map(|(_, nodes)| quorum_of(nodes.len()));
            let smallest = quorums.min().unwrap_or(usize::MAX).min(members.quorum());
            pinned.quorum = pinned.quorum.min(smallest);
            let keys = members
                .members
                .iter()
                .map(|member| (member.node, member.verifying_key));
            // A number is given once: nobody's key is replaced.
            pinned.keys.extend(keys);
            pinned.present = members.nodes().into_iter().collect();
        }
        Ok(pinned)
    }

    /// The node that a folder is of, and its key.
    fn owner(&self, folder: &Path) -> Result<(u64, [u8; 32]), String> {
        let (cluster, node) = audit::owner(folder).map_err(|error| error.to_string())?;
        if cluster != self.cluster {
            return Err(format!("{} is of another cluster", folder.display()));
        }
        let key = self.keys.get(&node).ok_or_else(|| {
            format!(
                "{} is of node {node}, whose key is not known: if it joined later, give the orders of `conclave node \
                 orders` by --orders FILE",
                folder.display()
            )
        });
        Ok((node, key?.to_bytes()))
    }
}

/// What the caller knows and accepts.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Nothing may be later than a chain's end.
    pub(super) stopped: bool,
    /// Chains of members may be missing.
    pub(super) partial: bool,
    /// For so many days nodes keep their chains for certain.
    pub(super) retention_days: u32,
}

/// What all chains come to.
pub(super) struct Compared {
    reports: BTreeMap<u64, Report>,
    results: Findings,
    heads: HeadFindings,
    /// Members whose chains are not here: the present ones, and who took part in a result.
    missing: BTreeSet<u64>,
    terms: Terms,
}

/// Each chain by itself, then all of them against each other.
pub(super) fn compare(folders: &[PathBuf], pinned: Pinned, terms: Terms) -> Result<Compared, String> {
    let retention_ms = u64::from(terms.retention_days) * 86_400_000;
    let expected = Expected {
        members: pinned.keys.keys().copied().collect(),
        quorum: pinned.quorum,
        retention_ms,
    };
    let mut corroboration = Corroboration::new(expected, is_signed);
    let mut heads = Heads::new(pinned.cluster, pinned.keys.clone(), retention_ms);
    let mut reports: BTreeMap<u64, Report> = BTreeMap::new();
    for folder in folders {
        let (node, key) = pinned.owner(folder)?;
        if reports.contains_key(&node) {
            return Err(format!("two folders are of node {node}"));
        }
        eprintln!("Reading the chain of node {node} ...");
        let show = |record: &Record| {
            corroboration.record(node, record);
            heads.record(node, record);
        };
        let report = audit::verify_each(folder, Some(&key), show);
        let report = report.map_err(|error| format!("node {node}: {error}"))?;
        corroboration.end(node, &report);
        heads.end(node, &report);
        reports.insert(node, report);
    }
    let results = corroboration.findings();
    let mut missing: BTreeSet<u64> = results.missing.union(&pinned.present).copied().collect();
    missing.retain(|node| !reports.contains_key(node));
    Ok(Compared {
        reports,
        results,
        heads: heads.findings(),
        missing,
        terms,
    })
}

impl Compared {
    /// Whether nothing is wrong, and nothing is missing but what the caller accepts.
    pub(super) fn holds(&self) -> bool {
        let ends = self.results.after_end.is_empty()
            && self.heads.shorter.is_empty()
            && !self.reports.values().any(|report| report.ends_sealed);
        self.is_right() && (ends || !self.terms.stopped) && (self.missing.is_empty() || self.terms.partial)
    }

    /// Whether every result that was looked at has the records of everybody who took part, and none can be in a chain that
    /// is not here.
    fn is_proven(&self) -> bool {
        self.is_right() && self.missing.is_empty() && self.unproven() == 0
    }

    /// Results that do not have the records of everybody who took part, for whatever reason.
    fn unproven(&self) -> u64 {
        self.results.results - self.results.corroborated
    }

    /// Whether nothing was found that is wrong whatever else is not here.
    fn is_right(&self) -> bool {
        let wrong = self.results.wrong_count + self.heads.wrong_count;
        wrong == 0 && self.results.removed.is_empty() && self.heads.removed.is_empty()
    }

    pub(super) fn facts(&self) -> Value {
        let chains: Vec<Value> = self
            .reports
            .iter()
            .map(|(node, report)| {
                let mut facts = facts(report);
                facts["node"] = json!(node);
                facts
            })
            .collect();
        let found = &self.results;
        let wrong: Vec<Value> = found
            .wrong
            .iter()
            .map(|wrong| {
                json!({ "node": wrong.node, "request": wrong.operation.request_id(), "what": wrong.what.to_string() })
            })
            .collect();
        json!({
            "ok": self.holds(), "proven": self.is_proven(), "unproven": self.unproven(), "missing": self.missing,
            "chains": chains, "results": found.results, "corroborated": found.corroborated,
            "without_key": found.without_key, "without_chain": found.without_chain, "before": found.before,
            "removed": found.removed, "after_end": found.after_end,
            "wrong": wrong, "wrong_count": found.wrong_count, "heads": facts_of_heads(&self.heads),
        })
    }

    pub(super) fn tell(&self) {
        for (node, report) in &self.reports {
            print!("Node {node}: ");
            tell(report);
        }
        tell_results(&self.results, self.terms.stopped);
        tell_heads(&self.heads, self.terms.stopped);
        self.tell_removed();
        self.tell_missing();
    }

    /// Chains that begin later than retention by age would have made them.
    fn tell_removed(&self) {
        for (node, report) in &self.reports {
            let of = |removed: &BTreeMap<u64, u64>| removed.get(node).copied().unwrap_or(0);
            let (results, heads) = (of(&self.results.removed), of(&self.heads.removed));
            if results + heads > 0 {
                eprintln!(
                    "conclave: node {node}'s chain begins at {}, and others have {results} results and {heads} heads of it \
                     from before on record, younger than {} days: its oldest segments were removed. If retention_bytes took \
                     them, say by --retention-days what the nodes do keep",
                    beginning(report).unwrap_or_default(),
                    self.terms.retention_days
                );
            }
        }
    }

    fn tell_missing(&self) {
        if !self.missing.is_empty() {
            println!(
                "The chains of {} are not here: what they answered was not looked at, and nothing is proven for {} results \
                 in which they took part",
                nodes(&self.missing),
                self.results.without_chain
            );
        }
    }

    /// Why it is no success, if nothing that was read is wrong.
    pub(super) fn complain(&self) {
        if !self.missing.is_empty() && !self.terms.partial {
            eprintln!(
                "conclave: not proven without the chains of {}; --partial accepts that",
                nodes(&self.missing)
            );
        }
    }
}

fn nodes(nodes: &BTreeSet<u64>) -> String {
    let numbers: Vec<String> = nodes.iter().map(u64::to_string).collect();
    match &numbers[..] {
        [one] => format!("node {one}"),
        several => format!("nodes {}", several.join(", ")),
    }
}

fn facts_of_heads(found: &HeadFindings) -> Value {
    let shorter: BTreeMap<u64, Value> = found
        .shorter
        .iter()
        .map(|(node, shorter)| {
            let facts = json!({
                "ends_at": shorter.ends_at, "signed": shorter.signed, "held_by": shorter.held_by, "heads": shorter.heads,
            });
            (*node, facts)
        })
        .collect();
    let wrong: Vec<Value> = found
        .wrong
        .iter()
        .map(|wrong| {
            json!({
                "node": wrong.node, "sequence": wrong.sequence, "held_by": wrong.held_by, "what": wrong.what.to_string(),
            })
        })
        .collect();
    json!({
        "held": found.held, "confirmed": found.confirmed, "without_chain": found.without_chain,
        "without_key": found.without_key, "before": found.before, "removed": found.removed, "shorter": shorter,
        "wrong": wrong, "wrong_count": found.wrong_count,
    })
}

fn tell_results(found: &Findings, stopped: bool) {
    println!(
        "{} results, {} with a record of every participant about the same signed request",
        found.results, found.corroborated
    );
    if found.without_key > 0 {
        println!(
            "  {} of them follow from lengths alone, without the key",
            found.without_key
        );
    }
    if found.before > 0 {
        println!(
            "  {} more are older than the beginning of a participant's chain",
            found.before
        );
    }
    for (node, count) in &found.after_end {
        println!(
            "  {count} are later than the end of node {node}'s chain: {}",
            why_shorter(stopped)
        );
    }
    for wrong in &found.wrong {
        eprintln!(
            "conclave: node {} {} (request {})",
            wrong.node,
            wrong.what,
            wrong.operation.request_id()
        );
    }
    let mut found_wrong = found.wrong.iter();
    if found_wrong.any(|wrong| matches!(wrong.what, Wrong::Stranger(_))) {
        eprintln!("conclave: nodes that joined later are members by --orders FILE");
    }
    tell_rest(found.wrong_count, found.wrong.len());
}

fn tell_heads(found: &HeadFindings, stopped: bool) {
    println!(
        "{} heads in other nodes' chains, {} found in the chains that they are of",
        found.held, found.confirmed
    );
    let parts = [
        (
            found.before,
            "are from before the beginning of their chains; their signatures hold",
        ),
        (
            found.without_chain,
            "are of nodes whose folders are not here; their signatures hold",
        ),
        (
            found.without_key,
            "are of nodes whose keys are not known: give --orders FILE",
        ),
    ];
    for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
        println!("  {count} {what}");
    }
    for (node, shorter) in &found.shorter {
        eprintln!(
            "conclave: node {node}'s chain ends at record {}, and node {} has its signature for record {} on record ({} \
             such heads in all): {}",
            shorter.ends_at,
            shorter.held_by,
            shorter.signed,
            shorter.heads,
            why_shorter(stopped)
        );
    }
    for wrong in &found.wrong {
        eprintln!(
            "conclave: head of node {} for record {}, in the chain of node {}: {}",
            wrong.node, wrong.sequence, wrong.held_by, wrong.what
        );
    }
    tell_rest(found.wrong_count, found.wrong.len());
}

fn tell_rest(count: u64, told: usize) {
    if count > told as u64 {
        eprintln!("conclave: {count} findings in all");
    }
}

fn why_shorter(stopped: bool) -> &'static str {
    match stopped {
        true => "its chain was cut",
        false => "its folder was copied before the others, or its chain was cut",
    }
}

/// Whether the client's signature on record is of the request with this name, or of the batch whose item has it.
fn is_signed(evidence: &Evidence, name: &[u8; 32]) -> bool {
    let Evidence {
        key_id,
        signing_string,
        signature,
        ..
    } = evidence;
    let Some(signed) = name_of_signed(key_id, signing_string, &signature.0) else {
        return false;
    };
    let mut items = 0..u32::try_from(batch::MAX_ITEMS).unwrap_or(0);
    signed == *name || items.any(|place| batch::name_of_item(&signed, place) == *name)
}

#[cfg(test)]
mod tests;
