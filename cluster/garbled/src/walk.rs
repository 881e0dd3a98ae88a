//! The way through a program that garbler and evaluator go alike: calls, layers, linear gates. What differs is what they do
//! at the ANDs.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::circuit::{Gate, Layer, Linear, Width};
use crate::hash::{Cipher, LabelHash, Work};
use crate::label::{Label, Labels};
use crate::lanes::{Lanes, Quad, Single};
use crate::program::{Call, Program};

/// What is done at the ANDs of a layer.
pub(crate) trait Role {
    /// Does it; always inlined, as [`Work`] asks for.
    fn ands<L: Lanes>(self, cipher: &impl Cipher, gates: &[Gate], slots: &mut [L]);
}

/// A place in a program, with the labels that are alive there.
pub(crate) struct Walk {
    program: Arc<Program>,
    wires: Labels,
    /// Of the circuit that is being run, if its slots have one lane.
    singles: Zeroizing<Vec<Single>>,
    /// The same for four.
    quads: Zeroizing<Vec<Quad>>,
    call: usize,
    layer: usize,
}

impl Walk {
    /// At the beginning; `inputs` are the labels of the constant one, the secret inputs and the public ones.
    pub(crate) fn new(program: Arc<Program>, inputs: impl Iterator<Item = Label>) -> Self {
        let mut wires = Zeroizing::new(vec![0; program.wires]);
        for (wire, label) in wires.iter_mut().zip(inputs) {
            *wire = label;
        }
        let largest = |width: Width| {
            let circuits = program.calls.iter().map(|call| &call.circuit);
            let of_width = circuits.filter(|circuit| circuit.width == width);
            of_width.map(|circuit| circuit.slots).max().unwrap_or(0)
        };
        Self {
            wires,
            singles: Zeroizing::new(vec![Single::ZERO; largest(Width::One)]),
            quads: Zeroizing::new(vec![Quad::ZERO; largest(Width::Four)]),
            program,
            call: 0,
            layer: 0,
        }
    }

    /// The number of AND gates of the next layer, a lane each; `None` at the end.
    pub(crate) fn next_ands(&self) -> Option<usize> {
        let circuit = &self.program.calls.get(self.call)?.circuit;
        let layer = circuit.layers.get(self.layer);
        Some(layer.map_or(0, |layer| circuit.ands_of(layer)))
    }

    /// Goes through the next layer: linear gates here, ANDs by `role`, under `hash`.
    pub(crate) fn step(&mut self, hash: &LabelHash, role: impl Role) {
        let Some(call) = self.program.calls.get(self.call) else {
            return;
        };
        let wires = &mut self.wires;
        match call.circuit.width {
            Width::One => step(call, self.layer, wires, &mut self.singles, hash, role),
            Width::Four => step(call, self.layer, wires, &mut self.quads, hash, role),
        }
        self.layer += 1;
        if self.layer >= call.circuit.layers.len() {
            self.call += 1;
            self.layer = 0;
        }
    }

    /// The labels of the program's outputs, once it is through.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.program.outputs.iter().map(|wire| self.wires[*wire as usize])
    }
}

/// A layer of a call, with what comes before its first one and after its last one.
fn step<L: Lanes>(
    call: &Call,
    at: usize,
    wires: &mut [Label],
    slots: &mut [L],
    hash: &LabelHash,
    role: impl Role,
) {
    let circuit = &call.circuit;
    let slots = &mut slots[..circuit.slots];
    if at == 0 {
        let one = wires[0];
        (0..L::COUNT).for_each(|lane| slots[0].set(lane, one));
        for (slot, inputs) in slots[1..].iter_mut().zip(call.inputs.chunks_exact(L::COUNT)) {
            for (lane, wire) in inputs.iter().enumerate() {
                slot.set(lane, wires[*wire as usize]);
            }
        }
    }
    if let Some(layer) = circuit.layers.get(at) {
        hash.run(Step { layer, slots, role });
    }
    if at + 1 >= circuit.layers.len() {
        let outputs = call.outputs.chunks_exact(L::COUNT);
        for (outputs, slot) in outputs.zip(&circuit.outputs) {
            for (lane, wire) in outputs.iter().enumerate() {
                wires[*wire as usize] = slots[*slot as usize].label(lane);
            }
        }
    }
}

/// The gates of a layer.
struct Step<'a, L, R> {
    layer: &'a Layer,
    slots: &'a mut [L],
    role: R,
}

impl<L: Lanes, R: Role> Work for Step<'_, L, R> {
    #[inline(always)]
    fn run(self, cipher: &impl Cipher) {
        let Step { layer, slots, role } = self;
        for gate in &layer.linear {
            match *gate {
                Linear::Xor(Gate { out, a, b }) => {
                    slots[out as usize] = slots[a as usize].xor(slots[b as usize]);
                }
                Linear::Turn { out, a, by } => slots[out as usize] = slots[a as usize].turned(by),
            }
        }
        role.ands(cipher, &layer.ands, slots);
    }
}
