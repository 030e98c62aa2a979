//! The rows of a block, and what they weigh.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayData, RecordBatch};

/// The rows of a block: record batches of one schema, with their weight in memory.
#[derive(Clone, Debug)]
pub struct Rows {
    batches: Vec<RecordBatch>,
    bytes: u64,
}

/// Rows are equal whatever allocations hold them.
impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.batches == other.batches
    }
}

impl Rows {
    /// Weighs batches of one schema.
    pub fn new(batches: Vec<RecordBatch>) -> Self {
        let bytes = weigh(&batches);
        Self { batches, bytes }
    }

    /// Returns the batches, in order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Returns the bytes that the batches hold in memory. An allocation that several columns or
    /// batches share counts once, and whole, however small the part of it that is used.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn weigh(batches: &[RecordBatch]) -> u64 {
    let mut allocations = BTreeMap::new();
    let columns = batches.iter().flat_map(RecordBatch::columns);
    columns.for_each(|column| collect(&column.to_data(), &mut allocations));
    allocations.values().sum()
}

/// Collects the allocations behind an array, by their address.
fn collect(data: &ArrayData, allocations: &mut BTreeMap<usize, u64>) {
    let nulls = data.nulls().map(|nulls| nulls.inner().inner());
    for buffer in data.buffers().iter().chain(nulls) {
        // Foreign memory does not tell how large it is; then what is used of it counts.
        let bytes = buffer.capacity().max(buffer.len()) as u64;
        let known = allocations.entry(buffer.data_ptr().as_ptr() as usize).or_default();
        *known = bytes.max(*known);
    }
    data.child_data().iter().for_each(|child| collect(child, allocations));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter(columns.into_iter().zip('a'..).map(|(c, n)| (n.to_string(), c)))
            .expect("columns of one length")
    }

    fn numbers(count: i64) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(0..count))
    }

    #[test]
    fn what_is_shared_counts_once_and_whole() {
        let whole = batch(vec![numbers(1000)]);
        let alone = Rows::new(vec![whole.clone()]).bytes();
        assert!((8000..9000).contains(&alone), "{alone}");
        let column = Arc::clone(whole.column(0));
        assert_eq!(Rows::new(vec![batch(vec![Arc::clone(&column), column])]).bytes(), alone);
        assert_eq!(Rows::new(vec![whole.slice(0, 500), whole.slice(500, 500)]).bytes(), alone);
        assert_eq!(Rows::new(vec![whole.slice(3, 1)]).bytes(), alone, "a slice holds all of it");
        assert_eq!(Rows::new(vec![whole, batch(vec![numbers(1000)])]).bytes(), 2 * alone);
    }

    #[test]
    fn nulls_texts_and_children_weigh_something() {
        let of = |column: ArrayRef| Rows::new(vec![batch(vec![column])]).bytes();
        let nulls = Int64Array::from_iter((0..1000).map(|n| (n % 2 == 0).then_some(n)));
        assert!(of(Arc::new(nulls)) > of(numbers(1000)));
        let texts = StringArray::from_iter_values((0..100).map(|_| "x".repeat(100)));
        assert!(of(Arc::new(texts)) >= 10_000 + 404);
        let list =
            ListArray::from_iter_primitive::<Int64Type, _, _>([Some((0..500).map(Some).collect::<Vec<_>>())]);
        assert!(of(Arc::new(list)) >= 4000);
    }
}
