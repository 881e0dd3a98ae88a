//! Delegated capabilities as closed shapes: exactly the members, contexts, suites and value grammars that this
//! verifier understands, so that the JSON that is checked and the RDF that is signed say the same. Anything that
//! JSON-LD could express in another way is refused (threats 40-74). A [`Delegated`] is consistent within itself by
//! construction; its signatures, times and attenuations are checked in `chain.rs`.

use serde_json::{Map, Value};

use super::did_key::{self, DidKey};
use super::error::{ChainFault, Member, Refusal};
use super::policy::ROOT_PREFIX;
use super::time::Timestamp;

/// The first context of every capability, and the only one of a root.
pub(crate) const ZCAP_CONTEXT: &str = "https://w3id.org/zcap/v1";
/// The one purpose of a delegation proof.
pub(crate) const PURPOSE: &str = "capabilityDelegation";

const MAX_IRI: usize = 2_048;
const MAX_CONTROLLERS: usize = 10;
const MAX_ACTIONS: usize = 32;
const MAX_ACTION: usize = 64;
const MAX_PROOF_VALUE: usize = 96;
/// No policy may raise the chain limit beyond this: canonicalization is sized for it.
pub const MAX_CHAIN: usize = 16;

/// How a delegation is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `Ed25519Signature2020`
    Ed25519Signature2020,
    /// `DataIntegrityProof` with cryptosuite `eddsa-rdfc-2022`
    EddsaRdfc2022,
}

impl Suite {
    pub(crate) const CRYPTOSUITE: &str = "eddsa-rdfc-2022";

    /// The proof's `type`.
    pub(crate) fn proof_type(self) -> &'static str {
        match self {
            Self::Ed25519Signature2020 => "Ed25519Signature2020",
            Self::EddsaRdfc2022 => "DataIntegrityProof",
        }
    }

    /// The second context of a capability with such a proof.
    pub(crate) fn context(self) -> &'static str {
        match self {
            Self::Ed25519Signature2020 => "https://w3id.org/security/suites/ed25519-2020/v1",
            Self::EddsaRdfc2022 => "https://w3id.org/security/data-integrity/v2",
        }
    }
}

/// One delegated capability and its proof, without the embedded parent.
#[derive(Clone, Debug)]
pub struct Link {
    /// The capability's id.
    pub id: String,
    /// The id of its parent.
    pub parent: String,
    /// Who may invoke it and delegate from it.
    pub controllers: Vec<String>,
    /// What it is for.
    pub target: String,
    /// The allowed actions; `None` for all of the parent's (only below an unrestricted parent).
    pub actions: Option<Vec<String>>,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was delegated.
    pub created: Timestamp,
    /// Who delegated it.
    pub delegator: DidKey,
    pub(crate) expires_text: String,
    pub(crate) created_text: String,
    pub(crate) suite: Suite,
    pub(crate) proof_text: String,
    pub(crate) proof: [u8; 64],
}

/// A delegated capability with its whole chain: the root's id and one or more links, the invoked one last.
#[derive(Clone, Debug)]
pub struct Delegated {
    root: String,
    links: Vec<Link>,
    hash: [u8; 32],
}

impl Delegated {
    /// Reads a delegated capability. `hash` names the text that it was read from: a collision-resistant hash of
    /// bytes that determine the value. `max_chain_length` counts the root.
    pub fn from_json(value: &Value, hash: [u8; 32], max_chain_length: usize) -> Result<Self, Refusal> {
        let max_links = max_chain_length.min(MAX_CHAIN).saturating_sub(1);
        let mut links = Vec::new();
        // What each level says about the capabilities above it, from the invoked one upwards.
        let mut chains: Vec<Vec<&str>> = Vec::new();
        let mut next = Some(value);
        while let Some(value) = next {
            if links.len() == max_links {
                return Err(Refusal::ChainTooLong(max_chain_length));
            }
            let (link, chain, parent) = read_link(value, links.is_empty())?;
            if chain.len() > max_links {
                return Err(Refusal::ChainTooLong(max_chain_length));
            }
            links.push(link);
            chains.push(chain);
            next = parent;
        }
        links.reverse();
        chains.reverse();
        let root = chains
            .first()
            .and_then(|chain| chain.first())
            .ok_or(ChainFault::Chain)?
            .to_string();
        check_consistency(&root, &links, &chains)?;
        Ok(Self { root, links, hash })
    }

