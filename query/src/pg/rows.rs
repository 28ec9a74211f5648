//! Rows of an answer as Postgres sends them. What it has no type for (maps, structs, lists of lists) travels as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion_postgres::arrow_pg::datatypes::field_into_pg_type;
use datafusion_postgres::arrow_pg::row_encoder::RowEncoder;
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::PgWireResult;
use datafusion_postgres::pgwire::messages::data::DataRow;

use super::failure;
use crate::encode::value;
use crate::engine::{Answer, Engine, Rows};
use crate::error::{Kind, QueryError};

/// How a column travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Travels {
    AsItIs,
    /// Another type of ours that is sent as it is.
    As(Plain),
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Bytes,
    Text,
}

/// The columns as clients are told of them.
pub(super) fn fields(schema: &Schema, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    let columns = schema.fields().iter().enumerate();
    columns
        .map(|(at, field)| {
            let kind = match (field.data_type(), travels(field.data_type())) {
                (DataType::Null, _) | (_, Travels::As(Plain::Text)) => Type::TEXT,
                (_, Travels::As(Plain::Bytes)) => Type::BYTEA,
                (_, Travels::Json) => Type::JSON,
                _ => field_into_pg_type(field)?,
            };
            Ok(FieldInfo::new(
                field.name().clone(),
                None,
                None,
                kind,
                format.format_for(at),
            ))
        })
        .collect()
}

/// An answer whose rows are made as they are sent.
pub(super) fn response(engine: Arc<Engine>, answer: Answer, format: &Format, sql: &str) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(fields(&answer.schema, format)?);
    let sending = Sending {
        engine,
        rows: answer.rows,
        fields: Arc::clone(&fields),
        batch: None,
        sql: sql.to_owned(),
    };
    let rows = futures::stream::unfold(Some(sending), |state| async move {
        let mut sending = state?;
        match sending.next().await {
            Some(Ok(row)) => Some((Ok(row), Some(sending))),
            Some(Err(error)) => {
                sending.engine.counters.failed.fetch_add(1, Ordering::Relaxed);
                Some((Err(failure::of_query(error, &sending.sql, "")), None))
            }
            None => {
                let given = sending.rows.given();
                sending.engine.counters.rows.fetch_add(given, Ordering::Relaxed);
                None
            }
        }
    });
    Ok(QueryResponse::new(fields, rows))
}

/// One value under its name.
pub(super) fn one(name: &str, value: &str, format: &Format) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(vec![named(name, format.format_for(0))]);
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    encoder.encode_field(&Some(value))?;
    let row = encoder.take_row();
    let mut response = QueryResponse::new(fields, futures::stream::iter([Ok(row)]));
    response.set_command_tag("SHOW");
    Ok(response)
}

pub(super) fn named(name: &str, format: FieldFormat) -> FieldInfo {
    FieldInfo::new(name.to_owned(), None, None, Type::TEXT, format)
}

struct Sending {
    engine: Arc<Engine>,
    rows: Rows,
    fields: Arc<Vec<FieldInfo>>,
    batch: Option<RowEncoder>,
    sql: String,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<DataRow, QueryError>> {
        loop {
            if let Some(encoder) = &mut self.batch {
                match encoder.next_row() {
                    Some(Ok(row)) => return Some(Ok(row)),
                    Some(Err(error)) => return Some(Err(unsendable().because(error))),
                    None => self.batch = None,
                }
            }
            let batch = match self.rows.next().await? {
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            };
            match sendable(&batch) {
                Ok(batch) => self.batch = Some(RowEncoder::new(batch, Arc::clone(&self.fields))),
                Err(error) => return Some(Err(unsendable().because(error))),
            }
        }
    }
}

fn unsendable() -> QueryError {
    QueryError::new(
        Kind::Unsupported,
        "a value of the answer cannot be written for this client",
    )
    .hint("cast the column to text")
}

/// Whether a column of this type is JSON for a client.
pub(crate) fn is_json(kind: &DataType) -> bool {
    travels(kind) == Travels::Json
}

fn travels(kind: &DataType) -> Travels {
    match kind {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Timestamp(..)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Interval(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => Travels::AsItIs,
        DataType::FixedSizeBinary(_) => Travels::As(Plain::Bytes),
        DataType::Dictionary(_, values) => match values.as_ref() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Travels::As(Plain::Text),
            _ => Travels::Json,
        },
        DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
            DataType::Boolean
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Utf8
            | DataType::Utf8View => Travels::AsItIs,
            _ => Travels::Json,
        },
        _ => Travels::Json,
    }
}

/// The same rows in types that can be sent.
fn sendable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let column: ArrayRef = match travels(field.data_type()) {
            Travels::AsItIs => Arc::clone(column),
            Travels::As(Plain::Bytes) => arrow::compute::cast(column, &DataType::Binary)?,
            Travels::As(Plain::Text) => arrow::compute::cast(column, &DataType::Utf8)?,
            Travels::Json => Arc::new(json(column.as_ref())?),
        };
        let field = Field::new(field.name(), column.data_type().clone(), true).with_metadata(field.metadata().clone());
        fields.push(field);
        columns.push(column);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn json(column: &dyn Array) -> Result<arrow::array::StringArray, ArrowError> {
    let mut out = StringBuilder::new();
    let mut text = String::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        value::write(column, row, &mut text)?;
        out.append_value(&text);
    }
    Ok(out.finish())
}
