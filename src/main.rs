//! The `conclave` binary: arguments, then the library.

use std::process::ExitCode;

use clap::Parser;
use conclave::cli::{Arguments, output};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => arguments.run(),
        Err(error) => {
            let code = if error.use_stderr() { output::USAGE } else { 0 };
            // Nothing is left to do when even the message cannot be written.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}
