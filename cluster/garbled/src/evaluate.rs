//! Evaluating what [`crate::garble`] made: one label for each wire, two hashes for an AND.

use std::sync::Arc;

use crate::circuit::Gate;
use crate::hash::{Batch, Cipher, Schedule, Tweaks, WIDTH};
use crate::label::{Label, TABLE};
use crate::lanes::Lanes;
use crate::program::Program;
use crate::walk::{Role, Walk};

/// Labels that are hashed for a gate and lane: one of each operand.
const LABELS: usize = 2;

/// Lanes whose gates are evaluated at once.
const LANES: usize = WIDTH / LABELS;

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
        let mut ands = Ands {
            batch: &mut self.batch,
            tables,
        };
        self.walk.proceed(&mut self.schedule, &mut ands);
        tables.len() - ands.tables.len()
    }

    /// Whether the program is through.
    pub fn is_through(&self) -> bool {
        self.walk.is_through()
    }

    /// The active labels of the outputs.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.walk.outputs()
    }
}

/// The ANDs of a layer.
struct Ands<'a> {
    batch: &'a mut Batch,
    /// Those that are left.
    tables: &'a [u8],
}

impl Role for Ands<'_> {
    #[inline(always)]
    fn is_ready(&self, ands: usize) -> bool {
        ands * TABLE <= self.tables.len()
    }

    #[inline(always)]
    fn ands<L: Lanes>(&mut self, cipher: &impl Cipher, number: u64, gates: &[Gate], slots: &mut [L]) {
        let batch = &mut *self.batch;
        let tweaks = const { &Tweaks::of_gates(1, L::COUNT) };
        let mut number = 2 * number;
        let (tables, left) = self.tables.split_at(gates.len() * 2 * L::BYTES);
        self.tables = left;
        let tables = tables.chunks(LANES * TABLE);
        for (gates, tables) in gates.chunks(LANES / L::COUNT).zip(tables) {
            for (at, gate) in gates.iter().enumerate() {
                batch.put(at, [slots[gate.a as usize], slots[gate.b as usize]]);
            }
            let lanes = gates.len() * L::COUNT;
            batch.hash(cipher, LABELS * lanes, number, tweaks);
            let tables = tables.chunks_exact(2 * L::BYTES);
            for ((at, gate), table) in gates.iter().enumerate().zip(tables) {
                let [left, right] = batch.get::<L, LABELS>(at);
                let (a, b) = (slots[gate.a as usize], slots[gate.b as usize]);
                let (generator, evaluator) = table.split_at(L::BYTES);
                let (generator, evaluator) = (L::read(generator), L::read(evaluator));
                let halves = generator.masked(a).xor(evaluator.xor(a).masked(b));
                slots[gate.out as usize] = left.xor(right).xor(halves);
            }
            number += 2 * lanes as u64;
        }
    }
}
