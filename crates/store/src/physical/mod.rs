//! The columns as the cold table stores them, and the exact way there and back. TABLES.md lists them.
//!
//! Delta has neither nanoseconds nor unsigned integers: a time stamp becomes microseconds plus a column with the nanoseconds that
//! remain, so that other engines still see a time stamp; unsigned integers become wider signed ones or decimals.

mod convert;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

/// The partition column of the Delta table; it is not in the data files.
pub const DAY: &str = "day";

/// What is appended to the name of a time stamp for the column of its remaining nanoseconds.
const NANOS_SUFFIX: &str = "_ns";

/// Twenty digits hold every unsigned 64-bit number.
const U64_DIGITS: u8 = 20;

/// How one logical column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it is.
    Same,
    /// Microseconds, floored, and a column of 0 to 999 nanoseconds.
    Nanoseconds,
    /// `decimal(20,0)`.
    Unsigned64,
    /// `int64`.
    Unsigned32,
    /// List of `decimal(20,0)`.
    Unsigned64List,
}

impl Stored {
    /// How a column of a type is stored.
    pub fn of(logical: &DataType) -> Self {
        match logical {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Self::Nanoseconds,
            DataType::UInt64 => Self::Unsigned64,
            DataType::UInt32 => Self::Unsigned32,
            DataType::List(item) if item.data_type() == &DataType::UInt64 => Self::Unsigned64List,
            _ => Self::Same,
        }
    }
}

/// The way between the logical columns of the table and those of its files.
#[derive(Clone, Debug)]
pub struct Mapping {
    logical: SchemaRef,
    physical: SchemaRef,
    columns: Arc<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    stored: Stored,
    /// Index of the (first) physical column.
    first: usize,
}

impl Mapping {
    /// The mapping of the table of events.
    pub fn events() -> Self {
        Self::new(sluice_wire::events::schema())
    }

    /// The mapping of any logical schema.
    pub fn new(logical: SchemaRef) -> Self {
        let mut fields: Vec<FieldRef> = Vec::with_capacity(logical.fields().len() + 4);
        let mut columns = Vec::with_capacity(logical.fields().len());
        for field in logical.fields() {
            let stored = Stored::of(field.data_type());
            columns.push(Column {
                stored,
                first: fields.len(),
            });
            // Every stored column may be null: an older writer's file lacks newer columns.
            fields.push(Arc::new(Field::new(
                field.name(),
                stored_type(field.data_type(), stored),
                true,
            )));
            if stored == Stored::Nanoseconds {
                fields.push(Arc::new(Field::new(
                    format!("{}{NANOS_SUFFIX}", field.name()),
                    DataType::Int32,
                    true,
                )));
            }
        }
        Self {
            logical,
            physical: Arc::new(Schema::new(fields)),
            columns: columns.into(),
        }
    }

    pub fn logical(&self) -> &SchemaRef {
        &self.logical
    }

    /// The columns of the data files, without the partition column.
    pub fn physical(&self) -> &SchemaRef {
        &self.physical
    }

    /// How a logical column is stored.
    pub fn stored(&self, logical: usize) -> Stored {
        self.columns[logical].stored
    }

    /// The physical columns that a set of logical ones needs, in the order of that set.
    pub fn physical_indices(&self, logical: &[usize]) -> Vec<usize> {
        let mut indices = Vec::with_capacity(logical.len());
        for &index in logical {
            let column = self.columns[index];
            indices.push(column.first);
            if column.stored == Stored::Nanoseconds {
                indices.push(column.first + 1);
            }
        }
        indices
    }

    /// Logical rows as they are stored.
    pub fn to_physical(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut arrays = Vec::with_capacity(self.physical.fields().len());
        for (column, array) in self.columns.iter().zip(rows.columns()) {
            convert::store(column.stored, array, &mut arrays)?;
        }
        RecordBatch::try_new(Arc::clone(&self.physical), arrays)
    }

    /// Stored columns, as `physical_indices` orders them, as the logical columns they stand for.
    pub fn to_logical(
        &self,
        logical: &[usize],
        schema: &SchemaRef,
        stored: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let mut arrays = Vec::with_capacity(logical.len());
        let mut next = 0;
        for &index in logical {
            let kind = self.columns[index].stored;
            let wide = if kind == Stored::Nanoseconds { 2 } else { 1 };
            let Some(source) = stored.columns().get(next..next + wide) else {
                return Err(ArrowError::SchemaError("a stored column is missing".to_owned()));
            };
            arrays.push(convert::restore(kind, source, self.logical.field(index).data_type())?);
            next += wide;
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
    }
}

fn stored_type(logical: &DataType, stored: Stored) -> DataType {
    let decimal = DataType::Decimal128(U64_DIGITS, 0);
    match (stored, logical) {
        (Stored::Nanoseconds, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        (Stored::Unsigned64, _) => decimal,
        (Stored::Unsigned32, _) => DataType::Int64,
        (Stored::Unsigned64List, DataType::List(item)) => {
            DataType::List(Arc::new(Field::new(item.name(), decimal, item.is_nullable())))
        }
        (_, other) => other.clone(),
    }
}

#[cfg(test)]
mod tests;