    /// The id of the root capability.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The delegations, the invoked capability last; never empty.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| 24 + text.len()).sum::<usize>();
        let links = self.links.iter().map(|link| {
            let names = link.id.len() + link.parent.len() + link.target.len();
            let listed = texts(&link.controllers) + link.actions.as_deref().map_or(0, texts);
            // The proof, two times and the delegator's names are of a size that is bounded closely.
            size_of::<Link>() + 400 + names + listed
        });
        size_of::<Self>() + self.root.len() + links.sum::<usize>()
    }

    /// The hash that it was read with.
    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// Every level must tell the same story: root, then the ids in order, no id twice, each parent the one before.
fn check_consistency(root: &str, links: &[Link], chains: &[Vec<&str>]) -> Result<(), ChainFault> {
    if !root.starts_with(ROOT_PREFIX) {
        return Err(ChainFault::Chain);
    }
    let mut above = vec![root];
    for (link, chain) in links.iter().zip(chains) {
        let is_repeated = above.contains(&link.id.as_str());
        if *chain != above || above.last() != Some(&link.parent.as_str()) || is_repeated {
            return Err(ChainFault::Chain);
        }
        above.push(&link.id);
    }
    Ok(())
}

/// One level: the capability, the ids of its `capabilityChain`, and the embedded parent if it has one.
type Level<'a> = (Link, Vec<&'a str>, Option<&'a Value>);

fn read_link(value: &Value, is_invoked: bool) -> Result<Level<'_>, Refusal> {
    let members = value.as_object().ok_or(ChainFault::Member(Member::Capability))?;
    if is_invoked && !members.contains_key("parentCapability") {
        return Err(Refusal::RootByValue);
    }
    let proof = members
        .get("proof")
        .and_then(Value::as_object)
        .ok_or(ChainFault::Member(Member::Proof))?;
    let suite = read_suite(proof)?;
    check_members(members, proof, suite)?;
    check_context(members.get("@context"), suite)?;
    if proof.get("proofPurpose").and_then(Value::as_str) != Some(PURPOSE) {
        return Err(ChainFault::Purpose.into());
    }
    let (expires, expires_text) = read_time(members, "expires", Member::Expires)?;
    let (created, created_text) = read_time(proof, "created", Member::ProofCreated)?;
    let method = text(proof, "verificationMethod", Member::VerificationMethod)?;
    let (chain, parent) = read_chain(proof)?;
    let proof_text = text(proof, "proofValue", Member::ProofValue)?;
    let link = Link {
        id: iri(members, "id", Member::Id)?.to_owned(),
        parent: iri(members, "parentCapability", Member::ParentCapability)?.to_owned(),
        controllers: read_controllers(members.get("controller"))?,
        target: iri(members, "invocationTarget", Member::InvocationTarget)?.to_owned(),
        actions: members.get("allowedAction").map(read_actions).transpose()?,
        expires,
        created,
        delegator: DidKey::from_method(method).map_err(|_| ChainFault::Member(Member::VerificationMethod))?,
        expires_text,
        created_text,
        suite,
        proof: read_signature(proof_text).ok_or(ChainFault::Member(Member::ProofValue))?,
        proof_text: proof_text.to_owned(),
    };
    Ok((link, chain, parent))
}

fn read_suite(proof: &Map<String, Value>) -> Result<Suite, ChainFault> {
    match (
        proof.get("type").and_then(Value::as_str),
        proof.get("cryptosuite").map(Value::as_str),
    ) {
        (Some("Ed25519Signature2020"), None) => Ok(Suite::Ed25519Signature2020),
        (Some("DataIntegrityProof"), Some(Some(Suite::CRYPTOSUITE))) => Ok(Suite::EddsaRdfc2022),
        _ => Err(ChainFault::Suite),
    }
}

fn check_members(
    members: &Map<String, Value>,
    proof: &Map<String, Value>,
    suite: Suite,
) -> Result<(), ChainFault> {
    const CAPABILITY: [&str; 8] = [
        "@context",
        "id",
        "parentCapability",
        "controller",
        "invocationTarget",
        "allowedAction",
        "expires",
        "proof",
    ];
    const PROOF: [&str; 6] = [
        "type",
        "created",
        "verificationMethod",
        "proofPurpose",
        "capabilityChain",
        "proofValue",
    ];
    let knows_proof_member =
        |name: &str| PROOF.contains(&name) || suite == Suite::EddsaRdfc2022 && name == "cryptosuite";
    if members.keys().all(|name| CAPABILITY.contains(&name.as_str()))
        && proof.keys().all(|name| knows_proof_member(name))
    {
        Ok(())
    } else {
        Err(ChainFault::UnknownMember)
    }
}

