use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Bit, Builder};
use crate::circuit::{Circuit, Gate, Linear, ONE, Width};
use crate::evaluate::Evaluator;
use crate::garble::Garbler;
use crate::label::{Delta, Label};
use crate::program::{Call, Program};

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
            let bit = apply(&mut builder, *operation, |index| bits[index % bits.len()]);
            bits.push(bit);
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

#[derive(Clone, Copy, Debug)]
enum WideOperation {
    Same(Operation),
    Turn(usize, usize),
}

fn wide_operation() -> impl Strategy<Value = WideOperation> {
    prop_oneof![
        4 => operation().prop_map(WideOperation::Same),
        1 => any::<(usize, usize)>().prop_map(|(a, by)| WideOperation::Turn(a, by)),
    ]
}

/// One more value, by the operation or by that of each lane.
fn apply(builder: &mut Builder, operation: Operation, at: impl Fn(usize) -> Bit) -> Bit {
    match operation {
        Operation::Xor(a, b) => builder.xor(at(a), at(b)),
        Operation::And(a, b) => builder.and(at(a), at(b)),
        Operation::Not(a) => builder.not(at(a)),
        Operation::Constant(value) => builder.constant(value),
    }
}

/// The same circuit with four lanes, and with every lane by itself.
fn wide_and_unrolled(inputs: usize, operations: &[WideOperation], outputs: &[usize]) -> [Circuit; 2] {
    let lanes = Width::Four.lanes();
    let (mut wide, mut bits) = Builder::of_width(Width::Four, inputs);
    let (mut narrow, unrolled) = Builder::new(lanes * inputs);
    let mut unrolled: Vec<Vec<Bit>> = unrolled.chunks(lanes).map(<[Bit]>::to_vec).collect();
    for operation in operations {
        let count = bits.len();
        let (bit, each) = match *operation {
            WideOperation::Same(operation) => (
                apply(&mut wide, operation, |index| bits[index % count]),
                (0..lanes)
                    .map(|lane| apply(&mut narrow, operation, |index| unrolled[index % count][lane]))
                    .collect(),
            ),
            WideOperation::Turn(a, by) => {
                let mut turned = unrolled[a % count].clone();
                turned.rotate_left(by % lanes);
                (wide.turn(bits[a % count], by % lanes), turned)
            }
        };
        bits.push(bit);
        unrolled.push(each);
    }
    let outputs: Vec<usize> = outputs.iter().map(|index| index % bits.len()).collect();
    let wide = wide.finish(&outputs.iter().map(|index| bits[*index]).collect::<Vec<_>>());
    let narrow = narrow.finish(
        &outputs
            .iter()
            .flat_map(|index| unrolled[*index].clone())
            .collect::<Vec<_>>(),
    );
    [wide, narrow]
}

/// A program that calls a circuit on its secret inputs.
fn program(circuit: Circuit) -> Program {
    let (inputs, outputs) = (circuit.input_bits() as u32, circuit.output_bits() as u32);
    let results: Vec<u32> = (1 + inputs..1 + inputs + outputs).collect();
    Program {
        name: "test",
        secret: inputs as usize,
        public: 0,
        wires: 1 + (inputs + outputs) as usize,
        calls: vec![Call {
            circuit: Arc::new(circuit),
            inputs: (1..=inputs).collect(),
            outputs: results.clone(),
        }],
        outputs: results,
    }
}

