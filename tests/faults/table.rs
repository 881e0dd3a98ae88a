//! The table of faults names tests that are there.

use std::fs;
use std::path::Path;

/// The text of every source file below a folder.
fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["src", "cluster", "tests"] {
        sources(&root.join(folder), &mut code);
    }
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
            assert!(
                code.contains(&format!("fn {name}(")),
                "{}: no test {name}",
                fault["id"]
            );
        }
    }
}
