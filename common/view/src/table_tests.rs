use super::*;
use crate::Application;

const SQL: &str = "CREATE TABLE t (id TEXT NOT NULL, n BIGINT, at TIMESTAMP) WITH (path = 't.csv')";

fn load(csv: &[u8]) -> Result<Table, String> {
    let application = Application::parse(SQL).expect("the test's SQL is valid");
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("t.csv"), csv).expect("write t.csv");
    application.tables[0].load(folder.path(), |path| std::fs::read(path)).map_err(|error| error.to_string())
}

#[test]
fn columns_are_found_by_name_and_empty_is_null() {
    let table =
        load(b"\xef\xbb\xbfAT, note ,N,Id\n2024-07-01, x ,,m1\n2024-07-01T10:00:00+10:00,,-5,\"m,2\"\n")
            .expect("a valid table");
    assert_eq!(table.rows.num_rows(), 2);
    let cells: Vec<_> = (0..2)
        .flat_map(|row| (0..3).map(move |column| (row, column)))
        .map(|(row, column)| value_at(table.rows.column(column), row))
        .collect();
    let midnight = Value::Timestamp(1_719_792_000_000_000);
    assert_eq!(
        cells,
        [Value::text("m1"), Value::Null, midnight.clone(), Value::text("m,2"), Value::Int(-5), midnight]
    );
}

#[test]
fn a_broken_file_is_refused_with_its_line() {
    for (csv, fragments) in [
        (b"id,n\nm1,1\n".as_slice(), ["line 1", "no column at"]),
        (b"id,n,at,n\n".as_slice(), ["line 1", "column n stands twice"]),
        (b"id,n,at\nm1,1,\nm2,x,\n".as_slice(), ["line 3", "column n: found \"x\", expected a whole number"]),
        (b"id,n,at\nm1,1,yesterday\n".as_slice(), ["line 2", "column at: found \"yesterday\""]),
        (b"id,n,at\n,1,\n".as_slice(), ["line 2", "column id: found nothing"]),
        (b"id,n,at\nm1,1\n".as_slice(), ["line 2", "found 2 fields, expected 3"]),
        (b"id,n,at\nm1,1,\n\xff,1,\n".as_slice(), ["line 3", "not UTF-8"]),
        (b"".as_slice(), ["line 1", "no column id"]),
    ] {
        let error = load(csv).map(|_| ()).expect_err("a broken table");
        for fragment in fragments {
            assert!(error.contains(fragment), "{error:?} lacks {fragment:?}");
        }
        assert!(error.contains("t.csv"), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let application = Application::parse(SQL).expect("the test's SQL is valid");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = application.bind(folder.path()).map(|_| ()).expect_err("there is no file");
    assert!(matches!(&error, BindError::Read { table, path, .. } if table == "t" && path.ends_with("t.csv")));
}
