//! Nothing is lost between an export request and the table: requests go in, through batches that are cut and joined, through bytes,
//! into rows, and come out again.
#![allow(clippy::unwrap_used)]

mod otlp_support;

use arrow_array::RecordBatch;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use otlp_support::{Gen, NormalRow, normal_logs, normal_metrics, normal_traces};
use prost::Message;
use sluice_wire::Signal;
use sluice_wire::events::{self, Origin};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::layout::{self, ConcatOptions, IpcLimits};
use sluice_wire::otlp::{DecodeLimits, Decoder, encode_rows, json_to_protobuf, protobuf_to_json};

const RECEIVED: u64 = 1_750_000_000_000_000_000;
const CASES: u64 = 2_000;

fn batch_id() -> BatchId {
    BatchId {
        stream: StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("edge-1").unwrap(),
            spool: [7; 16],
        },
        epoch: Epoch { number: 3, random: 5 },
        seq: 11,
    }
}

fn fold(batch: &RecordBatch) -> RecordBatch {
    let id = batch_id();
    let origin = Origin {
        id: &id,
        partition: Partition {
            generation: 1,
            index: 2,
        },
        offset: 9,
        ingested_at_us: 77,
    };
    events::fold(batch, &origin).unwrap()
}

/// A generated request: its bytes and its rows in normal form.
fn request(g: &mut Gen, signal: Signal) -> (Vec<u8>, Vec<NormalRow>) {
    match signal {
        Signal::Log => {
            let bytes = g.logs().encode_to_vec();
            let rows = normal(signal, &bytes);
            (bytes, rows)
        }
        Signal::Span => {
            let bytes = g.traces().encode_to_vec();
            let rows = normal(signal, &bytes);
            (bytes, rows)
        }
        Signal::Metric => {
            let bytes = g.metrics().encode_to_vec();
            let rows = normal(signal, &bytes);
            (bytes, rows)
        }
    }
}

fn normal(signal: Signal, bytes: &[u8]) -> Vec<NormalRow> {
    match signal {
        Signal::Log => normal_logs(ExportLogsServiceRequest::decode(bytes).unwrap()),
        Signal::Span => normal_traces(ExportTraceServiceRequest::decode(bytes).unwrap()),
        Signal::Metric => normal_metrics(ExportMetricsServiceRequest::decode(bytes).unwrap()),
    }
}

/// Cuts a batch where the generator likes.
fn cut(g: &mut Gen, batch: &RecordBatch) -> Vec<RecordBatch> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < batch.num_rows() {
        let n = (1 + g.below(9) as usize).min(batch.num_rows() - at);
        pieces.push(batch.slice(at, n));
        at += n;
    }
    pieces
}

#[test]
fn requests_of_all_signals_come_back_equal() {
    let mut rows_seen = 0;
    for seed in 0..CASES {
        let mut g = Gen::new(seed);
        let limits = DecodeLimits {
            max_columns: [0, 3, 512][g.below(3) as usize],
            ..DecodeLimits::default()
        };
        let mut decoder = Decoder::new(limits);
        let mut pieces = Vec::new();
        let mut sent: [Vec<NormalRow>; 3] = Default::default();
        for _ in 0..=g.below(3) {
            let signal = Signal::ALL[g.below(3) as usize];
            let (bytes, rows) = request(&mut g, signal);
            let decoded = decoder.decode(signal, &bytes, RECEIVED).unwrap();
            assert_eq!(decoded.rejected, 0, "seed {seed}");
            assert_eq!(decoded.batch.num_rows(), rows.len(), "seed {seed}");
            pieces.extend(cut(&mut g, &decoded.batch));
            sent[signal as usize].extend(rows);
        }
        let options = ConcatOptions {
            min_rows_per_column: 1 + g.below(5) as usize,
            max_columns: [2, 512][g.below(2) as usize],
            ..ConcatOptions::default()
        };
        let joined = layout::concat(&pieces, &options).unwrap();
        let bytes = layout::to_ipc(&joined).unwrap();
        let back = layout::from_ipc(&bytes, &IpcLimits::default()).unwrap();
        let rows = fold(&back);
        assert_eq!(rows.schema(), events::schema());
        rows_seen += rows.num_rows();
        for signal in Signal::ALL {
            let got = normal(signal, &encode_rows(signal, &rows).unwrap());
            let wanted = &sent[signal as usize];
            assert_eq!(got.len(), wanted.len(), "seed {seed}, {signal}");
            for (n, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                for part in 0..3 {
                    assert_eq!(
                        String::from_utf8_lossy(&got[part]),
                        String::from_utf8_lossy(&wanted[part]),
                        "seed {seed}, {signal} {n}, part {part}"
                    );
                    assert_eq!(got[part], wanted[part], "seed {seed}, {signal} {n}, part {part}");
                }
            }
        }
    }
    assert!(rows_seen > 2000, "only {rows_seen} rows: the test tests nothing");
}

