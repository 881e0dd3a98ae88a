//! The garbler that sends the tables.

use super::Misuse;
use super::context::{Context, PairSecret, Task};
use super::kept::Kept;
use super::message::{Head, Tail};
use crate::burned::Ticket;
use crate::garble::Garbler;
use crate::label;
use crate::sharing::GarblerParts;

/// P1.
pub struct FirstGarbler {
    garbler: Garbler,
    /// Bits of output that the evaluator decodes; the rest is kept for the garblers.
    opened: usize,
}

impl FirstGarbler {
    /// Begins; the caller has verified the request. The secrets are those shared with the second
    /// garbler and with the evaluator.
    ///
    /// # Errors
    /// [`Misuse`].
    pub fn begin(
        ticket: Ticket,
        context: &Context,
        task: &Task,
        (with_second, with_evaluator): (&PairSecret, &PairSecret),
        parts: &GarblerParts,
    ) -> Result<(Self, Head), Misuse> {
        context.check(task, &ticket, parts)?;
        let garbling = context.derive(task, with_second).garbling(task.program.secret);
        let mut openings = garbling.open(&garbling.first, &parts.own);
        context.derive(task, with_evaluator).cover(&mut openings);
        let head = Head {
            openings: label::bytes_of(&openings),
            hash: garbling.hash.to_le_bytes(),
            commitments: label::bytes_of(&garbling.commitments()),
        };
        let this = Self {
            garbler: garbling.garbler(task, parts),
            opened: task.opened,
        };
        Ok((this, head))
    }

    /// The next tables: whole layers, `enough` bytes or a little more; nothing at the end.
    pub fn tables(&mut self, enough: usize) -> Vec<u8> {
        let mut tables = Vec::with_capacity(enough + 8 * 1024);
        self.tables_after(&mut tables, enough);
        tables
    }

    /// The same after what is in `frame` already, `enough` bytes in all; `false` when these are the last.
    pub fn tables_after(&mut self, frame: &mut Vec<u8>, enough: usize) -> bool {
        self.garbler.garble(frame, enough)
    }

    /// After the last tables.
    pub fn finish(self) -> (Tail, Kept) {
        let decode = super::kept::decode_bits(&self.garbler, self.opened);
        (Tail { decode }, Kept::of(&self.garbler, self.opened))
    }
}
