//! The way through a program that garbler and evaluator go alike: calls, layers, linear gates. What differs is what they do
//! at the ANDs.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::circuit::{Gate, Layer, Linear, Width};
use crate::hash::{Cipher, Schedule, Work};
use crate::label::{Label, Labels};
use crate::lanes::{Lanes, Quad, Single};
use crate::program::{Call, Program};

/// What is done at the ANDs of a layer. Always inlined, as [`Work`] asks for.
pub(crate) trait Role {
    /// Whether a layer of so many ANDs can be gone through now.
    fn is_ready(&self, ands: usize) -> bool;

    /// Goes through the ANDs; the first lane of the first one has this number.
    fn ands<L: Lanes>(&mut self, cipher: &impl Cipher, number: u64, gates: &[Gate], slots: &mut [L]);
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

    /// Goes through layers as long as the role is ready for the next one: linear gates here, ANDs by `role`.
    pub(crate) fn proceed(&mut self, schedule: &mut Schedule, role: &mut impl Role) {
        while let Some(call) = self.program.calls.get(self.call) {
            let (wires, layer) = (&mut self.wires, self.layer);
            let done = match call.circuit.width {
                Width::One => proceed(call, layer, wires, &mut self.singles, schedule, role),
                Width::Four => proceed(call, layer, wires, &mut self.quads, schedule, role),
            };
            self.layer += done;
            if self.layer == call.circuit.layers.len() {
                self.call += 1;
                self.layer = 0;
            } else if done == 0 {
                return;
            }
        }
    }

    /// Whether the end is reached.
    pub(crate) fn is_through(&self) -> bool {
        self.call == self.program.calls.len()
    }

    /// The labels of the program's outputs, once it is through.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.program.outputs.iter().map(|wire| self.wires[*wire as usize])
    }
}

/// Layers of a call from `at` on under one key of the schedule, with what comes before the first one and after the last;
/// how many there were.
fn proceed<L: Lanes>(
    call: &Call,
    at: usize,
    wires: &mut [Label],
    slots: &mut [L],
    schedule: &mut Schedule,
    role: &mut impl Role,
) -> usize {
    let circuit = &call.circuit;
    let slots = &mut slots[..circuit.slots];
    if at == 0 {
        slots[0] = L::all(wires[0]);
        for (slot, inputs) in slots[1..].iter_mut().zip(call.inputs.chunks_exact(L::COUNT)) {
            for (lane, wire) in inputs.iter().enumerate() {
                slot.set(lane, wires[*wire as usize]);
            }
        }
    }
    let (mut done, mut ands) = (0, 0);
    schedule.hash().run(Layers {
        layers: &circuit.layers[at..],
        slots: &mut *slots,
        role,
        first: schedule.gate(),
        room: schedule.room(),
        done: &mut done,
        ands: &mut ands,
    });
    schedule.advance(ands);
    if at + done == circuit.layers.len() {
        let outputs = call.outputs.chunks_exact(L::COUNT);
        for (outputs, slot) in outputs.zip(&circuit.outputs) {
            for (lane, wire) in outputs.iter().enumerate() {
                wires[*wire as usize] = slots[*slot as usize].label(lane);
            }
        }
    }
    done
}

/// The gates of layers.
struct Layers<'a, L, R> {
    layers: &'a [Layer],
    slots: &'a mut [L],
    role: &'a mut R,
    /// The number of the first gate.
    first: u64,
    /// Gates after which no layer is begun.
    room: usize,
    /// The layers that were gone through.
    done: &'a mut usize,
    /// Their ANDs.
    ands: &'a mut usize,
}

impl<L: Lanes, R: Role> Work for Layers<'_, L, R> {
    #[inline(always)]
    fn run(self, cipher: &impl Cipher) {
        let slots = self.slots;
        for layer in self.layers {
            let ands = layer.ands.len() * L::COUNT;
            if *self.ands >= self.room || !self.role.is_ready(ands) {
                return;
            }
            for gate in &layer.linear {
                match *gate {
                    Linear::Xor(Gate { out, a, b }) => {
                        slots[out as usize] = slots[a as usize].xor(slots[b as usize]);
                    }
                    Linear::Turn { out, a, by } => slots[out as usize] = slots[a as usize].turned(by),
                }
            }
            let number = self.first + *self.ands as u64;
            self.role.ands(cipher, number, &layer.ands, slots);
            *self.ands += ands;
            *self.done += 1;
        }
    }
}
