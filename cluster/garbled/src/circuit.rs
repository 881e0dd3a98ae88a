//! A compiled circuit: XOR and AND gates over numbered slots, in layers of ANDs that do not depend on each other.
//!
//! Slot 0 is the constant one. Slots `1..=inputs` hold the inputs when a circuit begins; a slot is used again once what
//! it held is not needed any more, so that a circuit's wires stay in the processor's cache.

/// Index of a wire slot.
pub type Slot = u32;

/// The slot of the constant one: a NOT is an XOR with it.
pub const ONE: Slot = 0;

/// `out = a ^ b` or `out = a & b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Where the result goes.
    pub out: Slot,
    /// Left operand.
    pub a: Slot,
    /// Right operand.
    pub b: Slot,
}

/// First the XORs one after the other, then the ANDs, whose results no gate of the same layer reads and whose result
/// slots no AND of the same layer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// In their order.
    pub xors: Vec<Gate>,
    /// In any order.
    pub ands: Vec<Gate>,
}

/// A circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Number of inputs, bits.
    pub inputs: usize,
    /// Number of slots, the constant's and the inputs' among them.
    pub slots: usize,
    /// From the inputs to the outputs.
    pub layers: Vec<Layer>,
    /// Where each output bit is found at the end.
    pub outputs: Vec<Slot>,
}

impl Circuit {
    /// Number of AND gates: what garbling, evaluating and the wire cost.
    pub fn ands(&self) -> usize {
        self.layers.iter().map(|layer| layer.ands.len()).sum()
    }

    /// Evaluates it in clear. For tests: branches and indices depend on nothing secret, but nothing is zeroized.
    pub fn evaluate(&self, inputs: &[bool]) -> Vec<bool> {
        assert_eq!(inputs.len(), self.inputs, "inputs of the circuit");
        let mut slots = vec![false; self.slots];
        slots[0] = true;
        slots[1..=inputs.len()].copy_from_slice(inputs);
        for layer in &self.layers {
            for gate in &layer.xors {
                slots[gate.out as usize] = slots[gate.a as usize] ^ slots[gate.b as usize];
            }
            let results: Vec<bool> = layer
                .ands
                .iter()
                .map(|gate| slots[gate.a as usize] & slots[gate.b as usize])
                .collect();
            for (gate, result) in layer.ands.iter().zip(results) {
                slots[gate.out as usize] = result;
            }
        }
        self.outputs.iter().map(|slot| slots[*slot as usize]).collect()
    }
}
