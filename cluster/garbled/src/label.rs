//! Wire labels: 128 bits for each wire and value, two of a wire differing by Delta (free XOR: Kolesnikov, Schneider,
//! "Improved Garbled Circuit: Free XOR Gates and Applications", ICALP 2008).

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A label. Its lowest bit is the permute bit.
pub type Label = u128;

/// Bytes of a label.
pub const BYTES: usize = 16;

/// Bytes of an AND gate's table.
pub(crate) const TABLE: usize = 2 * BYTES;

/// Labels that are overwritten when they are dropped.
pub type Labels = Zeroizing<Vec<Label>>;

/// What the two labels of every wire differ by; its lowest bit is one.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Delta(Label);

impl Delta {
    /// Of 128 random bits.
    pub fn new(random: Label) -> Self {
        Self(random | 1)
    }

    /// Delta itself.
    pub(crate) fn label(&self) -> Label {
        self.0
    }

    /// Delta if `bit` is one, else zero; without a branch.
    pub(crate) fn times(&self, bit: bool) -> Label {
        masked(self.0, Label::from(bit))
    }
}

/// `label` if the lowest bit of `by` is one, else zero; without a branch.
#[inline]
pub(crate) fn masked(label: Label, by: Label) -> Label {
    label & 0_u128.wrapping_sub(by & 1)
}

/// Labels as bytes, one after the other.
pub(crate) fn write(labels: impl IntoIterator<Item = Label>, to: &mut Vec<u8>) {
    for label in labels {
        to.extend_from_slice(&label.to_le_bytes());
    }
}

/// The same, by themselves.
pub(crate) fn bytes_of(labels: &[Label]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(labels.len() * BYTES);
    write(labels.iter().copied(), &mut bytes);
    bytes
}

/// The other way; `None` if they are not `count` labels.
pub(crate) fn read(bytes: &[u8], count: usize) -> Option<Labels> {
    let (labels, rest) = bytes.as_chunks::<BYTES>();
    (labels.len() == count && rest.is_empty())
        .then(|| Zeroizing::new(labels.iter().map(|label| Label::from_le_bytes(*label)).collect()))
}
