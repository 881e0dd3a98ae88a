//! RDFC-1.0 (W3C Recommendation, "RDF Dataset Canonicalization"), sections 4.4 to 4.8, for small datasets whose IRIs
//! and literals need no escaping. The hash is SHA-256. Work is bounded: a dataset in which two blank nodes cannot be
//! told apart by what hangs on them is refused, which no consistent capability chain contains.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// A subject, object or graph name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Term<'a> {
    /// A blank node by number, below the dataset's `blanks`.
    Blank(usize),
    /// An IRI without its angle brackets.
    Iri(&'a str),
    /// A literal with its datatype, if that is not xsd:string.
    Literal(&'a str, Option<&'static str>),
}

/// One quad; predicates are never blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quad<'a> {
    pub(crate) subject: Term<'a>,
    pub(crate) predicate: &'static str,
    pub(crate) object: Term<'a>,
    /// `None` for the default graph.
    pub(crate) graph: Option<Term<'a>>,
}

/// The dataset is more symmetric than anything that this project signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("dataset too symmetric to canonicalize")]
pub(crate) struct TooSymmetric;

/// At most this many visits of hash n-degree quads for one dataset. The longest chain that can be read stays below it.
const MAX_VISITS: usize = 4_096;

type Hash = [u8; 64];

/// The canonical N-Quads of a dataset whose blank nodes are `0..blanks`.
pub(crate) fn canonicalize(quads: &[Quad<'_>], blanks: usize) -> Result<String, TooSymmetric> {
    let mut run = Run::new(quads, blanks);
    run.issue_all()?;
    let mut lines: Vec<String> = quads
        .iter()
        .map(|quad| {
            let mut line = String::with_capacity(256);
            write_quad(&mut line, quad, |line, node| {
                line.push_str("_:");
                push_number(line, "c14n", run.canonical[node].unwrap_or(usize::MAX));
            });
            line
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.concat())
}

/// Temporary names in the order in which they were given.
#[derive(Clone)]
struct Issuer {
    names: Vec<Option<usize>>,
    order: Vec<usize>,
}

impl Issuer {
    fn new(blanks: usize) -> Self {
        Self {
            names: vec![None; blanks],
            order: Vec::new(),
        }
    }

    fn issue(&mut self, node: usize) -> usize {
        *self.names[node].get_or_insert_with(|| {
            self.order.push(node);
            self.order.len() - 1
        })
    }
}

struct Run<'q, 'a> {
    quads: &'q [Quad<'a>],
    /// For each blank node the quads that mention it.
    mentions: Vec<Vec<usize>>,
    first_degree: Vec<Hash>,
    canonical: Vec<Option<usize>>,
    issued: usize,
    visits: usize,
}

impl<'q, 'a> Run<'q, 'a> {
    fn new(quads: &'q [Quad<'a>], blanks: usize) -> Self {
        let mut mentions = vec![Vec::new(); blanks];
        for (index, quad) in quads.iter().enumerate() {
            for term in [Some(quad.subject), Some(quad.object), quad.graph]
                .into_iter()
                .flatten()
            {
                if let Term::Blank(node) = term
                    && mentions[node].last() != Some(&index)
                {
                    mentions[node].push(index);
                }
            }
        }
        let mut run = Self {
            quads,
            mentions,
            first_degree: Vec::with_capacity(blanks),
            canonical: vec![None; blanks],
            issued: 0,
            visits: 0,
        };
        for node in 0..blanks {
            run.first_degree.push(run.hash_first_degree(node));
        }
        run
    }

    /// 4.4.3, steps 3 to 5.
    fn issue_all(&mut self) -> Result<(), TooSymmetric> {
        let mut by_hash: BTreeMap<Hash, Vec<usize>> = BTreeMap::new();
        for (node, hash) in self.first_degree.iter().enumerate() {
            by_hash.entry(*hash).or_default().push(node);
        }
        for nodes in by_hash.values() {
            if let [node] = nodes.as_slice() {
                self.issue_canonical(*node);
            }
        }
        for nodes in by_hash.values().filter(|nodes| nodes.len() > 1) {
            let mut results = Vec::with_capacity(nodes.len());
            for node in nodes {
                if self.canonical[*node].is_none() {
                    let mut issuer = Issuer::new(self.canonical.len());
                    issuer.issue(*node);
                    results.push(self.hash_n_degree(*node, issuer)?);
                }
            }
            results.sort_by_key(|(hash, _)| *hash);
            for (_, issuer) in results {
                for node in issuer.order {
                    self.issue_canonical(node);
                }
            }
        }
        Ok(())
    }

    fn issue_canonical(&mut self, node: usize) {
        if self.canonical[node].is_none() {
            self.canonical[node] = Some(self.issued);
            self.issued += 1;
        }
    }

    /// 4.6.
    fn hash_first_degree(&self, node: usize) -> Hash {
        let mut lines: Vec<String> = Vec::with_capacity(self.mentions[node].len());
        for index in &self.mentions[node] {
            let mut line = String::with_capacity(256);
            write_quad(&mut line, &self.quads[*index], |line, other| {
                line.push_str(if other == node { "_:a" } else { "_:z" });
            });
            lines.push(line);
        }
        lines.sort_unstable();
        let mut hash = Sha256::new();
        for line in &lines {
            hash.update(line);
        }
        hex(&hash.finalize().into())
    }

    /// 4.7.
    fn hash_related(&self, related: usize, predicate: Option<&str>, issuer: &Issuer, position: u8) -> Hash {
        let mut input = String::with_capacity(160);
        input.push(char::from(position));
        if let Some(predicate) = predicate {
            input.push('<');
            input.push_str(predicate);
            input.push('>');
        }
        if self.canonical[related].is_some() || issuer.names[related].is_some() {
            self.push_name(&mut input, related, issuer);
        } else {
            // A hash of hexadecimal digits.
            input.extend(self.first_degree[related].iter().map(|byte| char::from(*byte)));
        }
        hex(&Sha256::digest(&input).into())
    }

    fn push_name(&self, out: &mut String, node: usize, issuer: &Issuer) {
        out.push_str("_:");
        match (self.canonical[node], issuer.names[node]) {
            (Some(number), _) => push_number(out, "c14n", number),
            (None, Some(number)) => push_number(out, "b", number),
            (None, None) => {}
        }
    }

    /// 4.8, for groups of related nodes with one member: what a permutation would have to decide is refused.
    fn hash_n_degree(&mut self, node: usize, mut issuer: Issuer) -> Result<(Hash, Issuer), TooSymmetric> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(TooSymmetric);
        }
        // Each related hash with its node and how many times it occurs.
        let mut related: BTreeMap<Hash, (usize, usize)> = BTreeMap::new();
        for index in &self.mentions[node] {
            let quad = &self.quads[*index];
            let positions = [
                (Some(quad.subject), Some(quad.predicate), b's'),
                (Some(quad.object), Some(quad.predicate), b'o'),
                (quad.graph, None, b'g'),
            ];
            for (term, predicate, position) in positions {
                if let Some(Term::Blank(other)) = term
                    && other != node
                {
                    let hash = self.hash_related(other, predicate, &issuer, position);
                    let entry = related.entry(hash).or_insert((other, 0));
                    if entry.0 != other {
                        return Err(TooSymmetric);
                    }
                    entry.1 += 1;
                }
            }
        }
        let mut data = Sha256::new();
        for (hash, (other, times)) in related {
            data.update(hash);
            let mut path = String::with_capacity(80);
            let is_new = self.canonical[other].is_none() && issuer.names[other].is_none();
            for _ in 0..times {
                if self.canonical[other].is_none() {
                    issuer.issue(other);
                }
                self.push_name(&mut path, other, &issuer);
            }
            if is_new {
                let (inner, inner_issuer) = self.hash_n_degree(other, issuer.clone())?;
                self.push_name(&mut path, other, &issuer);
                path.push('<');
                path.extend(inner.iter().map(|byte| char::from(*byte)));
                path.push('>');
                issuer = inner_issuer;
            }
            data.update(&path);
        }
        Ok((hex(&data.finalize().into()), issuer))
    }
}

