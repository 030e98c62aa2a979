//! Every aggregate is a commutative group, and finishes as SQL means it.

use proptest::collection::vec;
use proptest::prelude::*;
use sanso_state::{
    AggregateFunction as F, AggregateKind, AggregateState, GroupId, GroupState, GroupedRows, Groups, Inputs,
    Takes, Value, ValueType, encode_groups,
};

use crate::oracle::{DECIMAL, Row, agrees, all_kinds, cases, inputs, kind};

fn row() -> impl Strategy<Value = Row> {
    let value = prop_oneof![
        8 => (-40_i64..40).prop_map(|v| Some(Some(v))),
        3 => (-1_000_000_i64..1_000_000).prop_map(|v| Some(Some(v))),
        1 => Just(Some(None)),
        1 => Just(None),
    ];
    (value, 0_i64..8)
}

/// A state as speed holds it: of rows added and rows retracted.
fn state() -> impl Strategy<Value = GroupState> {
    vec((row(), any::<bool>()), 0..12).prop_map(|updates| build(&updates))
}

fn build(updates: &[(Row, bool)]) -> GroupState {
    let kinds = all_kinds();
    let mut state = GroupState::zero(&kinds);
    for (row, add) in updates {
        state.update(&inputs(&kinds, *row), if *add { 1 } else { -1 });
    }
    state
}

