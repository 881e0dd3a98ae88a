//! `conclave zcap`: hand rights over keys to others, and take them back.

use crate::cli::connection::{IdentityArguments, ServerArguments};
use crate::cli::duration;
use crate::cli::output::{EXIT_CODES, Facts, Failure, finish, note};
use crate::cli::receipts::{ReceiptArguments, Witnesses};
use crate::client::delegation::{self, Delegation};
use crate::client::signer::unix_seconds;
use crate::client::{Call, Capability, Client, ClientError, Identity};
use crate::receipt::{Doubt, Subject};
use clap::{Args, Subcommand};
use rand::rngs::OsRng;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How many nodes must say that a capability is revoked: one of them may lie.
const WITNESSES: usize = 2;

const EXAMPLES: &str = "\
Examples:
  conclave zcap delegate -i alice.json --target https://localhost:8443/kms/keystores/z1A…/keys/z19… \\
      --to did:key:z6Mk… --action sign --expires-in 7d --out bob-may-sign.json
  conclave key sign https://localhost:8443/kms/keystores/z1A…/keys/z19… -i bob.json \\
      --capability bob-may-sign.json --data hello --url https://localhost:8443 --ca .conclave/ca.pem
  conclave zcap revoke bob-may-sign.json -i alice.json --url https://localhost:8443 --ca .conclave/ca.pem";

/// Delegate and revoke capabilities
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct ZcapCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a delegated capability, here and without any server, and print it
    #[command(after_help = "Examples:\n  \
        conclave zcap delegate -i alice.json --target KEY-URL --to DID --action sign --out bob.json\n  \
        conclave zcap delegate -i bob.json --parent bob.json --to DID --expires-in 1h > carol.json")]
    Delegate(DelegateArguments),
    /// Revoke a capability; any controller in its chain may
    ///
    /// With several --connect it is sent through two of them, one after the other, so that a single node cannot
    /// pretend; the second then says that it is revoked already, which is what is wanted. With --genesis a quorum of the
    /// members vouches for it, whatever nodes it is sent through.
    #[command(
        after_help = "Example:\n  conclave zcap revoke bob.json -i alice.json --url https://localhost:8443 \\\n      \
        --connect 127.0.0.1:8443 --connect 127.0.0.1:8444"
    )]
    Revoke(RevokeArguments),
}

#[derive(Args, Debug)]
struct DelegateArguments {
    #[command(flatten)]
    identity: IdentityArguments,
    /// URL of the key or keystore that the right is for; the parent's by default
    #[arg(long, value_name = "URL", required_unless_present = "parent")]
    target: Option<String>,
    /// DID that gets the right
    #[arg(long, value_name = "DID")]
    to: String,
    /// Allowed action, such as sign or deriveSecret; repeatable; all that the delegator has by default
    #[arg(long, value_name = "ACTION")]
    action: Vec<String>,
    /// How long it holds, but never longer than its parent
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration::parse)]
    expires_in: Duration,
    /// Capability that is delegated further; without it the keystore's root is
    #[arg(long, value_name = "FILE")]
    parent: Option<PathBuf>,
    /// Write it to this new file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON (what is printed is JSON in any case)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct RevokeArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    identity: IdentityArguments,
    /// Capability to revoke (JSON file)
    capability: PathBuf,
    #[command(flatten)]
    receipts: ReceiptArguments,
    /// Print JSON: {"id", "revoked", "confirmedBy"}, and with --genesis "vouchedBy"
    #[arg(long)]
    json: bool,
}

impl ZcapCommand {
    /// Runs the command.
    pub async fn run(self) -> ExitCode {
        finish(self.execute().await)
    }

    pub(crate) async fn execute(self) -> Result<Facts, Failure> {
        match self.action {
            Action::Delegate(arguments) => delegate(arguments),
            Action::Revoke(arguments) => revoke(arguments).await,
        }
    }
}

