//! Encodings are canonical, and hostile bytes end in errors.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use sanso_state::{
    AggregateFunction as F, AggregateKind, DecodeError, Fingerprint, GroupId, GroupState, Groups, Part,
    SortedRun, Value, ValueType, decode_groups, decode_states, encode_groups, encode_some, encode_states,
    partition_of,
};

use crate::oracle::{all_kinds, cases, inputs, kind};

type Update = (u8, i64, Option<Option<i64>>, bool);

fn groups_of(updates: &[Update]) -> Groups {
    let kinds = all_kinds();
    let mut groups = Groups::new();
    for (key, window_start, value, add) in updates {
        let key = Value::encode_key(&[Value::text(format!("feeder {key}"))]);
        let id = GroupId { key, window_start: *window_start };
        groups.update_one(&kinds, &id, &inputs(&kinds, (*value, 7)), if *add { 1 } else { -1 });
    }
    groups
}

fn updates() -> impl Strategy<Value = Vec<Update>> {
    vec((0_u8..4, -2_i64..3, proptest::option::of(proptest::option::of(any::<i64>())), any::<bool>()), 0..24)
}

fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i128>().prop_map(Value::Decimal),
        "[a-c\u{0}\u{1}\u{ff}]{0,4}".prop_map(Value::text),
        any::<i64>().prop_map(Value::Timestamp),
        any::<i32>().prop_map(Value::Date),
    ];
    plain
        .clone()
        .boxed()
        .prop_union((any::<i64>(), plain).prop_map(|(t, v)| Value::At(t, Box::new(v))).boxed())
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn groups_come_back_as_they_were(updates in updates()) {
        let (kinds, groups) = (all_kinds(), groups_of(&updates));
        let bytes = encode_groups(&kinds, &groups);
        prop_assert_eq!(&decode_groups(&kinds, &bytes).expect("just encoded"), &groups);
        for (_, state) in groups.iter() {
            let bytes = state.encode(&kinds);
            prop_assert_eq!(GroupState::decode(&kinds, &bytes).expect("just encoded"), state);
        }
        let mut states: Vec<_> = groups_of(&updates).iter().map(|(id, state)| (id.clone(), state.clone())).collect();
        states.reverse();
        let bytes = encode_states(&kinds, &states);
        prop_assert_eq!(decode_states(&kinds, &bytes).expect("just encoded"), states);
    }

    #[test]
    fn groups_that_are_encoded_some_at_a_time_are_all_there_and_no_more_than_wanted(
        updates in updates(), bytes in 0_usize..200,
    ) {
        let (kinds, groups) = (all_kinds(), groups_of(&updates));
        let mut left = groups.read(Part::ALL);
        let mut again = Groups::new();
        let alone = |id: &GroupId| encode_states(&kinds, &[(id.clone(), groups.get(id).expect("it is one of them"))]).len();
        while let Some(encoded) = encode_some(&kinds, &mut left, bytes).expect("all is in memory") {
            let some = decode_groups(&kinds, &encoded).expect("just encoded");
            prop_assert_eq!(&encode_groups(&kinds, &some), &encoded);
            let last = some.ids().max().expect("there are some");
            prop_assert!(some.len() == 1 || encoded.len() < bytes + alone(&last), "the last one made it enough");
            let before = again.len();
            again.combine(&some);
            prop_assert_eq!(again.len(), before + some.len());
        }
        prop_assert_eq!(&again, &groups);
    }

    #[test]
    fn equal_content_is_equal_bytes_in_whatever_order_it_merged(
        updates in updates(), split in any::<prop::sample::Index>(),
    ) {
        let kinds = all_kinds();
        let (head, tail) = updates.split_at(split.index(updates.len() + 1));
        let mut forward = groups_of(head);
        forward.combine(&groups_of(tail));
        let mut backward = groups_of(tail);
        backward.combine(&groups_of(head));
        let whole = encode_groups(&kinds, &groups_of(&updates));
        prop_assert_eq!(&encode_groups(&kinds, &forward), &whole);
        prop_assert_eq!(&encode_groups(&kinds, &backward), &whole);
        forward.retract(&groups_of(&updates));
        prop_assert!(forward.is_empty());
    }

    #[test]
    fn bytes_that_decode_are_the_only_spelling(
        updates in updates(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let kinds = all_kinds();
        let mut bytes = encode_groups(&kinds, &groups_of(&updates));
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(groups) = decode_groups(&kinds, &bytes) {
            prop_assert_eq!(encode_groups(&kinds, &groups), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..64)) {
        let kinds = [kind(F::Sum), kind(F::Last), kind(F::Quantile { per_million: 5 })];
        let header = encode_groups(&kinds, &Groups::new());
        let _ = decode_groups(&kinds, &bytes);
        bytes.splice(0..0, header[..header.len() - 1].iter().copied());
        let _ = decode_groups(&kinds, &bytes);
        let _ = GroupState::decode(&kinds, &bytes);
        let _ = Value::decode_key(&bytes);
    }

    #[test]
    fn keys_are_in_the_order_of_their_values(a in vec(value(), 2), b in vec(value(), 2)) {
        let (x, y) = (Value::encode_key(&a), Value::encode_key(&b));
        prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        prop_assert_eq!(Value::decode_key(&x).expect("just encoded"), a);
    }

    #[test]
    fn random_keys_decode_to_what_encodes_to_them(bytes in vec(prop_oneof![0_u8..9, any::<u8>()], 0..24)) {
        if let Ok(values) = Value::decode_key(&bytes) {
            prop_assert_eq!(&*Value::encode_key(&values), &bytes[..]);
        }
    }
}

#[test]
fn a_length_beyond_the_bytes_is_refused_without_allocating() {
    let kinds = [kind(F::Min)];
    let header = encode_groups(&kinds, &Groups::new());
    // A count of 2^63 groups, then a key of 2^63 bytes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let mut bytes = header[..header.len() - 1].to_vec();
    bytes.extend(huge);
    assert!(matches!(decode_groups(&kinds, &bytes), Err(DecodeError::Broken { .. })));
    bytes.extend(huge);
    assert!(matches!(decode_groups(&kinds, &bytes), Err(DecodeError::Broken { at: 23, .. })));
}

#[test]
fn other_spellings_of_the_same_groups_are_refused() {
    let kinds = [kind(F::Count)];
    let header = [1, 1, 2];
    let decode = |body: &[u8]| decode_groups(&kinds, &[&header, body].concat());
    // One group of the key "k" at window 1 with one row and a count of 1.
    let one = [1, 1, b'k', 2, 2, 2];
    assert_eq!(encode_groups(&kinds, &decode(&one).expect("canonical"))[3..], one);
    for (body, why) in [
        (vec![1, 1, b'k', 2, 2, 2, 0], "left over"),
        (vec![1, 1, b'k', 2, 2, 0x82, 0], "shortest"),
        (vec![0x81, 0, 1, b'k', 2, 2, 2], "shortest"),
        (vec![1, 1, b'k', 2, 0, 0], "holds nothing"),
        (vec![2, 1, b'k', 2, 2, 2, 1, b'k', 2, 2, 2], "order"),
        (vec![2, 1, b'k', 2, 2, 2, 1, b'k', 1, 2, 2], "order"),
        (vec![1, 1, b'k', 2, 2], "end early"),
    ] {
        let error = decode(&body).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
    let state = GroupState::decode(&kinds, &[1, 1, 2, 2, 2]).expect("canonical");
    assert_eq!(state.rows, 1);
    assert!(GroupState::decode(&kinds, &[1, 1, 2, 2, 2, 0]).is_err());
}

#[test]
fn members_of_a_multiset_are_in_order_and_counted() {
    let kinds = [AggregateKind::typed(F::Min, Some(ValueType::Bool)).expect("defined")];
    let decode = |members: &[u8]| GroupState::decode(&kinds, &[&[1, 1, 5, 2], members].concat());
    assert!(decode(&[2, 1, 0, 2, 1, 1, 1]).is_ok());
    for (members, why) in [
        (&[2, 1, 1, 2, 1, 0, 2], "order"),
        (&[2, 1, 1, 2, 1, 1, 2], "order"),
        (&[2, 1, 0, 2, 1, 1, 0], "zero"),
    ] {
        assert!(decode(members).expect_err(why).to_string().contains(why));
    }
}

#[test]
fn a_group_that_becomes_neutral_is_removed() {
    let kinds = all_kinds();
    let mut groups = groups_of(&[(1, 2, Some(Some(5)), true)]);
    let (id, state) = groups.iter().next().expect("one group");
    groups.combine_one(&id, &state.negated());
    assert!(groups.is_empty());
    let zero = GroupId { key: Value::encode_key(&[]), window_start: 0 };
    groups.combine_one(&zero, &GroupState::zero(&kinds));
    assert_eq!(groups, Groups::new());
}

#[test]
fn event_times_nested_by_hostile_bytes_are_refused() {
    let nested = [8_u8, 0, 0, 0, 0, 0, 0, 0, 0].repeat(100_000);
    assert!(Value::decode_key(&nested).is_err());
}

#[test]
fn encodings_of_another_version_or_of_other_aggregates_are_told_apart() {
    let kinds = [kind(F::Sum)];
    let mut bytes = encode_groups(&kinds, &Groups::new());
    assert_eq!(decode_groups(&[kind(F::Min)], &bytes), Err(DecodeError::Aggregates));
    assert_eq!(decode_groups(&[], &bytes), Err(DecodeError::Aggregates));
    bytes[0] = 2;
    assert_eq!(decode_groups(&kinds, &bytes), Err(DecodeError::Version(2)));
}

/// Published blocks outlive the program that wrote them.
#[test]
fn the_format_and_the_split_into_partitions_are_fixed() {
    let groups = groups_of(&[(1, 2, Some(Some(-5)), true), (2, 3, Some(Some(300)), true)]);
    let bytes = encode_groups(&all_kinds(), &groups);
    assert_eq!(Fingerprint::of(&bytes).short(), "f8d35595a6df");
    let key = Value::encode_key(&[Value::text("feeder 1")]);
    assert_eq!([1, 2, 16, 1024].map(|n| partition_of(&key, n)), [0, 0, 0, 6]);
}

#[test]
fn keys_spread_evenly_over_partitions() {
    let mut counts = [0; 16];
    let mut used = BTreeSet::new();
    for i in 0..16_000 {
        let partition = partition_of(&Value::encode_key(&[Value::Int(i)]), 16);
        counts[partition as usize] += 1;
        used.insert(partition);
    }
    assert_eq!(used.len(), 16);
    assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
}

#[test]
fn kinds_are_serialised_and_checked_when_read() {
    for kind in all_kinds() {
        let json = serde_json::to_string(&kind).expect("kinds are plain");
        assert_eq!(serde_json::from_str::<AggregateKind>(&json).expect("round trip"), kind);
    }
    let float_sum = r#"{"function":"Sum","input":"Float"}"#;
    let refusal = serde_json::from_str::<AggregateKind>(float_sum).expect_err("not exact");
    assert!(refusal.to_string().contains("DECIMAL"), "{refusal}");
}
