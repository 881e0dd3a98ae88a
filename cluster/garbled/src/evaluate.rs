//! Evaluating what [`crate::garble`] made: one label for each wire, two hashes for an AND.

use std::sync::Arc;

use crate::circuit::Layer;
use crate::hash::{Batch, Schedule, WIDTH};
use crate::label::{BYTES, Label, TABLE, masked};
use crate::program::Program;
use crate::walk::Walk;

/// Gates whose labels are hashed at once: two labels each.
const GATES: usize = WIDTH / 2;

/// A program being evaluated, as its tables come.
pub struct Evaluator {
    walk: Walk,
    schedule: Schedule,
    batch: Batch,
}

impl Evaluator {
    /// `secret` are the active labels of the secret inputs; those of public inputs are zero.
    pub(crate) fn new(program: Arc<Program>, hash: Label, secret: &[Label]) -> Self {
        let inputs = std::iter::once(0).chain(secret.iter().copied());
        Self {
            walk: Walk::new(program, inputs),
            schedule: Schedule::new(hash),
            batch: Batch::new(),
        }
    }

    /// Evaluates the layers whose tables are whole; the number of bytes that it has used.
    pub fn evaluate(&mut self, tables: &[u8]) -> usize {
        let mut used = 0;
        while let Some(ands) = self.walk.next_ands() {
            let Some(table) = tables.get(used..used + ands * TABLE) else {
                break;
            };
            let hash = (&self.schedule, &mut self.batch);
            self.walk
                .step(|layer, slots| and_layer(layer, slots, hash, table));
            self.schedule.advance(ands);
            used += table.len();
        }
        used
    }

    /// Whether the program is through.
    pub fn is_through(&self) -> bool {
        self.walk.next_ands().is_none()
    }

    /// The active labels of the outputs.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.walk.outputs()
    }
}

fn and_layer(layer: &Layer, slots: &mut [Label], (schedule, batch): (&Schedule, &mut Batch), table: &[u8]) {
    let mut number = schedule.gate();
    let (tables, _) = table.as_chunks::<TABLE>();
    for (gates, tables) in layer.ands.chunks(GATES).zip(tables.chunks(GATES)) {
        for (at, gate) in gates.iter().enumerate() {
            batch.put(at, [slots[gate.a as usize], slots[gate.b as usize]]);
        }
        let count = 2 * gates.len();
        schedule.hash().hash(batch, count, |place| 2 * number + place);
        for ((at, gate), table) in gates.iter().enumerate().zip(tables) {
            let [left, right] = batch.get(at);
            let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
            let (halves, _) = table.as_chunks::<BYTES>();
            let (generator, evaluator) = (Label::from_le_bytes(halves[0]), Label::from_le_bytes(halves[1]));
            slots[gate.out as usize] = left ^ masked(generator, a) ^ right ^ masked(evaluator ^ a, b);
        }
        number += gates.len() as u64;
    }
}
