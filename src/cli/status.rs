//! `conclave status`: asks each node's admin listener and prints nodes, groups, leaders and open envelopes.

mod candidates;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use futures::future::join_all;
use serde::Serialize;

use crate::{
    provision::{ClusterFile, ProvisionError},
    telemetry::{
        client,
        status::{BackupStatus, FormatStatus, MoveStatus, NodeState, NodeStatus, SymmetricStatus},
    },
};

/// Shows nodes, groups, leaders, applied indexes, holders, seal state, and keys with open envelopes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave status
  conclave status --admin 10.0.0.1:9600 --admin 10.0.0.2:9600 --json

Exit status: 0 every node is ready, 1 one is not or does not answer, 2 one is sealed.")]
pub struct StatusArguments {
    /// A node's admin address (repeatable); else those in DIR/cluster.json.
    #[arg(long = "admin", value_name = "HOST:PORT")]
    admins: Vec<String>,
    /// Where `conclave dev` keeps its cluster.
    #[arg(long, value_name = "DIR", default_value = ".conclave")]
    dir: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Neither addresses nor a cluster on this machine.
    #[error("no node to ask: give --admin HOST:PORT, or --dir of a cluster that `conclave dev` runs")]
    NoNodes(#[source] ProvisionError),
    /// The answer could not be printed.
    #[error("cannot print the status")]
    Print(#[from] serde_json::Error),
}

/// What one admin listener answered.
#[derive(Clone, Debug, Serialize)]
struct Answered {
    admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks all nodes at once and prints what they say.
pub async fn run(arguments: StatusArguments) -> Result<ExitCode, StatusError> {
    let mut admins = arguments.admins;
    if admins.is_empty() {
        let cluster = ClusterFile::read(&arguments.dir).map_err(StatusError::NoNodes)?;
        admins = cluster.nodes.into_iter().map(|node| node.admin).collect();
    }
    let answers = join_all(admins.into_iter().map(ask)).await;
    let symmetric = symmetric(&answers).await;
    let candidates = candidates::ask(answers.iter().filter(|answer| answer.status.is_some())).await;
    if arguments.json {
        let all = serde_json::json!({ "nodes": answers, "symmetric": symmetric, "candidates": candidates });
        println!("{}", serde_json::to_string(&all)?);
    } else {
        print!("{}", render(&answers));
        print!("{}", candidates::render(&candidates));
        print!("{}", symmetric.as_ref().map(render_symmetric).unwrap_or_default());
    }
    Ok(ExitCode::from(verdict(&answers)))
}

async fn ask(admin: String) -> Answered {
    let parsed = match client::get(&admin, "/status", TIMEOUT).await {
        Ok(answer) if answer.status.is_success() => {
            serde_json::from_slice(&answer.body).map_err(|e| e.to_string())
        }
        Ok(answer) => Err(format!("{admin} answered {}", answer.status)),
        Err(error) => Err(error.to_string()),
    };
    match parsed {
        Ok(status) => Answered {
            admin,
            status: Some(status),
            error: None,
        },
        Err(error) => Answered {
            admin,
            status: None,
            error: Some(error),
        },
    }
}

/// What the first node that serves says of symmetric keys; nodes see their peers, so one is enough.
async fn symmetric(answers: &[Answered]) -> Option<SymmetricStatus> {
    let serves = |answer: &&Answered| {
        let status = answer.status.as_ref();
        status.is_some_and(|status| status.state == NodeState::Serving)
    };
    let asked = answers.iter().find(serves)?;
    let answer = client::get(&asked.admin, "/status/symmetric", TIMEOUT)
        .await
        .ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// Which keystores hang by one node.
fn render_symmetric(status: &SymmetricStatus) -> String {
    if status.keys == 0 {
        return String::new();
    }
    let more = if status.complete { "" } else { " or more" };
    let mut text = format!(
        "\nsymmetric keys: {}{more}; of their keystores {} would stop with one more node down, {} have stopped\n",
        status.keys, status.at_risk, status.stopped
    );
    for keystore in &status.keystores {
        text.push_str(&format!("  {keystore}\n"));
    }
    let unlisted = (status.at_risk + status.stopped).saturating_sub(status.keystores.len() as u64);
    if unlisted > 0 {
        text.push_str(&format!("  and {unlisted} more\n"));
    }
    if status.at_risk + status.stopped > 0 {
        text.push_str(
            "  HMAC and wrapping keys need three of their holders: four nodes keep them going without one.\n",
        );
    }
    text
}

fn verdict(answers: &[Answered]) -> u8 {
    let is_sealed = |answer: &Answered| {
        answer
            .status
            .as_ref()
            .is_some_and(|s| s.state == NodeState::Sealed)
    };
    let is_ready = |answer: &Answered| answer.status.as_ref().is_some_and(|s| s.ready);
    if answers.iter().any(is_sealed) {
        2
    } else if answers.iter().all(is_ready) {
        0
    } else {
        1
    }
}

fn render(answers: &[Answered]) -> String {
    let statuses: Vec<&NodeStatus> = answers
        .iter()
        .filter_map(|answer| answer.status.as_ref())
        .collect();
    let mut text = String::new();
    let mut clusters: Vec<_> = statuses
        .iter()
        .map(|s| (s.cluster.as_str(), s.public_url.as_str()))
        .collect();
    clusters.sort_unstable();
    clusters.dedup();
    for (cluster, url) in clusters {
        text.push_str(&format!("cluster {cluster}  {url}\n"));
    }
    let mut nodes = vec![
        [
            "node",
            "state",
            "ready",
            "health",
            "version",
            "speaks",
            "writes",
            "links up",
            "open envelopes",
            "last backup",
            "admin",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for answer in answers {
        nodes.push(match &answer.status {
            Some(status) => {
                let up = status.links.iter().filter(|link| link.up).count();
                vec![
                    status.node.to_string(),
                    state_name(status.state).to_owned(),
                    if status.ready { "yes" } else { "no" }.to_owned(),
                    status.health.health.as_str().to_owned(),
                    status.version.clone(),
                    spoken(&status.formats),
                    written(status.formats.agreed),
                    format!("{up} of {}", status.links.len()),
                    status.shares.open_envelopes.to_string(),
                    backup_age(status.backup.as_ref()),
                    answer.admin.clone(),
                ]
            }
            None => [
                "?",
                "no answer",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                &answer.admin,
            ]
            .map(str::to_owned)
            .to_vec(),
        });
    }
    text.push_str(&table(&nodes));
    for (answer, error) in answers.iter().filter_map(|a| Some((a, a.error.as_ref()?))) {
        text.push_str(&format!("{}: {error}\n", answer.admin));
    }
    for status in statuses.iter().filter(|status| !status.ready) {
        let reason = status.reason.as_deref().unwrap_or("no reason given");
        text.push_str(&format!("node {}: {reason}", status.node));
        text.push_str(
            &status
                .hint
                .as_deref()
                .map(|hint| format!("; {hint}\n"))
                .unwrap_or("\n".to_owned()),
        );
    }
    for status in statuses.iter().filter(|status| status.ready) {
        for concern in &status.health.concerns {
            text.push_str(&format!("node {}: {concern}\n", status.node));
        }
    }
    text.push_str(&render_formats(&statuses));
    text.push_str(&render_orders(&statuses));
    text.push_str(&render_moves(&statuses));
    for status in &statuses {
        if let Some(failure) = status.backup.as_ref().and_then(|backup| backup.failure.as_ref()) {
            text.push_str(&format!(
                "node {}: the last backup failed: {failure}\n",
                status.node
            ));
        }
    }
    if statuses.iter().any(|status| !status.groups.is_empty()) {
        text.push('\n');
        text.push_str(&table(&group_rows(&statuses)));
    }
    for status in &statuses {
        for open in &status.shares.open {
            text.push_str(&format!(
                "node {} keeps the envelope of node {} for key {} of keystore {}\n",
                status.node, open.member, open.key, open.keystore
            ));
        }
        let unlisted = status
            .shares
            .open_envelopes
            .saturating_sub(status.shares.open.len() as u64);
        if unlisted > 0 && !status.shares.open.is_empty() {
            text.push_str(&format!("node {} keeps {unlisted} more\n", status.node));
        }
    }
    text
}

fn spoken(formats: &FormatStatus) -> String {
    match formats.oldest == formats.newest {
        true => format!("format {}", formats.newest),
        false => format!("formats {} to {}", formats.oldest, formats.newest),
    }
}

fn written(agreed: u8) -> String {
    match agreed {
        0 => "-".to_owned(),
        agreed => format!("format {agreed}"),
    }
}

/// How far an upgrade is: said while nodes differ, or the logs are not in the newest format yet.
fn render_formats(statuses: &[&NodeStatus]) -> String {
    let known = || statuses.iter().map(|status| status.formats);
    let (Some(newest), Some(oldest)) = (
        known().map(|formats| formats.newest).max(),
        known().map(|formats| formats.newest).min(),
    ) else {
        return String::new();
    };
    let written = known().map(|formats| formats.written).max().unwrap_or(0);
    if written == 0 || oldest == newest && written == newest {
        return String::new();
    }
    let back = match written < newest {
        true => format!("going back to the version of format {written} is possible"),
        false => format!("a version that does not know format {written} cannot come back"),
    };
    format!(
        "upgrade: the nodes' newest formats are {oldest} to {newest}, the logs have format {written} at most; {back}\n"
    )
}

/// The number that the operators' next order follows.
fn render_orders(statuses: &[&NodeStatus]) -> String {
    let mut text = String::new();
    let last = statuses.iter().map(|status| status.last_order).max();
    if let Some(last) = last.filter(|last| *last > 0) {
        text.push_str(&format!("last order of the operators: number {last}\n"));
    }
    text
}

/// How long ago a node's last backup was made.
fn backup_age(backup: Option<&BackupStatus>) -> String {
    let Some(backup) = backup else {
        return "not configured".to_owned();
    };
    match backup.age_seconds {
        None => "none yet".to_owned(),
        Some(age) if age < 120 => format!("{age} s ago"),
        Some(age) if age < 2 * 3_600 => format!("{} min ago", age / 60),
        Some(age) if age < 48 * 3_600 => format!("{} h ago", age / 3_600),
        Some(age) => format!("{} days ago", age / 86_400),
    }
}

/// The role of a node that has no part of a group.
const ELSEWHERE: &str = "elsewhere";

/// Which groups are on their way to other nodes, and how far, by whichever node knows most.
fn render_moves(statuses: &[&NodeStatus]) -> String {
    let mut moves: BTreeMap<u32, &MoveStatus> = BTreeMap::new();
    let last = statuses.iter().map(|status| status.members.number).max();
    for under_way in statuses
        .iter()
        .filter(|status| Some(status.members.number) == last)
        .flat_map(|status| &status.members.under_way)
    {
        let known = moves.entry(under_way.group).or_insert(under_way);
        let knows = |status: &MoveStatus| (status.keys.is_some(), status.stage != "unknown");
        if knows(under_way) > knows(known) {
            *known = under_way;
        }
    }
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let line = |under_way: &MoveStatus| {
        let keys = under_way.keys.map(|keys| format!(", {keys} keys to go"));
        let waits = under_way.waits.as_ref().map(|waits| format!("; {waits}"));
        format!(
            "group {} moves from nodes {} to {}: {}{}{}\n",
            under_way.group,
            list(&under_way.from),
            list(&under_way.to),
            under_way.stage,
            keys.unwrap_or_default(),
            waits.unwrap_or_default()
        )
    };
    moves.into_values().map(line).collect()
}

/// One row a group: who leads by whom, and how far each node has applied.
fn group_rows(statuses: &[&NodeStatus]) -> Vec<Vec<String>> {
    let mut header = ["group", "leader", "term", "voters", "holders"]
        .map(str::to_owned)
        .to_vec();
    header.extend(
        statuses
            .iter()
            .map(|status| format!("applied by {}", status.node)),
    );
    let mut rows = vec![header];
    let mut groups: Vec<u32> = statuses
        .iter()
        .flat_map(|s| s.groups.iter().map(|g| g.group))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    for group in groups {
        let views: Vec<_> = statuses
            .iter()
            .map(|s| s.groups.iter().find(|g| g.group == group))
            .collect();
        // The view of the highest term counts; one that knows the leader before one that does not.
        let Some(newest) = views
            .iter()
            .flatten()
            .max_by_key(|view| (view.role != ELSEWHERE, view.term, view.leader.is_some()))
        else {
            continue;
        };
        let mut row = vec![
            group.to_string(),
            newest
                .leader
                .map_or("none".to_owned(), |leader| leader.to_string()),
            newest.term.to_string(),
            list(&newest.voters),
            list(&newest.holders),
        ];
        row.extend(views.iter().map(|view| match view {
            Some(view) if view.role == ELSEWHERE => "-".to_owned(),
            Some(view) if view.role == "halted" => format!("{} halted", view.applied),
            Some(view) => view.applied.to_string(),
            None => "-".to_owned(),
        }));
        rows.push(row);
    }
    rows
}

fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Sealed => "sealed",
        NodeState::Starting => "starting",
        NodeState::Joining => "joining",
        NodeState::Serving => "serving",
        NodeState::Quarantined => "quarantined",
        NodeState::Stopping => "stopping",
    }
}

/// Columns as wide as their widest cell, two blanks apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status::{GroupStatus, OpenEnvelope, ShareStatus};

    fn node(node: u64, state: NodeState) -> Answered {
        let group = |group, leader, term| GroupStatus {
            group,
            leader,
            term,
            applied: 10 + node,
            voters: vec![1, 2, 3],
            holders: vec![1, 2, 3],
            role: "follower".to_owned(),
            ..Default::default()
        };
        let status = NodeStatus {
            node,
            state,
            cluster: "ab12".to_owned(),
            public_url: "https://localhost".to_owned(),
            ready: state == NodeState::Serving,
            reason: (state != NodeState::Serving).then(|| "the node is sealed".to_owned()),
            hint: (state != NodeState::Serving).then(|| "run: conclave unseal".to_owned()),
            groups: if state == NodeState::Sealed {
                vec![]
            } else {
                vec![group(0, Some(2), 4), group(1, None, 5)]
            },
            shares: ShareStatus {
                holds_any: true,
                open_envelopes: 1,
                open: vec![OpenEnvelope {
                    keystore: "k1".to_owned(),
                    key: "k2".to_owned(),
                    member: 3,
                }],
            },
            ..Default::default()
        };
        Answered {
            admin: format!("127.0.0.1:{}", 8642 + node),
            status: Some(status),
            error: None,
        }
    }

    #[test]
    fn keystores_that_hang_by_one_node_are_named() {
        assert_eq!(render_symmetric(&SymmetricStatus::default()), "");
        let status = SymmetricStatus {
            keys: 7,
            at_risk: 2,
            stopped: 1,
            keystores: vec!["z1".to_owned(), "z2".to_owned()],
            complete: true,
        };
        let text = render_symmetric(&status);
        for part in [
            "keys: 7;",
            "2 would stop",
            "1 have stopped",
            "  z1\n  z2\n  and 1 more\n",
            "four nodes",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    #[test]
    fn the_age_of_a_backup_is_told_in_what_fits() {
        let aged = |age_seconds| {
            backup_age(Some(&BackupStatus {
                age_seconds,
                ..BackupStatus::default()
            }))
        };
        assert_eq!(backup_age(None), "not configured");
        let ages = [
            None,
            Some(5),
            Some(150),
            Some(7_100),
            Some(7_200),
            Some(172_799),
            Some(172_800),
        ];
        let texts = [
            "none yet",
            "5 s ago",
            "2 min ago",
            "118 min ago",
            "2 h ago",
            "47 h ago",
            "2 days ago",
        ];
        assert_eq!(ages.map(aged), texts);
    }

    #[test]
    fn the_exit_status_tells_ready_from_down_from_sealed() {
        let down = Answered {
            admin: "127.0.0.1:1".to_owned(),
            status: None,
            error: Some("no".to_owned()),
        };
        assert_eq!(
            verdict(&[node(1, NodeState::Serving), node(2, NodeState::Serving)]),
            0
        );
        assert_eq!(verdict(&[node(1, NodeState::Serving), down.clone()]), 1);
        assert_eq!(verdict(&[node(1, NodeState::Starting)]), 1);
        assert_eq!(verdict(&[down, node(2, NodeState::Sealed)]), 2);
    }

    #[test]
    fn what_is_printed_names_leaders_indexes_and_reasons() {
        let down = Answered {
            admin: "127.0.0.1:1".to_owned(),
            status: None,
            error: Some("cannot reach".to_owned()),
        };
        let text = render(&[node(1, NodeState::Serving), node(2, NodeState::Sealed), down]);
        for part in [
            "cluster ab12  https://localhost\n",
            "1     serving    yes",
            "2     sealed     no",
            "?     no answer",
            "127.0.0.1:1: cannot reach\n",
            "node 2: the node is sealed; run: conclave unseal\n",
            "0      2       4     1,2,3   1,2,3    11",
            "1      none    5",
            "node 1 keeps the envelope of node 3 for key k2 of keystore k1\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