fn delegate(arguments: DelegateArguments) -> Result<Facts, Failure> {
    let identity = arguments.identity.load()?;
    let parent = arguments
        .parent
        .as_deref()
        .map(Capability::load)
        .transpose()
        .map_err(Failure::local)?;
    let now = unix_seconds();
    let target = match (arguments.target, &parent) {
        (Some(target), _) => target,
        (None, Some(parent)) => parent.target().to_owned(),
        (None, None) => return Err(Failure::because("--target or --parent is needed")),
    };
    let delegation = Delegation {
        id: delegation::new_id(&mut OsRng),
        target,
        controller: arguments.to,
        actions: arguments.action,
        expires: now.saturating_add(arguments.expires_in.as_secs()),
        parent,
    };
    let capability = delegation.sign(&identity, now).map_err(Failure::local)?;
    let Some(path) = arguments.out else {
        return Ok(Facts::new(true, capability.json().clone(), ""));
    };
    let write = |error| Failure::because(format!("cannot write {}: {error}", path.display()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(write)?;
    writeln!(file, "{:#}", capability.json()).map_err(write)?;
    note(format_args!("{} written to {}", capability.id(), path.display()));
    Ok(Facts::none())
}

async fn revoke(arguments: RevokeArguments) -> Result<Facts, Failure> {
    let identity = arguments.identity.load()?;
    let capability = Capability::load(&arguments.capability).map_err(Failure::local)?;
    let clients = arguments.server.clients()?;
    let witnesses = arguments.receipts.open()?;
    let revoked = revoke_through(&clients, &identity, &capability, witnesses.as_ref()).await?;
    for failure in &revoked.failed {
        note(failure);
    }
    let mut facts = json!({"id": capability.id(), "revoked": true, "confirmedBy": revoked.by});
    match witnesses {
        Some(witnesses) => {
            let wrong = revoked
                .receipts
                .iter()
                .filter_map(|checked| checked.as_ref().err());
            for doubt in wrong.filter(|doubt| revoked.is_vouched() && !doubt.is_lack()) {
                note(format_args!("of one node: {doubt}"));
            }
            let what = format!("the revocation of {}", capability.id());
            facts["vouchedBy"] = json!(witnesses.tell(&what, revoked.vouched())?);
        }
        None if clients.len() > 1 && revoked.by.len() < WITNESSES => {
            note("only one node confirmed the revocation");
        }
        None => {}
    }
    Ok(Facts::new(
        arguments.json,
        facts,
        format_args!("revoked {}", capability.id()),
    ))
}

/// A capability that is revoked.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    /// The addresses that have said so.
    pub(crate) by: Vec<String>,
    /// What went wrong on the way.
    pub(crate) failed: Vec<ClientError>,
    /// What their receipts are worth, if the members are known.
    receipts: Vec<Result<Vec<u64>, Doubt>>,
}

impl Revoked {
    fn is_vouched(&self) -> bool {
        self.receipts.iter().any(Result::is_ok)
    }

    /// Who vouches for it: by a receipt that is right, or what is wrong with them all.
    fn vouched(mut self) -> Result<Vec<u64>, Doubt> {
        self.receipts.sort_by_key(|checked| match checked {
            Ok(_) => 0,
            Err(doubt) if !doubt.is_lack() => 1,
            Err(_) => 2,
        });
        self.receipts.into_iter().next().unwrap_or(Err(Doubt::Missing))
    }
}

/// Revokes through one node after the other until two have confirmed, and a quorum vouches if the members are known, or no
/// node is left.
///
/// # Errors
/// The last error when nobody confirmed.
///
/// A first node that says *already revoked* is believed only if it says so in words, or by a receipt: the older text for it
/// also means that the capability is no good at all.
pub(crate) async fn revoke_through(
    clients: &[Client],
    identity: &Identity,
    capability: &Capability,
    witnesses: Option<&Witnesses>,
) -> Result<Revoked, ClientError> {
    let mut revoked = Revoked::default();
    for client in clients {
        let answered = match witnesses {
            None => client.revoke(identity, capability).await,
            Some(_) => {
                let call = Call::revoke(capability);
                let asked = client.invoke_for_receipt(identity, &call, None);
                asked.await.map(|(reply, _)| reply)
            }
        };
        let receipt = match &answered {
            Ok(reply) => reply.receipt.as_deref(),
            Err(error) => error.refusal().and_then(|refusal| refusal.receipt.as_deref()),
        };
        let checked = witnesses.map(|witnesses| match subject(capability) {
            Some(subject) => witnesses.check(receipt, subject),
            None => Err(Doubt::Missing),
        });
        let is_vouched = matches!(checked, Some(Ok(_)));
        match answered {
            Ok(reply) => revoked.by.push(reply.endpoint),
            Err(ClientError::Refused(refusal))
                if refusal.is_already_revoked()
                    && (!revoked.by.is_empty() || refusal.says_revoked() || is_vouched) =>
            {
                revoked.by.push(refusal.endpoint.clone());
            }
            // The first honest node's refusal is the answer; only what cannot answer is passed over.
            Err(error @ ClientError::Refused(_)) if revoked.by.is_empty() && !unavailable(&error) => {
                return Err(error);
            }
            Err(error) => {
                revoked.failed.push(error);
                continue;
            }
        }
        revoked.receipts.extend(checked);
        if revoked.by.len() >= WITNESSES && (witnesses.is_none() || revoked.is_vouched()) {
            break;
        }
    }
    match (revoked.by.is_empty(), revoked.failed.pop()) {
        (true, Some(last)) => Err(last),
        (_, last) => {
            revoked.failed.extend(last);
            Ok(revoked)
        }
    }
}

/// What a receipt of this capability's revocation is about; none if it names no delegator, and cannot be revoked.
fn subject(capability: &Capability) -> Option<Subject> {
    Some(Subject::Revocation {
        keystore: capability.root_target().to_owned(),
        capability: capability.id().to_owned(),
        delegator: capability.delegator().ok()?,
    })
}

fn unavailable(error: &ClientError) -> bool {
    error
        .refusal()
        .is_some_and(crate::client::Refusal::is_unavailable)
}

#[cfg(test)]
mod tests {
    use super::{Revoked, revoke_through, subject};
    use crate::cli::output::UNVOUCHED;
    use crate::cli::receipts::Witnesses;
    use crate::client::delegation::{self, Delegation};
    use crate::client::signer::unix_seconds;
    use crate::client::testing::{Answer, Server};
    use crate::client::{Capability, Client, Connection, Identity, Limits, Origin, tls};
    use crate::membership::{Member, Membership};
    use crate::receipt::{Doubt, HEADER, Receipt, Statement};
    use ed25519_dalek::SigningKey;
    use rand::rngs::OsRng;

    const INVALID: &str = r#"{"name":"NotAllowedError","message":"Authorization error.",
        "cause":{"name":"DataError","message":"The provided capability delegation is invalid."}}"#;
    const SEALED: &str = r#"{"name":"SealedError","message":"sealed"}"#;

    fn capability(alice: &Identity) -> Capability {
        Delegation {
            id: delegation::new_id(&mut OsRng),
            target: "https://kms.test/kms/keystores/z1/keys/z2".to_owned(),
            controller: Identity::from_seed(&[2; 32]).did().to_owned(),
            actions: Vec::new(),
            expires: unix_seconds() + 600,
            parent: None,
        }
        .sign(alice, unix_seconds())
        .unwrap()
    }

    /// Revokes through servers that answer as given; `None` is one that is down. Who confirmed and how many failed.
    async fn outcome(answers: &[Option<(u16, &'static str)>]) -> Result<(usize, usize), u16> {
        let alice = Identity::from_seed(&[1; 32]);
        let origin = Origin::parse("https://kms.test").unwrap();
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        for answer in answers {
            let (status, body) = answer.unwrap_or_default();
            let mut server = Server::start("kms.test", move |_| Answer::Json(status, body.to_owned())).await;
            if answer.is_none() {
                server.stop().await;
            }
            let trusted = tls::config(Some(&server.ca())).unwrap();
            let connection =
                Connection::new(origin.clone(), &[server.address()], trusted, Limits::default()).unwrap();
            clients.push(Client::new(connection));
            servers.push(server);
        }
        match revoke_through(&clients, &alice, &capability(&alice), None).await {
            Ok(revoked) => Ok((revoked.by.len(), revoked.failed.len())),
            Err(error) => Err(error.refusal().map_or(0, |refusal| refusal.status)),
        }
    }

    #[tokio::test]
    async fn two_nodes_confirm_and_the_second_says_that_it_knows() {
        let (done, known, down) = (Some((204, "")), Some((403, INVALID)), None);
        assert_eq!(outcome(&[done, known, done]).await, Ok((2, 0)));
        assert_eq!(outcome(&[down, done, known]).await, Ok((2, 1)));
        assert_eq!(outcome(&[done, down]).await, Ok((1, 1)));
        assert_eq!(outcome(&[done]).await, Ok((1, 0)));
        assert_eq!(outcome(&[Some((503, SEALED)), done, known]).await, Ok((2, 1)));
    }

    fn key(node: u64) -> SigningKey {
        SigningKey::from_bytes(&[u8::try_from(node).unwrap(); 32])
    }

    /// Nodes 1, 2 and 3.
    fn members() -> Membership {
        let member = |node: u64| Member {
            node,
            index: u16::try_from(node).unwrap(),
            address: String::new(),
            verifying_key: key(node).verifying_key(),
            envelope_key: [0; 32],
        };
        Membership {
            cluster: [7; 32],
            index: 1,
            members: (1..=3).map(member).collect(),
            ..Membership::default()
        }
    }

    /// Revokes one capability through servers that answer with a status and the receipt that these nodes have signed.
    async fn vouched(answers: &[(u16, &[u64])], required: bool) -> Result<(Revoked, Witnesses), u16> {
        let alice = Identity::from_seed(&[1; 32]);
        let origin = Origin::parse("https://kms.test").unwrap();
        let capability = capability(&alice);
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for (status, nodes) in answers {
            let statement = Statement::new(&members(), subject(&capability).unwrap());
            let now = unix_seconds() * 1_000;
            let receipt = Receipt {
                members: 1,
                vouchers: nodes
                    .iter()
                    .map(|node| statement.vouch(*node, &key(*node), now))
                    .collect(),
            };
            let header = match nodes.is_empty() {
                true => String::new(),
                false => format!("{HEADER}: {receipt}\r\n"),
            };
            let body = if *status == 204 { "" } else { INVALID };
            let head = format!(
                "HTTP/1.1 {status} x\r\n{header}content-length: {}\r\n\r\n",
                body.len()
            );
            let reply = format!("{head}{body}").into_bytes();
            let server = Server::start("kms.test", move |_| Answer::Raw(reply.clone())).await;
            let trusted = tls::config(Some(&server.ca())).unwrap();
            let connection =
                Connection::new(origin.clone(), &[server.address()], trusted, Limits::default()).unwrap();
            clients.push(Client::new(connection));
            servers.push(server);
        }
        let witnesses = Witnesses::new(members(), required);
        match revoke_through(&clients, &alice, &capability, Some(&witnesses)).await {
            Ok(revoked) => Ok((revoked, witnesses)),
            Err(error) => Err(error.refusal().map_or(0, |refusal| refusal.status)),
        }
    }

    #[tokio::test]
    async fn a_quorum_of_members_is_worth_more_than_two_nodes() {
        // The first lies; the second says the truth, and shows it.
        let (revoked, _) = vouched(&[(204, &[]), (403, &[1, 3]), (204, &[])], true)
            .await
            .unwrap();
        assert_eq!(revoked.by.len(), 2);
        assert_eq!(revoked.vouched(), Ok(vec![1, 3]));
        // A first refusal is believed with a quorum's word, and not with less.
        let (revoked, _) = vouched(&[(403, &[2, 3])], true).await.unwrap();
        assert_eq!(revoked.vouched(), Ok(vec![2, 3]));
        assert_eq!(vouched(&[(403, &[2])], true).await.err(), Some(403));
        // Two nodes that say so without it are not enough: a third is asked.
        let (revoked, _) = vouched(&[(204, &[]), (403, &[1]), (403, &[1, 2])], true)
            .await
            .unwrap();
        assert_eq!((revoked.by.len(), revoked.is_vouched()), (3, true));
        // What is wrong with one is told before what another lacks.
        for nodes in [[1, 9], [9, 10]] {
            let (revoked, witnesses) = vouched(&[(204, &nodes), (204, &[])], false).await.unwrap();
            let doubt = revoked.vouched();
            assert_eq!(doubt, Err(Doubt::Stranger(9)));
            assert_eq!(witnesses.tell("it", doubt).unwrap_err().code(), UNVOUCHED);
        }
        let (revoked, witnesses) = vouched(&[(204, &[1])], false).await.unwrap();
        assert_eq!(
            witnesses.tell("it", revoked.vouched()).unwrap(),
            Vec::<u64>::new()
        );
        let (revoked, witnesses) = vouched(&[(204, &[1])], true).await.unwrap();
        assert_eq!(
            witnesses.tell("it", revoked.vouched()).unwrap_err().code(),
            UNVOUCHED
        );
    }

    #[tokio::test]
    async fn a_first_refusal_is_a_refusal() {
        assert_eq!(outcome(&[Some((403, INVALID)), Some((204, ""))]).await, Err(403));
        assert_eq!(outcome(&[Some((503, SEALED))]).await, Err(503));
        assert_eq!(outcome(&[None]).await, Err(0));
    }
}
