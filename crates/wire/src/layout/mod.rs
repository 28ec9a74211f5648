//! The layout of a batch: FORMAT.md, section 1. Names and types of its columns, joining batches, and the bytes of a payload.

pub(crate) mod build;
pub(crate) mod cells;
mod columns;
mod concat;
mod ipc;
pub(crate) mod text;

pub use crate::limits::IpcLimits;
pub use columns::{AttrColumn, AttrKind, Group, column_name, core_columns, expanded_bytes, parse_column, rest_fields};
pub(crate) use columns::{CORE, CoreType, rest_name};
pub use concat::{ConcatOptions, concat};
pub use ipc::{from_ipc, to_ipc, validate};

/// Why rows are not a batch, or cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("column {column:?}: {what}")]
    Column { column: String, what: &'static str },
    #[error("{what} is {found}, at most {max} are allowed")]
    Limit {
        what: &'static str,
        found: usize,
        max: usize,
    },
    #[error("arrow stream is malformed: {0}")]
    Stream(&'static str),
    #[error("arrow data is not valid")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The Arrow reader gave up in a way that it should not; the bytes are refused all the same.
    #[error("arrow data made its reader panic")]
    Panicked,
}
