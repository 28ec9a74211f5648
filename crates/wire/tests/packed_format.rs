//! Packed columns: what goes in comes out, whatever the texts look like; what a hostile peer sends is refused and takes no memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Float64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
    StructBuilder, UInt64Builder,
};
use arrow_array::types::{UInt16Type, UInt32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;
use proptest::sample::select;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, Header, Kind, Packing};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
use sluice_wire::layout::{IpcLimits, rest_fields};

fn header(rows: u32) -> Header {
    let stream = StreamId {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("site").unwrap(),
        spool: [7; 16],
    };
    Header {
        id: BatchId {
            stream,
            epoch: Epoch { number: 1, random: 2 },
            seq: 3,
        },
        generation: 1,
        kind: Kind::Data,
        rows,
        counts: Counts {
            accepted: u64::from(rows),
            stored: u64::from(rows),
            ..Counts::default()
        },
        journal_upto: 0,
        time_min_ns: 0,
        time_max_ns: 0,
        sealed_at_ns: 0,
        detail: String::new(),
    }
}

/// Texts as logs have them, and texts that are meant to trip over the splitting.
fn text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "[0-9]{1,4}",
        "0[0-9]{0,6}",
        "[0-9]{17,20}",
        "[0-9]{1,3}\\.[0-9]{1,4}",
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}",
        "[0-9]{2}:[0-9]{2}:[0-9]{2}"
    ];
    let id = prop_oneof![
        "[0-9a-f]{4,40}",
        "[0-9A-F]{4,40}",
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    ];
    let piece = prop_oneof![
        4 => "(GET|POST|user|took|failed|of|größe|ключ)",
        2 => number,
        2 => id,
        1 => "[a-zA-Z0-9_.:@/{}-]{1,12}",
        1 => "\\PC{0,4}",
        1 => "[0-9a-f]{65,3000}",
        1 => "[0-9A-Za-z]{65,3000}",
        1 => "[\\x00-\\x0f]{0,2}",
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.join(" "))
}

/// Few kinds of lines, many lines: what shapes are made for.
fn lines(rows: usize) -> impl Strategy<Value = Vec<String>> {
    let line = (0usize..5, any::<u64>(), "[a-z]{1,5}", 0.0f64..1e4).prop_map(|(kind, id, word, value)| match kind {
        0 => format!("user {word}{}@example.com took {value:.3} ms", id % 100),
        1 => format!(
            "session {id:016x} from 10.{}.{}.7 at {:02}:{:02}",
            id % 256,
            id % 7,
            id % 24,
            id % 60
        ),
        2 => format!("GET /v1/{word}/{} -> {}", id % 1000, 200 + id % 300),
        3 => format!("job {:08X} done: {word} {:05}", id as u32, id % 100_000),
        _ => format!(
            "id={:08x}-{:04x}-4000-8000-{:012x}.",
            id as u32,
            id % 65536,
            id % (1 << 47)
        ),
    });
    prop::collection::vec(line, rows)
}

fn batch() -> impl Strategy<Value = RecordBatch> {
    (0usize..200)
        .prop_flat_map(|rows| {
            let texts = prop_oneof![
                lines(rows),
                prop::collection::vec(text(), rows),
                prop::collection::vec(select(vec![String::new(), "same".to_owned()]), rows)
            ];
            let numbers = prop_oneof![
                prop::collection::vec(any::<i64>(), rows),
                prop::collection::vec(0i64..300, rows),
                any::<i64>().prop_map(move |start| (0..rows as i64).map(|i| start.wrapping_add(i * 1000)).collect())
            ];
            let doubles = prop_oneof![
                prop::collection::vec(any::<f64>(), rows),
                prop::collection::vec((-100_000i64..100_000).prop_map(|n| n as f64 / 1000.0), rows),
                prop::collection::vec(select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, 1e300, 0.1]), rows)
            ];
            (
                texts,
                numbers,
                doubles,
                prop::collection::vec(0u8..4, rows),
                any::<bool>(),
            )
        })
        .prop_map(|(texts, numbers, doubles, holes, shared)| build(&texts, &numbers, &doubles, &holes, shared))
}

