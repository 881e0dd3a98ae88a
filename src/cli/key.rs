//! `conclave key`: generate keys and use them. The keys stay in the cluster; results are printed as base64url.

use crate::cli::connection::CallerArguments;
use crate::cli::output::{EXIT_CODES, Facts, Failure, finish};
use crate::cli::receipts::ReceiptArguments;
use crate::client::call::{Call, KeyParameters, keystore_of};
use crate::client::webkms::GeneratedKey;
use crate::operation::batch::MAX_ITEMS;
use crate::receipt::Subject;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Most bytes that are signed in one call: with base64 and JSON around them they fill the protocol's 100 kB.
const MAX_DATA: usize = 75_000;

const EXAMPLES: &str = "\
Examples (with CONCLAVE_URL, CONCLAVE_CA and CONCLAVE_IDENTITY set):
  conclave key generate https://localhost:8443/kms/keystores/z1A… --type ed25519
  conclave key get https://localhost:8443/kms/keystores/z1A…/keys/z19…
  conclave key sign https://localhost:8443/kms/keystores/z1A…/keys/z19… --data hello
  conclave key sign https://localhost:8443/kms/keystores/z1A…/keys/z19… < message
  conclave key derive https://localhost:8443/kms/keystores/z1A…/keys/z1B… --public-key z6LS…
  conclave key hmac https://localhost:8443/kms/keystores/z1A…/keys/z1C… --data hello
  conclave key unwrap https://localhost:8443/kms/keystores/z1A…/keys/z1D… $(cat wrapped)";

/// Generate and use keys
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct KeyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Generate a key in a keystore and print its URL
    #[command(after_help = "Examples:\n  conclave key generate URL --type ed25519\n  \
                      conclave key generate URL --type X25519KeyAgreementKey2020 --json\n  \
                      conclave key generate URL --public-alias-template 'did:key:{publicKeyMultibase}#{publicKeyMultibase}'\n  \
                      conclave key generate URL --genesis genesis.json --require-receipt")]
    Generate(GenerateArguments),
    /// Print a key's public description (JSON)
    #[command(
        after_help = "Examples:\n  conclave key get URL\n  conclave key get URL --genesis genesis.json --require-receipt"
    )]
    Get(GetArguments),
    /// Sign and print the signature as base64url
    #[command(
        after_help = "Examples:\n  conclave key sign URL --data hello\n  conclave key sign URL --file message.bin\n  \
                      conclave key sign URL --batch lines.txt\n  \
                      conclave key sign URL --capability delegated.json < message.bin"
    )]
    Sign(SignArguments),
    /// Derive the secret shared with a public key and print it as base64url: input for a KDF, not a key
    #[command(after_help = "Example:\n  conclave key derive URL --public-key z6LS…")]
    Derive(DeriveArguments),
    /// Make a message's tag (HMAC-SHA-256) and print it as base64url
    #[command(
        after_help = "Examples:\n  conclave key hmac URL --data hello\n  conclave key hmac URL < message.bin"
    )]
    Hmac(DataArguments),
    /// Tell whether a tag is the message's; the exit code is 1 if not
    #[command(after_help = "Example:\n  conclave key verify-hmac URL --tag dGFn… --data hello")]
    VerifyHmac(VerifyArguments),
    /// Wrap a key of 16 bytes or more, in steps of 8 (AES key wrap, RFC 3394), and print it as base64url
    #[command(after_help = "Example:\n  head -c 32 /dev/urandom | conclave key wrap URL > wrapped")]
    Wrap(DataArguments),
    /// Unwrap a key and print it as base64url; the exit code is 1 if this key has not wrapped that
    #[command(after_help = "Example:\n  conclave key unwrap URL $(cat wrapped)")]
    Unwrap(UnwrapArguments),
}

#[derive(Args, Debug)]
struct DataArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    #[command(flatten)]
    input: Input,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct VerifyArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    /// The tag, as base64url
    #[arg(long, value_name = "BASE64URL")]
    tag: String,
    #[command(flatten)]
    input: Input,
    /// Print JSON: {"keyId", "verified"}
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct UnwrapArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    /// What was wrapped, as base64url
    wrapped: String,
    /// Print JSON: {"keyId", "unwrappedKey"}
    #[arg(long)]
    json: bool,
}

/// What an operation is about; without either, stdin.
#[derive(Args, Debug)]
struct Input {
    /// As text
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    data: Option<String>,
    /// In a file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Input {
    fn read(self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let data = match (self.data, self.file) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(path)) => {
                let named = |error| Failure::because(format!("cannot read {}: {error}", path.display()));
                read(File::open(&path).map_err(named)?).map_err(named)?
            }
            (None, None) => read(io::stdin().lock()).map_err(Failure::local)?,
        };
        match data.len() > MAX_DATA {
            true => Err(Failure::because(format!(
                "the data is longer than {MAX_DATA} bytes: sign its hash"
            ))),
            false => Ok(data.into()),
        }
    }
}

