//! What rows take in memory: those at hand, and those of a file before they are read.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;

/// Bytes that a value takes in memory beside its text, with room for its place in a list.
const VALUE_BYTES: u64 = 16;

/// Bytes of these rows, and not of what else their buffers hold.
pub(super) fn of_rows(rows: &RecordBatch) -> u64 {
    rows.columns().iter().map(|column| of_column(column.as_ref())).sum()
}

fn of_column(column: &dyn Array) -> u64 {
    let values = column.len() as u64 * VALUE_BYTES;
    let range = |offsets: &[i32]| match offsets {
        [first, .., last] => *first as usize..*last as usize,
        _ => 0..0,
    };
    if let Some(texts) = column.as_string_opt::<i32>() {
        return values + range(texts.value_offsets()).len() as u64;
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        let range = range(list.value_offsets());
        return values + of_column(list.values().slice(range.start, range.len()).as_ref());
    }
    if let DataType::Map(..) = column.data_type() {
        let map = column.as_map();
        let range = range(map.value_offsets());
        let members = map.entries().columns().iter();
        return values
            + members
                .map(|member| of_column(member.slice(range.start, range.len()).as_ref()))
                .sum::<u64>();
    }
    values
}

/// Bytes of a column of a row group.
fn of_chunk(column: &ColumnChunkMetaData) -> u64 {
    let texts = column.unencoded_byte_array_data_bytes();
    let bytes = unsigned(texts.unwrap_or_else(|| column.uncompressed_size()));
    bytes.saturating_add(values(column))
}

/// Bytes of one row in a column of a row group of so many rows, where its rows are longest: a page says how long its texts are, so long rows
/// that lie side by side are seen. Without an index it is the average.
pub(super) fn of_longest(column: &ColumnChunkMetaData, index: Option<&OffsetIndexMetaData>, rows: u64) -> u64 {
    let rows = rows.max(1);
    let average = of_chunk(column).div_ceil(rows);
    let Some((pages, texts)) =
        index.and_then(|index| Some((index.page_locations(), index.unencoded_byte_array_data_bytes()?)))
    else {
        return average;
    };
    let ends = pages
        .iter()
        .skip(1)
        .map(|page| unsigned(page.first_row_index))
        .chain([rows]);
    let of_page = pages.iter().zip(ends).zip(texts).map(|((page, end), bytes)| {
        let rows = end.saturating_sub(unsigned(page.first_row_index));
        unsigned(*bytes).div_ceil(rows.max(1))
    });
    let longest = of_page
        .max()
        .unwrap_or_default()
        .saturating_add(values(column).div_ceil(rows));
    longest.max(average)
}

fn values(column: &ColumnChunkMetaData) -> u64 {
    unsigned(column.num_values()).saturating_mul(VALUE_BYTES)
}

pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
