//! Words of 32 bits as SHA-256 uses them.

use crate::builder::{Bit, Builder};

/// The lowest bit first.
pub(super) type Word = [Bit; 32];

/// A word that is not secret.
pub(super) fn constant(value: u32) -> Word {
    std::array::from_fn(|bit| Bit::from(value >> bit & 1 == 1))
}

/// `a` rotated right by `count` bits.
pub(super) fn rotate_right(a: Word, count: usize) -> Word {
    std::array::from_fn(|bit| a[(bit + count) % 32])
}

/// `a` shifted right by `count` bits.
pub(super) fn shift_right(a: Word, count: usize) -> Word {
    std::array::from_fn(|bit| a.get(bit + count).copied().unwrap_or(Bit::FALSE))
}

/// `a ^ b`.
pub(super) fn xor(builder: &mut Builder, a: Word, b: Word) -> Word {
    std::array::from_fn(|bit| builder.xor(a[bit], b[bit]))
}

/// `a ^ b ^ c`.
pub(super) fn xor3(builder: &mut Builder, a: Word, b: Word, c: Word) -> Word {
    let ab = xor(builder, a, b);
    xor(builder, ab, c)
}

/// `b` where `a` is one, else `c`: 32 ANDs.
pub(super) fn choose(builder: &mut Builder, a: Word, b: Word, c: Word) -> Word {
    std::array::from_fn(|bit| {
        let differ = builder.xor(b[bit], c[bit]);
        let change = builder.and(a[bit], differ);
        builder.xor(c[bit], change)
    })
}

/// The sum of three bits and its carry: one AND.
fn add_bits(builder: &mut Builder, a: Bit, b: Bit, c: Bit) -> (Bit, Bit) {
    let (ac, bc) = (builder.xor(a, c), builder.xor(b, c));
    let change = builder.and(ac, bc);
    (builder.xor(a, bc), builder.xor(c, change))
}

/// What two of three words are, bit by bit: 32 ANDs.
pub(super) fn majority(builder: &mut Builder, a: Word, b: Word, c: Word) -> Word {
    // In the next round of SHA-256, b is c, a is b, and a ^ b is there.
    std::array::from_fn(|bit| add_bits(builder, a[bit], c[bit], b[bit]).1)
}

/// `a + b` modulo 2^32: 31 ANDs.
pub(super) fn add(builder: &mut Builder, a: Word, b: Word) -> Word {
    let mut carry = Bit::FALSE;
    std::array::from_fn(|bit| {
        // The last carry is lost, and finish drops its gate.
        let sum;
        (sum, carry) = add_bits(builder, a[bit], b[bit], carry);
        sum
    })
}

/// `a + b + c` modulo 2^32, the carries of all bits saved first: 61 ANDs, one fewer than two additions.
pub(super) fn add3(builder: &mut Builder, a: Word, b: Word, c: Word) -> Word {
    let (mut sums, mut carries) = ([Bit::FALSE; 32], [Bit::FALSE; 33]);
    for bit in 0..32 {
        (sums[bit], carries[bit + 1]) = add_bits(builder, a[bit], b[bit], c[bit]);
    }
    add(builder, sums, std::array::from_fn(|bit| carries[bit]))
}
