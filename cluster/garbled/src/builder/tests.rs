use std::collections::HashSet;

use proptest::prelude::*;

use super::{Bit, Builder};
use crate::circuit::{Circuit, Gate, Linear, ONE, Width};

/// What `circuit.rs` promises of a circuit.
fn check(circuit: &Circuit) {
    let slot = |slot: u32| assert!((slot as usize) < circuit.slots, "slot {slot}");
    assert!(circuit.slots > circuit.inputs);
    for layer in &circuit.layers {
        assert!(!layer.linear.is_empty() || !layer.ands.is_empty());
        let linear = layer.linear.iter().map(|gate| match *gate {
            Linear::Xor(gate) => gate,
            Linear::Turn { out, a, by } => {
                assert!((1..circuit.width.lanes()).contains(&(by as usize)));
                Gate { out, a, b: a }
            }
        });
        for gate in linear.chain(layer.ands.iter().copied()) {
            [gate.out, gate.a, gate.b].into_iter().for_each(slot);
            assert_ne!(gate.out, ONE);
        }
        let results: HashSet<u32> = layer.ands.iter().map(|gate| gate.out).collect();
        assert_eq!(results.len(), layer.ands.len());
        for gate in &layer.ands {
            assert!(!results.contains(&gate.a) && !results.contains(&gate.b));
        }
    }
    circuit.outputs.iter().copied().for_each(slot);
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Xor(usize, usize),
    And(usize, usize),
    Not(usize),
    Constant(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => any::<(usize, usize)>().prop_map(|(a, b)| Operation::Xor(a, b)),
        4 => any::<(usize, usize)>().prop_map(|(a, b)| Operation::And(a, b)),
        2 => any::<usize>().prop_map(Operation::Not),
        1 => any::<bool>().prop_map(Operation::Constant),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_finished_circuit_computes_what_was_built(
        inputs in 1usize..12,
        operations in prop::collection::vec(operation(), 1..150),
        outputs in prop::collection::vec(any::<usize>(), 0..12),
        samples in prop::collection::vec(any::<u16>(), 16),
    ) {
        let (mut builder, mut bits) = Builder::new(inputs);
        for operation in &operations {
            let at = |index: usize| bits[index % bits.len()];
            bits.push(match *operation {
                Operation::Xor(a, b) => builder.xor(at(a), at(b)),
                Operation::And(a, b) => builder.and(at(a), at(b)),
                Operation::Not(a) => builder.not(at(a)),
                Operation::Constant(value) => builder.constant(value),
            });
        }
        let outputs: Vec<usize> = outputs.iter().map(|index| index % bits.len()).collect();
        let circuit = builder.finish(&outputs.iter().map(|index| bits[*index]).collect::<Vec<_>>());
        check(&circuit);
        for sample in samples {
            let mut values: Vec<bool> = (0..inputs).map(|bit| sample >> bit & 1 == 1).collect();
            let given = values.clone();
            for operation in &operations {
                let at = |index: usize| values[index % values.len()];
                values.push(match *operation {
                    Operation::Xor(a, b) => at(a) ^ at(b),
                    Operation::And(a, b) => at(a) & at(b),
                    Operation::Not(a) => !at(a),
                    Operation::Constant(value) => value,
                });
            }
            let expected: Vec<bool> = outputs.iter().map(|index| values[*index]).collect();
            prop_assert_eq!(circuit.evaluate(&given), expected);
        }
    }
}

#[test]
fn trivial_gates_are_folded() {
    let (mut builder, bits) = Builder::new(2);
    let [a, b] = bits[..] else { unreachable!() };
    let not_a = builder.not(a);
    assert_eq!(builder.not(not_a), a);
    assert_eq!(builder.xor(a, a), Bit::FALSE);
    assert_eq!(builder.xor(a, not_a), Bit::TRUE);
    assert_eq!(builder.xor(a, Bit::TRUE), not_a);
    assert_eq!(builder.and(a, a), a);
    assert_eq!(builder.and(a, not_a), Bit::FALSE);
    assert_eq!(builder.and(a, Bit::FALSE), Bit::FALSE);
    assert_eq!(builder.and(a, Bit::TRUE), a);
    assert_eq!(builder.and(a, b), builder.and(b, a));
    let differ = builder.xor(a, b);
    assert_eq!(builder.xor(not_a, b), builder.not(differ));
}

#[test]
fn outputs_may_be_constants_inputs_and_the_same() {
    let (builder, bits) = Builder::new(1);
    let not = builder.not(bits[0]);
    let circuit = builder.finish(&[Bit::TRUE, Bit::FALSE, bits[0], not, Bit::FALSE]);
    check(&circuit);
    assert_eq!(circuit.ands(), 0);
    assert_eq!(circuit.evaluate(&[true]), [true, false, true, false, false]);
    assert_eq!(circuit.evaluate(&[false]), [true, false, false, true, false]);
}

#[test]
fn a_gate_that_no_output_needs_is_left_out() {
    let (mut builder, bits) = Builder::new(2);
    let unused = builder.and(bits[0], bits[1]);
    builder.xor(unused, bits[0]);
    let circuit = builder.finish(&bits);
    assert!(circuit.layers.is_empty());
}

#[test]
fn slots_are_used_again() {
    let (mut builder, bits) = Builder::new(2);
    let [mut a, mut b] = bits[..] else { unreachable!() };
    for _ in 0..1000 {
        (a, b) = (builder.xor(a, b), builder.and(a, b));
    }
    let circuit = builder.finish(&[a, b]);
    check(&circuit);
    assert_eq!((circuit.ands(), circuit.layers.len()), (1000, 1001));
    assert!(circuit.slots < 8, "{} slots", circuit.slots);
}

#[test]
fn the_circuits_keep_the_invariants() {
    use crate::circuits;
    for program in [
        circuits::hmac_verify(),
        circuits::hmac_states(),
        circuits::wrap(2),
        circuits::unwrap(2),
    ] {
        program.calls.iter().for_each(|call| check(&call.circuit));
    }
}
