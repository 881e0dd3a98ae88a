//! The coordinator's part.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::Abort;
use super::context::{Context, Derived, Mac, PairSecret, Task, commit};
use super::kept::permute_bit;
use super::message::{Head, Tail};
use crate::evaluate::Evaluator;
use crate::label::{self, BYTES, Label, Labels, TABLE};
use crate::program::{bits, bytes};
use crate::sharing::EvaluatorParts;

/// P3. Takes messages in any order in which two links can bring them.
pub struct Evaluation {
    task: Task,
    parts: EvaluatorParts,
    with: [Derived; 2],
    mac: Mac,
    hash: Label,
    commitments: Labels,
    openings: [Option<Labels>; 2],
    evaluator: Option<Evaluator>,
    /// Tables that cannot be evaluated yet.
    waiting: Vec<u8>,
    /// Bytes of tables that are still to come.
    expected: usize,
    decode: Option<Vec<u8>>,
    vouched: Option<Label>,
    /// Something did not fit: nothing comes of it any more, whatever the caller does.
    failed: bool,
}

/// What comes out.
pub struct Outputs {
    /// The bits that the evaluator decodes, as bytes.
    pub opened: Zeroizing<Vec<u8>>,
    /// Active labels of those that only the garblers decode.
    pub kept: Zeroizing<Vec<u8>>,
}

impl Evaluation {
    /// Begins. The secrets are those shared with the first and the second garbler.
    pub fn begin(
        context: &Context,
        task: Task,
        (with_first, with_second): (&PairSecret, &PairSecret),
        parts: EvaluatorParts,
    ) -> Self {
        let with = [with_first, with_second].map(|secret| context.derive(&task, secret));
        Self {
            mac: with[1].mac(),
            with,
            hash: 0,
            commitments: Labels::default(),
            openings: [None, None],
            evaluator: None,
            waiting: Vec::new(),
            expected: task.program.ands() * TABLE,
            decode: None,
            vouched: None,
            failed: false,
            task,
            parts,
        }
    }

    /// The first garbler's first message.
    ///
    /// # Errors
    /// [`Abort`], as everywhere here: of another size, or twice.
    pub fn head(&mut self, head: &Head) -> Result<(), Abort> {
        self.step(|this| this.take_head(head))
    }

    fn step(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Abort>) -> Result<(), Abort> {
        if self.failed {
            return Err(Abort);
        }
        let taken = step(self);
        self.failed = taken.is_err();
        taken
    }

    fn take_head(&mut self, head: &Head) -> Result<(), Abort> {
        let inputs = self.task.program.secret;
        if !self.commitments.is_empty() {
            return Err(Abort);
        }
        self.commitments = label::read(&head.commitments, 4 * inputs).ok_or(Abort)?;
        self.hash = Label::from_le_bytes(head.hash);
        self.mac.update(&head.hash);
        self.mac.update(&head.commitments);
        self.open(0, &head.openings)
    }

    /// The second garbler's first message.
    ///
    /// # Errors
    /// [`Abort`].
    pub fn openings(&mut self, openings: &[u8]) -> Result<(), Abort> {
        self.step(|this| this.open(1, openings))
    }

    fn open(&mut self, garbler: usize, openings: &[u8]) -> Result<(), Abort> {
        let mut labels = label::read(openings, self.task.program.secret).ok_or(Abort)?;
        if self.openings[garbler].is_some() {
            return Err(Abort);
        }
        self.with[garbler].cover(&mut labels);
        self.openings[garbler] = Some(labels);
        if let [Some(first), Some(second)] = &self.openings {
            let active: Labels =
                Zeroizing::new(first.iter().zip(second.iter()).map(|(a, b)| a ^ b).collect());
            let mut evaluator = Evaluator::new(self.task.program.clone(), self.hash, &active);
            let used = evaluator.evaluate(&self.waiting);
            self.waiting.drain(..used);
            self.evaluator = Some(evaluator);
        }
        Ok(())
    }

    /// The next tables; evaluated at once if the openings are there.
    ///
    /// # Errors
    /// [`Abort`]: more than the program has, or before the head.
    pub fn tables(&mut self, tables: &[u8]) -> Result<(), Abort> {
        self.step(|this| this.take_tables(tables))
    }

