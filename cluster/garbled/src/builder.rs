//! Builds circuits: constants fold, a NOT is a flag on a bit, equal gates are one gate, and [`Builder::finish`] puts
//! what is left in layers by AND depth and gives it slots.
//!
//! The same calls give the same circuit on every machine: the garblers build it on their own.

use std::collections::HashMap;

use crate::circuit::{Circuit, Width};
use slots::Slots;

mod layers;
mod slots;

/// Index of a node; it reads only nodes before it.
type Index = u32;

/// The node of the constant one.
const ONE_NODE: Index = 0;

/// A bit, or the lanes of one, of the circuit that is being built; it means nothing to another builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    node: Index,
    inverted: bool,
}

impl Bit {
    /// The constant zero.
    pub const FALSE: Bit = Bit {
        node: ONE_NODE,
        inverted: true,
    };

    /// The constant one.
    pub const TRUE: Bit = Bit {
        node: ONE_NODE,
        inverted: false,
    };

    fn of(node: Index) -> Bit {
        Bit {
            node,
            inverted: false,
        }
    }

    fn flip(self, flip: bool) -> Bit {
        Bit {
            inverted: self.inverted ^ flip,
            ..self
        }
    }
}

impl From<bool> for Bit {
    fn from(value: bool) -> Bit {
        Bit::FALSE.flip(value)
    }
}

/// Operands in rising order, so that equal gates are equal nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    Input,
    Xor(Index, Index),
    And(Index, Index),
    Turn(Index, u32),
}

impl Node {
    fn operands(self) -> impl Iterator<Item = Index> {
        let operands = match self {
            Node::Input => [None, None],
            Node::Xor(a, b) | Node::And(a, b) => [Some(a), Some(b)],
            Node::Turn(a, _) => [Some(a), None],
        };
        operands.into_iter().flatten()
    }
}

/// A circuit that is being built.
#[derive(Debug)]
pub struct Builder {
    width: Width,
    inputs: usize,
    nodes: Vec<Node>,
    known: HashMap<Node, Index>,
}

impl Builder {
    /// A circuit of `inputs` input bits, and the bits.
    pub fn new(inputs: usize) -> (Builder, Vec<Bit>) {
        Builder::of_width(Width::One, inputs)
    }

    /// The same with the lanes of `width` in place of every bit. Constants are alike in all lanes.
    pub fn of_width(width: Width, inputs: usize) -> (Builder, Vec<Bit>) {
        let nodes = vec![Node::Input; 1 + inputs];
        let bits = (1..).take(inputs).map(Bit::of).collect();
        let builder = Builder {
            width,
            inputs,
            nodes,
            known: HashMap::new(),
        };
        (builder, bits)
    }

    /// A constant.
    pub fn constant(&self, value: bool) -> Bit {
        Bit::from(value)
    }

    /// `!a`; no gate before it is needed.
    pub fn not(&self, a: Bit) -> Bit {
        a.flip(true)
    }

    /// `a ^ b`.
    pub fn xor(&mut self, a: Bit, b: Bit) -> Bit {
        match (a.node, b.node) {
            (ONE_NODE, _) => b.flip(!a.inverted),
            (_, ONE_NODE) => a.flip(!b.inverted),
            (x, y) if x == y => Bit::from(a.inverted ^ b.inverted),
            (x, y) => Bit::of(self.add_node(Node::Xor(x.min(y), x.max(y)))).flip(a.inverted ^ b.inverted),
        }
    }

    /// `a & b`.
    pub fn and(&mut self, a: Bit, b: Bit) -> Bit {
        match (a, b) {
            (Bit::FALSE, _) | (_, Bit::FALSE) => Bit::FALSE,
            (Bit::TRUE, other) | (other, Bit::TRUE) => other,
            (a, b) if a.node == b.node => [Bit::FALSE, a][usize::from(a == b)],
            (a, b) => {
                let (x, y) = (self.upright(a), self.upright(b));
                Bit::of(self.add_node(Node::And(x.min(y), x.max(y))))
            }
        }
    }

    /// Lane i of the result is lane i + `by`, counted round, of `a`.
    ///
    /// # Panics
    /// If there are not so many lanes.
    pub fn turn(&mut self, a: Bit, by: usize) -> Bit {
        let lanes = self.width.lanes();
        assert!(by < lanes, "a turn by {by} of {lanes} lanes");
        let (from, turned) = match self.nodes[a.node as usize] {
            Node::Turn(from, turned) => (from, turned as usize + by),
            _ => (a.node, by),
        };
        match (from, turned % lanes) {
            (ONE_NODE, _) => a,
            (from, 0) => Bit::of(from).flip(a.inverted),
            (from, by) => Bit::of(self.add_node(Node::Turn(from, by as u32))).flip(a.inverted),
        }
    }

    /// The circuit that computes `outputs`; gates that none of them needs are left out.
    pub fn finish(mut self, outputs: &[Bit]) -> Circuit {
        let outputs: Vec<Index> = outputs.iter().map(|bit| self.upright(*bit)).collect();
        let uses = self.count_uses(&outputs);
        let layers = layers::assign(&self.nodes, &uses, self.width);
        let mut slots = Slots::new(&self.nodes, self.inputs, uses);
        let layers = layers.iter().map(|nodes| slots.place(nodes)).collect();
        Circuit {
            width: self.width,
            inputs: self.inputs,
            slots: slots.count as usize,
            layers,
            outputs: outputs.iter().map(|node| slots.of[*node as usize]).collect(),
        }
    }

    fn add_node(&mut self, node: Node) -> Index {
        let next = Index::try_from(self.nodes.len()).expect("fewer than 2^32 gates");
        let index = *self.known.entry(node).or_insert(next);
        if index == next {
            self.nodes.push(node);
        }
        index
    }

    /// A node whose value is the bit's.
    fn upright(&mut self, bit: Bit) -> Index {
        if bit.inverted {
            self.add_node(Node::Xor(ONE_NODE, bit.node))
        } else {
            bit.node
        }
    }

    /// How many gates and outputs read each node; zero where no output needs it.
    fn count_uses(&self, outputs: &[Index]) -> Vec<u32> {
        let mut uses = vec![0; self.nodes.len()];
        outputs.iter().for_each(|output| uses[*output as usize] += 1);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if uses[index] > 0 {
                node.operands().for_each(|operand| uses[operand as usize] += 1);
            }
        }
        uses
    }
}

#[cfg(test)]
mod tests;
