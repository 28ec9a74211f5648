//! Makes one sealed batch of some journal records. Blocks: it encodes, compresses and syncs.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{EnvelopeError, Kind};
use sluice_wire::layout::{self, ConcatOptions};

use super::plan::Pending;
use crate::spool::{Draft, Spool, SpoolError};

/// Batches that one journal record becomes at most. With more, a limit that is far too small would make a batch of every row.
const MAX_PIECES: usize = 64;

/// What a journal record holds for its batch.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) counts: Counts,
    /// Absent when no rows remain.
    pub(crate) rows: Option<RecordBatch>,
    /// Room in memory, given back when the batch is in the spool.
    pub(crate) _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What became of a group.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(crate) batches: u64,
    /// Rows that could not be sealed whatever was tried; counted as damaged in their batch.
    pub(crate) damaged: u64,
    /// Journal positions below it are in the spool now.
    pub(crate) upto: u64,
}

/// What came back of a group.
#[derive(Debug)]
pub(crate) struct Unsealed {
    /// Not in the spool.
    pub(crate) left: Vec<Pending<Content>>,
    /// What went before these.
    pub(crate) sealed: Sealed,
    pub(crate) error: SpoolError,
}

/// Seals records in their order. What is too large for one batch becomes two, down to the rows of one record. On an error
/// the records that are not in the spool come back.
pub(crate) fn seal(
    group: Vec<Pending<Content>>,
    refused: Counts,
    spool: &Spool,
    now_ns: u64,
) -> Result<Sealed, Unsealed> {
    let mut sealed = Sealed::default();
    let mut refused = Some(refused);
    let mut waiting = vec![group];
    while let Some(mut part) = waiting.pop() {
        let Some(last) = part.last() else { continue };
        let upto = last.index + 1;
        match seal_one(&part, refused.as_ref(), upto, spool, now_ns) {
            Ok(one) => {
                refused = None;
                sealed.batches += one.batches;
                sealed.damaged += one.damaged;
                sealed.upto = upto;
            }
            Err(error) if is_about_rows(&error) && part.len() > 1 => {
                let rest = part.split_off(part.len() / 2);
                waiting.push(rest);
                waiting.push(part);
            }
            Err(error) => {
                // Parts are stacked last first.
                waiting.into_iter().rev().for_each(|more| part.extend(more));
                return Err(Unsealed {
                    left: part,
                    sealed,
                    error,
                });
            }
        }
    }
    Ok(sealed)
}

