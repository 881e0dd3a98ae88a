//! A network namespace of the test's own, with nothing in it but the loopback.

use std::future::Future;
use std::process::Command;

/// Moves this thread, and what it starts from now on, into a new network namespace. The error says what it needs.
pub(crate) fn enter() -> Result<(), &'static str> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|_| "root")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    match up {
        Ok(status) if status.success() => Ok(()),
        _ => panic!("the new namespace has no loopback: install iproute2"),
    }
}

/// Runs a test on this thread alone: what it starts stays in the thread's namespace.
pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Packets of this thread's namespace that found no route, IPv4 and IPv6.
pub(crate) fn without_route() -> u64 {
    let v4 = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut ip = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (ip.next().unwrap(), ip.next().unwrap());
    let place = names.split(' ').position(|name| name == "OutNoRoutes").unwrap();
    let v4: u64 = values.split(' ').nth(place).unwrap().parse().unwrap();
    let v6 = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6OutNoRoutes"));
    v4 + v6.map_or(0, |value| value.trim().parse().unwrap())
}