fn write_quad(line: &mut String, quad: &Quad<'_>, mut blank: impl FnMut(&mut String, usize)) {
    let mut term = |line: &mut String, term: &Term<'_>| match term {
        Term::Blank(node) => blank(line, *node),
        Term::Iri(iri) => {
            line.push('<');
            line.push_str(iri);
            line.push('>');
        }
        Term::Literal(text, datatype) => {
            line.push('"');
            line.push_str(text);
            line.push('"');
            if let Some(datatype) = datatype {
                line.push_str("^^<");
                line.push_str(datatype);
                line.push('>');
            }
        }
    };
    term(line, &quad.subject);
    line.push_str(" <");
    line.push_str(quad.predicate);
    line.push_str("> ");
    term(line, &quad.object);
    if let Some(graph) = &quad.graph {
        line.push(' ');
        term(line, graph);
    }
    line.push_str(" .\n");
}

fn push_number(out: &mut String, prefix: &str, number: usize) {
    out.push_str(prefix);
    out.push_str(&number.to_string());
}

fn hex(bytes: &[u8; 32]) -> Hash {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 64];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "http://example.org/vocab#next";
    const PREVIOUS: &str = "http://example.org/vocab#prev";

    /// A ring of three in a named graph, whose form rdf-canon's documentation gives.
    #[test]
    fn a_ring_has_its_known_form() {
        let quad = |subject, predicate, object| Quad {
            subject: Term::Blank(subject),
            predicate,
            object: Term::Blank(object),
            graph: Some(Term::Blank(3)),
        };
        let quads = [
            quad(0, NEXT, 1),
            quad(0, PREVIOUS, 2),
            quad(1, NEXT, 2),
            quad(1, PREVIOUS, 0),
            quad(2, NEXT, 0),
            quad(2, PREVIOUS, 1),
        ];
        let line = |s: u8, p: &str, o: u8| format!("_:c14n{s} <{p}> _:c14n{o} _:c14n0 .\n");
        let expected = [
            line(1, NEXT, 2),
            line(1, PREVIOUS, 3),
            line(2, NEXT, 3),
            line(2, PREVIOUS, 1),
            line(3, NEXT, 1),
            line(3, PREVIOUS, 2),
        ];
        assert_eq!(canonicalize(&quads, 4), Ok(expected.concat()));
    }

    /// What takes other implementations thousands of calls is refused at once.
    #[test]
    fn what_would_need_permutations_is_refused() {
        let pairs = (0..8)
            .flat_map(|one| (0..8).map(move |other| (one, other)))
            .filter(|(one, other)| one != other);
        let clique: Vec<Quad<'_>> = pairs
            .map(|(one, other)| Quad {
                subject: Term::Blank(one),
                predicate: NEXT,
                object: Term::Blank(other),
                graph: None,
            })
            .collect();
        assert_eq!(canonicalize(&clique, 8), Err(TooSymmetric));
    }
}
