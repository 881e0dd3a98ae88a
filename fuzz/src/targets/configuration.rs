//! A node's configuration file: what is taken says the same when it is written again.

use std::path::Path;

use conclave::config::Config;

use super::{Seed, Target, seed};

pub(super) const TARGET: Target = Target {
    name: "configuration",
    longest: 8_192,
    mutations: 4_000,
    run,
    seeds,
};

fn run(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let base = Path::new("/etc/conclave");
    let Ok(config) = Config::parse(text, base) else {
        return false;
    };
    assert!(config.node > 0 && config.data_dir.is_absolute());
    let written = toml::to_string(&config).expect("a configuration can be written");
    let again = Config::parse(&written, base).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(
        toml::to_string(&again).ok(),
        Some(written),
        "what is written is read"
    );
    true
}

fn seeds() -> Vec<Seed> {
    let example = include_str!("../../../deploy/node.example.toml");
    let short: String = example
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .flat_map(|line| [line, "\n"])
        .collect();
    let command = "[seal]\nmethod = \"command\"\ncommand = [\"a\", \"b\"]\n";
    let (before, seal) = short.split_once("[seal]").unwrap_or((&short, ""));
    let after = seal
        .split_once("\n[")
        .map_or(String::new(), |(_, after)| format!("[{after}"));
    vec![
        seed("example", short.clone()),
        seed("command", format!("{before}{command}{after}")),
    ]
}
