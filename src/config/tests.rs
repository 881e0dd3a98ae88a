//! Tests of the configuration: the example file, refusals, round trips.

use std::{collections::BTreeSet, path::Path};

use super::{fields::FieldError, *};

const EXAMPLE: &str = include_str!("../../deploy/node.example.toml");

fn example() -> toml::Table {
    EXAMPLE.parse().unwrap()
}

fn parse(table: &toml::Table) -> Result<Config, ConfigError> {
    Config::parse(&toml::to_string(table).unwrap(), Path::new("/etc/conclave"))
}

/// The example with `key` (dotted) set to `value`.
fn with(key: &str, value: impl Into<toml::Value>) -> toml::Table {
    let mut table = example();
    let mut inner = &mut table;
    let (path, last) = key
        .rsplit_once('.')
        .map_or((None, key), |(path, last)| (Some(path), last));
    for part in path.iter().flat_map(|path| path.split('.')) {
        inner = inner
            .entry(part)
            .or_insert(toml::Table::new().into())
            .as_table_mut()
            .unwrap();
    }
    inner.insert(last.to_owned(), value.into());
    table
}

fn invalid_key(table: &toml::Table) -> String {
    match parse(table) {
        Err(ConfigError::Invalid { key, .. }) => key,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn the_example_is_accepted() {
    let config = Config::parse(EXAMPLE, Path::new("/etc/conclave")).unwrap();
    assert_eq!(config.data_dir, Path::new("/etc/conclave/data"));
    assert_eq!(config.public_url.authority(), "kms.example.com");
    assert!(
        matches!(&config.seal, SealMethod::Passphrase { path } if path == Path::new("/etc/conclave/passphrase.json"))
    );
}

/// Section and key of every value in `table`; an array or a map with keys of the reader's own choice is one value.
fn keys(table: &toml::Table, section: &str, found: &mut BTreeSet<(String, String)>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if key == "addresses" => {
                found.extend(inner.keys().map(|node| (key.clone(), node.clone())));
            }
            toml::Value::Table(inner) => keys(inner, key, found),
            _ => drop(found.insert((section.to_owned(), key.clone()))),
        }
    }
}

#[test]
fn every_key_is_in_the_example() {
    let methods = [
        SealMethod::File { path: "a".into() },
        SealMethod::Passphrase { path: "a".into() },
        SealMethod::Credential { name: "a".into() },
        SealMethod::Command {
            command: vec!["a".into()],
            timeout_seconds: 1,
        },
    ];
    let mut wanted = BTreeSet::new();
    for seal in methods {
        let mut config = Config::parse(EXAMPLE, Path::new("/")).unwrap();
        config.seal = seal;
        config.addresses.insert(2, "b:1".to_owned());
        config.orders = Some("a".into());
        keys(&toml::Table::try_from(&config).unwrap(), "", &mut wanted);
    }
    // A key counts whether it is set or shown in a comment, in its own section.
    let mut shown = BTreeSet::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches('#').trim().split_once(" = ") {
            shown.insert((section.clone(), key.to_owned()));
        }
    }
    assert!(wanted.len() >= 40, "the walk found only {} keys", wanted.len());
    let missing: Vec<_> = wanted.difference(&shown).collect();
    assert!(missing.is_empty(), "not in deploy/node.example.toml: {missing:?}");
    let unknown: Vec<_> = shown.difference(&wanted).collect();
    assert!(
        unknown.is_empty(),
        "in deploy/node.example.toml and unknown: {unknown:?}"
    );
}

#[test]
fn the_example_shows_the_defaults() {
    let config = Config::parse(EXAMPLE, Path::new("/")).unwrap();
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
    assert_eq!(text(&config.raft), text(&Raft::default()));
    assert_eq!(text(&config.audit), text(&Audit::default()));
    assert_eq!(text(&config.limits), text(&Limits::default()));
    assert_eq!(config.groups, default_groups());
    assert_eq!(config.twins, Twins::default());
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    for key in [
        "nodes",
        "listen.http",
        "https.ca",
        "peer.key",
        "seal.passphrase",
        "operators.key",
        "raft.tick",
        "audit.days",
        "limits.memory",
        "log.level",
        "extra.key",
    ] {
        assert!(
            matches!(parse(&with(key, 1)), Err(ConfigError::Parse { .. })),
            "{key}"
        );
    }
}

