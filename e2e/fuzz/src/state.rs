//! Encodings of state: what is decoded is spelt in exactly one way.

use std::sync::LazyLock;

use sanso_state::{AggregateFunction as F, AggregateKind, Value, ValueType, decode_groups, encode_groups};

/// One aggregate of each encoding.
static KINDS: LazyLock<Vec<AggregateKind>> = LazyLock::new(|| {
    let decimal = Some(ValueType::Decimal { precision: 18, scale: 6 });
    let functions = [
        (F::CountRows, None),
        (F::Sum, decimal),
        (F::Average, decimal),
        (F::Variance { population: false }, decimal),
        (F::Min, decimal),
        (F::Last, Some(ValueType::Text)),
        (F::CountDistinct, Some(ValueType::Text)),
        (F::Quantile { per_million: 500_000 }, decimal),
    ];
    let kinds = functions.map(|(function, input)| AggregateKind::typed(function, input));
    kinds.into_iter().collect::<Result<_, _>>().expect("all are defined")
});

/// Groups of one aggregate, which the first byte chooses, or of all.
pub(crate) fn groups(bytes: &[u8]) {
    let Some((choice, encoded)) = bytes.split_first() else { return };
    let choice = usize::from(*choice);
    let kinds = KINDS.get(choice..=choice).unwrap_or(&KINDS);
    if let Ok(groups) = decode_groups(kinds, encoded) {
        assert_eq!(encode_groups(kinds, &groups), encoded);
        for (_, state) in groups.iter() {
            let bytes = state.encode(kinds);
            assert_eq!(sanso_state::GroupState::decode(kinds, &bytes), Ok(state));
        }
    }
}

/// A key: its values are encoded in one way, and order as their bytes do.
pub(crate) fn key(bytes: &[u8]) {
    if let Ok(values) = Value::decode_key(bytes) {
        assert_eq!(*Value::encode_key(&values), *bytes);
    }
}