fn seal_one(
    part: &[Pending<Content>],
    refused: Option<&Counts>,
    journal_upto: u64,
    spool: &Spool,
    now_ns: u64,
) -> Result<Sealed, SpoolError> {
    let mut counts = Counts::default();
    part.iter().for_each(|p| counts.merge(&p.content.counts));
    if let Some(refused) = refused {
        counts.merge(refused);
    }
    let batches: Vec<RecordBatch> = part.iter().filter_map(|p| p.content.rows.clone()).collect();
    let rows = match batches.len() {
        0 => None,
        _ => match layout::concat(&batches, &ConcatOptions::default()) {
            Ok(rows) => Some(rows),
            // One batch needs no joining, only smaller columns.
            Err(_) if batches.len() == 1 => batches.into_iter().next(),
            Err(e) => return Err(SpoolError::Seal(EnvelopeError::Layout(e))),
        },
    };
    let (time_min_ns, time_max_ns) = rows.as_ref().and_then(time_range).unwrap_or((0, 0));
    let mut draft = Draft {
        kind: Kind::Data,
        rows,
        counts,
        journal_upto,
        time_min_ns,
        time_max_ns,
        sealed_at_ns: now_ns,
        detail: String::new(),
    };
    let batches = |batches| Sealed {
        batches,
        ..Sealed::default()
    };
    let error = match spool.append(&draft) {
        Ok(_) => return Ok(batches(1)),
        Err(error) if part.len() > 1 => return Err(error),
        Err(SpoolError::TooLarge { .. }) => match seal_pieces(&draft, spool) {
            Ok(count) => return Ok(batches(count)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if !is_about_rows(&error) {
        return Err(error);
    }
    // What a single record holds was checked when it was accepted, so this should not happen. If it does, these
    // rows become a counted loss instead of stopping everything behind them.
    tracing::error!(%error, rows = draft.counts.stored, "rows cannot be sealed, they count as damaged");
    let damaged = draft.counts.stored + draft.counts.quarantined;
    draft.counts.damaged += damaged;
    draft.counts.stored = 0;
    draft.counts.quarantined = 0;
    draft.rows = None;
    spool.append_pieces(&[draft])?;
    Ok(Sealed { damaged, ..batches(1) })
}

/// Seals one journal record as several batches of some of its rows, because the gateway's log takes no larger ones. What
/// is too large even so is sealed as it is: the uplink holds it, in sight, until a gateway takes it. Returns how many.
fn seal_pieces(whole: &Draft, spool: &Spool) -> Result<u64, SpoolError> {
    let parts = match &whole.rows {
        // Counts alone, or rows that are not what the counts say.
        None => None,
        Some(rows) if quarantined(rows) != whole.counts.quarantined => None,
        Some(rows) => Some(cut(rows, |part| spool.fits(&piece(whole, part, true)))?),
    };
    let drafts = match &parts {
        None => vec![whole.clone()],
        Some(parts) => {
            let drafts = parts.iter().enumerate();
            drafts.map(|(place, part)| piece(whole, part, place == 0)).collect()
        }
    };
    for draft in &drafts {
        if !spool.fits(draft)? {
            let max = spool.status().max_batch_bytes;
            let rows = draft.rows.as_ref().map_or(0, RecordBatch::num_rows);
            tracing::error!(
                rows,
                max,
                "batch is larger than the gateway takes and cannot be parted: it is kept until one takes it"
            );
        }
    }
    spool.append_pieces(&drafts)?;
    Ok(drafts.len() as u64)
}

/// Halves rows until each part fits; one row alone cannot be halved.
fn cut(
    rows: &RecordBatch,
    fits: impl Fn(&RecordBatch) -> Result<bool, SpoolError>,
) -> Result<Vec<RecordBatch>, SpoolError> {
    let (mut waiting, mut done) = (vec![rows.clone()], Vec::new());
    while let Some(part) = waiting.pop() {
        let count = part.num_rows();
        // Dictionaries hold what these rows need and no more.
        let part = layout::concat(std::slice::from_ref(&part), &ConcatOptions::default()).unwrap_or(part);
        if count > 1 && done.len() + waiting.len() + 1 < MAX_PIECES && !fits(&part)? {
            waiting.push(part.slice(count / 2, count - count / 2));
            waiting.push(part.slice(0, count / 2));
        } else {
            done.push(part);
        }
    }
    Ok(done)
}

/// A batch of some rows of a larger one. The first one tells all that is not about rows. Each names the journal position
/// of the whole: none of them is without the others.
fn piece(whole: &Draft, rows: &RecordBatch, is_first: bool) -> Draft {
    let held = rows.num_rows() as u64;
    let quarantined = quarantined(rows);
    let mut counts = Counts {
        accepted: held,
        stored: held - quarantined,
        quarantined,
        ..Counts::default()
    };
    if is_first {
        counts.merge(&Counts {
            accepted: whole.counts.damaged + whole.counts.dropped_rows(),
            stored: 0,
            quarantined: 0,
            ..whole.counts.clone()
        });
    }
    let (time_min_ns, time_max_ns) = time_range(rows).unwrap_or((0, 0));
    Draft {
        rows: Some(rows.clone()),
        counts,
        time_min_ns,
        time_max_ns,
        ..whole.clone()
    }
}

/// Rows that a plugin set aside.
pub(crate) fn quarantined(rows: &RecordBatch) -> u64 {
    rows.column_by_name("quarantined_by")
        .map_or(0, |c| (c.len() - c.logical_null_count()) as u64)
}

/// Whether other rows could be sealed.
fn is_about_rows(error: &SpoolError) -> bool {
    matches!(error, SpoolError::Seal(_) | SpoolError::TooLarge { .. })
}

fn time_range(rows: &RecordBatch) -> Option<(i64, i64)> {
    let column = rows.column_by_name("time")?;
    let values = column.as_primitive_opt::<Int64Type>()?.values();
    Some((*values.iter().min()?, *values.iter().max()?)).filter(|_| column.null_count() == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::link::{AckSink, BatchSource};
    use crate::spool::SpoolOptions;
    use arrow_array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use sluice_wire::counts::Dropped;
    use sluice_wire::envelope::Envelope;
    use sluice_wire::layout::IpcLimits;
    use std::sync::Arc;
    use std::time::Duration;

    /// The gateway's limit in these tests.
    const LIMIT: u64 = 8 << 10;

    fn open(dir: &std::path::Path) -> Spool {
        let options = SpoolOptions {
            data_dir: dir.to_owned(),
            max_bytes: 64 << 20,
            ballast: 0,
            zstd_level: 0,
            max_batch_bytes: 1 << 20,
        };
        let (tenant, node) = ("acme".parse().unwrap(), "site".parse().unwrap());
        Spool::open(options, &tenant, &node).unwrap().0
    }

    /// A record of rows with texts of these sizes; every third row is set aside. Texts differ, so nothing is shared.
    fn record(index: u64, sizes: &[usize]) -> Pending<Content> {
        let texts = |prefix: &str| -> ArrayRef {
            let text = |(row, size): (usize, &usize)| format!("{prefix}{index}.{row}.{}", "x".repeat(*size));
            Arc::new(sizes.iter().enumerate().map(text).map(Some).collect::<StringArray>())
        };
        let times: Int64Array = (0..sizes.len() as i64).map(|row| 1000 * index as i64 + row).collect();
        let by = (0..sizes.len()).map(|row| (row % 3 == 0).then_some("p"));
        let rows = RecordBatch::try_from_iter_with_nullable([
            (
                "signal",
                Arc::new(StringArray::from(vec!["log"; sizes.len()])) as ArrayRef,
                false,
            ),
            ("time", Arc::new(times) as ArrayRef, false),
            ("body", texts(""), true),
            ("quarantined_by", Arc::new(by.collect::<StringArray>()), true),
        ])
        .unwrap();
        let (held, quarantined) = (sizes.len() as u64, quarantined(&rows));
        let counts = Counts {
            accepted: held + 5,
            stored: held - quarantined,
            quarantined,
            damaged: 2,
            dropped: vec![Dropped {
                plugin: "p".to_owned(),
                reason: "r".to_owned(),
                rows: 3,
            }],
            refused: Vec::new(),
        };
        Pending {
            index,
            damaged_before: 0,
            accepted: Duration::ZERO,
            rows: sizes.len(),
            bytes: sizes.iter().sum(),
            content: Content {
                counts,
                rows: Some(rows),
                _room: None,
            },
        }
    }

    /// Bytes and rows of a batch.
    type Size = (usize, u32);

    /// Everything in the spool: times of the rows in their order, counts, sizes, and what the batches cover.
    fn read(spool: &Spool) -> (Vec<i64>, Counts, Vec<Size>, Vec<u64>) {
        let (mut times, mut counts, mut sizes, mut upto, mut at) =
            (Vec::new(), Counts::default(), Vec::new(), Vec::new(), 0);
        while let Some((index, bytes)) = spool.next_from(at).unwrap() {
            let envelope = Envelope::parse(bytes.clone()).unwrap();
            counts.merge(&envelope.header.counts);
            sizes.push((bytes.len(), envelope.header.rows));
            upto.push(envelope.header.journal_upto);
            if let Some(rows) = envelope.rows(&IpcLimits::default()).unwrap() {
                times.extend(rows["time"].as_primitive::<Int64Type>().values());
            }
            at = index + 1;
        }
        (times, counts, sizes, upto)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn p2_p3_what_a_gateway_does_not_take_is_parted_or_kept_and_never_damage(
            records in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![6 => 10usize..400, 1 => 10_000usize..20_000], 1..60), 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let spool = open(dir.path());
            spool.welcomed(1, LIMIT as u32);
            let group: Vec<_> = (0..).zip(&records).map(|(index, sizes)| record(index, sizes)).collect();
            let mut expected = Counts::default();
            group.iter().for_each(|p| expected.merge(&p.content.counts));
            let times: Vec<i64> = (0..).zip(&records).flat_map(|(i, r)| (0..r.len() as i64).map(move |row| 1000 * i + row)).collect();
            let sealed = seal(group, Counts::default(), &spool, 1).unwrap();
            prop_assert_eq!((sealed.damaged, sealed.upto), (0, records.len() as u64));
            let (found, counts, sizes, upto) = read(&spool);
            prop_assert_eq!(sizes.len() as u64, sealed.batches);
            prop_assert_eq!(found, times);
            prop_assert_eq!(counts, expected);
            prop_assert!(upto.is_sorted());
            // Only what cannot be parted is larger.
            prop_assert!(sizes.iter().all(|(bytes, rows)| *bytes as u64 <= LIMIT || *rows == 1), "{:?}", sizes);
        }
    }

    #[test]
    fn p2_a_record_is_parted_in_one_durable_step() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        spool.welcomed(1, LIMIT as u32);
        seal(vec![record(0, &[300; 100])], Counts::default(), &spool, 1).unwrap();
        let (_, _, sizes, upto) = read(&spool);
        assert!(sizes.len() > 3);
        assert!(
            upto.iter().all(|upto| *upto == 1),
            "whichever of them can be read, the record is covered"
        );
        drop(spool);
        // A crash in the middle: the last bytes are missing.
        let file = std::fs::read_dir(dir.path().join("spool")).unwrap();
        let file = file
            .map(|e| e.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "wal"))
            .unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
        std::fs::remove_file(dir.path().join("cursor")).ok();
        let spool = open(dir.path());
        assert_eq!((read(&spool).2.len(), spool.covered()), (0, 0), "a part of it is there");
    }

    #[test]
    fn a_limit_that_is_far_too_small_does_not_make_a_batch_of_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        spool.welcomed(1, 1);
        let sealed = seal(vec![record(0, &[10; 500])], Counts::default(), &spool, 1).unwrap();
        assert_eq!((sealed.batches, sealed.damaged), (MAX_PIECES as u64, 0));
        // The next gateway takes more.
        spool.welcomed(1, 8 << 20);
        let sealed = seal(vec![record(1, &[10; 500])], Counts::default(), &spool, 1).unwrap();
        assert_eq!(sealed.batches, 1);
        assert_eq!(read(&spool).0.len(), 1000);
    }
}
