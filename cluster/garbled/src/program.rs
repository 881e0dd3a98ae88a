//! A program: circuits called one after the other over one file of wires, so that a circuit that is run 24 times is
//! built once.
//!
//! The wires of a program: wire 0 is the constant one, then the secret inputs, then the public inputs, then what the calls
//! write. Bytes become bits with the lowest bit first.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::circuit::{Circuit, Linear};

/// Index of a wire of a program.
pub type Wire = u32;

/// One call of a circuit.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is called.
    pub circuit: Arc<Circuit>,
    /// The wire of each lane of each input: the lanes of the first input, those of the second, and so on.
    pub inputs: Vec<Wire>,
    /// The wire that each lane of each output goes to, in the same order.
    pub outputs: Vec<Wire>,
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Tells it from other programs in its [`Program::id`]; with the sizes of its inputs it names what it computes.
    pub name: &'static str,
    /// Bits of input that no node knows.
    pub secret: usize,
    /// Bits of input that every node knows.
    pub public: usize,
    /// Number of wires.
    pub wires: usize,
    /// In their order.
    pub calls: Vec<Call>,
    /// The wire of each output bit.
    pub outputs: Vec<Wire>,
}

impl Program {
    /// Number of AND gates.
    pub fn ands(&self) -> usize {
        self.calls.iter().map(|call| call.circuit.ands()).sum()
    }

    /// A hash of everything that it computes, gate by gate; each circuit is hashed once, however often it is called.
    pub fn id(&self) -> [u8; 32] {
        let mut circuits: Vec<(*const Circuit, [u8; 32])> = Vec::new();
        let mut hash = Hash::new(b"conclave program 1");
        hash.bytes(self.name.as_bytes());
        hash.numbers([self.secret, self.public, self.wires, self.calls.len()]);
        for call in &self.calls {
            let at = Arc::as_ptr(&call.circuit);
            let known = circuits.iter().find(|(known, _)| *known == at);
            let digest = known.map_or_else(|| digest(&call.circuit), |(_, digest)| *digest);
            if known.is_none() {
                circuits.push((at, digest));
            }
            hash.bytes(&digest);
            for wires in [&call.inputs, &call.outputs] {
                hash.list(wires);
            }
        }
        hash.list(&self.outputs);
        hash.0.finalize().into()
    }

    /// Evaluates it in clear; for tests.
    pub fn evaluate(&self, secret: &[u8], public: &[u8]) -> Vec<u8> {
        let inputs: Vec<bool> = bits(secret).chain(bits(public)).collect();
        assert_eq!(inputs.len(), self.secret + self.public, "inputs of the program");
        let mut wires = vec![false; self.wires];
        wires[0] = true;
        wires[1..=inputs.len()].copy_from_slice(&inputs);
        for call in &self.calls {
            let inputs: Vec<bool> = call.inputs.iter().map(|wire| wires[*wire as usize]).collect();
            for (wire, bit) in call.outputs.iter().zip(call.circuit.evaluate(&inputs)) {
                wires[*wire as usize] = bit;
            }
        }
        let outputs: Vec<bool> = self.outputs.iter().map(|wire| wires[*wire as usize]).collect();
        bytes(&outputs)
    }
}

fn digest(circuit: &Circuit) -> [u8; 32] {
    let mut hash = Hash::new(b"conclave circuit 2");
    hash.numbers([
        circuit.width.lanes(),
        circuit.inputs,
        circuit.slots,
        circuit.layers.len(),
    ]);
    for layer in &circuit.layers {
        // A turn is never by 0.
        let linear = layer.linear.iter().flat_map(|gate| match gate {
            Linear::Xor(gate) => [0, gate.out, gate.a, gate.b],
            Linear::Turn { out, a, by } => [*by, *out, *a, *a],
        });
        hash.list(&linear.collect::<Vec<_>>());
        let ands = layer.ands.iter().flat_map(|gate| [gate.out, gate.a, gate.b]);
        hash.list(&ands.collect::<Vec<_>>());
    }
    hash.list(&circuit.outputs);
    hash.0.finalize().into()
}

/// SHA-256 of parts whose lengths are in it.
struct Hash(Sha256);

impl Hash {
    fn new(purpose: &[u8]) -> Self {
        Self(Sha256::new_with_prefix(purpose))
    }

    fn numbers<const N: usize>(&mut self, numbers: [usize; N]) {
        for number in numbers {
            self.0.update((number as u64).to_be_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.numbers([bytes.len()]);
        self.0.update(bytes);
    }

    fn list(&mut self, numbers: &[u32]) {
        self.numbers([numbers.len()]);
        for number in numbers {
            self.0.update(number.to_be_bytes());
        }
    }
}

/// Bits of bytes, the lowest bit of each first; how many is known from the start, so that collecting them moves nothing.
pub fn bits(bytes: &[u8]) -> impl ExactSizeIterator<Item = bool> {
    (0..8 * bytes.len()).map(move |at| bytes[at / 8] >> (at % 8) & 1 == 1)
}

/// The other way; a last byte that is not full is filled up with zeros.
pub fn bytes(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks(8).map(byte).collect()
}
