//! How files are encoded: their sizes, compression, statistics and Bloom filters. TABLES.md says the same to readers.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// Of the row groups that a trace is not in, the share that is read all the same. A table has thousands of them; ten times as many errors
/// would save a seventh of the filter's bits, and mostly no byte, as sizes are powers of two.
const BLOOM_ERRORS: f64 = 0.001;
const ZSTD_LEVEL: i32 = 3;
/// Hardly any value comes twice, so a dictionary of them takes time and no bytes away.
const UNIQUE: [&str; 3] = ["trace_id", "span_id", "parent_span_id"];
/// Rows of a tenant's service are in the order of time: the differences are small.
const ASCENDING: [&str; 3] = ["time", "observed_time", "start_time"];

/// How large the parts of a file become.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of one file; what has more becomes several.
    pub file_rows: usize,
    /// Small enough that bounds of a row group say something, large enough for columns to compress.
    pub group_rows: usize,
    /// A row group is held encoded until it is whole, so one of very long rows ends earlier. Bytes.
    pub group_bytes: usize,
    pub page_rows: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            file_rows: 1 << 20,
            group_rows: 64 << 10,
            group_bytes: 32 << 20,
            page_rows: 8 << 10,
        }
    }
}

impl Sizes {
    /// How a file is written in which at most `traced` rows have a trace id.
    pub(super) fn properties(&self, traced: usize) -> Result<WriterProperties, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_max_row_group_row_count(Some(self.group_rows))
            .set_max_row_group_bytes(Some(self.group_bytes))
            .set_data_page_row_count_limit(self.page_rows)
            .set_write_batch_size((self.page_rows / 8).max(1))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(concat!("sluice ", env!("CARGO_PKG_VERSION")).to_owned());
        for name in UNIQUE {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
        }
        for name in ASCENDING {
            properties = properties
                .set_column_dictionary_enabled(ColumnPath::from(name), false)
                .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
        }
        if traced > 0 {
            // Bounds of random ids exclude nothing; a Bloom filter does.
            let path = ColumnPath::from("trace_id");
            let distinct = traced.min(self.group_rows) as u64;
            properties = properties
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_ERRORS)
                .set_column_bloom_filter_max_ndv(path, distinct);
        }
        Ok(properties.build())
    }
}