    fn take_tables(&mut self, tables: &[u8]) -> Result<(), Abort> {
        if self.commitments.is_empty() || tables.len() > self.expected {
            return Err(Abort);
        }
        self.expected -= tables.len();
        self.mac.update(tables);
        let Some(evaluator) = &mut self.evaluator else {
            self.waiting.extend_from_slice(tables);
            return Ok(());
        };
        if self.waiting.is_empty() {
            let used = evaluator.evaluate(tables);
            self.waiting.extend_from_slice(&tables[used..]);
        } else {
            self.waiting.extend_from_slice(tables);
            let used = evaluator.evaluate(&self.waiting);
            self.waiting.drain(..used);
        }
        Ok(())
    }

    /// Bytes of tables that wait for openings: what back-pressure is judged by.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all tables are here, so that the first garbler's last message can be taken.
    pub fn has_all_tables(&self) -> bool {
        self.expected == 0 && !self.commitments.is_empty()
    }

    /// The first garbler's last message.
    ///
    /// # Errors
    /// [`Abort`].
    pub fn tail(&mut self, tail: &Tail) -> Result<(), Abort> {
        self.step(|this| this.take_tail(tail))
    }

    fn take_tail(&mut self, tail: &Tail) -> Result<(), Abort> {
        let fits = tail.decode.len() == self.task.opened.div_ceil(8) && self.expected == 0;
        if !fits || self.decode.replace(tail.decode.clone()).is_some() {
            return Err(Abort);
        }
        self.mac.update(&tail.decode);
        Ok(())
    }

    /// The second garbler's last message.
    ///
    /// # Errors
    /// [`Abort`].
    pub fn vouch(&mut self, mac: [u8; 16]) -> Result<(), Abort> {
        self.step(|this| match this.vouched.replace(Label::from_le_bytes(mac)) {
            None => Ok(()),
            Some(_) => Err(Abort),
        })
    }

    /// Whether everything has come.
    pub fn is_complete(&self) -> bool {
        let through = self.evaluator.as_ref().is_some_and(Evaluator::is_through);
        through && self.decode.is_some() && self.vouched.is_some()
    }

    /// Compares everything, and only then decodes.
    ///
    /// # Errors
    /// [`Abort`], whatever it was.
    pub fn finish(self) -> Result<Outputs, Abort> {
        let ([Some(first), Some(second)], Some(evaluator), Some(decode), Some(vouched)) =
            (&self.openings, &self.evaluator, &self.decode, self.vouched)
        else {
            return Err(Abort);
        };
        let inputs = self.task.program.secret;
        let mut sound = Choice::from(u8::from(
            evaluator.is_through() && self.waiting.is_empty() && !self.failed,
        ));
        sound &= self.mac.finish().ct_eq(&vouched);
        let known = [(first, &self.parts.first), (second, &self.parts.second)];
        for (half, (opened, value)) in known.into_iter().enumerate() {
            let values: Zeroizing<Vec<bool>> = Zeroizing::new(bits(value).collect());
            let place = |at: usize| 2 * (half * inputs + at);
            let value = |at: usize| values.get(at).copied().unwrap_or(false);
            let made = commit(self.hash, opened, |at| {
                (place(at) + usize::from(value(at))) as u64
            });
            for (at, made) in made.iter().enumerate() {
                let both = &self.commitments[place(at)..place(at) + 2];
                let wanted = Label::conditional_select(&both[0], &both[1], Choice::from(u8::from(value(at))));
                sound &= made.ct_eq(&wanted);
            }
        }
        if !bool::from(sound) {
            return Err(Abort);
        }
        let active: Labels = Zeroizing::new(evaluator.outputs().collect());
        let (opened, kept) = active.split_at(self.task.opened);
        let decoded = opened
            .iter()
            .zip(bits(decode))
            .map(|(label, bit)| permute_bit(*label) ^ bit);
        let mut bytes_kept = Zeroizing::new(Vec::with_capacity(kept.len() * BYTES));
        label::write(kept.iter().copied(), &mut bytes_kept);
        Ok(Outputs {
            opened: Zeroizing::new(bytes(&Zeroizing::new(decoded.collect::<Vec<bool>>()))),
            kept: bytes_kept,
        })
    }
}
