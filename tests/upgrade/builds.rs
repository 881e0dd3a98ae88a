//! The two builds.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The build under test.
pub(crate) fn this() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_conclave"))
}

/// The build of the next format, made of the sources that the tests are made of: only this package is compiled anew, beside
/// the other build, and nothing if `make test` has done it.
pub(crate) fn next_format() -> PathBuf {
    let profile = this().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--locked", "--quiet", "--workspace"])
        .args([
            "--features",
            "conclave/next-format",
            "--bin",
            "conclave-next-format",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", profile.parent().unwrap());
    // What cargo tells a test about its package, build scripts of dependencies take for a reason to run again.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
            .iter()
            .any(|of| told.starts_with(of))
        {
            build.env_remove(&name);
        }
    }
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the next build");
    profile.join("conclave-next-format")
}
