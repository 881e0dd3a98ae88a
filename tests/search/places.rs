//! Where a key could be: cores of the processes, files, metrics.

use std::fs;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::cluster::{Cluster, Node};
use crate::common::{files, https};

/// One place, as a file.
pub(crate) struct Place {
    pub(crate) name: String,
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Core(u64),
    File,
}

impl Place {
    pub(crate) fn read(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    pub(crate) fn is_core(&self) -> bool {
        matches!(self.kind, Kind::Core(_))
    }

    /// Whether what has this name may be in this place: a node's own share, raw, in its memory; of a symmetric key every
    /// piece but the one that the node lacks, and the inner state.
    pub(crate) fn may_hold(&self, name: &str) -> bool {
        let Kind::Core(node) = self.kind else {
            return false;
        };
        let own = name.contains(&format!("share of node {node},"))
            || name.contains("inner state,")
            || name.contains("piece ") && !name.contains(&format!("piece {node},"));
        own && name.contains("raw")
    }
}

/// The whole memory of a node's process.
pub(crate) fn core_of(node: &Node, moment: &str, into: &Path) -> Place {
    let stem = into.join(format!("core-{moment}-{}", node.id));
    let done = Command::new("gcore")
        .args(["-a", "-o"])
        .arg(&stem)
        .arg(node.pid.to_string())
        .output()
        .expect("gcore is there: install gdb");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let core = PathBuf::from(format!("{}.{}", stem.display(), node.pid));
    squeeze(&core, &stem);
    fs::remove_file(core).unwrap();
    Place {
        name: format!("memory of node {}, {moment}", node.id),
        path: stem,
        kind: Kind::Core(node.id),
    }
}

/// A core without its pages of zeros: most of it is memory that was reserved and never written.
fn squeeze(core: &Path, into: &Path) {
    let mut core = BufReader::with_capacity(1 << 20, fs::File::open(core).unwrap());
    let mut into = BufWriter::with_capacity(1 << 20, fs::File::create(into).unwrap());
    let mut page = [0; 4096];
    loop {
        let mut got = 0;
        while got < page.len() {
            match core.read(&mut page[got..]).unwrap() {
                0 => break,
                more => got += more,
            }
        }
        if got == 0 {
            break;
        }
        if page[..got].iter().any(|byte| *byte != 0) {
            into.write_all(&page[..got]).unwrap();
        }
    }
    into.flush().unwrap();
}

pub(crate) async fn metrics_of(node: &Node, moment: &str, into: &Path) -> Place {
    let path = into.join(format!("metrics-{moment}-{}", node.id));
    let answer = https::admin(node.admin, "/metrics").await.unwrap();
    fs::write(&path, answer.body).unwrap();
    Place {
        name: format!("metrics of node {}, {moment}", node.id),
        path,
        kind: Kind::File,
    }
}

/// The limit on core dumps that the process runs under.
pub(crate) fn core_limit(node: &Node) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid)).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    line.split_whitespace().nth(4).unwrap().parse().unwrap()
}

/// Stops the cluster and copies everything that it leaves.
pub(crate) async fn copy_after_stop(mut cluster: Cluster, into: &Path) -> PathBuf {
    let from = cluster.path();
    fs::create_dir_all(into).unwrap();
    // The folder goes with the cluster: first everything ends, then it is copied, then it is dropped.
    cluster.end().await;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&from)
        .arg(into)
        .status()
        .unwrap();
    assert!(copied.success());
    into.join(from.file_name().unwrap())
}

/// Every file of a node, each database as one place; and the logs of those that were restarted.
pub(crate) fn files_of(node: u64, copied: &Path) -> Vec<Place> {
    let home = copied.join(format!("node-{node}"));
    let mut places = Vec::new();
    for (name, folder) in [
        ("replicated state", "data/raft"),
        ("share store", "data/shares"),
        ("audit record", "data/audit"),
    ] {
        let whole = copied.join(format!("{}-{node}", folder.replace('/', "-")));
        let all = files::below(&home.join(folder)).into_iter();
        let bytes: Vec<u8> = all.flat_map(|path| fs::read(path).unwrap()).collect();
        fs::write(&whole, bytes).unwrap();
        places.push(Place {
            name: format!("{name} of node {node}"),
            path: whole,
            kind: Kind::File,
        });
    }
    for (name, path) in [
        ("epoch keys", home.join("data/epochs.sealed")),
        ("identity", home.join("identity.sealed")),
    ] {
        places.push(Place {
            name: format!("{name} of node {node}"),
            path,
            kind: Kind::File,
        });
    }
    for (name, path) in [
        ("log", home.join("log")),
        (
            "log after a restart",
            copied.join(format!("restarted-{}.log", node - 1)),
        ),
    ] {
        if path.exists() {
            places.push(Place {
                name: format!("{name} of node {node}"),
                path,
                kind: Kind::File,
            });
        }
    }
    places
}
