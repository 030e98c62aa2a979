//! Groups are a map from names to states, whatever keys, windows and numbers
//! come in what order: held against a sorted map of states added up one by one.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use sanso_state::{
    AggregateFunction as F, AggregateKind, Coarser, GroupId, GroupState, GroupedRows, Groups, Inputs,
    Numbers, Takes, Value, decode_groups, encode_groups, encode_states, partition_of,
};

use crate::oracle::{cases, kind};

/// Counts and sums, which have two forms; one that has not, and one of no fixed size.
fn kinds() -> Vec<AggregateKind> {
    let variance = F::Variance { population: false };
    [F::CountRows, F::Sum, F::Count, F::Sum, variance, F::Max].map(kind).to_vec()
}

/// A row: which key, which window, and a number for each aggregate that takes one.
type Row = (usize, i64, [Option<i128>; 2]);

fn key_of(key: usize) -> Box<[u8]> {
    // Of all lengths around the longest that lies in its line; some differ at their end only.
    let text = format!("{key}{}", "-".repeat(key * 7 % 60));
    Value::encode_key(&[Value::text(if key.is_multiple_of(3) { text.chars().rev().collect() } else { text })])
}

fn rows(keys: usize, number: impl Strategy<Value = Option<i128>> + Clone) -> impl Strategy<Value = Vec<Row>> {
    let row = (0..keys, prop_oneof![4 => Just(0_i64), 2 => -3_i64..4], [number.clone(), number]);
    vec((row, 1_usize..4), 0..400)
        .prop_map(|runs| runs.into_iter().flat_map(|(row, times)| std::iter::repeat_n(row, times)).collect())
}

/// Rows whose sums mostly fit 64 bits, sometimes just so, and sometimes not; nulls are rare.
fn batch() -> impl Strategy<Value = Vec<Row>> {
    let small = (-1_000_i128..1_000).prop_map(Some);
    let edge = i128::from(i64::MAX);
    let large = prop_oneof![Just(edge), Just(-edge - 1), Just(edge + 1), Just(1 << 90), Just(edge / 700)];
    let null = prop_oneof![20 => small.clone(), 1 => Just(None)];
    prop_oneof![
        4 => rows(40, small.clone()),
        2 => rows(600, small.clone()),
        2 => rows(5, null),
        1 => rows(5, prop_oneof![20 => small, 1 => large.prop_map(Some)]),
    ]
}

/// What is done to groups.
#[derive(Clone, Debug)]
enum Change {
    /// Adds rows or takes them away.
    Update(Vec<Row>, i64),
    /// Takes away all rows of an earlier update.
    Undo(prop::sample::Index),
    /// Adds groups of their own.
    Combine(Vec<Row>),
    /// Takes groups of their own away.
    Retract(Vec<Row>),
    /// Writes and reads again.
    Reread,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (batch(), prop_oneof![3 => Just(1_i64), 1 => Just(-1)]).prop_map(|(rows, sign)| Change::Update(rows, sign)),
        2 => any::<prop::sample::Index>().prop_map(Change::Undo),
        2 => batch().prop_map(Change::Combine),
        1 => batch().prop_map(Change::Retract),
        1 => Just(Change::Reread),
    ];
    vec(change, 1..8)
}

/// The rows in the form in which a view lifts them. A count of values counts
/// those that the sum beside it takes.
fn grouped(kinds: &[AggregateKind], rows: &[Row]) -> GroupedRows {
    let mut grouped = GroupedRows::default();
    for run in rows.chunk_by(|one, next| one.0 == next.0) {
        grouped.keys.push_times(&key_of(run[0].0), run.len());
        grouped.windows.extend(run.iter().map(|row| row.1));
    }
    let column = |(at, kind): (usize, &AggregateKind)| {
        let numbers = || rows.iter().map(|row| row.2[at % 2]);
        match (kind.function(), kind.takes()) {
            (F::CountRows, _) => Inputs::Rows(None),
            (_, Takes::Rows) => Inputs::Rows(Some(numbers().map(|number| number.is_some()).collect())),
            (_, Takes::Numbers) => {
                let all: Option<Vec<i128>> = numbers().collect();
                Inputs::Numbers(all.map_or_else(|| numbers().collect(), |all| Numbers::of(&all)))
            }
            (_, Takes::Values) => {
                Inputs::Values(numbers().map(|number| number.map(Value::Decimal)).collect())
            }
        }
    };
    grouped.inputs = kinds.iter().enumerate().map(column).collect();
    grouped
}

/// What groups are, without anything of theirs.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<GroupId, GroupState>);

impl Model {
    fn update(&mut self, kinds: &[AggregateKind], rows: &[Row], sign: i64) {
        for (key, window_start, numbers) in rows {
            let id = GroupId { key: key_of(*key), window_start: *window_start };
            let input = |at: usize| match kinds[at].function() {
                F::CountRows => Some(Value::Int(1)),
                _ => numbers[at % 2].map(Value::Decimal),
            };
            let inputs: Vec<_> = (0..kinds.len()).map(input).collect();
            self.0.entry(id).or_insert_with(|| GroupState::zero(kinds)).update(&inputs, sign);
        }
        self.0.retain(|_, state| !state.is_zero());
    }

    fn encoded(&self, kinds: &[AggregateKind]) -> Vec<u8> {
        let states: Vec<_> = self.0.clone().into_iter().collect();
        encode_states(kinds, &states)
    }
}

