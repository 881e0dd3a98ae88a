//! The `conclave` binary: arguments, then the library.

use clap::Parser;
use conclave::cli::{Arguments, output};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => arguments.run().await,
        Err(error) => {
            let code = if error.use_stderr() { output::USAGE } else { 0 };
            // Nothing is left to do when even the message cannot be written.
            let _ = error.print();
            ExitCode::from(code)
        }
    }
}
