//! Slots for the wires of a circuit, used again as early as can be.

use super::layers::Nodes;
use super::{Node, ONE_NODE};
use crate::circuit::{Gate, Layer, Linear, ONE, Slot};

/// Gives slots to nodes in the order of the circuit.
pub(super) struct Slots<'a> {
    nodes: &'a [Node],
    /// The readers of each node that are still to come.
    uses: Vec<u32>,
    /// The slot of each node that has one.
    pub(super) of: Vec<Slot>,
    /// The one that was freed last, and is in the cache, is taken first.
    free: Vec<Slot>,
    /// How many there are.
    pub(super) count: Slot,
}

impl<'a> Slots<'a> {
    pub(super) fn new(nodes: &'a [Node], inputs: usize, mut uses: Vec<u32>) -> Self {
        uses[ONE_NODE as usize] = u32::MAX;
        let count = Slot::try_from(1 + inputs).expect("fewer than 2^32 inputs");
        let mut of = vec![ONE; nodes.len()];
        (0..count).for_each(|slot| of[slot as usize] = slot);
        let free = (0..count)
            .rev()
            .filter(|slot| uses[*slot as usize] == 0)
            .collect();
        Slots {
            nodes,
            uses,
            of,
            free,
            count,
        }
    }

    /// The gates of the next layer.
    pub(super) fn place(&mut self, layer: &Nodes) -> Layer {
        let mut placed = Layer {
            linear: Vec::with_capacity(layer.linear.len()),
            ands: Vec::with_capacity(layer.ands.len()),
        };
        for index in &layer.linear {
            let operands = self.operands(*index);
            self.release(*index);
            let out = self.take(*index);
            placed.linear.push(match (self.nodes[*index], operands) {
                (Node::Turn(_, by), [a, _]) => Linear::Turn { out, a, by },
                (_, [a, b]) => Linear::Xor(Gate { out, a, b }),
            });
        }
        // The operands' slots are free only when the whole layer is done: its ANDs have no order.
        for index in &layer.ands {
            let [a, b] = self.operands(*index);
            let out = self.take(*index);
            placed.ands.push(Gate { out, a, b });
        }
        layer.ands.iter().for_each(|index| self.release(*index));
        placed
    }

    /// The slots that a gate reads; twice the same for a gate of one operand.
    fn operands(&self, index: usize) -> [Slot; 2] {
        match self.nodes[index] {
            Node::Xor(a, b) | Node::And(a, b) => [a, b].map(|operand| self.of[operand as usize]),
            Node::Turn(a, _) => [self.of[a as usize]; 2],
            Node::Input => unreachable!("only gates are in layers"),
        }
    }

    fn take(&mut self, index: usize) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.of[index] = slot;
        slot
    }

    /// Frees the slots of the operands that nobody else reads.
    fn release(&mut self, index: usize) {
        for operand in self.nodes[index]
            .operands()
            .filter(|operand| *operand != ONE_NODE)
        {
            let uses = &mut self.uses[operand as usize];
            *uses -= 1;
            if *uses == 0 {
                self.free.push(self.of[operand as usize]);
            }
        }
    }
}