#[derive(Args, Debug)]
struct GenerateArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the keystore
    keystore: String,
    /// ed25519, x25519, hmac, kek, or a WebKMS key type
    #[arg(long = "type", value_name = "TYPE", default_value = "ed25519")]
    key_type: String,
    /// Id that the key's description shows instead of its URL
    #[arg(long, value_name = "URI", conflicts_with = "public_alias_template")]
    public_alias: Option<String>,
    /// The same as an RFC 6570 template over the description's members
    #[arg(long, value_name = "TEMPLATE")]
    public_alias_template: Option<String>,
    /// Longest capability chain (root included) by which the key may be used
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    max_chain_length: Option<u32>,
    #[command(flatten)]
    receipts: ReceiptArguments,
    /// Print JSON: {"keyId", "keyDescription"}, and with --genesis "vouchedBy"
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct GetArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    #[command(flatten)]
    receipts: ReceiptArguments,
    /// Print JSON (what is printed is JSON in any case)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct SignArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    #[command(flatten)]
    input: Input,
    /// Sign each line of a file, 64 in a request; prints a signature for each. An extension of this cluster's: a
    /// delegated capability must be for the keystore, or its keys
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "file"])]
    batch: Option<PathBuf>,
    /// Print JSON: {"keyId", "signatureValue"}; with --batch {"keyId", "signatureValues"}
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct DeriveArguments {
    #[command(flatten)]
    caller: CallerArguments,
    /// URL of the key
    key: String,
    /// The other side's public key
    #[arg(long, value_name = "MULTIBASE")]
    public_key: String,
    /// Type that the public key is sent with; by default the key's own, which is looked up
    #[arg(long, value_name = "TYPE")]
    public_key_type: Option<String>,
    /// Print JSON: {"keyId", "secret"}
    #[arg(long)]
    json: bool,
}

impl KeyCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute().await)
    }

    pub(crate) async fn execute(self) -> Result<Facts, Failure> {
        match self.action {
            Action::Generate(arguments) => generate(arguments).await,
            Action::Get(arguments) => get(arguments).await,
            Action::Sign(arguments) => sign(arguments).await,
            Action::Derive(arguments) => derive(arguments).await,
            Action::Hmac(arguments) => signature(arguments).await,
            Action::VerifyHmac(arguments) => verify_hmac(arguments).await,
            Action::Wrap(arguments) => wrap(arguments).await,
            Action::Unwrap(arguments) => unwrap(arguments).await,
        }
    }
}

/// The WebKMS name of a key type: short ones are known, others are taken as they are.
fn key_type(name: &str) -> &str {
    match name {
        "ed25519" => "Ed25519VerificationKey2020",
        "x25519" => "X25519KeyAgreementKey2020",
        "hmac" => "Sha256HmacKey2019",
        "kek" => "AesKeyWrappingKey2019",
        other => other,
    }
}

async fn generate(arguments: GenerateArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let parameters = KeyParameters {
        key_type: key_type(&arguments.key_type).to_owned(),
        max_capability_chain_length: arguments.max_chain_length,
        public_alias: arguments.public_alias,
        public_alias_template: arguments.public_alias_template,
    };
    let Some(witnesses) = arguments.receipts.open()? else {
        let key = client
            .generate_key(&identity, &arguments.keystore, &parameters, capability.as_ref())
            .await?;
        let facts = json!({"keyId": key.key_id, "keyDescription": key.key_description});
        return Ok(Facts::new(arguments.json, facts, key.key_id));
    };
    let call = Call::generate_key(&arguments.keystore, &parameters);
    let (reply, name) = client
        .invoke_for_receipt(&identity, &call, capability.as_ref())
        .await?;
    let key: GeneratedKey = reply
        .json()
        .map_err(|_| Failure::because("the answer describes no key"))?;
    let checked = witnesses.check(
        reply.receipt.as_deref(),
        Subject::birth(name, call.url, &reply.body),
    );
    let vouching = witnesses.tell(&key.key_id, checked)?;
    let facts = json!({"keyId": key.key_id, "keyDescription": key.key_description, "vouchedBy": vouching});
    Ok(Facts::new(arguments.json, facts, key.key_id))
}

async fn get(arguments: GetArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let Some(witnesses) = arguments.receipts.open()? else {
        let description = client
            .get_key(&identity, &arguments.key, capability.as_ref())
            .await?;
        return Ok(Facts::new(true, description, ""));
    };
    let call = Call::get_key(&arguments.key);
    let (reply, _) = client
        .invoke_for_receipt(&identity, &call, capability.as_ref())
        .await?;
    let description: Value = reply
        .json()
        .map_err(|_| Failure::because("the answer describes no key"))?;
    let subject = Subject::description(&arguments.key, &reply.body);
    let checked = witnesses.check(reply.receipt.as_deref(), subject);
    witnesses.tell(&arguments.key, checked)?;
    Ok(Facts::new(true, description, ""))
}

