//! Outputs that stay shared: the evaluator gives their active labels back, and only the garblers can tell what they mean.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::Abort;
use crate::garble::Garbler;
use crate::label::{self, Delta, Label, Labels};
use crate::program;

/// What a garbler knows of the outputs that it is to decode.
pub struct Kept {
    zero: Labels,
    delta: Delta,
}

impl Kept {
    pub(super) fn of(garbler: &Garbler, opened: usize) -> Self {
        Self {
            zero: Zeroizing::new(garbler.outputs().skip(opened).collect()),
            delta: Delta::new(garbler.delta().label()),
        }
    }

    /// The bits that active labels stand for. Each must be one of its wire's two; all are looked at whatever the first
    /// ones are.
    ///
    /// # Errors
    /// [`Abort`].
    pub fn decode(&self, active: &[u8]) -> Result<Zeroizing<Vec<u8>>, Abort> {
        let active = label::read(active, self.zero.len()).ok_or(Abort)?;
        let mut sound = Choice::from(1);
        let mut bits = Zeroizing::new(Vec::with_capacity(active.len()));
        for (active, zero) in active.iter().zip(self.zero.iter()) {
            let is_one = active.ct_eq(&(zero ^ self.delta.label()));
            sound &= active.ct_eq(zero) | is_one;
            bits.push(u8::conditional_select(&0, &1, is_one) == 1);
        }
        if bool::from(sound) {
            Ok(Zeroizing::new(program::bytes(&bits)))
        } else {
            Err(Abort)
        }
    }
}

/// What the evaluator needs to decode the first `opened` outputs: their permute bits.
pub(super) fn decode_bits(garbler: &Garbler, opened: usize) -> Vec<u8> {
    let bits: Vec<bool> = garbler.outputs().take(opened).map(permute_bit).collect();
    program::bytes(&bits)
}

pub(super) fn permute_bit(label: Label) -> bool {
    label & 1 == 1
}
