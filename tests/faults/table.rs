//! The table of faults names tests that are there, says what they hold, and docs/faults.md is made of it.

use std::fs;
use std::path::Path;

use crate::common::files;

fn table(root: &Path) -> toml::Table {
    let text = fs::read_to_string(root.join("tests/faults.toml")).unwrap();
    text.parse().unwrap()
}

fn strings<'a>(row: &'a toml::Value, field: &str) -> Vec<&'a str> {
    let all = row[field].as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = ["src", "cluster", "tests"].map(|folder| files::below(&root.join(folder)));
    let sources = all.iter().flatten();
    let sources = sources.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let code: String = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    let table = table(root);
    let faults = table["fault"].as_array().unwrap();
    assert_eq!(faults.len(), 35);
    for fault in faults {
        let tests = strings(fault, "tests");
        assert!(!tests.is_empty(), "{} is injected by no test", fault["id"]);
        for name in tests {
            let is_there = code.contains(&format!("fn {name}("));
            assert!(is_there, "{}: no test {name}", fault["id"]);
        }
    }
}

#[test]
fn every_row_of_the_table_says_what_holds_and_is_in_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let table = table(root);
    let invariants = table["invariants"].as_table().unwrap();
    for fault in table["fault"].as_array().unwrap() {
        let id = fault["id"].as_str().unwrap();
        let row = docs.lines().find(|line| line.starts_with(&format!("| {id} |")));
        let row = row.unwrap_or_else(|| panic!("{id} is not in docs/faults.md"));
        let text = ["what", "how"].map(|field| fault[field].as_str().unwrap());
        for part in text.into_iter().chain(strings(fault, "tests")) {
            assert!(
                row.contains(part),
                "{id}: docs/faults.md lacks {part:?}; run scripts/faults --render"
            );
        }
        let holds = strings(fault, "holds");
        assert!(!holds.is_empty(), "{id} holds nothing");
        for held in holds {
            let number = held.strip_prefix('I').and_then(|rest| rest.parse::<u8>().ok());
            let is_known = number.is_none() || invariants.contains_key(held);
            assert!(is_known, "{id}: {held} is no invariant of the table");
        }
        if let Some(limits) = fault.get("limits") {
            let note = format!("- {id}: {}\n", limits.as_str().unwrap());
            assert!(docs.contains(&note), "{id}: run scripts/faults --render");
        }
    }
}