fn check_context(context: Option<&Value>, suite: Suite) -> Result<(), ChainFault> {
    match context.and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, second]) if *first == ZCAP_CONTEXT && *second == suite.context() => Ok(()),
        _ => Err(ChainFault::Context),
    }
}

/// `[root id, ids…, parent]`: all texts, except that a parent that is not the root is embedded.
fn read_chain(proof: &Map<String, Value>) -> Result<(Vec<&str>, Option<&Value>), ChainFault> {
    let fault = ChainFault::Member(Member::CapabilityChain);
    let entries = proof
        .get("capabilityChain")
        .and_then(Value::as_array)
        .ok_or(fault)?;
    let (last, above) = entries.split_last().ok_or(ChainFault::Chain)?;
    let mut ids = Vec::with_capacity(entries.len());
    for entry in above {
        ids.push(entry.as_str().filter(|id| is_iri(id)).ok_or(fault)?);
    }
    if above.is_empty() {
        ids.push(last.as_str().filter(|id| is_iri(id)).ok_or(fault)?);
        return Ok((ids, None));
    }
    ids.push(last.get("id").and_then(Value::as_str).ok_or(fault)?);
    Ok((ids, Some(last)))
}

fn read_controllers(value: Option<&Value>) -> Result<Vec<String>, ChainFault> {
    let fault = ChainFault::Member(Member::Controller);
    let one = |value: &Value| match value.as_str() {
        Some(text) if did_key::is_controller(text) => Ok(text.to_owned()),
        _ => Err(fault),
    };
    match value {
        Some(Value::Array(items)) if (1..=MAX_CONTROLLERS).contains(&items.len()) => {
            items.iter().map(one).collect()
        }
        Some(text @ Value::String(_)) => Ok(vec![one(text)?]),
        _ => Err(fault),
    }
}

fn read_actions(value: &Value) -> Result<Vec<String>, ChainFault> {
    let fault = ChainFault::Member(Member::AllowedAction);
    let one = |value: &Value| match value.as_str() {
        Some(text) if is_action(text) => Ok(text.to_owned()),
        _ => Err(fault),
    };
    match value {
        Value::Array(items) if (1..=MAX_ACTIONS).contains(&items.len()) => items.iter().map(one).collect(),
        Value::String(_) => Ok(vec![one(value)?]),
        _ => Err(fault),
    }
}

fn read_time(
    members: &Map<String, Value>,
    name: &str,
    member: Member,
) -> Result<(Timestamp, String), ChainFault> {
    let text = text(members, name, member)?;
    let time = Timestamp::parse(text).ok_or(ChainFault::Member(member))?;
    Ok((time, text.to_owned()))
}

fn read_signature(text: &str) -> Option<[u8; 64]> {
    if text.len() > MAX_PROOF_VALUE {
        return None;
    }
    let mut bytes = [0u8; 64];
    let length = bs58::decode(text.strip_prefix('z')?).onto(&mut bytes).ok()?;
    (length == bytes.len()).then_some(bytes)
}

fn text<'a>(members: &'a Map<String, Value>, name: &str, member: Member) -> Result<&'a str, ChainFault> {
    members
        .get(name)
        .and_then(Value::as_str)
        .ok_or(ChainFault::Member(member))
}

fn iri<'a>(members: &'a Map<String, Value>, name: &str, member: Member) -> Result<&'a str, ChainFault> {
    text(members, name, member)
        .ok()
        .filter(|text| is_iri(text))
        .ok_or(ChainFault::Member(member))
}

/// An absolute IRI in characters that N-Quads never escapes: a scheme, a colon, and RFC 3986's ASCII characters.
pub(crate) fn is_iri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    text.len() <= MAX_IRI
        && !rest.is_empty()
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b))
}

/// A plain word: what every action in use is, and what no literal escaping can change.
pub(crate) fn is_action(text: &str) -> bool {
    (1..=MAX_ACTION).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
}
