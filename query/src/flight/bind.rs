//! The parameters of a prepared statement: one row of an Arrow stream that nobody vouches for. Its headers are looked at before the Arrow
//! reader is, which trusts lengths and may panic on what it does not expect; so it runs where a panic becomes an error.

use std::panic::AssertUnwindSafe;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::common::ScalarValue;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tonic::Status;

use super::failure::{malformed, of_query};
use crate::error::{Kind, QueryError};

/// Messages of one binding: a schema, a batch, and what clients send around them.
const MAX_MESSAGES: usize = 16;

/// Reads the stream of a binding to its end and gives the values of its one row, each in the type that the query wants.
pub(super) async fn values<S>(stream: S, wanted: &[DataType], most: usize) -> Result<Vec<ScalarValue>, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Unpin + Send,
{
    let messages = gather(stream, most).await?;
    let decoded = async move {
        let stream = futures::stream::iter(messages.into_iter().map(Ok::<_, FlightError>));
        FlightRecordBatchStream::new_from_flight_data(stream)
            .try_collect::<Vec<RecordBatch>>()
            .await
    };
    let batches = AssertUnwindSafe(decoded).catch_unwind().await;
    let Ok(Ok(batches)) = batches else {
        return Err(malformed("the parameters are not an Arrow stream that can be read"));
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let filled = batches.into_iter().find(|batch| batch.num_rows() > 0);
    let (Some(batch), 1) = (filled, rows) else {
        let message = format!("{rows} rows of parameters were bound, and a query takes one");
        return Err(of_query(
            QueryError::new(Kind::BadRequest, message).hint("run the statement once for each row"),
        ));
    };
    if batch.num_columns() != wanted.len() {
        let message = format!(
            "the query has {} parameters, and {} were bound",
            wanted.len(),
            batch.num_columns()
        );
        return Err(malformed(&message));
    }
    let columns = batch.columns().iter().zip(wanted).enumerate();
    let read = AssertUnwindSafe(|| {
        columns
            .map(|(at, (column, wanted))| value(column.as_ref(), wanted, at))
            .collect()
    });
    std::panic::catch_unwind(read).unwrap_or_else(|_| Err(malformed("a parameter cannot be read")))
}

fn value(column: &dyn Array, wanted: &DataType, at: usize) -> Result<ScalarValue, Status> {
    if column.data_type().is_nested() {
        return Err(malformed(&format!(
            "parameter ${} is a list or a structure, and has to be one value",
            at + 1
        )));
    }
    ScalarValue::try_from_array(column, 0)
        .and_then(|value| value.cast_to(wanted))
        .map_err(|error| {
            let message = format!(
                "parameter ${} is {}, which cannot be read as {wanted}",
                at + 1,
                column.data_type()
            );
            of_query(QueryError::new(Kind::BadRequest, message).because(error))
        })
}

async fn gather<S>(mut stream: S, most: usize) -> Result<Vec<FlightData>, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Unpin + Send,
{
    let (mut messages, mut bytes) = (Vec::new(), 0usize);
    while let Some(message) = stream.next().await {
        let message = message?;
        bytes = bytes
            .saturating_add(message.data_header.len())
            .saturating_add(message.data_body.len());
        if bytes > most || messages.len() >= MAX_MESSAGES {
            let message = format!("parameters have up to {most} bytes in {MAX_MESSAGES} messages");
            return Err(malformed(&message));
        }
        // the first one may carry the command alone
        if message.data_header.is_empty() && message.data_body.is_empty() {
            continue;
        }
        look(&message).map_err(|what| malformed(&format!("the parameters are no plain Arrow stream: {what}")))?;
        messages.push(message);
    }
    Ok(messages)
}

/// Refuses lengths that the bytes do not bear out, and what could unfold in memory.
fn look(message: &FlightData) -> Result<(), &'static str> {
    let header = root_as_message(&message.data_header).map_err(|_| "a header cannot be read")?;
    match header.header_type() {
        MessageHeader::Schema => return Ok(()),
        MessageHeader::RecordBatch => {}
        _ => return Err("it has more than a schema and rows"),
    }
    let batch = header.header_as_record_batch().ok_or("rows without a description")?;
    if batch.compression().is_some() {
        return Err("it is compressed");
    }
    if !(0..=1).contains(&batch.length()) {
        return Err("it has more than one row");
    }
    let body = i64::try_from(message.data_body.len()).unwrap_or(i64::MAX);
    let most = body.saturating_mul(8).saturating_add(1);
    for node in batch.nodes().iter().flatten() {
        if !(0..=most).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err("a column is longer than its bytes");
        }
    }
    for buffer in batch.buffers().iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length());
        if buffer.offset() < 0 || buffer.length() < 0 || end.is_none_or(|end| end > body) {
            return Err("a column lies outside of its message");
        }
    }
    Ok(())
}
