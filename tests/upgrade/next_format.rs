//! The binary of the release after, as far as the test of upgrades is concerned: the same library with the feature
//! `next-format`.

use std::process::ExitCode;

fn main() -> ExitCode {
    conclave::cli::main()
}
