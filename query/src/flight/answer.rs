//! An answer as Flight sends it: a schema, then rows in messages that a client's limits let through. How complete it is stands in a header
//! and beside the schema and the first rows, because some clients show only one of these.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use bytes::Bytes;
use futures::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};

use super::failure;
use super::running::Guard;
use super::service::Sent;
use crate::engine::{Answer, Engine, Rows};
use crate::error::{Kind, QueryError};

/// Clients of gRPC take 8 KiB of headers in all.
const HEADER_BYTES: usize = 4 << 10;
const COMPLETENESS: &str = "sluice-completeness";

/// The columns as they travel: dictionaries written out, views as what they show, and every column may be null, so that what was announced
/// before the query ran is what comes.
pub(super) fn schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let field = Field::new(field.name(), travels(field.data_type()), true).with_metadata(field.metadata().clone());
        Arc::new(field)
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

fn travels(kind: &DataType) -> DataType {
    let inner =
        |field: &FieldRef| -> FieldRef { Arc::new(field.as_ref().clone().with_data_type(travels(field.data_type()))) };
    match kind {
        DataType::Dictionary(_, values) => travels(values),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(inner(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(inner(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        other => other.clone(),
    }
}

/// The rows of an answer; they end with the client, at the deadline, or when they are cancelled.
pub(super) fn response(engine: Arc<Engine>, answer: Answer, guard: Option<Guard>) -> Response<Sent<FlightData>> {
    let said = answer.completeness.header(HEADER_BYTES);
    let metadata = Bytes::from(said.clone().into_bytes());
    let columns = schema(&answer.schema);
    let sending = Sending {
        engine,
        rows: answer.rows,
        guard,
        columns: Arc::clone(&columns),
    };
    let batches = futures::stream::unfold(Some(sending), |state| async move {
        let mut sending = state?;
        match sending.next().await {
            Some(Ok(batch)) => Some((Ok(batch), Some(sending))),
            Some(Err(status)) => {
                sending.engine.counters.failed.fetch_add(1, Ordering::Relaxed);
                Some((Err(FlightError::from(status)), None))
            }
            None => {
                let given = sending.rows.given();
                sending.engine.counters.rows.fetch_add(given, Ordering::Relaxed);
                None
            }
        }
    });
    let mut beside = Some(metadata.clone());
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(columns)
        .with_metadata(metadata)
        .build(batches);
    let messages = encoded.enumerate().map(move |(at, message)| {
        let mut message = message.map_err(failure::of_flight)?;
        if at > 0
            && let Some(metadata) = beside.take()
        {
            message.app_metadata = metadata;
        }
        Ok(message)
    });
    let mut response = Response::new(messages.boxed());
    if let Ok(value) = MetadataValue::try_from(said) {
        response.metadata_mut().insert(COMPLETENESS, value);
    }
    response
}

/// One batch that was made here.
pub(super) fn made(batch: RecordBatch) -> Response<Sent<FlightData>> {
    let columns = batch.schema();
    let encoded = FlightDataEncoderBuilder::new()
        .with_schema(columns)
        .build(futures::stream::iter([Ok(batch)]));
    Response::new(encoded.map(|message| message.map_err(failure::of_flight)).boxed())
}

struct Sending {
    engine: Arc<Engine>,
    rows: Rows,
    guard: Option<Guard>,
    columns: SchemaRef,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<RecordBatch, Status>> {
        let next = match &self.guard {
            None => self.rows.next().await,
            Some(guard) => tokio::select! {
                next = self.rows.next() => next,
                () = guard.stop.cancelled() => return Some(Err(failure::cancelled())),
            },
        };
        let batch = next?.map_err(failure::of_query);
        Some(batch.and_then(|batch| {
            sendable(&batch, &self.columns).map_err(|error| {
                let error =
                    QueryError::new(Kind::Unsupported, "a column of the answer cannot be sent as Arrow").because(error);
                failure::of_query(error)
            })
        }))
    }
}

fn sendable(batch: &RecordBatch, columns: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let cast = |(column, field): (&arrow::array::ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => arrow::compute::cast(column, field.data_type()),
    };
    let sent = batch
        .columns()
        .iter()
        .zip(columns.fields())
        .map(cast)
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(columns), sent, &options)
}
