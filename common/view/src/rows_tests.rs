use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use proptest::prelude::*;

use super::*;
use crate::Application;

const SQL: &str = "CREATE SOURCE s (id TEXT, at TIMESTAMP, flag BOOLEAN, number BIGINT,
        amount DECIMAL(38,3), day DATE)
    WITH (key = 'id', identity = 'id, at')";

type Row = (String, i64, Option<bool>, Option<i64>, Option<i128>, Option<i32>);

fn any_row() -> impl Strategy<Value = Row> {
    (
        "[a-z\\x00é]{0,8}",
        any::<i64>(),
        any::<Option<bool>>(),
        any::<Option<i64>>(),
        any::<Option<i128>>(),
        any::<Option<i32>>(),
    )
}

fn batch(rows: &[Row]) -> (Arc<Source>, RecordBatch) {
    let application = Application::parse(SQL).expect("the test's SQL is valid");
    let source = Arc::clone(&application.sources[0]);
    let decimals = rows.iter().map(|r| r.4).collect::<Decimal128Array>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.0.as_str())).collect::<StringArray>()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC")),
        Arc::new(rows.iter().map(|r| r.2).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|r| r.3).collect::<Int64Array>()),
        Arc::new(decimals.with_precision_and_scale(38, 3).expect("a valid type")),
        Arc::new(rows.iter().map(|r| r.5).collect::<Date32Array>()),
    ];
    let batch = RecordBatch::try_new(source.schema(), columns).expect("columns of the schema");
    (source, batch)
}

proptest! {
    #[test]
    fn encoded_rows_decode_to_the_same_rows(rows in prop::collection::vec(any_row(), 0..5)) {
        let (source, batch) = batch(&rows);
        let encoded = source.encode_rows(&batch);
        let decoded = source.decode_rows(encoded.iter().map(AsRef::as_ref));
        prop_assert_eq!(decoded, Ok(batch));
    }

    #[test]
    fn the_ordered_encoding_is_that_of_values(rows in prop::collection::vec(any_row(), 1..5)) {
        let (_, batch) = batch(&rows);
        for column in batch.columns() {
            for row in 0..batch.num_rows() {
                let mut direct = Vec::new();
                append_ordered(column, row, &mut direct);
                prop_assert_eq!(direct.as_slice(), &*Value::encode_key(&[value_at(column, row)]));
            }
        }
    }

    #[test]
    fn no_bytes_make_row_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let (source, _) = batch(&[]);
        let mut framed = vec![VERSION, 6];
        framed.extend(&bytes);
        let _ = source.decode_rows([bytes.as_slice()]);
        let _ = source.decode_rows([framed.as_slice()]);
    }

    #[test]
    fn a_changed_row_is_refused_or_other(rows in prop::collection::vec(any_row(), 1..2), cut in 0_usize..20) {
        let (source, batch) = batch(&rows);
        let encoded = source.encode_rows(&batch);
        let shorter = &encoded[0][..encoded[0].len().saturating_sub(cut + 1)];
        prop_assert!(source.decode_rows([shorter]).is_err());
    }
}