#[test]
fn a_refusal_names_the_key() {
    let cases: [(&str, toml::Value); 14] = [
        ("node", 0.into()),
        ("groups", 1.into()),
        (
            "listen",
            toml::Table::from_iter([
                ("https".to_owned(), "1.2.3.4:1".into()),
                ("peer".to_owned(), "1.2.3.4:1".into()),
                ("admin".to_owned(), "1.2.3.4:3".into()),
            ])
            .into(),
        ),
        ("operators.keys", toml::Value::Array(vec![])),
        ("operators.threshold", 2.into()),
        ("raft.tick_ms", 0.into()),
        ("raft.heartbeat_ticks", 0.into()),
        ("raft.election_ticks", 7.into()),
        ("audit.segment_bytes", 1000.into()),
        ("audit.retention_days", 0.into()),
        ("audit.minimum_free_percent", 0.into()),
        ("limits.connections", 0.into()),
        ("limits.body_bytes", 10.into()),
        ("limits.requests_in_flight", 0.into()),
    ];
    for (key, value) in cases {
        assert_eq!(invalid_key(&with(key, value)), key);
    }
    assert_eq!(invalid_key(&with("addresses.2", "nowhere")), "addresses");
}

#[test]
fn wrong_values_are_refused_with_their_line() {
    let cases: [(&str, toml::Value); 7] = [
        ("cluster", "00ff".into()),
        ("public_url", "http://kms.example.com".into()),
        ("meter_admins", "everyone".into()),
        ("meter_admins", vec!["did:web:example.com"].into()),
        ("twins", "some".into()),
        ("log.format", "xml".into()),
        ("addresses.second", "b:1".into()),
    ];
    for (key, value) in cases {
        let error = parse(&with(key, value)).unwrap_err();
        let ConfigError::Parse { source, .. } = error else {
            panic!("{key}: {error}")
        };
        assert!(source.to_string().contains("line "), "{key}: {source}");
    }
}

#[test]
fn anyone_is_said_and_never_meant() {
    let mut table = example();
    table.remove("meter_admins");
    assert!(!parse(&table).unwrap().meter_admins.allows("did:key:z6Mk"));
    assert!(
        parse(&with("meter_admins", "anyone"))
            .unwrap()
            .meter_admins
            .allows("did:key:z6Mk")
    );
}

#[test]
fn a_written_configuration_reads_back_the_same() {
    let config = Config::parse(EXAMPLE, Path::new("/etc/conclave")).unwrap();
    let text = toml::to_string_pretty(&config).unwrap();
    let again = Config::parse(&text, Path::new("/elsewhere")).unwrap();
    assert_eq!(format!("{config:?}"), format!("{again:?}"));
}

#[test]
fn public_urls() {
    let parse = |text: &str| text.parse::<PublicUrl>();
    for (text, shown, name) in [
        ("https://localhost:8443", "https://localhost:8443", "localhost"),
        (
            "https://KMS.Example.com/",
            "https://kms.example.com",
            "kms.example.com",
        ),
        (
            "https://kms.example.com:443",
            "https://kms.example.com",
            "kms.example.com",
        ),
        ("https://[::1]:8443", "https://[::1]:8443", "::1"),
        ("https://127.0.0.1", "https://127.0.0.1", "127.0.0.1"),
    ] {
        let url = parse(text).unwrap();
        assert_eq!((url.to_string().as_str(), url.host_name()), (shown, name));
    }
    for text in [
        "",
        "localhost",
        "http://localhost",
        "https://",
        "https://a/b",
        "https://a?b",
        "https://u@a",
        "https://a:0",
        "https://a:65536",
        "https://a:+1",
        "https://a:",
        "https://a b",
        "https://-a",
        "https://[::1",
        "https://::1",
        "https://a..b",
        "https://a//",
        "https://\u{e4}.de",
    ] {
        assert_eq!(parse(text), Err(FieldError::PublicUrl), "{text:?}");
    }
}