#[test]
fn json_and_protobuf_give_the_same_batch() {
    let mut rows_seen = 0;
    for seed in 0..CASES {
        let mut g = Gen::finite(seed);
        let signal = Signal::ALL[g.below(3) as usize];
        let (json, bytes) = match signal {
            Signal::Log => both(&g.logs()),
            Signal::Span => both(&g.traces()),
            Signal::Metric => both(&g.metrics()),
        };
        let limits = DecodeLimits::default();
        let transcoded = json_to_protobuf(signal, &json, &limits).unwrap();
        let mut decoder = Decoder::new(limits);
        let from_json = decoder.decode(signal, &transcoded, RECEIVED).unwrap();
        let from_bytes = decoder.decode(signal, &bytes, RECEIVED).unwrap();
        assert_same(&from_json.batch, &from_bytes.batch, seed);
        rows_seen += from_bytes.batch.num_rows();
    }
    assert!(rows_seen > 1000, "only {rows_seen} rows: the test tests nothing");
}

/// Says which column differs; whole batches are too much to read.
fn assert_same(got: &RecordBatch, wanted: &RecordBatch, seed: u64) {
    assert_eq!(got.schema(), wanted.schema(), "seed {seed}");
    for (n, field) in got.schema().fields().iter().enumerate() {
        assert_eq!(got.column(n), wanted.column(n), "seed {seed}, column {}", field.name());
    }
}

fn both<M: Message + Default + serde::Serialize>(message: &M) -> (Vec<u8>, Vec<u8>) {
    let bytes = message.encode_to_vec();
    // The encoder takes -0.0 for the default value and leaves it out; JSON would not.
    let sent = M::decode(bytes.as_slice()).unwrap();
    (serde_json::to_vec(&sent).unwrap(), bytes)
}

/// Runs whatever came over the wire through everything that reads it.
fn swallow(signal: Signal, bytes: &[u8]) {
    let limits = DecodeLimits {
        max_rows: 5000,
        ..DecodeLimits::default()
    };
    if let Ok(decoded) = Decoder::new(limits.clone()).decode(signal, bytes, RECEIVED) {
        let batch = decoded.batch;
        let ipc = layout::to_ipc(&batch).unwrap();
        let back = layout::from_ipc(&ipc, &IpcLimits::default()).unwrap();
        assert_eq!(back, batch);
        encode_rows(signal, &fold(&back)).unwrap();
    }
    let _ = json_to_protobuf(signal, bytes, &limits);
}

