//! `conclave keystore`: create, read, list and change keystores.

use crate::cli::connection::{CallerArguments, IdentityArguments, ServerArguments};
use crate::cli::output::{EXIT_CODES, Facts, Failure, finish};
use crate::client::Call;
use crate::client::call::one_or_many;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples (with CONCLAVE_URL, CONCLAVE_CA and CONCLAVE_IDENTITY set):
  conclave keystore create --meter https://localhost:8443/meters/z1A…
  conclave keystore get https://localhost:8443/kms/keystores/z1A…
  conclave keystore list --json
  conclave keystore update https://localhost:8443/kms/keystores/z1A… --controller did:key:z6Mk…";

/// Create, read, list and change keystores
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct KeystoreCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a keystore and print its URL; the identity must be the meter's controller
    #[command(after_help = "Example:\n  conclave keystore create --meter https://localhost:8443/meters/z1A…")]
    Create(CreateArguments),
    /// Print a keystore's configuration
    #[command(after_help = "Example:\n  conclave keystore get https://localhost:8443/kms/keystores/z1A…")]
    Get(GetArguments),
    /// Print the URLs of a controller's keystores, at most 100
    #[command(after_help = "Example:\n  conclave keystore list --json")]
    List(ListArguments),
    /// Change controllers or the IP allow list; what is not named stays as it is
    #[command(
        after_help = "Examples:\n  conclave keystore update URL --controller did:key:z6MkA… --controller did:key:z6MkB…\n  \
                      conclave keystore update URL --ip-allow 10.0.0.0/8\n  conclave keystore update URL --ip-allow-any"
    )]
    Update(UpdateArguments),
}

#[derive(Args, Debug)]
struct CreateArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    identity: IdentityArguments,
    /// URL of the meter
    #[arg(long, value_name = "URL")]
    meter: String,
    /// DID that controls the keystore; repeatable; the identity's own by default
    #[arg(long, value_name = "DID")]
    controller: Vec<String>,
    /// Module that keeps the keys
    #[arg(long, value_name = "NAME", default_value = "ssm-v1")]
    kms_module: String,
    /// Only addresses in this range may use the keystore; repeatable
    #[arg(long, value_name = "CIDR")]
    ip_allow: Vec<String>,
    /// Print the whole configuration as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct GetArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the keystore
    keystore: String,
    /// Print JSON (what is printed is JSON in any case)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    identity: IdentityArguments,
    /// DID whose keystores are listed; the identity's own by default, and no other is allowed by most servers
    #[arg(long, value_name = "DID")]
    controller: Option<String>,
    /// Print the whole configurations as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct UpdateArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the keystore
    keystore: String,
    /// New controllers, all of them; repeatable
    #[arg(long, value_name = "DID")]
    controller: Vec<String>,
    /// New allowed ranges, all of them; repeatable
    #[arg(long, value_name = "CIDR", conflicts_with = "ip_allow_any")]
    ip_allow: Vec<String>,
    /// Allow every address
    #[arg(long)]
    ip_allow_any: bool,
    /// Sequence of the new configuration; by default one more than the stored one
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// Print the whole configuration as JSON
    #[arg(long)]
    json: bool,
}

impl KeystoreCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute().await)
    }

    pub(crate) async fn execute(self) -> Result<Facts, Failure> {
        match self.action {
            Action::Create(arguments) => create(arguments).await,
            Action::Get(arguments) => get(arguments).await,
            Action::List(arguments) => list(arguments).await,
            Action::Update(arguments) => update(arguments).await,
        }
    }
}

async fn create(arguments: CreateArguments) -> Result<Facts, Failure> {
    let identity = arguments.identity.load()?;
    let client = arguments.server.client()?;
    let controllers = if arguments.controller.is_empty() {
        vec![identity.did().to_owned()]
    } else {
        arguments.controller
    };
    let call = Call::create_keystore(
        client.connection().origin(),
        &arguments.meter,
        &controllers,
        &arguments.kms_module,
        &arguments.ip_allow,
    );
    let reply = client.invoke(&identity, &call, None).await?;
    if let Some(notice) = &reply.notice {
        eprintln!("conclave: note: {notice}");
    }
    let config: Value = reply
        .json()
        .map_err(|_| Failure::because("the keystore's configuration is not JSON"))?;
    let id = id_of(&config)?.to_owned();
    Ok(Facts::new(arguments.json, config, id))
}

