//! The table of faults names tests that are there.

use std::fs;
use std::path::Path;

use crate::common::files;

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = ["src", "cluster", "tests"].map(|folder| files::below(&root.join(folder)));
    let sources = all.iter().flatten();
    let sources = sources.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let code: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let table: toml::Table = fs::read_to_string(root.join("tests/faults.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let faults = table["fault"].as_array().unwrap();
    assert_eq!(faults.len(), 35);
    for fault in faults {
        let tests = fault["tests"].as_array().unwrap();
        assert!(!tests.is_empty(), "{} is injected by no test", fault["id"]);
        for test in tests {
            let name = test.as_str().unwrap();
            let is_there = code.contains(&format!("fn {name}("));
            assert!(is_there, "{}: no test {name}", fault["id"]);
        }
    }
}
