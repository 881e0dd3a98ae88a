//! The npm packages of tests/clients: installed once from the lock file, however many tests want them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the Node.js tests.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs `npm ci` unless what the lock file names is there already. Panics with what npm said.
pub(crate) fn install() {
    let lock = fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm.lock")).unwrap();
    lock.lock().unwrap();
    let wanted = fs::read(folder().join("package-lock.json")).unwrap();
    let stamp = folder().join("node_modules/.installed-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder())
        .output()
        .expect("npm is needed for the clients' tests: `make deps` installs Node.js and npm");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm ci failed:\n{said}");
    fs::write(stamp, wanted).unwrap();
}
