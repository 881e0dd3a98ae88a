//! Garbling by half gates (Zahur, Rosulek, Evans, "Two Halves Make a Whole", EUROCRYPT 2015): two labels of table for
//! an AND, none for an XOR.

use std::sync::Arc;

use crate::circuit::Layer;
use crate::hash::{Batch, Schedule, WIDTH};
use crate::label::{BYTES, Delta, Label, TABLE, masked};
use crate::program::Program;
use crate::walk::Walk;

/// Gates whose labels are hashed at once: four labels each.
const GATES: usize = WIDTH / 4;

/// A program being garbled, a piece at a time.
pub struct Garbler {
    walk: Walk,
    schedule: Schedule,
    batch: Batch,
    delta: Delta,
}

impl Garbler {
    /// `secret` are the zero-labels of the secret inputs; public inputs have none of their own: the label that stands for
    /// what everybody knows is zero.
    pub(crate) fn new(
        program: Arc<Program>,
        (delta, hash): (Delta, Label),
        secret: &[Label],
        public: impl Iterator<Item = bool>,
    ) -> Self {
        let inputs = std::iter::once(delta.label())
            .chain(secret.iter().copied())
            .chain(public.map(|bit| delta.times(bit)));
        Self {
            walk: Walk::new(program, inputs),
            schedule: Schedule::new(hash),
            batch: Batch::new(),
            delta,
        }
    }

    /// Garbles whole layers until `tables` holds `enough` bytes or the program is through; `false` then.
    pub fn garble(&mut self, tables: &mut Vec<u8>, enough: usize) -> bool {
        while tables.len() < enough {
            let Some(ands) = self.walk.next_ands() else {
                return false;
            };
            let (hash, delta) = ((&self.schedule, &mut self.batch), self.delta.label());
            self.walk
                .step(|layer, slots| and_layer(layer, slots, hash, delta, tables));
            self.schedule.advance(ands);
        }
        self.walk.next_ands().is_some()
    }

    /// The zero-labels of the outputs.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.walk.outputs()
    }

    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }
}

/// Garbles the ANDs of a layer, [`GATES`] at a time.
fn and_layer(
    layer: &Layer,
    slots: &mut [Label],
    (schedule, batch): (&Schedule, &mut Batch),
    delta: Label,
    tables: &mut Vec<u8>,
) {
    let mut number = schedule.gate();
    for gates in layer.ands.chunks(GATES) {
        for (at, gate) in gates.iter().enumerate() {
            let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
            batch.put(at, [a, a ^ delta, b, b ^ delta]);
        }
        let count = 4 * gates.len();
        schedule.hash().hash(batch, count, |place| 2 * number + place / 2);
        for (at, gate) in gates.iter().enumerate() {
            let [a0, a1, b0, b1] = batch.get(at);
            let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
            let generator = a0 ^ a1 ^ masked(delta, b);
            let evaluator = b0 ^ b1 ^ a;
            let left = a0 ^ masked(generator, a);
            let right = b0 ^ masked(evaluator ^ a, b);
            slots[gate.out as usize] = left ^ right;
            let mut table = [0; TABLE];
            table[..BYTES].copy_from_slice(&generator.to_le_bytes());
            table[BYTES..].copy_from_slice(&evaluator.to_le_bytes());
            tables.extend_from_slice(&table);
        }
        number += gates.len() as u64;
    }
}