#[test]
fn damaged_requests_never_panic() {
    let mut g = Gen::new(1);
    for round in 0..600 {
        let signal = Signal::ALL[g.below(3) as usize];
        let (mut bytes, _) = request(&mut g, signal);
        if bytes.is_empty() {
            continue;
        }
        for _ in 0..=g.below(4) {
            let at = g.below(bytes.len() as u64) as usize;
            match g.below(4) {
                0 => bytes[at] = g.next() as u8,
                1 => bytes[at] ^= 1 << g.below(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, g.next() as u8),
            }
        }
        swallow(signal, &bytes);
        if round % 3 == 0 {
            let noise: Vec<u8> = (0..g.below(64)).map(|_| g.next() as u8).collect();
            swallow(signal, &noise);
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for seed in 0..60 {
        let mut g = Gen::new(seed);
        let signal = Signal::ALL[g.below(3) as usize];
        let (bytes, rows) = request(&mut g, signal);
        let mut more = bytes.clone();
        // Field 1000 with each wire type, and a group with a field inside.
        more.extend([
            0xc0, 0x3e, 0x2a, 0xc1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, 0xc2, 0x3e, 2, 0xff, 0xfe,
        ]);
        more.extend([0xc5, 0x3e, 1, 2, 3, 4, 0xc3, 0x3e, 0x08, 0x01, 0xc4, 0x3e]);
        let mut decoder = Decoder::new(DecodeLimits::default());
        let plain = decoder.decode(signal, &bytes, RECEIVED).unwrap().batch;
        assert_eq!(decoder.decode(signal, &more, RECEIVED).unwrap().batch, plain);
        assert_eq!(plain.num_rows(), rows.len());
    }
}

#[test]
fn damaged_batches_never_panic() {
    let mut g = Gen::new(2);
    let (mut refused, mut taken) = (0, 0);
    // What arrow-ipc makes of hostile bytes is a panic now and then, which is caught; nobody needs to read about each.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info
            .location()
            .is_some_and(|at| at.file().contains("arrow") || at.file().contains("flatbuffers"))
        {
            usual(info);
        }
    }));
    for _ in 0..100 {
        let signal = Signal::ALL[g.below(3) as usize];
        let (bytes, _) = request(&mut g, signal);
        let batch = Decoder::new(DecodeLimits::default())
            .decode(signal, &bytes, RECEIVED)
            .unwrap()
            .batch;
        let ipc = layout::to_ipc(&batch).unwrap();
        for _ in 0..40 {
            let mut damaged = ipc.clone();
            for _ in 0..=g.below(3) {
                let at = g.below(damaged.len() as u64) as usize;
                match g.below(8) {
                    0 => damaged.truncate(at.max(1)),
                    1 => {
                        let end = (at + 8).min(damaged.len());
                        damaged[at..end].fill(0xff);
                    }
                    2 => damaged.extend([0; 8]),
                    3 => damaged[at] = g.next() as u8,
                    _ => damaged[at] ^= 1 << g.below(8),
                }
            }
            match layout::from_ipc(&damaged, &IpcLimits::default()) {
                Err(_) => refused += 1,
                Ok(batch) => {
                    taken += 1;
                    let rows = fold(&batch);
                    assert_eq!(rows.num_rows(), batch.num_rows());
                    // Text that is not what its type says is an error, never a panic.
                    for signal in Signal::ALL {
                        let _ = encode_rows(signal, &rows);
                    }
                    layout::concat(&[batch.clone(), batch], &ConcatOptions::default()).unwrap();
                }
            }
        }
    }
    assert!(
        refused > 100 && taken > 100,
        "refused {refused}, taken {taken}: the test tests nothing"
    );
}

/// What is taken out of a spool as text can be sent in again.
#[test]
fn a_request_as_json_holds_the_same_rows() {
    let limits = DecodeLimits::default();
    for seed in 0..CASES / 4 {
        let mut g = Gen::new(seed);
        for signal in [Signal::Log, Signal::Span, Signal::Metric] {
            let (bytes, rows) = request(&mut g, signal);
            let json = protobuf_to_json(signal, &bytes).unwrap();
            assert!(!json.contains(&b'\n'));
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert!(value.is_object());
            let back = json_to_protobuf(signal, &json, &limits).unwrap();
            assert_eq!(normal(signal, &back), rows, "seed {seed}, {signal}");
        }
    }
    assert!(protobuf_to_json(Signal::Log, &[0x0a, 0x7f]).is_err());
}
