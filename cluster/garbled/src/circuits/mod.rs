//! The programs: HMAC-SHA-256 and AES-256 key wrap.
//!
//! Each function builds its program anew; callers keep it. Inputs and outputs are bytes whose bits come lowest first.

use std::sync::Arc;

use crate::builder::{Bit, Builder};
use crate::circuit::Circuit;
use crate::program::{self, Call, Program, Wire};

mod aes;
mod hmac;
mod key_wrap;
mod sbox;
pub mod sha256;
mod word;

pub use hmac::{CHECK_BYTES, KEY_BYTES, check_value, hmac_states, hmac_tag, hmac_verify, outer_schedule};
pub use key_wrap::{MAX_BLOCKS, unwrap, wrap};

/// The wire of the constant one.
const ONE: Wire = 0;

/// A program that is being put together.
struct Assembly(Program);

impl Assembly {
    /// Takes the lengths of the inputs in bytes, and gives the wires of all their bits, the secret ones first.
    fn new(name: &'static str, secret: usize, public: usize) -> (Assembly, Vec<Wire>) {
        let (secret, public) = (8 * secret, 8 * public);
        let program = Program {
            name,
            secret,
            public,
            wires: 1,
            calls: Vec::new(),
            outputs: Vec::new(),
        };
        let mut assembly = Assembly(program);
        let inputs = assembly.fresh(secret + public);
        (assembly, inputs)
    }

    fn fresh(&mut self, count: usize) -> Vec<Wire> {
        let next = |wires: usize| Wire::try_from(wires).expect("fewer than 2^32 wires");
        let first = next(self.0.wires);
        self.0.wires += count;
        (first..next(self.0.wires)).collect()
    }

    /// Takes a wire for each lane of each input, and gives one for each lane of each output.
    fn call(&mut self, circuit: &Arc<Circuit>, inputs: Vec<Wire>) -> Vec<Wire> {
        assert_eq!(inputs.len(), circuit.input_bits(), "inputs of the call");
        let known = |wire: &Wire| (*wire as usize) < self.0.wires;
        assert!(inputs.iter().all(known), "a lane of the call has no wire");
        let outputs = self.fresh(circuit.output_bits());
        self.0.calls.push(Call {
            circuit: Arc::clone(circuit),
            inputs,
            outputs: outputs.clone(),
        });
        outputs
    }

    fn finish(self, outputs: Vec<Wire>) -> Program {
        Program { outputs, ..self.0 }
    }
}

/// Bits that are not secret.
fn constants(bytes: &[u8]) -> Vec<Bit> {
    program::bits(bytes).map(Bit::from).collect()
}

/// Whether all of the bits are one, in a tree of ANDs.
fn all(builder: &mut Builder, mut bits: Vec<Bit>) -> Bit {
    while bits.len() > 1 {
        bits = bits
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => builder.and(*a, *b),
                _ => pair[0],
            })
            .collect();
    }
    bits.first().copied().unwrap_or(Bit::TRUE)
}

#[cfg(test)]
mod tests;
