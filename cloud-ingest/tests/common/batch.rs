//! Sealed batches for tests that fill a log.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{Compression, Header, Kind, seal};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

pub(crate) const ROWS: u64 = 3;

/// `ROWS` log records of one edge, with this text each where there is one.
pub(crate) fn batch_of(tenant: &str, node: u16, seq: u64, text: Option<&str>) -> Bytes {
    let stream = StreamId {
        tenant: TenantId::new(tenant).unwrap(),
        node: NodeId::new(&format!("site-{node}")).unwrap(),
        spool: [1; 16],
    };
    let epoch = Epoch { number: 1, random: 7 };
    let header = Header {
        id: BatchId { stream, epoch, seq },
        generation: 0,
        kind: Kind::Data,
        rows: ROWS as u32,
        counts: Counts {
            accepted: ROWS,
            stored: ROWS,
            ..Counts::default()
        },
        journal_upto: 0,
        time_min_ns: 0,
        time_max_ns: 2,
        sealed_at_ns: 3,
        detail: String::new(),
    };
    let signal = StringArray::from_iter_values((0..ROWS).map(|_| "log"));
    let dictionary = DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8));
    let signal = arrow::compute::cast(&signal, &dictionary).unwrap();
    let time: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let mut rows = vec![("signal", signal, false), ("time", time, false)];
    if let Some(text) = text {
        let body = StringArray::from_iter_values((0..ROWS).map(|_| text));
        rows.push(("body", Arc::new(body) as ArrayRef, true));
    }
    let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
    seal(&header, Some(&rows), Compression::default()).unwrap()
}
