//! F11 to F13 and F35: one node's disk is slow, fails once, or is full; its audit record cannot be written.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::https;
use crate::common::ledger::{Ledger, is_not_now};
use crate::common::machines::{Machines, on_loopback};
use crate::common::strace::{self, SYNCS, Tracer};
use crate::common::world;

/// In which those that can serve do, elections included.
const SERVED: Duration = Duration::from_secs(60);
/// In which all agree once the fault is over.
const AGREED: Duration = Duration::from_secs(30);

async fn started() -> (Machines, Ledger) {
    let mut machines = Machines::made(on_loopback(3)).await;
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    ledger.turn(&machines.clients[0]).await.unwrap();
    (machines, ledger)
}

/// A turn through each of these nodes, each repeated until it succeeds.
async fn served(machines: &Machines, ledger: &mut Ledger, nodes: &[usize]) {
    for node in nodes {
        let until = Instant::now() + SERVED;
        while let Err(error) = ledger.turn(&machines.clients[*node]).await {
            assert!(is_not_now(&error), "node {node}: {error}");
            assert!(Instant::now() < until, "node {node}: {error}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn whole_again(machines: &mut Machines, ledger: &mut Ledger) {
    machines.converge(&[0, 1, 2], AGREED).await;
    machines.delivered().await;
    served(machines, ledger, &[0, 1, 2]).await;
    for client in &machines.clients {
        ledger.holds_at(client).await;
    }
}

/// Who leads most groups.
async fn leader_of_most(machines: &Machines) -> usize {
    let groups = machines.groups(0).await;
    let led = |node| groups.iter().filter(|group| group.leader == Some(node)).count();
    (0..3).max_by_key(|node| led(*node)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_of_any_node_loses_nothing_and_stops_nobody() {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    let (mut machines, mut ledger) = started().await;
    let leader = leader_of_most(&machines).await;
    for slow in [leader, machines.others(leader)[0]] {
        let tracer = Tracer::attach(machines.pid(slow), SYNCS, "delay_enter=300000", &[]);
        // Through the others, and through the slow one itself.
        let others = machines.others(slow);
        served(&machines, &mut ledger, &others).await;
        served(&machines, &mut ledger, &[slow]).await;
        drop(tracer);
    }
    whole_again(&mut machines, &mut ledger).await;
    machines.stop().await;
}

/// The files that a node syncs: of the Raft log, of the share store, of the audit record.
fn synced(machines: &Machines, node: usize, part: &str) -> Vec<PathBuf> {
    let ending = if part == "audit" { "" } else { ".log" };
    let found = strace::files(&machines.data(node).join(part), ending);
    assert!(!found.is_empty(), "{part} has no file that is synced");
    found
}

/// Makes turns through the others until `over` says so.
async fn others_serve_until(
    machines: &mut Machines,
    ledger: &mut Ledger,
    node: usize,
    mut over: impl AsyncFnMut(&mut Machines) -> bool,
) {
    let others = machines.others(node);
    let until = Instant::now() + SERVED;
    loop {
        served(machines, ledger, &others).await;
        if over(machines).await {
            return;
        }
        assert!(Instant::now() < until, "node {node} has not noticed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_fails_once_stops_the_node_and_nothing_acknowledged_is_lost() {
    if let Some(needs) = strace::missing() {
        return println!("skipped: needs {needs}");
    }
    let (mut machines, mut ledger) = started().await;
    for (node, part) in [(0, "raft"), (1, "shares"), (2, "audit"), (0, "audit")] {
        let files = synced(&machines, node, part);
        let tracer = Tracer::attach(machines.pid(node), SYNCS, "error=EIO:when=1", &files);
        others_serve_until(&mut machines, &mut ledger, node, async |machines| {
            if machines.has_ended(node).is_some() {
                return true;
            }
            let told = machines.ask(node, "/health/ready").await;
            told.status == 503 && told.body.contains("the audit record could not be written")
        })
        .await;
        drop(tracer);
        match machines.runs(node) {
            // What it does not write down it does not do.
            true => {
                assert_eq!(part, "audit");
                let refused = ledger.sign(&machines.clients[node]).await.unwrap_err();
                assert_eq!(world::status(&refused), Some(503), "{refused}");
                machines.kill(node).await;
                println!("{part}: node {node} abstained");
            }
            false => println!("{part}: node {node} ended itself"),
        }
        machines.restart(node).await;
        whole_again(&mut machines, &mut ledger).await;
    }
    machines.stop().await;
}

/// A node's data directory on a small file system in memory, in a mount namespace of its own. It goes with the process
/// that keeps it, and that ends with the test's.
struct SmallDisk {
    keeper: Child,
    filler: PathBuf,
}

impl SmallDisk {
    /// The error says what it needs.
    fn under(machines: &Machines, node: usize, mebibytes: u32) -> Result<SmallDisk, &'static str> {
        let data = machines.data(node);
        let script = "cp -a \"$1\" \"$1.first\" && mount -t tmpfs -o size=\"$2\"m tmpfs \"$1\" && \
            cp -a \"$1.first/.\" \"$1\" && chmod 700 \"$1\" && echo in && exec cat";
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(&data)
            .arg(mebibytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 3];
        if keeper.stdout.as_mut().unwrap().read_exact(&mut said).is_err() {
            keeper.wait().unwrap();
            return Err("root, to mount a file system");
        }
        let root = PathBuf::from(format!("/proc/{}/root", keeper.id()));
        let filler = root.join(data.strip_prefix("/").unwrap()).join("filler");
        Ok(SmallDisk { keeper, filler })
    }

    /// What stands before the node's command.
    fn before(&self) -> Vec<String> {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.keeper.id());
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// Fills it but for so many percent.
    fn fill_to(&self, percent: u64) {
        let folder = self.filler.parent().unwrap();
        let disk = nix::sys::statvfs::statvfs(folder).unwrap();
        let (all, free) = (disk.blocks(), disk.blocks_available());
        let take = free.saturating_sub(all * percent / 100) * disk.fragment_size();
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(&self.filler)
            .unwrap();
        let length = i64::try_from(take).unwrap();
        let end = i64::try_from(file.metadata().unwrap().len()).unwrap();
        if take > 0 {
            nix::fcntl::posix_fallocate(&file, end, length).unwrap();
        }
    }

    fn free(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It ends by itself once its pipe is closed; this only does not leave it unwaited for.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Waits until a node has ended or says that it cannot serve for want of space; what it did.
async fn cannot_serve(machines: &mut Machines, node: usize) -> String {
    let until = Instant::now() + SERVED;
    loop {
        if !machines.runs(node) || machines.has_ended(node).is_some() {
            return "ended itself".to_owned();
        }
        let last = https::admin(machines.at(node).admin, "/health/ready").await;
        if let Ok(answer) = &last
            && answer.status == 503
            && answer.body.contains("of the disk are free")
        {
            return format!("says {}", answer.body);
        }
        assert!(Instant::now() < until, "node {node}: {last:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_one_node_and_freeing_it_is_all_the_repair() {
    let mut machines = Machines::made(on_loopback(3)).await;
    let full = 2;
    machines.configure(full, "audit", "segment_bytes", 1 << 20);
    let disk = match SmallDisk::under(&machines, full, 32) {
        Ok(disk) => disk,
        Err(needs) => return println!("skipped: needs {needs}"),
    };
    machines.before[full] = disk.before();
    machines.start().await;
    let mut ledger = Ledger::of(&machines.clients[0]).await;
    served(&machines, &mut ledger, &[0, 1, 2]).await;

    // Nearly full: reads go on, uses do not, and it says so.
    disk.fill_to(3);
    machines.unready(full, "% of the disk are free").await;
    let client = &machines.clients[full];
    let refused = ledger.sign(client).await.unwrap_err();
    assert_eq!(world::status(&refused), Some(503), "{refused}");
    let key = ledger.keys.last().unwrap();
    assert_eq!(
        client.get_key(&ledger.alice, &key.id, None).await.unwrap(),
        key.description
    );
    served(&machines, &mut ledger, &[0, 1]).await;
    disk.free();
    machines.ready(full).await;
    served(&machines, &mut ledger, &[full]).await;

    // Full to the last byte: what was reserved before is still written, so it may go on for a while. It contributes
    // nothing, and says so or has ended.
    disk.fill_to(0);
    for round in 0..2 {
        let told = cannot_serve(&mut machines, full).await;
        println!("round {round}, the node on the full disk {told}");
        for _ in 0..3 {
            served(&machines, &mut ledger, &[0, 1]).await;
        }
        if machines.runs(full) && machines.has_ended(full).is_none() {
            let refused = ledger.sign(&machines.clients[full]).await.unwrap_err();
            assert!(is_not_now(&refused), "{refused}");
            machines.kill(full).await;
        }
        // Started on the full disk, it comes to no harm either.
        machines.spawn(full);
    }
    cannot_serve(&mut machines, full).await;
    disk.free();
    if machines.has_ended(full).is_some() || !machines.runs(full) {
        machines.spawn(full);
    }
    machines.ready(full).await;
    whole_again(&mut machines, &mut ledger).await;
    machines.stop().await;
}
