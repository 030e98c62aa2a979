//! Measures how many updates a second one thread folds into groups, one by one
//! into the ordered map and through the builder:
//! `cargo run --release -p sanso-state --example groups`.

#![allow(clippy::print_stdout, reason = "prints what it measures")]

use std::time::Instant;

use sanso_state::{
    AggregateFunction, AggregateKind, GroupId, Groups, GroupsBuilder, Value, ValueType, encode_groups,
};

const FEEDERS: usize = 2_000;
const WINDOWS: i64 = 4;
const UPDATES: usize = 2_000_000;

fn main() {
    let decimal = Some(ValueType::Decimal { precision: 18, scale: 6 });
    let kinds = [(AggregateFunction::Sum, decimal), (AggregateFunction::CountRows, None)]
        .map(|(function, input)| AggregateKind::typed(function, input).expect("defined"));
    let ids: Vec<GroupId> = (0..FEEDERS)
        .flat_map(|feeder| {
            let key = Value::encode_key(&[Value::text(format!("feeder-{feeder:06}"))]);
            (0..WINDOWS).map(move |w| GroupId { key: key.clone(), window_start: w * 1_800_000_000 })
        })
        .collect();
    let inputs = [Some(Value::Decimal(1_234_567)), Some(Value::Null)];
    // A stride that is prime to the number of groups visits them in no order.
    let visits = || (0..UPDATES).map(|i| &ids[i * 7_919 % ids.len()]);

    let start = Instant::now();
    let mut groups = Groups::new();
    visits().for_each(|id| groups.update(&kinds, id, &inputs, 1));
    let ordered = start.elapsed();

    let start = Instant::now();
    let mut builder = GroupsBuilder::new();
    visits().for_each(|id| builder.update(&kinds, (&id.key, id.window_start), &inputs, 1));
    let built = builder.finish();
    let hashed = start.elapsed();
    assert_eq!(built, groups, "both fold the same updates");

    let start = Instant::now();
    let bytes = encode_groups(&kinds, &groups);
    let encoding = start.elapsed();
    let rate = |time: std::time::Duration| UPDATES as f64 / time.as_secs_f64() / 1e6;
    println!("{} groups, {UPDATES} updates", groups.len());
    println!("ordered map: {:.1} M updates/s", rate(ordered));
    println!("builder:     {:.1} M updates/s, finished", rate(hashed));
    println!("encoding:    {} bytes a group, in {encoding:?}", bytes.len() / groups.len());
}