/// A batch of all types; a row lacks what its bits in `holes` say. Where `shared`, attributes repeat what the body says.
fn build(texts: &[String], numbers: &[i64], doubles: &[f64], holes: &[u8], shared: bool) -> RecordBatch {
    let rows = texts.len();
    let has = |row: usize, bit: u8| holes[row] & bit == 0;
    let (mut dict16, mut dict32) = (
        StringDictionaryBuilder::<UInt16Type>::new(),
        StringDictionaryBuilder::<UInt32Type>::new(),
    );
    let mut ids = FixedSizeBinaryBuilder::new(16);
    let mut bytes = BinaryBuilder::new();
    let (mut bounds, mut buckets) = (
        ListBuilder::new(Float64Builder::new()),
        ListBuilder::new(UInt64Builder::new()),
    );
    let member = StructBuilder::new(
        rest_fields(),
        (0..3)
            .map(|_| Box::new(StringBuilder::new()) as Box<dyn arrow_array::builder::ArrayBuilder>)
            .collect(),
    );
    let field = Field::new_list_field(DataType::Struct(rest_fields()), false);
    let mut rest = ListBuilder::new(member).with_field(field);
    for row in 0..rows {
        dict16.append_option(has(row, 1).then(|| &texts[row % 7.min(rows)]));
        dict32.append_option(has(row, 2).then(|| &texts[row / 2]));
        match has(row, 2) {
            true => ids.append_value(i128::from(numbers[row]).to_le_bytes()).unwrap(),
            false => ids.append_null(),
        }
        bytes.append_option(has(row, 1).then(|| texts[row].as_bytes()));
        for item in &doubles[..row.min(3)] {
            bounds.values().append_value(*item);
            buckets.values().append_value(item.to_bits());
        }
        bounds.append(has(row, 1));
        buckets.append(true);
        for value in &texts[..row % 3] {
            for (member, value) in ["key", "string", value].into_iter().enumerate() {
                rest.values()
                    .field_builder::<StringBuilder>(member)
                    .unwrap()
                    .append_value(value);
            }
            rest.values().append(true);
        }
        rest.append(true);
    }
    let some = |bit| (0..rows).map(move |row| has(row, bit)).collect::<Vec<_>>();
    let bodies: StringArray = (0..rows)
        .map(|row| {
            has(row, 1).then(|| match shared {
                true => format!("{} said {} in {:?}", texts[row], numbers[row], doubles[row]),
                false => texts[row].clone(),
            })
        })
        .collect();
    let one = some(1);
    let plain: StringArray = (0..rows).map(|row| has(row, 2).then(|| &texts[row])).collect();
    let ints: Int64Array = (0..rows).map(|row| one[row].then(|| numbers[row])).collect();
    let floats: Float64Array = (0..rows).map(|row| has(row, 2).then(|| doubles[row])).collect();
    let flags: BooleanArray = (0..rows).map(|row| one[row].then_some(row % 3 == 0)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("signal", Arc::new(StringArray::from(vec!["log"; rows]))),
        ("time", Arc::new(numbers.iter().copied().collect::<Int64Array>())),
        ("body", Arc::new(bodies)),
        (
            "severity",
            Arc::new(numbers.iter().map(|n| *n as i32).collect::<Int32Array>()),
        ),
        ("severity_text", Arc::new(dict16.finish())),
        ("trace_id", Arc::new(ids.finish())),
        (
            "flags",
            Arc::new(numbers.iter().map(|n| *n as u32).collect::<UInt32Array>()),
        ),
        (
            "count",
            Arc::new(numbers.iter().map(|n| *n as u64).collect::<UInt64Array>()),
        ),
        ("bounds", Arc::new(bounds.finish())),
        ("buckets", Arc::new(buckets.finish())),
        ("attrs:s:said", Arc::new(plain)),
        ("attrs:s:half", Arc::new(dict32.finish())),
        ("attrs:i:number", Arc::new(ints)),
        ("attrs:d:double", Arc::new(floats)),
        ("attrs:b:flag", Arc::new(flags)),
        ("attrs:y:bytes", Arc::new(bytes.finish())),
        ("attrs:*", Arc::new(rest.finish())),
    ];
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), !matches!(*name, "signal" | "time")));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(
        Arc::new(schema),
        columns.into_iter().map(|(_, column)| column).collect(),
    )
    .unwrap()
}

fn sealed(batch: &RecordBatch, packing: Packing) -> Envelope {
    let compression = Compression { zstd_level: 3, packing };
    let bytes = envelope::seal(&header(batch.num_rows() as u32), Some(batch), compression).unwrap();
    Envelope::parse(bytes).unwrap()
}

