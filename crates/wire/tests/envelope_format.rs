//! The envelope reads back what was sealed, keeps reading its first version, and no bytes make it panic or allocate
//! beyond its limits.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::Bytes;
use proptest::prelude::*;
use sluice_wire::counts::{Counts, Dropped};
use sluice_wire::envelope::{self, Compression, Envelope, EnvelopeError, Header, Kind, Packing};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
use sluice_wire::layout::IpcLimits;

fn id(seq: u64) -> BatchId {
    let stream = StreamId {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("Site-7.rack_2").unwrap(),
        spool: *b"0123456789abcdef",
    };
    BatchId {
        stream,
        epoch: Epoch {
            number: 17,
            random: 0x9f3c_0123_4567_89ab,
        },
        seq,
    }
}

fn rows(n: usize) -> RecordBatch {
    let signal = StringArray::from_iter_values((0..n).map(|_| "log"));
    let signal = arrow_cast::cast(&signal, &dictionary()).unwrap();
    let time = Int64Array::from_iter_values((0..n).map(|i| 1_700_000_000_000_000_000 + i as i64));
    let body = StringArray::from_iter_values((0..n).map(|i| format!("request {i} took {} ms", i * 7 % 100)));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("signal", signal, false),
        ("time", Arc::new(time), false),
        ("body", Arc::new(body), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn dictionary() -> arrow_schema::DataType {
    use arrow_schema::DataType::{Dictionary, UInt16, Utf8};
    Dictionary(Box::new(UInt16), Box::new(Utf8))
}

fn data_header(n: u32) -> Header {
    Header {
        id: id(42),
        generation: 2,
        kind: Kind::Data,
        rows: n,
        counts: Counts {
            accepted: u64::from(n) + 5,
            stored: u64::from(n) - 1,
            quarantined: 1,
            damaged: 2,
            dropped: vec![Dropped {
                plugin: "sampler".into(),
                reason: "routine".into(),
                rows: 3,
            }],
            refused: vec![Dropped {
                plugin: "mask".into(),
                reason: "trap".into(),
                rows: 9,
            }],
        },
        journal_upto: 99,
        time_min_ns: -5,
        time_max_ns: 1_700_000_000_000_000_001,
        sealed_at_ns: 1_700_000_000_000_000_009,
        detail: String::new(),
    }
}

fn report_header() -> Header {
    Header {
        kind: Kind::Report,
        rows: 0,
        counts: Counts::default(),
        detail: r#"{"backlog":3}"#.into(),
        ..data_header(1)
    }
}

#[test]
fn p3_what_was_sealed_is_read_back_with_or_without_compression() {
    for zstd_level in [0, 3] {
        let sealed = envelope::seal(&data_header(100), Some(&rows(100)), Compression::level(zstd_level)).unwrap();
        let parsed = Envelope::parse(sealed.clone()).unwrap();
        assert_eq!(parsed.header, data_header(100));
        assert_eq!(parsed.bytes(), &sealed);
        assert_eq!(parsed.hash[..], sealed[sealed.len() - 32..]);
        let read = parsed.rows(&IpcLimits::default()).unwrap().unwrap();
        assert_eq!(read, rows(100));
        assert_eq!(
            sealed,
            envelope::seal(&data_header(100), Some(&rows(100)), Compression::level(zstd_level)).unwrap()
        );
    }
    let packed = envelope::seal(&data_header(2000), Some(&rows(2000)), Compression::default()).unwrap();
    let raw = envelope::seal(&data_header(2000), Some(&rows(2000)), Compression::NONE).unwrap();
    assert!(packed.len() * 3 < raw.len());
}

#[test]
fn p3_a_tombstone_keeps_the_balance_of_its_batch() {
    let tombstone = data_header(100).tombstone("rows are not valid");
    let sealed = envelope::seal(&tombstone, None, Compression::default()).unwrap();
    let parsed = Envelope::parse(sealed).unwrap();
    assert_eq!((parsed.header.kind, parsed.header.rows), (Kind::Tombstone, 0));
    assert_eq!(parsed.header.id, id(42));
    assert_eq!(
        (parsed.header.counts.accepted, parsed.header.counts.damaged),
        (105, 102)
    );
    assert!(parsed.header.counts.balances());
    assert!(parsed.rows(&IpcLimits::default()).unwrap().is_none());
}

#[test]
fn p3_counts_that_do_not_balance_are_neither_sealed_nor_read() {
    let mut header = data_header(100);
    header.counts.accepted += 1;
    assert!(matches!(
        envelope::seal(&header, Some(&rows(100)), Compression::default()),
        Err(EnvelopeError::Unbalanced { .. })
    ));
    let mut header = data_header(100);
    header.rows = 99;
    assert!(matches!(
        envelope::seal(&header, Some(&rows(99)), Compression::default()),
        Err(EnvelopeError::Rows { .. })
    ));
    assert!(matches!(
        envelope::seal(&data_header(100), Some(&rows(99)), Compression::default()),
        Err(EnvelopeError::Rows { .. })
    ));
    assert!(envelope::seal(&data_header(100), None, Compression::default()).is_err());
    let tombstone_with_rows = Header {
        kind: Kind::Tombstone,
        ..data_header(100)
    };
    assert!(envelope::seal(&tombstone_with_rows, Some(&rows(100)), Compression::default()).is_err());
}

#[test]
fn p6_any_changed_byte_is_noticed() {
    let sealed = envelope::seal(&data_header(20), Some(&rows(20)), Compression::default()).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[at] ^= 0x20;
        assert!(Envelope::parse(changed.into()).is_err(), "byte {at}");
    }
    for end in 0..sealed.len() {
        assert!(Envelope::parse(sealed.slice(..end)).is_err(), "cut at {end}");
    }
    let longer = [&sealed[..], b"x"].concat();
    assert!(matches!(
        Envelope::parse(longer.into()),
        Err(EnvelopeError::Trailing(1))
    ));
}

#[test]
fn a_newer_format_says_so() {
    let mut newer = envelope::seal(&report_header(), None, Compression::default())
        .unwrap()
        .to_vec();
    newer[4] = 2;
    let error = Envelope::parse(newer.into()).unwrap_err();
    assert!(
        error.needs_upgrade() && error.to_string().contains("upgrade"),
        "{error}"
    );
    let mut codec = envelope::seal(&report_header(), None, Compression::default())
        .unwrap()
        .to_vec();
    codec[5] = 9;
    assert!(Envelope::parse(codec.into()).unwrap_err().needs_upgrade());
}

/// Changes bytes at will and puts a correct hash behind them, as a hostile edge would.
fn resealed(sealed: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut body = sealed[..sealed.len() - 32].to_vec();
    change(&mut body);
    let hash = blake3::hash(&body);
    body.extend_from_slice(hash.as_bytes());
    body.into()
}

#[test]
fn p15_a_decompression_bomb_is_refused_before_anything_is_allocated() {
    let n = 50_000;
    let mut header = data_header(n);
    header.counts.stored = u64::from(n) - 1;
    let arrow = Compression {
        zstd_level: 3,
        packing: Packing::Arrow,
    };
    let sealed = envelope::seal(&header, Some(&rows(n as usize)), arrow).unwrap();
    let small = IpcLimits {
        max_bytes: 100_000,
        ..IpcLimits::default()
    };
    let parsed = Envelope::parse(sealed.clone()).unwrap();
    assert!(parsed.raw_bytes() > 100_000);
    assert!(matches!(parsed.rows(&small), Err(EnvelopeError::TooLarge { .. })));
    // It announces less than it holds.
    let liar = resealed(&sealed, |body| body[16..20].copy_from_slice(&1000u32.to_le_bytes()));
    assert!(matches!(
        Envelope::parse(liar).unwrap().rows(&small),
        Err(EnvelopeError::Decompress(_))
    ));
    // Packed columns announce what they take, too.
    let packed = envelope::seal(&header, Some(&rows(n as usize)), Compression::default()).unwrap();
    assert!(matches!(
        Envelope::parse(packed.clone()).unwrap().rows(&small),
        Err(EnvelopeError::TooLarge { .. })
    ));
    let liar = resealed(&packed, |body| {
        let payload = 20 + u32::from_le_bytes(body[8..12].try_into().unwrap()) as usize;
        body[payload..payload + 4].copy_from_slice(&90_000u32.to_le_bytes());
    });
    let error = Envelope::parse(liar).unwrap().rows(&IpcLimits::default()).unwrap_err();
    assert!(matches!(error, EnvelopeError::Layout(_)), "{error:?}");
    // It announces more than it holds.
    let boaster = resealed(&sealed, |body| {
        body[16..20].copy_from_slice(&60_000_000u32.to_le_bytes())
    });
    assert!(Envelope::parse(boaster).unwrap().rows(&IpcLimits::default()).is_err());
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Written once by the build that introduced the version. They are never written again: a change that alters them is a new version.
#[test]
#[ignore = "writes the fixtures; run by hand when a version is added"]
#[expect(clippy::disallowed_methods, reason = "fixtures are files")]
fn write_fixtures() {
    let data = |level| {
        let compression = Compression {
            zstd_level: level,
            packing: Packing::Arrow,
        };
        envelope::seal(&data_header(50), Some(&rows(50)), compression).unwrap()
    };
    let packed = envelope::seal(&data_header(50), Some(&rows(50)), Compression::default()).unwrap();
    let plain = |header: &Header| envelope::seal(header, None, Compression::default()).unwrap();
    for (name, bytes) in [
        ("envelope-v1-data.bin", data(3)),
        ("envelope-v1-data-uncompressed.bin", data(0)),
        ("envelope-v1-data-packed.bin", packed),
        (
            "envelope-v1-tombstone.bin",
            plain(&data_header(50).tombstone("rows are not valid")),
        ),
        ("envelope-v1-report.bin", plain(&report_header())),
    ] {
        std::fs::write(fixture(name), bytes).unwrap();
    }
}

#[test]
fn version_1_is_still_read() {
    let read = |bytes: &'static [u8]| Envelope::parse(Bytes::from_static(bytes)).unwrap();
    let compressed = read(include_bytes!("fixtures/envelope-v1-data.bin"));
    let uncompressed = read(include_bytes!("fixtures/envelope-v1-data-uncompressed.bin"));
    let packed = read(include_bytes!("fixtures/envelope-v1-data-packed.bin"));
    for data in [compressed, uncompressed, packed] {
        assert_eq!(data.header, data_header(50));
        assert_eq!(data.rows(&IpcLimits::default()).unwrap().unwrap(), rows(50));
    }
    let tombstone = read(include_bytes!("fixtures/envelope-v1-tombstone.bin"));
    assert_eq!(tombstone.header, data_header(50).tombstone("rows are not valid"));
    let report = read(include_bytes!("fixtures/envelope-v1-report.bin"));
    assert_eq!(report.header, report_header());
}

proptest! {
    #[test]
    fn hostile_bytes_with_a_correct_hash_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        zstd_level in prop::sample::select(vec![0, 3]),
        packing in prop::sample::select(vec![Packing::Arrow, Packing::Columns, Packing::Shapes]),
    ) {
        let compression = Compression { zstd_level, packing };
        let sealed = envelope::seal(&data_header(30), Some(&rows(30)), compression).unwrap();
        let hostile = resealed(&sealed, |body| {
            for (at, with) in &changes {
                let at = at.index(body.len());
                body[at] = *with;
            }
        });
        if let Ok(parsed) = Envelope::parse(hostile) {
            let _ = parsed.rows(&IpcLimits { max_bytes: 1 << 20, ..IpcLimits::default() });
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), keep_magic: bool) {
        let mut bytes = bytes;
        if keep_magic && bytes.len() > 5 {
            bytes[..6].copy_from_slice(b"SLCB\x01\x00");
        }
        prop_assert!(Envelope::parse(bytes.into()).is_err());
    }

    #[test]
    fn headers_read_back(
        seq: u64, generation: u32, journal_upto: u64, times: (i64, i64, u64), detail in ".{0,50}",
        dropped in prop::collection::vec(("[a-z]{1,5}", ".{0,9}", 0u64..1 << 50), 0..5)
    ) {
        let dropped: Vec<_> =
            dropped.into_iter().map(|(plugin, reason, rows)| Dropped { plugin, reason, rows }).collect();
        let counts = Counts { accepted: dropped.iter().map(|d| d.rows).sum(), dropped, ..Counts::default() };
        let header = Header {
            id: id(seq), generation, kind: Kind::Data, rows: 0, counts, journal_upto,
            time_min_ns: times.0, time_max_ns: times.1, sealed_at_ns: times.2, detail,
        };
        let sealed = envelope::seal(&header, None, Compression::default()).unwrap();
        prop_assert_eq!(Envelope::parse(sealed).unwrap().header, header);
    }
}
