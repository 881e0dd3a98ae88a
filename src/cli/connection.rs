//! The options that every client command shares: which server, where the bytes go, whom to trust, who signs.

use crate::cli::output::Failure;
use crate::client::{Capability, Client, Connection, Identity, Limits, Origin, tls};
use clap::Args;
use std::path::PathBuf;

/// Where the server is.
#[derive(Args, Clone, Debug)]
pub struct ServerArguments {
    /// Public URL of the cluster (or of any WebKMS server): `https://HOST[:PORT]`
    #[arg(long, value_name = "URL", env = "CONCLAVE_URL")]
    pub url: String,
    /// Send the bytes to this address, TLS and Host as for --url; repeatable: used in turn, a dead one is skipped
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Vec<String>,
    /// PEM file of the authorities to trust instead of the system's
    #[arg(long, value_name = "FILE", env = "CONCLAVE_CA")]
    pub ca: Option<PathBuf>,
}

impl ServerArguments {
    /// A client that uses all addresses in turn.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.through(&self.connect)
    }

    /// One client for each address of `--connect`, in their order; one for the public URL when there are none.
    pub(crate) fn clients(&self) -> Result<Vec<Client>, Failure> {
        if self.connect.is_empty() {
            return Ok(vec![self.client()?]);
        }
        self.connect
            .iter()
            .map(|address| self.through(std::slice::from_ref(address)))
            .collect()
    }

    fn through(&self, addresses: &[String]) -> Result<Client, Failure> {
        let origin = Origin::parse(&self.url).map_err(Failure::local)?;
        let config = tls::config(self.ca.as_deref()).map_err(Failure::local)?;
        let connection =
            Connection::new(origin, addresses, config, Limits::default()).map_err(Failure::local)?;
        Ok(Client::new(connection))
    }
}

/// Who signs.
#[derive(Args, Clone, Debug)]
pub struct IdentityArguments {
    /// Identity file that signs, made by `conclave id new`
    #[arg(long, short = 'i', value_name = "FILE", env = "CONCLAVE_IDENTITY")]
    pub identity: PathBuf,
}

impl IdentityArguments {
    /// Reads the identity.
    pub(crate) fn load(&self) -> Result<Identity, Failure> {
        Identity::load(&self.identity).map_err(Failure::local)
    }
}

/// By which right.
#[derive(Args, Clone, Debug)]
pub struct CapabilityArguments {
    /// Invoke this delegated capability (JSON file) instead of the keystore's root
    #[arg(long, value_name = "FILE")]
    pub capability: Option<PathBuf>,
}

impl CapabilityArguments {
    /// Reads the capability, if there is one.
    pub(crate) fn load(&self) -> Result<Option<Capability>, Failure> {
        self.capability
            .as_deref()
            .map(|path| Capability::load(path).map_err(Failure::local))
            .transpose()
    }
}

/// Who calls which server, by which right: what every command about keystores and keys takes.
#[derive(Args, Clone, Debug)]
pub struct CallerArguments {
    /// Where.
    #[command(flatten)]
    pub server: ServerArguments,
    /// Who.
    #[command(flatten)]
    pub identity: IdentityArguments,
    /// By which right.
    #[command(flatten)]
    pub capability: CapabilityArguments,
}

impl CallerArguments {
    /// Reads the files, and makes a client.
    pub(crate) fn open(&self) -> Result<(Client, Identity, Option<Capability>), Failure> {
        let (identity, capability) = (self.identity.load()?, self.capability.load()?);
        Ok((self.server.client()?, identity, capability))
    }
}