const DICTIONARY: &[u8] = include_bytes!("../src/packed/dictionary-1.txt");
/// Where an envelope has the length of its header, of its payload and of what that holds, and where the header begins.
const HEADER: usize = 8;
const PAYLOAD: usize = 12;
const RAW: usize = 16;
const FIXED: usize = 20;

/// The envelope with what its block holds changed, and all lengths and the hash made right again.
fn tampered(envelope: &Envelope, change: impl FnOnce(&mut Vec<u8>)) -> Option<Envelope> {
    let bytes = envelope.bytes();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let start = FIXED + number(HEADER);
    let payload = &bytes[start..start + number(PAYLOAD)];
    let dictionary = if payload[4] == 1 { DICTIONARY } else { &[] };
    let mut zstd = zstd::bulk::Decompressor::with_dictionary(dictionary).unwrap();
    let mut raw = zstd.decompress(&payload[6..], number(RAW)).unwrap();
    change(&mut raw);
    let block = zstd::bulk::Compressor::with_dictionary(1, dictionary)
        .unwrap()
        .compress(&raw)
        .unwrap();
    let mut out = bytes[..start].to_vec();
    out[PAYLOAD..PAYLOAD + 4].copy_from_slice(&(block.len() as u32 + 6).to_le_bytes());
    out[RAW..RAW + 4].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(&payload[..6]);
    out.extend_from_slice(&block);
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Envelope::parse(out.into()).ok()
}

proptest! {
    #[test]
    fn p15_hostile_columns_end_in_an_error_or_in_rows_and_never_in_a_panic(
        batch in batch().prop_filter("rows", |batch| batch.num_rows() > 0),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let hostile = tampered(&sealed(&batch, Packing::Shapes), |raw| {
            for (at, with) in &changes {
                let at = at.index(raw.len());
                raw[at] = *with;
            }
            if let Some(cut) = cut {
                raw.truncate(cut.index(raw.len()).max(1));
            }
        });
        if let Some(Err(error)) = hostile.map(|hostile| hostile.rows(&IpcLimits::default())) {
            prop_assert!(!format!("{error:?}").contains("Panicked"), "{error:?}");
        }
    }

    #[test]
    fn p3_what_is_packed_is_unpacked(batch in batch().prop_filter("rows", |batch| batch.num_rows() > 0)) {
        for packing in [Packing::Columns, Packing::Shapes] {
            let envelope = sealed(&batch, packing);
            // The sealer goes back to an Arrow stream where packing fails; it must not have to.
            prop_assert_eq!(envelope.bytes()[5], 2);
            let read = envelope.rows(&IpcLimits::default()).unwrap().unwrap();
            // Debug text tells -0.0 from 0.0 and NaN from nothing, which comparing does not.
            prop_assert_eq!(format!("{batch:?}"), format!("{read:?}"));
            let again = sealed(&batch, packing);
            prop_assert_eq!(again.bytes(), envelope.bytes());
        }
    }

    #[test]
    fn p15_memory_is_what_was_announced_and_allowed(batch in batch().prop_filter("rows", |batch| batch.num_rows() > 0)) {
        let envelope = sealed(&batch, Packing::Shapes);
        let tight = IpcLimits { max_bytes: 64, ..IpcLimits::default() };
        prop_assert!(envelope.rows(&tight).is_err());
        prop_assert!(envelope.raw_bytes() as usize >= batch.num_rows() * 20);
    }
}

#[test]
fn lines_of_few_statements_become_a_fraction() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let lines = lines(2000).new_tree(&mut runner).unwrap();
    let texts = proptest::strategy::ValueTree::current(&lines);
    let numbers: Vec<i64> = (0..2000).collect();
    let batch = build(&texts, &numbers, &vec![0.5; 2000], &vec![0; 2000], false);
    let body = batch.project(&[0, 1, 2]).unwrap();
    let [arrow, columns, shapes] =
        [Packing::Arrow, Packing::Columns, Packing::Shapes].map(|packing| sealed(&body, packing).bytes().len());
    assert!(columns <= arrow, "{columns} bytes packed, {arrow} as an Arrow stream");
    assert!(shapes * 5 < columns * 4, "{shapes} bytes taken apart, {columns} packed");
}