async fn get(arguments: GetArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let config = client
        .get_keystore(&identity, &arguments.keystore, capability.as_ref())
        .await?;
    Ok(Facts::new(true, config, ""))
}

async fn list(arguments: ListArguments) -> Result<Facts, Failure> {
    let identity = arguments.identity.load()?;
    let client = arguments.server.client()?;
    let controller = arguments.controller.as_deref().unwrap_or(identity.did());
    let configs = client.list_keystores(&identity, controller).await?;
    let ids = configs.iter().map(id_of).collect::<Result<Vec<_>, _>>()?;
    let text = ids.join("\n");
    Ok(Facts::new(arguments.json, json!(configs), text))
}

async fn update(arguments: UpdateArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let stored = client
        .get_keystore(&identity, &arguments.keystore, capability.as_ref())
        .await?;
    let changed = change(stored, &arguments)?;
    let config = client
        .update_keystore(&identity, &arguments.keystore, &changed, capability.as_ref())
        .await?;
    let text = format!("{} sequence {}", id_of(&config)?, config["sequence"]);
    Ok(Facts::new(arguments.json, config, text))
}

/// The configuration that replaces `stored`.
fn change(mut stored: Value, arguments: &UpdateArguments) -> Result<Value, Failure> {
    let odd = || Failure::because("the stored configuration is not what the protocol says");
    let next = stored
        .get("sequence")
        .and_then(Value::as_u64)
        .and_then(|n| n.checked_add(1))
        .ok_or_else(odd)?;
    let members = stored.as_object_mut().ok_or_else(odd)?;
    members.insert("sequence".into(), json!(arguments.sequence.unwrap_or(next)));
    if !arguments.controller.is_empty() {
        members.insert("controller".into(), one_or_many(&arguments.controller));
    }
    if arguments.ip_allow_any {
        members.remove("ipAllowList");
    } else if !arguments.ip_allow.is_empty() {
        members.insert("ipAllowList".into(), json!(arguments.ip_allow));
    }
    Ok(stored)
}

fn id_of(config: &Value) -> Result<&str, Failure> {
    let id = config.get("id").and_then(Value::as_str);
    id.ok_or_else(|| Failure::because("the server's configuration has no id"))
}

#[cfg(test)]
mod tests {
    use super::{Action, KeystoreCommand, change};
    use clap::{Args, Command, FromArgMatches};
    use serde_json::{Value, json};

    fn changed(options: &[&str], stored: Value) -> Value {
        let line = [
            "keystore",
            "update",
            "https://a/kms/keystores/z",
            "--url",
            "https://a",
            "-i",
            "alice.json",
        ];
        let command = KeystoreCommand::augment_args(Command::new("keystore"));
        let matches = command.get_matches_from(line.iter().chain(options));
        match KeystoreCommand::from_arg_matches(&matches).unwrap().action {
            Action::Update(arguments) => change(stored, &arguments).unwrap(),
            _ => unreachable!(),
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let stored = json!({"id": "k", "controller": "did:key:a", "sequence": 4, "ipAllowList": ["::1/128"]});
        let after = changed(&["--controller", "did:key:b"], stored.clone());
        assert_eq!(
            after,
            json!({"id": "k", "controller": "did:key:b", "sequence": 5, "ipAllowList": ["::1/128"]})
        );
        let after = changed(
            &["--ip-allow-any", "--controller", "x", "--controller", "y"],
            stored.clone(),
        );
        assert_eq!(after, json!({"id": "k", "controller": ["x", "y"], "sequence": 5}));
        assert_eq!(changed(&["--sequence", "9"], stored)["sequence"], 9);
    }
}
