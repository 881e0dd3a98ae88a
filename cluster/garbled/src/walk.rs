//! The way through a program that garbler and evaluator go alike: calls, layers, XORs. What differs is what they do at
//! the ANDs.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::circuit::Layer;
use crate::label::{Label, Labels};
use crate::program::{Call, Program};

/// A place in a program, with the labels that are alive there.
pub(crate) struct Walk {
    program: Arc<Program>,
    wires: Labels,
    /// Of the circuit that is being run.
    slots: Labels,
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
        let largest = program.calls.iter().map(|call| call.circuit.slots).max();
        Self {
            wires,
            slots: Zeroizing::new(vec![0; largest.unwrap_or(0)]),
            program,
            call: 0,
            layer: 0,
        }
    }

    /// The number of AND gates of the next layer; `None` at the end.
    pub(crate) fn next_ands(&self) -> Option<usize> {
        let call = self.program.calls.get(self.call)?;
        Some(
            call.circuit
                .layers
                .get(self.layer)
                .map_or(0, |layer| layer.ands.len()),
        )
    }

    /// Goes through the next layer: XORs here, ANDs by `ands`, which is given the layer and the slots.
    pub(crate) fn step(&mut self, ands: impl FnOnce(&Layer, &mut [Label])) {
        let Some(Call {
            circuit,
            inputs,
            outputs,
        }) = self.program.calls.get(self.call)
        else {
            return;
        };
        if self.layer == 0 {
            self.slots[0] = self.wires[0];
            for (slot, wire) in self.slots[1..].iter_mut().zip(inputs) {
                *slot = self.wires[*wire as usize];
            }
        }
        let slots = &mut self.slots[..circuit.slots];
        if let Some(layer) = circuit.layers.get(self.layer) {
            for gate in &layer.xors {
                slots[gate.out as usize] = slots[gate.a as usize] ^ slots[gate.b as usize];
            }
            ands(layer, slots);
            self.layer += 1;
        }
        if self.layer >= circuit.layers.len() {
            for (wire, slot) in outputs.iter().zip(&circuit.outputs) {
                self.wires[*wire as usize] = slots[*slot as usize];
            }
            self.call += 1;
            self.layer = 0;
        }
    }

    /// The labels of the program's outputs, once it is through.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Label> {
        self.program.outputs.iter().map(|wire| self.wires[*wire as usize])
    }
}