async fn sign(arguments: SignArguments) -> Result<Facts, Failure> {
    if let Some(lines) = &arguments.batch {
        return sign_lines(&arguments, lines).await;
    }
    let SignArguments {
        caller,
        key,
        input,
        json,
        ..
    } = arguments;
    signature(DataArguments {
        caller,
        key,
        input,
        json,
    })
    .await
}

/// A signature or a tag: one operation, whose key says which.
async fn signature(arguments: DataArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let data = arguments.input.read()?;
    let signature = client
        .sign(&identity, &arguments.key, &data, capability.as_ref())
        .await?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    let facts = json!({"keyId": arguments.key, "signatureValue": signature});
    Ok(Facts::new(arguments.json, facts, &signature))
}

/// A signature for each line, without its line end. The first refusal ends it: what was signed before is not printed.
async fn sign_lines(arguments: &SignArguments, lines: &Path) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let text = std::fs::read_to_string(lines);
    let text = text.map_err(|error| Failure::because(format!("cannot read {}: {error}", lines.display())))?;
    let messages: Vec<&str> = text.lines().collect();
    let key = arguments.key.as_str();
    let mut signatures = Vec::new();
    // As many as one request may have, and as many bytes as its body may be long.
    let mut rest = &messages[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(MAX_ITEMS).take_while(|message| {
            bytes += message.len() + key.len() + 100;
            bytes <= MAX_DATA
        });
        let count = fits.count().max(1);
        let (now, later) = rest.split_at(count);
        let items: Vec<(&str, &[u8])> = now.iter().map(|message| (key, message.as_bytes())).collect();
        let signed = client
            .sign_batch(&identity, keystore_of(key), &items, capability.as_ref())
            .await?;
        for (place, signed) in signed.into_iter().enumerate() {
            let line = messages.len() - rest.len() + place + 1;
            let signed = signed.map_err(|refusal| Failure::because(format!("line {line}: {refusal}")))?;
            signatures.push(URL_SAFE_NO_PAD.encode(signed));
        }
        rest = later;
    }
    let printed = signatures.join("\n");
    let facts = json!({"keyId": key, "signatureValues": signatures});
    Ok(Facts::new(arguments.json, facts, printed))
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    source.take(MAX_DATA as u64 + 1).read_to_end(&mut data)?;
    Ok(data)
}

async fn derive(arguments: DeriveArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let public_type = match arguments.public_key_type {
        Some(name) => key_type(&name).to_owned(),
        None => {
            let description = client
                .get_key(&identity, &arguments.key, capability.as_ref())
                .await?;
            let found = description.get("type").and_then(Value::as_str);
            found
                .ok_or_else(|| Failure::because("the key's description has no type"))?
                .to_owned()
        }
    };
    let secret = client
        .derive_secret(
            &identity,
            &arguments.key,
            &public_type,
            &arguments.public_key,
            capability.as_ref(),
        )
        .await?;
    let secret = URL_SAFE_NO_PAD.encode(secret);
    Ok(Facts::new(
        arguments.json,
        json!({"keyId": arguments.key, "secret": secret}),
        &secret,
    ))
}

fn decoded(what: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let decoded = URL_SAFE_NO_PAD.decode(text.trim());
    decoded.map_err(|_| Failure::because(format!("{what} is not base64url without padding")))
}

async fn verify_hmac(arguments: VerifyArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let data = arguments.input.read()?;
    let tag = decoded("the tag", &arguments.tag)?;
    let verified = client
        .verify(&identity, &arguments.key, (&data, &tag), capability.as_ref())
        .await?;
    if !verified && !arguments.json {
        return Err(Failure::because("the tag is not this message's under this key"));
    }
    let facts = json!({"keyId": arguments.key, "verified": verified});
    Ok(Facts::new(arguments.json, facts, "verified"))
}

async fn wrap(arguments: DataArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let payload = arguments.input.read()?;
    let wrapped = client
        .wrap_key(&identity, &arguments.key, &payload, capability.as_ref())
        .await?;
    let wrapped = URL_SAFE_NO_PAD.encode(wrapped);
    let facts = json!({"keyId": arguments.key, "wrappedKey": wrapped});
    Ok(Facts::new(arguments.json, facts, &wrapped))
}

async fn unwrap(arguments: UnwrapArguments) -> Result<Facts, Failure> {
    let (client, identity, capability) = arguments.caller.open()?;
    let wrapped = decoded("what was wrapped", &arguments.wrapped)?;
    let payload = client
        .unwrap_key(&identity, &arguments.key, &wrapped, capability.as_ref())
        .await?;
    let payload = payload.map(|payload| Zeroizing::new(URL_SAFE_NO_PAD.encode(&payload[..])));
    let facts = json!({"keyId": arguments.key, "unwrappedKey": payload.as_deref()});
    match payload {
        Some(payload) => Ok(Facts::new(arguments.json, facts, payload.as_str())),
        None if arguments.json => Ok(Facts::new(true, facts, "")),
        None => Err(Failure::because(
            "this key has not wrapped that, or it was changed",
        )),
    }
}
