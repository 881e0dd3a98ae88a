//! The garbler that sends no tables, and vouches for those of the first.

use super::Misuse;
use super::context::{Context, Mac, PairSecret, Task};
use super::kept::{Kept, decode_bits};
use crate::burned::Ticket;
use crate::garble::Garbler;
use crate::label;
use crate::sharing::GarblerParts;

/// P2.
pub struct SecondGarbler {
    garbler: Garbler,
    mac: Mac,
    opened: usize,
    tables: Vec<u8>,
}

impl SecondGarbler {
    /// Begins; the caller has verified the request. The secrets are those shared with the first
    /// garbler and with the evaluator. Gives its openings, covered.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn begin(
        ticket: Ticket,
        context: &Context,
        task: &Task,
        (with_first, with_evaluator): (&PairSecret, &PairSecret),
        parts: &GarblerParts,
    ) -> Result<(Self, Vec<u8>), Misuse> {
        context.check(task, &ticket, parts)?;
        let garbling = context.derive(task, with_first).garbling(task.program.secret);
        let mut openings = garbling.open(&garbling.second, &parts.own);
        let with_evaluator = context.derive(task, with_evaluator);
        with_evaluator.cover(&mut openings);
        let mut mac = with_evaluator.mac();
        mac.update(&garbling.hash.to_le_bytes());
        mac.update(&label::bytes_of(&garbling.commitments()));
        let this = Self {
            garbler: garbling.garbler(task, parts),
            mac,
            opened: task.opened,
            tables: Vec::new(),
        };
        Ok((this, label::bytes_of(&openings)))
    }

    /// Garbles on, by `enough` bytes of tables or a little more; `false` at the end.
    pub fn proceed(&mut self, enough: usize) -> bool {
        self.tables.clear();
        let more = self.garbler.garble(&mut self.tables, enough);
        self.mac.update(&self.tables);
        more
    }

    /// The MAC of all that the first garbler sends but its openings.
    pub fn finish(mut self) -> ([u8; 16], Kept) {
        self.mac.update(&decode_bits(&self.garbler, self.opened));
        (
            self.mac.finish().to_le_bytes(),
            Kept::of(&self.garbler, self.opened),
        )
    }
}
