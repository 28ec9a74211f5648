//! OTLP to columns, columns to the bytes that travel.

use std::hint::black_box;

use arrow_array::RecordBatch;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, Header, Kind, Packing};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
use sluice_wire::layout::IpcLimits;
use sluice_wire::otlp::{DecodeLimits, Decoder};

use crate::{Line, line, per_second, seconds};

const ROWS: usize = 1_000;
const SEALED_ROWS: usize = 8_192;

/// The signal as the pipeline names it.
pub(crate) fn wire(signal: Signal) -> sluice_wire::Signal {
    match signal {
        Signal::Log => sluice_wire::Signal::Log,
        Signal::Span => sluice_wire::Signal::Span,
        Signal::Metric => sluice_wire::Signal::Metric,
    }
}

pub(crate) fn measure() -> Vec<Line> {
    let mut lines = Vec::new();
    let corpus = Corpus::new(1);
    let mut decoder = Decoder::new(DecodeLimits::default());
    for signal in Signal::ALL {
        let body = corpus.request(signal, 1, ROWS, 0);
        let ours = seconds(|| {
            black_box(decoder.decode(wire(signal), &body, 1).unwrap());
        });
        let against = if signal == Signal::Log {
            let objects = seconds(|| {
                black_box(ExportLogsServiceRequest::decode(&body[..]).unwrap());
            });
            format!(
                "{:.1} times as fast as an object tree of the same request",
                objects / ours
            )
        } else {
            format!("{} bytes per event", body.len() / ROWS)
        };
        let what = format!("decode OTLP {signal}s, one core");
        lines.push(line(&what, per_second(ROWS as f64, ours, "rows"), against));
    }
    lines.extend(sealing(&corpus, &mut decoder));
    lines
}

fn sealing(corpus: &Corpus, decoder: &mut Decoder) -> Vec<Line> {
    let body = corpus.request(Signal::Log, 2, SEALED_ROWS, 0);
    let rows = decoder.decode(sluice_wire::Signal::Log, &body, 1).unwrap().batch;
    let header = header();
    let seal = || envelope::seal(&header, Some(&rows), Compression::default()).unwrap();
    let sealed = seal();
    let sealing = seconds(|| {
        black_box(seal());
    });
    let parsing = seconds(|| {
        let envelope = Envelope::parse(sealed.clone()).unwrap();
        black_box(envelope.rows(&IpcLimits::default()).unwrap());
    });
    let zstd = zstd::encode_all(&body[..], 3).unwrap();
    let per_event = |bytes: usize| bytes as f64 / SEALED_ROWS as f64;
    let mut lines = vec![
        line(
            "a sealed batch of 8,192 logs",
            format!("{:.0} bytes/event", per_event(sealed.len())),
            format!(
                "{:.0} as OTLP, {:.0} as OTLP with zstd 3",
                per_event(body.len()),
                per_event(zstd.len())
            ),
        ),
        line(
            "seal: encode, compress, hash",
            per_second(SEALED_ROWS as f64, sealing, "rows"),
            format!("opening and validating takes {:.2} of that time", parsing / sealing),
        ),
    ];
    lines.extend(packings(&rows, sealing));
    lines
}

/// What each way of packing makes of the same rows, at the levels that the link classes choose among.
fn packings(rows: &RecordBatch, default: f64) -> Vec<Line> {
    let header = header();
    let ways = [
        ("an Arrow stream", Packing::Arrow),
        ("packed columns", Packing::Columns),
        ("packed, texts taken apart", Packing::Shapes),
    ];
    let mut lines = Vec::new();
    for (name, packing) in ways {
        for zstd_level in [1, 3, 9, 19] {
            let compression = Compression { zstd_level, packing };
            let size = envelope::seal(&header, Some(rows), compression).unwrap().len();
            let time = seconds(|| {
                black_box(envelope::seal(&header, Some(rows), compression).unwrap());
            });
            lines.push(line(
                &format!("sealed as {name}, zstd {zstd_level}"),
                format!("{:.1} bytes/event", size as f64 / SEALED_ROWS as f64),
                format!("{:.2} times the time of what is default", time / default),
            ));
        }
    }
    lines
}

pub(crate) fn header() -> Header {
    let stream = StreamId {
        tenant: TenantId::new("bench").unwrap(),
        node: NodeId::new("bench").unwrap(),
        spool: [7; 16],
    };
    let accepted = SEALED_ROWS as u64;
    Header {
        id: BatchId {
            stream,
            epoch: Epoch { number: 1, random: 2 },
            seq: 3,
        },
        generation: 0,
        kind: Kind::Data,
        rows: SEALED_ROWS as u32,
        counts: Counts {
            accepted,
            stored: accepted,
            ..Counts::default()
        },
        journal_upto: 1,
        time_min_ns: 0,
        time_max_ns: 0,
        sealed_at_ns: 0,
        detail: String::new(),
    }
}
