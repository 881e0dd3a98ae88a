//! Garbling by half gates (Zahur, Rosulek, Evans, "Two Halves Make a Whole", EUROCRYPT 2015): two labels of table for
//! an AND, none for an XOR.

use std::sync::Arc;

use crate::circuit::Gate;
use crate::hash::{Batch, Cipher, Schedule, Tweaks, WIDTH};
use crate::label::{Delta, Label};
use crate::lanes::{Lanes, Quad};
use crate::program::Program;
use crate::walk::{Role, Walk};

/// Labels that are hashed for a gate and lane: two values of two operands.
const LABELS: usize = 4;

/// Lanes whose gates are garbled at once.
const LANES: usize = WIDTH / LABELS;

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
        let mut ands = Ands {
            batch: &mut self.batch,
            delta: self.delta.label(),
            tables,
            enough,
        };
        self.walk.proceed(&mut self.schedule, &mut ands);
        !self.walk.is_through()
    }

    /// The zero-labels of the outputs.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.walk.outputs()
    }

    pub(crate) fn delta(&self) -> &Delta {
        &self.delta
    }
}

/// The ANDs of a layer. The table of a gate has a label for each lane for its first half, then as many for the second.
struct Ands<'a> {
    batch: &'a mut Batch,
    delta: Label,
    tables: &'a mut Vec<u8>,
    enough: usize,
}

impl Role for Ands<'_> {
    #[inline(always)]
    fn is_ready(&self, _ands: usize) -> bool {
        self.tables.len() < self.enough
    }

    #[inline(always)]
    fn ands<L: Lanes>(&mut self, cipher: &impl Cipher, number: u64, gates: &[Gate], slots: &mut [L]) {
        let (batch, tables, delta) = (&mut *self.batch, &mut *self.tables, L::all(self.delta));
        let tweaks = const { &Tweaks::of_gates(2, L::COUNT) };
        let mut number = 2 * number;
        for gates in gates.chunks(LANES / L::COUNT) {
            for (at, gate) in gates.iter().enumerate() {
                let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
                batch.put(at, [a, a.xor(delta), b, b.xor(delta)]);
            }
            let lanes = gates.len() * L::COUNT;
            batch.hash(cipher, LABELS * lanes, number, tweaks);
            for (at, gate) in gates.iter().enumerate() {
                let [a0, a1, b0, b1] = batch.get::<L, LABELS>(at);
                let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
                let generator = a0.xor(a1).xor(delta.masked(b));
                let evaluator = b0.xor(b1).xor(a);
                let left = a0.xor(generator.masked(a));
                let right = b0.xor(evaluator.xor(a).masked(b));
                slots[gate.out as usize] = left.xor(right);
                let mut table = [0; 2 * Quad::BYTES];
                let (first, second) = table[..2 * L::BYTES].split_at_mut(L::BYTES);
                generator.write(first);
                evaluator.write(second);
                tables.extend_from_slice(&table[..2 * L::BYTES]);
            }
            number += 2 * lanes as u64;
        }
    }
}
