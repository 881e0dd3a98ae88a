//! One target a file. What is under a target's own name in `corpus/` are its seeds.

mod audit;
mod backup;
mod birth;
mod candidate;
mod capability;
mod capability_invocation;
mod ceremony;
mod configuration;
mod delegation;
mod diffie_hellman;
mod digest;
mod entry;
mod evidence;
mod frame;
mod frost;
mod garbled;
mod genesis;
mod http_signature;
mod json;
mod node_call;
mod operation_body;
mod orders;
mod raft;
mod receipt;
mod request;
mod share;

/// A seed's name and its bytes.
pub type Seed = (String, Vec<u8>);

/// Something that reads bytes from outside.
pub struct Target {
    /// Its name: of its file, its program and its folder in `corpus/`.
    pub name: &'static str,
    /// Longest input that is worth trying, bytes.
    pub longest: usize,
    /// How many mutations of its corpus an ordinary test runs.
    pub mutations: usize,
    /// Whether the bytes were taken. Panics if a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// What its corpus is made of; honest inputs among it.
    pub seeds: fn() -> Vec<Seed>,
}

/// All targets by name.
pub static ALL: [Target; 26] = [
    audit::TARGET,
    backup::TARGET,
    birth::TARGET,
    candidate::TARGET,
    capability::TARGET,
    capability_invocation::TARGET,
    ceremony::TARGET,
    configuration::TARGET,
    delegation::TARGET,
    diffie_hellman::TARGET,
    digest::TARGET,
    entry::TARGET,
    evidence::TARGET,
    frame::TARGET,
    frost::TARGET,
    garbled::TARGET,
    genesis::TARGET,
    http_signature::TARGET,
    json::TARGET,
    node_call::TARGET,
    operation_body::TARGET,
    orders::TARGET,
    raft::TARGET,
    receipt::TARGET,
    request::TARGET,
    share::TARGET,
];

/// Runs the target of this name; what libFuzzer calls. Longer inputs than the target wants are not looked at.
///
/// # Panics
/// If there is no such target, or a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = ALL.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target {name}"));
    if bytes.len() <= target.longest {
        (target.run)(bytes);
    }
}

/// A seed with a name.
fn seed(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Seed {
    (name.into(), bytes.into())
}
