//! Evaluating what [`crate::garble`] made: one label for each wire, two hashes for an AND.

use std::sync::Arc;

use crate::circuit::Layer;
use crate::hash::{Schedule, WIDTH};
use crate::label::{BYTES, Label, masked};
use crate::program::Program;
use crate::walk::Walk;

/// Bytes of an AND gate's table.
pub(crate) const TABLE: usize = 2 * BYTES;

/// Gates whose labels are hashed at once: two labels each.
const GATES: usize = WIDTH / 2;

/// A program being evaluated, as its tables come.
pub struct Evaluator {
    walk: Walk,
    schedule: Schedule,
}

impl Evaluator {
    /// `secret` are the active labels of the secret inputs; those of public inputs are zero.
    pub(crate) fn new(program: Arc<Program>, hash: Label, secret: &[Label]) -> Self {
        let inputs = std::iter::once(0).chain(secret.iter().copied());
        Self {
            walk: Walk::new(program, inputs),
            schedule: Schedule::new(hash),
        }
    }

    /// Evaluates the layers whose tables are whole; the number of bytes that it has used.
    pub fn evaluate(&mut self, tables: &[u8]) -> usize {
        let mut used = 0;
        while let Some(ands) = self.walk.next_ands() {
            let Some(table) = tables.get(used..used + ands * TABLE) else {
                break;
            };
            let schedule = &self.schedule;
            self.walk
                .step(|layer, slots| and_layer(layer, slots, schedule, table));
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

fn and_layer(layer: &Layer, slots: &mut [Label], schedule: &Schedule, table: &[u8]) {
    let mut number = schedule.gate();
    let (tables, _) = table.as_chunks::<TABLE>();
    for (gates, tables) in layer.ands.chunks(GATES).zip(tables.chunks(GATES)) {
        let mut labels = [0; WIDTH];
        let mut tweaks = [0; WIDTH];
        let pairs = labels
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(tweaks.as_chunks_mut::<2>().0);
        for ((gate, tweak), (label, tweaks)) in gates.iter().zip(number..).zip(pairs) {
            *label = [slots[gate.a as usize], slots[gate.b as usize]];
            *tweaks = [tweak << 1, tweak << 1 | 1];
        }
        schedule.hash().hash(&mut labels, &tweaks);
        for ((gate, table), [left, right]) in gates.iter().zip(tables).zip(labels.as_chunks::<2>().0) {
            let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
            let (halves, _) = table.as_chunks::<BYTES>();
            let (generator, evaluator) = (Label::from_le_bytes(halves[0]), Label::from_le_bytes(halves[1]));
            slots[gate.out as usize] = left ^ masked(generator, a) ^ right ^ masked(evaluator ^ a, b);
        }
        number += gates.len() as Label;
    }
}
