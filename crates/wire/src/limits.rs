//! Every limit of this crate's decoders, with unit and origin.

/// What one OTLP request may hold. Exceeding a limit refuses the whole request, but for `max_columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of the request once decompressed. Four times the default of gRPC receivers, below the 20 MiB of HTTP collectors.
    pub max_bytes: usize,
    /// Log records, spans or data points. Eight times the usual batch of a collector.
    pub max_rows: usize,
    /// Nesting of a value inside values.
    pub max_depth: usize,
    /// Attributes of one set (a record's, a resource's, a scope's).
    pub max_attributes: usize,
    /// Attribute keys that get a column of their own; further keys go to `<group>:*`.
    pub max_columns: usize,
    /// Cells (rows times attribute columns) of a batch: lowers `max_columns` for requests with very many rows, so that a
    /// sparse request cannot be blown up by its empty cells.
    pub max_cells: usize,
    /// What `layout::expanded_bytes` says of the batch: text and attributes, where what rows share counts for every row.
    pub max_expanded_bytes: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_rows: 65_536,
            max_depth: 64,
            max_attributes: 1024,
            max_columns: 512,
            max_cells: 8 << 20,
            max_expanded_bytes: 96 << 20,
        }
    }
}

/// What one sealed batch may hold. Wider than what `DecodeLimits` lets in, so that nothing accepted is refused later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcLimits {
    /// Bytes of the Arrow stream, uncompressed.
    pub max_bytes: usize,
    pub max_rows: usize,
    /// Columns of all kinds: core columns, attribute columns, what plugins added.
    pub max_columns: usize,
    /// What `layout::expanded_bytes` says of the batch.
    pub max_expanded_bytes: usize,
}

impl Default for IpcLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_rows: 131_072,
            max_columns: 1024,
            max_expanded_bytes: 256 << 20,
        }
    }
}

/// Bytes of an attribute key that gets a column of its own; longer keys go to `<group>:*`.
pub const MAX_COLUMN_KEY_BYTES: usize = 1024;
/// Bytes of a column's name: a key and what stands before it.
pub const MAX_COLUMN_NAME_BYTES: usize = MAX_COLUMN_KEY_BYTES + 16;
/// Nesting of JSON text in a column when it is read back. Readers recurse, and this fits a stack of 2 MiB without optimisation, also
/// for OTLP/JSON, where one level of a value takes four of JSON.
pub const MAX_JSON_DEPTH: usize = 112;
/// Largest `DecodeLimits::max_depth` in effect: what is let in must be readable inside the arrays and objects around it.
pub const MAX_VALUE_DEPTH: usize = MAX_JSON_DEPTH - 16;