/// Garbled and evaluated, `piece` bytes of tables at a time.
fn garbled(program: Program, inputs: &[bool], piece: usize) -> Vec<bool> {
    let program = Arc::new(program);
    let (delta, hash) = (0x1234_5678_9abc_def0_1122_3344_5566_7788, 9);
    let zero: Vec<Label> = (1..)
        .take(inputs.len())
        .map(|at: u128| (at << 64) + at * 77)
        .collect();
    let mut garbler = Garbler::new(
        program.clone(),
        (Delta::new(delta), hash),
        &zero,
        std::iter::empty(),
    );
    let active: Vec<Label> = zero
        .iter()
        .zip(inputs)
        .map(|(zero, bit)| zero ^ Delta::new(delta).times(*bit))
        .collect();
    let mut evaluator = Evaluator::new(program.clone(), hash, &active);
    let (mut tables, mut all, mut more) = (Vec::new(), 0, true);
    while more {
        let before = tables.len();
        more = garbler.garble(&mut tables, before + piece);
        all += tables.len() - before;
        let used = evaluator.evaluate(&tables);
        tables.drain(..used);
    }
    assert!(evaluator.is_through() && tables.is_empty());
    assert_eq!(all, 32 * program.ands());
    let pairs = garbler.outputs().zip(evaluator.outputs());
    pairs
        .map(|(zero, active)| match zero ^ active {
            0 => false,
            other => {
                assert_eq!(other, Delta::new(delta).label(), "neither of the wire's labels");
                true
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_wide_circuit_is_its_lanes_unrolled_in_clear_and_garbled(
        inputs in 1usize..6,
        operations in prop::collection::vec(wide_operation(), 1..150),
        outputs in prop::collection::vec(any::<usize>(), 0..12),
        samples in prop::collection::vec(any::<u32>(), 4),
        piece in 1usize..5_000,
    ) {
        let [wide, narrow] = wide_and_unrolled(inputs, &operations, &outputs);
        check(&wide);
        check(&narrow);
        // Lanes of the same value are one gate only where they are apart.
        prop_assert!(wide.ands() >= narrow.ands());
        prop_assert_eq!(wide.input_bits(), narrow.input_bits());
        for sample in samples {
            let given: Vec<bool> = (0..wide.input_bits()).map(|bit| sample >> bit & 1 == 1).collect();
            let expected = narrow.evaluate(&given);
            prop_assert_eq!(wide.evaluate(&given), expected.clone());
            for circuit in [&wide, &narrow] {
                prop_assert_eq!(garbled(program(circuit.clone()), &given, piece), expected.clone());
            }
        }
    }
}

/// More than one batch and more than one key of the label hash.
#[test]
fn a_long_circuit_is_garbled_as_it_is_evaluated() {
    let (mut builder, mut bits) = Builder::of_width(Width::Four, 12);
    for at in 0..1_500 {
        let (a, b) = (bits[at], bits[at + 7]);
        let (turned, both) = (builder.turn(a, at % 4), builder.and(a, b));
        let next = builder.xor(turned, both);
        bits.push(if at % 3 == 0 { builder.not(next) } else { next });
    }
    let circuit = builder.finish(&bits[bits.len() - 12..]);
    check(&circuit);
    assert!(circuit.ands() > 5_000);
    let given: Vec<bool> = (0..48).map(|bit| 0x6b5a_1f2e_93c7_u64 >> bit & 1 == 1).collect();
    let expected = circuit.evaluate(&given);
    for piece in [1, 1_000, usize::MAX / 2] {
        assert_eq!(garbled(program(circuit.clone()), &given, piece), expected);
    }
}

#[test]
fn turns_are_folded() {
    let (mut builder, bits) = Builder::of_width(Width::Four, 1);
    let not = builder.not(bits[0]);
    let turned = builder.turn(not, 3);
    assert_ne!(turned, not);
    assert_eq!(builder.turn(turned, 1), not);
    assert_eq!(builder.turn(turned, 0), turned);
    let twice = builder.turn(turned, 2);
    assert_eq!(twice, builder.turn(not, 1));
    assert_eq!(builder.turn(Bit::FALSE, 2), Bit::FALSE);
}

#[test]
#[should_panic(expected = "a turn by 4 of 4 lanes")]
fn a_turn_has_fewer_steps_than_there_are_lanes() {
    let (mut builder, bits) = Builder::of_width(Width::Four, 1);
    builder.turn(bits[0], 4);
}

#[test]
#[should_panic(expected = "a turn by 1 of 1 lanes")]
fn one_lane_is_not_turned() {
    let (mut builder, bits) = Builder::new(1);
    builder.turn(bits[0], 1);
}

/// Two programs that compute different things, or by other gates, have different ids.
#[test]
fn lanes_are_in_the_id() {
    let turned = |by: usize| {
        let (mut builder, bits) = Builder::of_width(Width::Four, 2);
        let turned = builder.turn(bits[0], by);
        let both = builder.and(turned, bits[1]);
        builder.finish(&[both])
    };
    let base = program(turned(1));
    let mut ids = HashSet::from([base.id(), program(turned(2)).id()]);
    let edits: [fn(&mut Program); 5] = [
        |program| program.calls[0].inputs.swap(0, 1),
        |program| program.calls[0].inputs[7] = 1,
        |program| program.calls[0].outputs.swap(2, 3),
        |program| program.outputs.swap(0, 3),
        |program| Arc::make_mut(&mut program.calls[0].circuit).width = Width::One,
    ];
    for edit in edits {
        let mut edited = base.clone();
        edit(&mut edited);
        ids.insert(edited.id());
    }
    assert_eq!(ids.len(), 7);
    assert_eq!(program(turned(1)).id(), base.id());
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