fn plus(a: &GroupState, b: &GroupState) -> GroupState {
    let mut sum = a.clone();
    sum.combine(b);
    sum
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn states_are_a_commutative_group(a in state(), b in state(), c in state()) {
        let kinds = all_kinds();
        let zero = GroupState::zero(&kinds);
        prop_assert!(zero.is_zero());
        prop_assert_eq!(plus(&plus(&a, &b), &c), plus(&a, &plus(&b, &c)));
        prop_assert_eq!(plus(&a, &b), plus(&b, &a));
        prop_assert_eq!(plus(&a, &zero), a.clone());
        prop_assert_eq!(plus(&a, &a.negated()), zero.clone());
        prop_assert!(plus(&a, &a.negated()).is_zero());
        prop_assert_eq!(plus(&a, &b).encode(&kinds), plus(&b, &a).encode(&kinds));
    }

    #[test]
    fn each_aggregate_by_itself_is_zero_only_as_the_neutral_element(a in state()) {
        for (kind, state) in all_kinds().iter().zip(&a.aggregates) {
            prop_assert_eq!(state.is_zero(), *state == kind.zero());
            prop_assert_eq!(&state.negated().negated(), state);
        }
    }

    #[test]
    fn an_update_is_the_combination_with_one_row(a in state(), row in row(), add in any::<bool>()) {
        let kinds = all_kinds();
        let mut updated = a.clone();
        updated.update(&inputs(&kinds, row), if add { 1 } else { -1 });
        prop_assert_eq!(updated, plus(&a, &build(&[(row, add)])));
    }

    #[test]
    fn the_order_of_updates_and_retractions_is_forgotten(
        updates in vec((row(), any::<bool>()), 0..16).prop_shuffle(),
        order in any::<prop::sample::Index>(),
    ) {
        let mut other = updates.clone();
        other.rotate_left(order.index(updates.len().max(1)));
        other.reverse();
        prop_assert_eq!(build(&updates), build(&other));
    }

    #[test]
    fn what_survives_decides_the_result(
        kept in vec(row(), 1..20),
        retracted in vec(row(), 0..20),
        seed in any::<prop::sample::Index>(),
    ) {
        let kinds = all_kinds();
        // Retractions come before, between and after what they retract.
        let mut updates: Vec<(Row, bool)> = kept.iter().map(|r| (*r, true)).collect();
        updates.extend(retracted.iter().flat_map(|r| [(*r, false), (*r, true)]));
        let half = seed.index(updates.len());
        updates.rotate_left(half);
        let (batch, speed) = updates.split_at(half);
        let state = plus(&build(batch), &build(speed));
        prop_assert_eq!(state.rows, kept.len() as i64);
        prop_assert_eq!(&state, &build(&kept.iter().map(|r| (*r, true)).collect::<Vec<_>>()));
        for (kind, state) in kinds.iter().zip(&state.aggregates) {
            let found = kind.finish(state);
            prop_assert!(agrees(kind, &kept, &found), "{:?} is {:?} over {:?}", kind, found, kept);
        }
    }

    #[test]
    fn a_batch_of_rows_is_its_rows_one_by_one(
        updates in vec((0_u8..3, 0_i64..3, row(), any::<bool>()), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let kinds = all_kinds();
        let id = |key: u8, window_start| {
            GroupId { key: Value::encode_key(&[Value::Int(key.into())]), window_start }
        };
        let rows: Vec<_> =
            updates.iter().map(|(key, window, row, _)| (id(*key, *window), inputs(&kinds, *row))).collect();
        let signs: Vec<i64> = updates.iter().map(|update| if update.3 { 1 } else { -1 }).collect();
        let batch = grouped(&kinds, &rows);
        let chosen: Vec<(u32, i64)> = (0..).zip(signs.iter().copied()).collect();
        let (first, second) = chosen.split_at(cut.index(chosen.len() + 1));

        let mut expected = Groups::new();
        rows.iter().zip(&signs).for_each(|((id, inputs), sign)| {
            expected.update_one(&kinds, id, inputs, *sign);
        });
        let mut whole = Groups::new();
        update(&mut whole, &kinds, &batch, first);
        update(&mut whole, &kinds, &batch, second);
        prop_assert_eq!(&whole, &expected);
        prop_assert_eq!(encode_groups(&kinds, &whole), encode_groups(&kinds, &expected));

        let (mut merged, mut other) = (Groups::new(), Groups::new());
        update(&mut merged, &kinds, &batch, first);
        update(&mut other, &kinds, &batch, second);
        merged.combine(&other);
        prop_assert_eq!(&merged, &expected);
        merged.retract(&other);
        merged.retract(&expected);
        let mut inverse = Groups::new();
        inverse.retract(&other);
        prop_assert_eq!(&merged, &inverse);
        merged.combine(&other);
        prop_assert!(merged.is_empty() && merged == Groups::new() && merged.iter().next().is_none());

        for (at, (id, _)) in rows.iter().enumerate() {
            let (found, taken) = batch.row(at);
            prop_assert_eq!(&found, id);
            let mut one = Groups::new();
            one.update_one(&kinds, &found, &taken, signs[at]);
            let mut same = Groups::new();
            update(&mut same, &kinds, &batch, &chosen[at..=at]);
            prop_assert_eq!(one, same);
        }
    }
}

/// Adds and retracts rows of a batch, each by its sign.
fn update(groups: &mut Groups, kinds: &[AggregateKind], batch: &GroupedRows, chosen: &[(u32, i64)]) {
    for sign in [1, -1] {
        let some: Vec<u32> = chosen.iter().filter(|row| row.1 == sign).map(|row| row.0).collect();
        groups.update(kinds, batch, &some, sign);
    }
}

/// The rows in the form in which a view lifts them.
fn grouped(kinds: &[AggregateKind], rows: &[(GroupId, Vec<Option<Value>>)]) -> GroupedRows {
    let mut grouped = GroupedRows::default();
    for (id, _) in rows {
        grouped.keys.push(&id.key);
        grouped.windows.push(id.window_start);
    }
    let column = |(at, kind): (usize, &AggregateKind)| {
        let values = rows.iter().map(|(_, inputs)| inputs[at].clone());
        match kind.takes() {
            Takes::Rows => Inputs::Rows(Some(
                values.map(|v| v.is_some_and(|v| kind.function() == F::CountRows || !v.is_null())).collect(),
            )),
            Takes::Numbers => Inputs::Numbers(
                values.map(|v| if let Some(Value::Decimal(v)) = v { Some(v) } else { None }).collect(),
            ),
            Takes::Values => Inputs::Values(values.collect()),
        }
    };
    grouped.inputs = kinds.iter().enumerate().map(column).collect();
    grouped
}

fn over(function: F, values: &[i128]) -> Value {
    over_type(function, DECIMAL, values.iter().map(|v| Value::Decimal(*v)))
}

fn over_type(function: F, input: ValueType, values: impl Iterator<Item = Value>) -> Value {
    let kind = AggregateKind::typed(function, Some(input)).expect("defined");
    let mut state = kind.zero();
    values.for_each(|value| state.update(&value, 1));
    kind.finish(&state)
}

#[test]
fn averages_round_half_away_from_zero() {
    // 1/32 of the last digit's ten thousandth part: 10000/32 = 312.5.
    let mut values = vec![0; 32];
    values[0] = 1;
    assert_eq!(over(F::Average, &values), Value::Decimal(313));
    values[0] = -1;
    assert_eq!(over(F::Average, &values), Value::Decimal(-313));
    values[0] = 3;
    assert_eq!(over(F::Average, &values), Value::Decimal(938), "937.5");
    assert_eq!(over(F::Average, &[1, 1, 0]), Value::Decimal(6667));
    assert_eq!(over(F::Average, &[1, 0, 0]), Value::Decimal(3333));
    let average = kind(F::Average);
    assert_eq!(average.result_type(), ValueType::Decimal { precision: 22, scale: 7 });
}

#[test]
fn an_average_of_the_largest_decimals_does_not_overflow() {
    let largest = 10_i128.pow(28) - 1;
    let input = ValueType::Decimal { precision: 28, scale: 0 };
    let values = std::iter::repeat_n(Value::Decimal(largest), 1000);
    assert_eq!(over_type(F::Average, input, values), Value::Decimal(largest * 10_000));
}

#[test]
fn a_sum_that_overflows_on_the_way_ends_at_the_true_sum() {
    let sum = kind(F::Sum);
    let mut state = sum.zero();
    for value in [i128::MAX, i128::MAX, 5] {
        state.update(&Value::Decimal(value), 1);
    }
    for value in [i128::MAX, i128::MAX] {
        state.update(&Value::Decimal(value), -1);
    }
    assert_eq!(sum.finish(&state), Value::Decimal(5));
}

#[test]
fn variance_does_not_cancel_where_floats_would() {
    // Σx² in 53 bits loses everything at this offset.
    let base = 10_i128.pow(27);
    let values = [base + 4, base + 7, base + 13, base + 16].map(Value::Decimal);
    let input = ValueType::Decimal { precision: 28, scale: 0 };
    let sample = over_type(F::Variance { population: false }, input, values.iter().cloned());
    assert_eq!(sample, Value::Float(30.0));
    let population = over_type(F::Variance { population: true }, input, values.into_iter());
    assert_eq!(population, Value::Float(22.5));
    assert_eq!(
        over(F::StandardDeviation { population: true }, &[2000, 4000, 4000, 4000, 5000, 5000, 7000, 9000]),
        Value::Float(2.0)
    );
}

#[test]
fn sample_variance_of_one_value_is_null_and_population_variance_zero() {
    assert_eq!(over(F::Variance { population: false }, &[7]), Value::Null);
    assert_eq!(over(F::StandardDeviation { population: false }, &[7]), Value::Null);
    assert_eq!(over(F::Variance { population: true }, &[7]), Value::Float(0.0));
    assert_eq!(over(F::Variance { population: true }, &[]), Value::Null);
}

#[test]
fn results_over_no_value_are_null_but_counts_are_zero() {
    for kind in all_kinds() {
        let mut state = kind.zero();
        let null = if kind.needs_event_time() { Value::At(1, Box::new(Value::Null)) } else { Value::Null };
        state.update(&null, 1);
        let expected = match kind.function() {
            F::CountRows => Value::Int(1),
            F::Count | F::CountDistinct => Value::Int(0),
            _ => Value::Null,
        };
        assert_eq!(kind.finish(&state), expected, "{kind:?}");
    }
}

#[test]
fn ties_in_event_time_go_by_value_whatever_the_order_of_arrival() {
    let at = |time, value| Value::At(time, Box::new(Value::text(value)));
    for order in [["b", "a", "c"], ["c", "b", "a"], ["a", "c", "b"]] {
        let values = || order.iter().map(|v| at(5, *v)).chain([at(5, "b")]);
        assert_eq!(over_type(F::First, ValueType::Text, values()), Value::text("a"));
        assert_eq!(over_type(F::Last, ValueType::Text, values()), Value::text("c"));
        let earlier = values().chain([at(4, "z")]);
        assert_eq!(over_type(F::First, ValueType::Text, earlier), Value::text("z"));
    }
}

#[test]
fn extremes_are_of_any_type_that_is_ordered() {
    let texts = || ["north", "east", "west"].map(Value::text).into_iter();
    assert_eq!(over_type(F::Min, ValueType::Text, texts()), Value::text("east"));
    assert_eq!(over_type(F::Max, ValueType::Text, texts()), Value::text("west"));
    let dates = || [20, -3, 4].map(Value::Date).into_iter();
    assert_eq!(over_type(F::Min, ValueType::Date, dates()), Value::Date(-3));
    assert_eq!(
        over_type(F::CountDistinct, ValueType::Bool, [true, true].map(Value::Bool).into_iter()),
        Value::Int(1)
    );
}

#[test]
fn what_cannot_be_exact_is_refused_with_the_reason() {
    let refused = |function, input| AggregateKind::typed(function, input).expect_err("refused");
    let digits = |precision| Some(ValueType::Decimal { precision, scale: 2 });
    assert!(refused(F::Sum, Some(ValueType::Float)).contains("cast to DECIMAL"));
    assert!(refused(F::Max, Some(ValueType::Float)).contains("floats"));
    assert!(refused(F::Sum, digits(29)).contains("at most 28 digits"));
    assert!(refused(F::Variance { population: true }, digits(38)).contains("VAR_POP"));
    assert!(AggregateKind::typed(F::Sum, digits(28)).is_ok());
    assert!(AggregateKind::typed(F::Max, digits(38)).is_ok());
    assert!(refused(F::Average, Some(ValueType::Text)).contains("Text"));
    assert!(refused(F::Sum, Some(ValueType::Timestamp)).contains("not defined"));
    assert!(
        refused(F::Quantile { per_million: 1_000_001 }, Some(ValueType::Int)).contains("between 0 and 1")
    );
    assert!(refused(F::Quantile { per_million: 1 }, Some(ValueType::Text)).contains("not defined"));
    assert!(refused(F::CountRows, Some(ValueType::Int)).contains("no argument"));
    assert!(refused(F::Sum, None).contains("needs an argument"));
}

#[test]
fn integers_sum_beyond_64_bits() {
    let values = std::iter::repeat_n(Value::Int(i64::MAX), 3);
    assert_eq!(over_type(F::Sum, ValueType::Int, values), Value::Decimal(3 * i128::from(i64::MAX)));
}

#[test]
fn a_value_that_is_only_retracted_is_nobody_s_result() {
    let value = |kind: &AggregateKind, v| {
        let value = Value::Decimal(v);
        if kind.needs_event_time() { Value::At(v as i64, Box::new(value)) } else { value }
    };
    for function in [F::Min, F::Max, F::First, F::Last] {
        let kind = kind(function);
        let mut state = kind.zero();
        [1, 9].iter().for_each(|v| state.update(&value(&kind, *v), -1));
        state.update(&value(&kind, 5), 1);
        assert_eq!(kind.finish(&state), Value::Decimal(5), "{function:?}");
    }
    let mut quantile = kind(F::Quantile { per_million: 0 }).zero();
    quantile.update(&Value::Decimal(-70), -1);
    quantile.update(&Value::Decimal(0), 1);
    assert_eq!(kind(F::Quantile { per_million: 0 }).finish(&quantile), Value::Float(0.0));
}

#[test]
fn a_state_is_small_where_it_is_a_number() {
    assert!(size_of::<AggregateState>() <= 48, "{}", size_of::<AggregateState>());
}
