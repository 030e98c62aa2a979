//! Parquet files as bytes: deterministic, so that writing one twice is writing it once.

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// Rows in one row group: the grain at which other tools skip by statistics.
const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;
/// Rows in one batch read.
const BATCH_ROWS: usize = 8192;

/// Encodes rows as one Parquet file. Equal rows and notes give equal bytes.
pub(crate) fn encode(rows: &RecordBatch, notes: &[(&str, String)]) -> Result<Bytes, ParquetError> {
    let notes = notes.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_created_by("sanso".to_owned())
        .set_key_value_metadata(Some(notes))
        .build();
    let mut bytes = Vec::with_capacity(rows.get_array_memory_size() / 4 + 4096);
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.close()?;
    Ok(bytes.into())
}

/// Decodes a whole Parquet file into batches of some thousand rows.
pub(crate) fn decode(bytes: Bytes) -> Result<Vec<RecordBatch>, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH_ROWS).build()?;
    reader.map(|batch| batch.map_err(ParquetError::from)).collect()
}

/// Decodes some columns of a Parquet file, by their indexes, ascending, a batch at a time.
pub(crate) fn decode_columns(
    bytes: Bytes,
    columns: &[usize],
) -> Result<impl Iterator<Item = Result<RecordBatch, ParquetError>> + Send + use<>, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH_ROWS);
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).build()?;
    Ok(reader.map(|batch| batch.map_err(ParquetError::from)))
}

/// Decodes a whole Parquet file into one batch; an empty file gives an empty batch.
pub(crate) fn decode_one(bytes: Bytes) -> Result<RecordBatch, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH_ROWS).build()?;
    let schema = RecordBatchReader::schema(&reader);
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}
