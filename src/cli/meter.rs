//! `conclave meter`: the meters that keystores are created under.

use crate::cli::connection::{IdentityArguments, ServerArguments};
use crate::cli::output::{EXIT_CODES, Facts, Failure, finish};
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// The product that meters are made for unless another is named; any URN does where nobody is charged.
pub(crate) const DEFAULT_PRODUCT: &str = "urn:uuid:80a82316-e8c2-11eb-9570-10bf48838a41";

const EXAMPLES: &str = "\
Example:
  conclave meter create --url https://localhost:8443 --ca .conclave/ca.pem -i alice.json

The identity must be one of the cluster's meter admins (in `conclave dev` anyone is). The URL that is printed is
what `conclave keystore create --meter` takes.";

/// Create meters
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct MeterCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a meter and print its URL
    #[command(after_help = EXAMPLES)]
    Create(CreateArguments),
}

#[derive(Args, Debug)]
struct CreateArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    identity: IdentityArguments,
    /// DID that may create keystores under the meter; the identity's own by default
    #[arg(long, value_name = "DID")]
    controller: Option<String>,
    /// Product that the meter is for
    #[arg(long, value_name = "URN", default_value = DEFAULT_PRODUCT)]
    product: String,
    /// Print JSON: {"meterId", "meter"}
    #[arg(long)]
    json: bool,
}

impl MeterCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute().await)
    }

    pub(crate) async fn execute(self) -> Result<Facts, Failure> {
        let Action::Create(arguments) = self.action;
        create(arguments).await
    }
}

async fn create(arguments: CreateArguments) -> Result<Facts, Failure> {
    let identity = arguments.identity.load()?;
    let client = arguments.server.client()?;
    let controller = arguments.controller.as_deref().unwrap_or(identity.did());
    let (url, meter) = client
        .create_meter(&identity, controller, &arguments.product)
        .await?;
    let mut described = meter.rest;
    described["id"] = json!(meter.id);
    Ok(Facts::new(
        arguments.json,
        json!({"meterId": url, "meter": described}),
        url,
    ))
}
