//! The RDF of a delegation, straight from the closed shape: the capability without its proof, and its proof options
//! with the chain, in which each parent sits with its own proof in a named graph. Byte-equal to what JSON-LD expansion
//! and RDFC-1.0 give for the same document (contract 3.7); the vectors hold it to that.

use super::capability::{Delegated, Link, Suite};
use super::rdfc::{self, Quad, Term, TooSymmetric};

const ALLOWED_ACTION: &str = "https://w3id.org/security#allowedAction";
const CAPABILITY_CHAIN: &str = "https://w3id.org/security#capabilityChain";
const CONTROLLER: &str = "https://w3id.org/security#controller";
const CREATED: &str = "http://purl.org/dc/terms/created";
const CRYPTOSUITE: &str = "https://w3id.org/security#cryptosuite";
const CRYPTOSUITE_STRING: &str = "https://w3id.org/security#cryptosuiteString";
const DATE_TIME: &str = "http://www.w3.org/2001/XMLSchema#dateTime";
const DELEGATION: &str = "https://w3id.org/security#capabilityDelegationMethod";
const EXPIRATION: &str = "https://w3id.org/security#expiration";
const FIRST: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#first";
const INVOCATION_TARGET: &str = "https://w3id.org/security#invocationTarget";
const MULTIBASE: &str = "https://w3id.org/security#multibase";
const NIL: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#nil";
const PARENT_CAPABILITY: &str = "https://w3id.org/security#parentCapability";
const PROOF: &str = "https://w3id.org/security#proof";
const PROOF_PURPOSE: &str = "https://w3id.org/security#proofPurpose";
const PROOF_VALUE: &str = "https://w3id.org/security#proofValue";
const REST: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#rest";
const TYPE: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type";
const VERIFICATION_METHOD: &str = "https://w3id.org/security#verificationMethod";

impl Delegated {
    /// The canonical forms (RDFC-1.0, N-Quads) that the proof at `level` signs, 0 hanging from the root: its options, and
    /// the capability without it. `None` for what this verifier refuses to canonicalize.
    pub fn canonical_forms(&self, level: usize) -> Option<[String; 2]> {
        Some([proof_options(self, level).ok()?, document(self, level).ok()?])
    }
}

/// Canonical N-Quads of the capability at `level` (0 hangs from the root), without its proof.
pub(crate) fn document(delegated: &Delegated, level: usize) -> Result<String, TooSymmetric> {
    let mut quads = Quads::default();
    quads.capability(&delegated.links()[level], None);
    rdfc::canonicalize(&quads.all, quads.blanks)
}

/// Canonical N-Quads of the options of the proof at `level`: the proof without its value.
pub(crate) fn proof_options(delegated: &Delegated, level: usize) -> Result<String, TooSymmetric> {
    let (quads, blanks) = proof_quads(delegated, level);
    rdfc::canonicalize(&quads, blanks)
}

/// The options of the proof at `level` as quads, and how many blank nodes they have.
pub(crate) fn proof_quads(delegated: &Delegated, level: usize) -> (Vec<Quad<'_>>, usize) {
    let mut quads = Quads::default();
    let mut graph = None;
    for index in (0..=level).rev() {
        quads.proof(delegated, index, graph, index != level);
        // The parent stands in the same graph as the proof that embeds it; its own proof in one of its own.
        if index > 0 {
            let parent = &delegated.links()[index - 1];
            let own = quads.blank();
            quads.capability(parent, graph);
            quads.add(Term::Iri(&parent.id), PROOF, own, graph);
            graph = Some(own);
        }
    }
    (quads.all, quads.blanks)
}

#[derive(Default)]
struct Quads<'a> {
    all: Vec<Quad<'a>>,
    blanks: usize,
}

impl<'a> Quads<'a> {
    fn blank(&mut self) -> Term<'a> {
        self.blanks += 1;
        Term::Blank(self.blanks - 1)
    }

    fn add(&mut self, subject: Term<'a>, predicate: &'static str, object: Term<'a>, graph: Option<Term<'a>>) {
        self.all.push(Quad {
            subject,
            predicate,
            object,
            graph,
        });
    }

    fn capability(&mut self, link: &'a Link, graph: Option<Term<'a>>) {
        let subject = Term::Iri(&link.id);
        for (index, action) in link.actions.iter().flatten().enumerate() {
            // A dataset is a set: an action that is listed twice is one quad.
            if link.actions.iter().flatten().position(|other| other == action) == Some(index) {
                self.add(subject, ALLOWED_ACTION, Term::Literal(action, None), graph);
            }
        }
        for (index, controller) in link.controllers.iter().enumerate() {
            if link.controllers.iter().position(|other| other == controller) == Some(index) {
                self.add(subject, CONTROLLER, Term::Iri(controller), graph);
            }
        }
        self.add(
            subject,
            EXPIRATION,
            Term::Literal(&link.expires_text, Some(DATE_TIME)),
            graph,
        );
        self.add(subject, INVOCATION_TARGET, Term::Iri(&link.target), graph);
        self.add(subject, PARENT_CAPABILITY, Term::Iri(&link.parent), graph);
    }

    fn proof(&mut self, delegated: &'a Delegated, level: usize, graph: Option<Term<'a>>, with_value: bool) {
        let link = &delegated.links()[level];
        let subject = self.blank();
        self.add(
            subject,
            CREATED,
            Term::Literal(&link.created_text, Some(DATE_TIME)),
            graph,
        );
        let proof_type = match link.suite {
            Suite::Ed25519Signature2020 => "https://w3id.org/security#Ed25519Signature2020",
            Suite::EddsaRdfc2022 => "https://w3id.org/security#DataIntegrityProof",
        };
        self.add(subject, TYPE, Term::Iri(proof_type), graph);
        if link.suite == Suite::EddsaRdfc2022 {
            let value = Term::Literal(Suite::CRYPTOSUITE, Some(CRYPTOSUITE_STRING));
            self.add(subject, CRYPTOSUITE, value, graph);
        }
        self.add(subject, PROOF_PURPOSE, Term::Iri(DELEGATION), graph);
        if with_value {
            self.add(
                subject,
                PROOF_VALUE,
                Term::Literal(&link.proof_text, Some(MULTIBASE)),
                graph,
            );
        }
        self.add(
            subject,
            VERIFICATION_METHOD,
            Term::Iri(&link.delegator.method),
            graph,
        );
        let mut entry = self.blank();
        self.add(subject, CAPABILITY_CHAIN, entry, graph);
        self.add(entry, FIRST, Term::Iri(delegated.root()), graph);
        for above in &delegated.links()[..level] {
            let next = self.blank();
            self.add(entry, REST, next, graph);
            self.add(next, FIRST, Term::Iri(&above.id), graph);
            entry = next;
        }
        self.add(entry, REST, Term::Iri(NIL), graph);
    }
}
