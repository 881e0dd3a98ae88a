//! A network of the test's own: a namespace for each node, joined by a bridge in the test's. Links are cut one way or both by
//! blackhole routes, which also end what already goes over them.
//!
//! Nothing outlives the test: the namespaces have no names and go with the processes in them, and those end with the
//! test's, since what keeps each namespace reads from a pipe of the test.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::machines::{Addresses, Machines};
use super::namespace;

/// The documentation's network, RFC 5737: it leads nowhere else either.
const NETWORK: &str = "192.0.2";
/// The test's own address.
const HUB: u8 = 254;

/// The namespaces.
pub(crate) struct Network {
    keepers: Vec<Child>,
}

impl Network {
    /// Moves this thread into a namespace of its own and makes one for each node. The error says what it needs.
    pub(crate) fn of(nodes: u8) -> Result<Network, &'static str> {
        namespace::enter()?;
        run(&["ip", "link", "add", "hub", "type", "bridge"]);
        run(&[
            "ip",
            "address",
            "add",
            &format!("{NETWORK}.{HUB}/24"),
            "dev",
            "hub",
        ]);
        run(&["ip", "link", "set", "hub", "up"]);
        let mut network = Network { keepers: Vec::new() };
        for node in 0..nodes {
            network.join(node);
        }
        Ok(network)
    }

    fn join(&mut self, node: u8) {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo in; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Once it speaks it is in its namespace.
        let mut said = [0; 3];
        keeper.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let (pid, name) = (keeper.id().to_string(), format!("node{}", node + 1));
        self.keepers.push(keeper);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &pid];
        run(&[&["ip", "link", "add", &name][..], &pair].concat());
        run(&["ip", "link", "set", &name, "master", "hub", "up"]);
        let node = usize::from(node);
        let address = format!("{}/24", address(node));
        self.run(node, &["ip", "address", "add", &address, "dev", "eth0"]);
        for device in ["lo", "eth0"] {
            self.run(node, &["ip", "link", "set", device, "up"]);
        }
    }

    /// Where the nodes listen.
    pub(crate) fn addresses(&self) -> Vec<Addresses> {
        let at = |node, port| SocketAddr::new(address(node).parse().unwrap(), port);
        (0..self.keepers.len())
            .map(|node| Addresses {
                https: at(node, 8443),
                peer: at(node, 9443),
                admin: at(node, 9600),
            })
            .collect()
    }

    /// What stands before a command that is to run on a node.
    pub(crate) fn before(&self, node: usize) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.keepers[node].id());
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.run(from, &["ip", "route", "add", "blackhole", &address(to)]);
    }

    /// Undoes a cut.
    pub(crate) fn heal(&self, from: usize, to: usize) {
        self.run(from, &["ip", "route", "delete", "blackhole", &address(to)]);
    }

    /// Cuts a node off from these, both ways.
    pub(crate) fn isolate(&self, node: usize, others: &[usize]) {
        for other in others {
            self.cut(node, *other);
            self.cut(*other, node);
        }
    }

    /// Undoes that.
    pub(crate) fn rejoin(&self, node: usize, others: &[usize]) {
        for other in others {
            self.heal(node, *other);
            self.heal(*other, node);
        }
    }

    fn run(&self, node: usize, command: &[&str]) {
        let before = self.before(node);
        let all: Vec<&str> = before
            .iter()
            .map(String::as_str)
            .chain(command.iter().copied())
            .collect();
        run(&all);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for keeper in &mut self.keepers {
            // It ends by itself as soon as its pipe is closed; this only does not leave it unwaited for.
            let _ = keeper.kill();
            let _ = keeper.wait();
        }
    }
}

/// Runs a test with three nodes on hosts of their own, where this machine can make them.
pub(crate) fn on_hosts<T: Future<Output = ()>>(test: impl FnOnce(Network, Machines) -> T) {
    let network = match Network::of(3) {
        Ok(network) => network,
        Err(needs) => return println!("skipped: needs {needs}"),
    };
    namespace::block_on(async {
        let mut machines = Machines::made(network.addresses()).await;
        for node in 0..3 {
            machines.before[node] = network.before(node);
        }
        machines.start().await;
        test(network, machines).await;
    });
}

fn address(node: usize) -> String {
    format!("{NETWORK}.{}", node + 1)
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}
