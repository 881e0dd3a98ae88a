//! A second opinion on canonical N-Quads: rdf-canon, an independent implementation of RDFC-1.0, on the same dataset with
//! other names of blank nodes and in another order.

use oxrdf::{BlankNode, GraphName, Literal, NamedNode, Quad, Subject, Term};

/// Whether rdf-canon gives the same text for the dataset that this canonical text describes.
pub(crate) fn agrees(canonical: &str, salt: usize) -> bool {
    let quads: Option<Vec<Quad>> = canonical.lines().rev().map(|line| quad(line, salt)).collect();
    let theirs = quads.map(|quads| rdf_canon::canonicalize_quads(&quads));
    matches!(theirs, Some(Ok(theirs)) if theirs == canonical)
}

/// A line of the verifier's; no IRI and no literal of its has a space.
fn quad(line: &str, salt: usize) -> Option<Quad> {
    let mut terms = line.strip_suffix(" .")?.split(' ');
    let subject: Subject = match terms.next()? {
        blank if blank.starts_with('_') => node(blank, salt)?.into(),
        iri => named(iri)?.into(),
    };
    let predicate = named(terms.next()?)?;
    let object: Term = match terms.next()? {
        blank if blank.starts_with('_') => node(blank, salt)?.into(),
        iri if iri.starts_with('<') => named(iri)?.into(),
        literal => match literal.strip_prefix('"')?.split_once('"')? {
            (text, "") => Literal::new_simple_literal(text).into(),
            (text, datatype) => Literal::new_typed_literal(text, named(datatype.strip_prefix("^^")?)?).into(),
        },
    };
    let graph = match terms.next() {
        None => GraphName::DefaultGraph,
        Some(blank) => node(blank, salt)?.into(),
    };
    terms
        .next()
        .is_none()
        .then(|| Quad::new(subject, predicate, object, graph))
}

fn named(term: &str) -> Option<NamedNode> {
    let iri = term.strip_prefix('<')?.strip_suffix('>')?;
    // The verifier takes texts for IRIs that RFC 3987 does not; canonicalization does not look at them.
    Some(NamedNode::new_unchecked(iri))
}

/// A name that has nothing to do with the canonical number.
fn node(term: &str, salt: usize) -> Option<BlankNode> {
    let number: usize = term.strip_prefix("_:c14n")?.parse().ok()?;
    BlankNode::new(format!("x{:05}", (number * 7_919 + salt) % 10_007)).ok()
}
