//! `conclave bench`: load on any WebKMS server, with every answer checked.

use crate::cli::connection::ServerArguments;
use crate::cli::output::{EXIT_CODES, FAILED, Failure, finish, note, print};
use crate::client::load::{self, Plan, Report, Scenario};
use clap::Args;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  conclave bench --url https://localhost:8443 --ca .conclave/ca.pem --scenario sign-root --in-flight 32
  conclave bench --url https://localhost:8443 --ca .conclave/ca.pem --scenario derive --in-flight 1 \\
      --seconds 30 --json --connect 127.0.0.1:8443 --connect 127.0.0.1:8444

Identity, meter, keystore and keys are made for the run and not counted. Requests are signed in advance; a latency
runs from before the send to the last byte of the reply. With --json one object is printed:
{\"scenario\",\"in_flight\",\"seconds\",\"requests\",\"rate\",\"p50_ms\",\"p99_ms\",\"p999_ms\",\"errors\":{\"<kind>\":n}}
`requests` counts those that ended, `rate` the right operations by second (of a batch, each). A wrong answer is an error of the kind
wrong_answer. The exit code is 1 when there were errors.";

/// Put load on a WebKMS server and check every answer
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct BenchCommand {
    #[command(flatten)]
    server: ServerArguments,
    /// What is asked for
    #[arg(long, value_enum)]
    scenario: Scenario,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    in_flight: u16,
    /// Requests a second at most; as many as are answered if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long requests are sent
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Keys that are used in turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    keys: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl BenchCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        let json = self.json;
        match self.execute().await {
            Ok(report) => {
                if json {
                    print(report.to_json());
                } else {
                    print(&report);
                }
                if report.is_clean() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(FAILED)
                }
            }
            Err(failure) => finish(Err(failure)),
        }
    }

    async fn execute(self) -> Result<Report, Failure> {
        let client = Arc::new(self.server.client()?);
        let plan = Plan {
            scenario: self.scenario,
            in_flight: usize::from(self.in_flight),
            duration: Duration::from_secs(u64::from(self.seconds)),
            keys: usize::from(self.keys),
            rate: self.rate,
        };
        if !self.json {
            note(format_args!(
                "preparing, then {} for {} s",
                plan.scenario.name(),
                self.seconds
            ));
        }
        Ok(load::run(client, plan).await?)
    }
}