fn updated(kinds: &[AggregateKind], groups: &mut Groups, rows: &[Row], sign: i64) {
    let chosen: Vec<u32> = (0..rows.len() as u32).collect();
    groups.update(kinds, &grouped(kinds, rows), &chosen, sign);
}

proptest! {
    #![proptest_config(cases(200))]
    #[test]
    fn groups_are_a_map_of_states(changes in changes()) {
        let kinds = kinds();
        let (mut groups, mut model, mut updates) = (Groups::new(), Model::default(), Vec::new());
        for change in changes {
            match change {
                Change::Update(rows, sign) => {
                    updated(&kinds, &mut groups, &rows, sign);
                    model.update(&kinds, &rows, sign);
                    updates.push((rows, sign));
                }
                Change::Undo(which) if updates.is_empty() => _ = which,
                Change::Undo(which) => {
                    let (rows, sign) = updates.swap_remove(which.index(updates.len()));
                    updated(&kinds, &mut groups, &rows, -sign);
                    model.update(&kinds, &rows, -sign);
                }
                Change::Combine(rows) | Change::Retract(rows) if rows.is_empty() => {}
                Change::Combine(rows) => {
                    let mut other = Groups::new();
                    updated(&kinds, &mut other, &rows, 1);
                    groups.combine(&other);
                    model.update(&kinds, &rows, 1);
                }
                Change::Retract(rows) => {
                    let mut other = Groups::new();
                    updated(&kinds, &mut other, &rows, 1);
                    groups.retract(&other);
                    model.update(&kinds, &rows, -1);
                }
                Change::Reread => {
                    let again = decode_groups(&kinds, &encode_groups(&kinds, &groups));
                    let again = again.expect("what is written reads back");
                    prop_assert_eq!(&again, &groups);
                    groups = again;
                }
            }
            prop_assert_eq!(groups.len(), model.0.len());
            prop_assert!(encode_groups(&kinds, &groups) == model.encoded(&kinds));
            prop_assert!(groups.iter().eq(model.0.clone()));
            let mut ids: Vec<GroupId> = groups.ids().collect();
            ids.sort();
            prop_assert!(ids.iter().eq(model.0.keys()));
            for (id, state) in &model.0 {
                prop_assert_eq!(groups.get(id), Some(state.clone()));
            }
        }
        for (rows, sign) in updates {
            updated(&kinds, &mut groups, &rows, -sign);
            model.update(&kinds, &rows, -sign);
        }
        let same: Groups = model.0.clone().into_iter().collect();
        prop_assert_eq!(&groups, &same);
        prop_assert!(encode_groups(&kinds, &same) == model.encoded(&kinds));
        groups.retract(&same);
        prop_assert!(groups.is_empty() && groups == Groups::new());
    }
}

/// Keys by their first character, windows by threes; four of the aggregates, in another order.
struct Coarse(Vec<AggregateKind>);

const PICKED: [usize; 4] = [4, 1, 5, 0];

impl Coarser for Coarse {
    fn kinds(&self) -> &[AggregateKind] {
        &self.0
    }

    fn picked(&self) -> &[usize] {
        &PICKED
    }

    fn key(&self, key: &[u8]) -> Box<[u8]> {
        let values = Value::decode_key(key).expect("a key");
        let Value::Text(text) = &values[0] else { panic!("a text, not {values:?}") };
        // Some of them too long for their lines.
        let first = &text[..1];
        Value::encode_key(&[Value::text(if first < "2" { first.repeat(40) } else { first.to_owned() })])
    }

    fn pane(&self, start: i64) -> i64 {
        start.div_euclid(3) * 3
    }
}

/// Rows also of groups whose sums fit 64 bits each, but not together.
fn batch_of_large_groups() -> impl Strategy<Value = Vec<Row>> {
    let small = (-1_000_i128..1_000).prop_map(Some);
    prop_oneof![2 => batch(), 1 => rows(600, prop_oneof![20 => small, 1 => Just(Some(i64::MAX as i128 / 4))])]
}

proptest! {
    #![proptest_config(cases(200))]
    #[test]
    fn groups_add_up_to_coarser_ones(
        batches in vec((batch_of_large_groups(), prop_oneof![3 => Just(1_i64), 1 => Just(-1)]), 1..4),
        rereads in any::<bool>(),
        before in batch(),
        partitions in 1_u32..4,
    ) {
        let kinds = kinds();
        let coarse = Coarse(PICKED.iter().map(|picked| kinds[*picked]).collect());
        let (mut finer, mut totals) = (Groups::new(), vec![Groups::new(); partitions as usize]);
        for (rows, sign) in &batches {
            updated(&kinds, &mut finer, rows, *sign);
        }
        if rereads {
            finer = decode_groups(&kinds, &encode_groups(&kinds, &finer)).expect("what is written reads back");
        }
        // What the totals have already comes of other groups.
        let mut other = Groups::new();
        updated(&kinds, &mut other, &before, 1);
        let mut expected = vec![Groups::new(); partitions as usize];
        for groups in [&other, &finer] {
            groups.roll_up(&mut totals, &coarse);
            for (id, state) in groups.iter() {
                let id = GroupId { key: coarse.key(&id.key), window_start: coarse.pane(id.window_start) };
                let aggregates = PICKED.iter().map(|picked| state.aggregates[*picked].clone()).collect();
                let home = partition_of(&id.key, partitions) as usize;
                expected[home].combine_one(&id, &GroupState { rows: state.rows, aggregates });
            }
        }
        prop_assert_eq!(totals, expected);
    }
}
