//! A compiled circuit: XOR and AND gates over numbered slots, in layers of ANDs that do not depend on each other.
//!
//! Slot 0 is the constant one. Slots `1..=inputs` hold the inputs when a circuit begins; a slot is used again once what
//! it held is not needed any more, so that a circuit's wires stay in the processor's cache.
//!
//! A slot has one lane or more, and every gate works on all of them: what is done to four columns alike is built once,
//! and run by instructions that take four labels.

/// Index of a wire slot.
pub type Slot = u32;

/// The slot of the constant one: a NOT is an XOR with it.
pub const ONE: Slot = 0;

/// Bits that a slot has side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One bit.
    One,
    /// Four: a column of AES each.
    Four,
}

impl Width {
    /// The number of lanes.
    pub const fn lanes(self) -> usize {
        match self {
            Width::One => 1,
            Width::Four => 4,
        }
    }
}

/// `out = a ^ b` or `out = a & b`, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Where the result goes.
    pub out: Slot,
    /// Left operand.
    pub a: Slot,
    /// Right operand.
    pub b: Slot,
}

/// What costs neither hashes nor tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// `out = a ^ b`.
    Xor(Gate),
    /// Lane i of `out` is lane i + `by`, counted round, of `a`.
    Turn {
        /// Where the result goes.
        out: Slot,
        /// Operand.
        a: Slot,
        /// From 1 to the number of lanes less 1.
        by: u32,
    },
}

/// First the linear gates one after the other, then the ANDs, whose results no gate of the same layer reads and whose
/// result slots no AND of the same layer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// In their order.
    pub linear: Vec<Linear>,
    /// In any order.
    pub ands: Vec<Gate>,
}

/// A circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Of every slot.
    pub width: Width,
    /// Number of inputs, slots.
    pub inputs: usize,
    /// Number of slots, the constant's and the inputs' among them.
    pub slots: usize,
    /// From the inputs to the outputs.
    pub layers: Vec<Layer>,
    /// Where each output is found at the end.
    pub outputs: Vec<Slot>,
}

impl Circuit {
    /// Number of AND gates, one for each lane: what garbling, evaluating and the wire cost.
    pub fn ands(&self) -> usize {
        let gates: usize = self.layers.iter().map(|layer| layer.ands.len()).sum();
        gates * self.width.lanes()
    }

    /// Bits of input: the lanes of the first input, those of the second, and so on.
    pub fn input_bits(&self) -> usize {
        self.inputs * self.width.lanes()
    }

    /// Bits of output, in the same order.
    pub fn output_bits(&self) -> usize {
        self.outputs.len() * self.width.lanes()
    }

    /// Evaluates it in clear. For tests: branches and indices depend on nothing secret, but nothing is zeroized.
    pub fn evaluate(&self, inputs: &[bool]) -> Vec<bool> {
        assert_eq!(inputs.len(), self.input_bits(), "inputs of the circuit");
        let lanes = self.width.lanes();
        let mut slots = vec![vec![false; lanes]; self.slots];
        slots[0] = vec![true; lanes];
        for (slot, input) in slots[1..].iter_mut().zip(inputs.chunks(lanes)) {
            slot.copy_from_slice(input);
        }
        for layer in &self.layers {
            for gate in &layer.linear {
                let (out, result) = match gate {
                    Linear::Xor(gate) => (gate.out, lanewise(&slots, gate, |a, b| a ^ b)),
                    Linear::Turn { out, a, by } => {
                        let mut turned = slots[*a as usize].clone();
                        turned.rotate_left(*by as usize);
                        (*out, turned)
                    }
                };
                slots[out as usize] = result;
            }
            let and = |gate: &Gate| lanewise(&slots, gate, |a, b| a & b);
            let results: Vec<Vec<bool>> = layer.ands.iter().map(and).collect();
            for (gate, result) in layer.ands.iter().zip(results) {
                slots[gate.out as usize] = result;
            }
        }
        let outputs = self.outputs.iter();
        outputs.flat_map(|slot| slots[*slot as usize].clone()).collect()
    }
}

fn lanewise(slots: &[Vec<bool>], gate: &Gate, of: fn(bool, bool) -> bool) -> Vec<bool> {
    let (a, b) = (&slots[gate.a as usize], &slots[gate.b as usize]);
    a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect()
}
