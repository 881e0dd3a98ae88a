//! The `conclave` binary: arguments, then the library.

use clap::Parser;

/// A key management cluster that speaks WebKMS; no node ever holds a whole key.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {}

fn main() {
    let Arguments {} = Arguments::parse();
}
