//! What the ledger says of every edge's stream. A pure fold over ledger rows: however they are cut and ordered, it gives the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, MapArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use serde::Deserialize;
use sluice_wire::ids::Epoch;
use sluice_wire::intervals::IntervalSet;

use super::plugins;
use crate::rows::{self, RowsError};

/// An edge reports every 30 s; one that missed three reports is called silent.
const SILENT_AFTER_US: i64 = 90_000_000;
/// Owner of log records that nobody can read any more; they come from no edge.
const UNKNOWN_TENANT: &str = "_unknown";

/// The columns of ledger rows that are read.
pub(super) const COLUMNS: [&str; 11] = [
    "tenant",
    "node",
    "stream",
    "epoch",
    "seq",
    "partition",
    "offset",
    "ingested_at",
    "name",
    "body",
    "attrs",
];

/// All streams, as of some point of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fold {
    streams: BTreeMap<Key, Stream>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) tenant: String,
    pub(super) node: String,
    pub(super) stream: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Stream {
    heard_us: Option<i64>,
    epochs: BTreeMap<Epoch, Start>,
    report: Option<Report>,
}

/// What arrived of one start of the edge.
#[derive(Clone, Debug, Default, PartialEq)]
struct Start {
    seqs: IntervalSet,
    batches: u64,
    duplicates: u64,
    /// Rows in the tables, and events that the counts of stored batches speak of.
    stored: u64,
    accepted: u64,
    /// Events that the edge says it accepted since this start.
    said: u64,
}

/// The edge's newest word.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) epoch: Epoch,
    seq: u64,
    pub(super) at_us: i64,
    backlog: u64,
    pub(super) plugins: Vec<plugins::Said>,
}

/// The part of an edge's status that is shown; whatever else it says is passed over.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Said {
    accepted: SaidAccepted,
    spool: SaidSpool,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct SaidAccepted {
    log: u64,
    span: u64,
    metric: u64,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct SaidSpool {
    batches: u64,
}

impl Fold {
    /// Takes the ledger rows for which `wanted(partition, offset)` holds.
    pub(super) fn take(&mut self, batch: &RecordBatch, wanted: impl Fn(i64, i64) -> bool) -> Result<(), RowsError> {
        let [tenant, node, stream, epoch, name, body] =
            ["tenant", "node", "stream", "epoch", "name", "body"].map(|column| rows::texts(batch, column));
        let (tenant, node, stream, epoch, name, body) = (tenant?, node?, stream?, epoch?, name?, body?);
        let (seq, partition, offset) = (
            rows::ints(batch, "seq")?,
            rows::ints(batch, "partition")?,
            rows::ints(batch, "offset")?,
        );
        let heard = rows::numbers::<TimestampMicrosecondType>(batch, "ingested_at")?;
        let counts = batch
            .column_by_name("attrs")
            .and_then(|column| column.as_map_opt())
            .ok_or(RowsError::Schema)?;
        for row in 0..batch.num_rows() {
            let known = seq.is_valid(row) && wanted(partition.value(row), offset.value(row));
            let place = epoch
                .value(row)
                .parse::<Epoch>()
                .ok()
                .zip(u64::try_from(seq.value(row)).ok());
            let Some((epoch, seq)) = place.filter(|_| known && tenant.value(row) != UNKNOWN_TENANT) else {
                continue;
            };
            let key = Key {
                tenant: tenant.value(row).to_owned(),
                node: node.value(row).to_owned(),
                stream: stream.value(row).to_owned(),
            };
            let at_us = heard.value(row);
            let held = self.streams.entry(key).or_default();
            held.heard_us = held.heard_us.max(Some(at_us));
            let start = held.epochs.entry(epoch).or_default();
            start.seqs.insert(seq);
            // Of a duplicate only the fact counts.
            if name.value(row) == "duplicate" {
                start.duplicates += 1;
                continue;
            }
            start.batches += 1;
            start.stored = start.stored.saturating_add(count(counts, row, "stored"));
            start.accepted = start.accepted.saturating_add(count(counts, row, "accepted"));
            if name.value(row) == "report"
                && let Ok(value) = serde_json::from_str::<serde_json::Value>(body.value(row))
                && let Ok(said) = Said::deserialize(&value)
            {
                let Said { accepted, spool } = said;
                let rows = accepted
                    .log
                    .saturating_add(accepted.span)
                    .saturating_add(accepted.metric);
                start.said = start.said.max(rows);
                let report = Report {
                    epoch,
                    seq,
                    at_us,
                    backlog: spool.batches,
                    plugins: plugins::said(&value),
                };
                held.hear(report);
            }
        }
        Ok(())
    }

    /// Adds what another fold took; no row may be in both.
    pub(super) fn merge(&mut self, other: Fold) {
        for (key, stream) in other.streams {
            let held = self.streams.entry(key).or_default();
            held.heard_us = held.heard_us.max(stream.heard_us);
            for (epoch, more) in stream.epochs {
                let start = held.epochs.entry(epoch).or_default();
                more.seqs.iter().for_each(|range| start.seqs.insert_range(range));
                start.batches += more.batches;
                start.duplicates += more.duplicates;
                start.stored = start.stored.saturating_add(more.stored);
                start.accepted = start.accepted.saturating_add(more.accepted);
                start.said = start.said.max(more.said);
            }
            if let Some(report) = stream.report {
                held.hear(report);
            }
        }
    }

    /// The newest word of every edge that has spoken.
    pub(super) fn reports(&self) -> impl Iterator<Item = (&Key, &Report)> {
        self.streams
            .iter()
            .filter_map(|(key, stream)| Some((key, stream.report.as_ref()?)))
    }

    /// The rows of the table, of one tenant or of all.
    pub(super) fn rows(&self, tenant: Option<&str>, now_us: i64) -> Result<RecordBatch, RowsError> {
        let mine: Vec<(&Key, &Stream)> = self
            .streams
            .iter()
            .filter(|(key, _)| tenant.is_none_or(|tenant| tenant == key.tenant))
            .collect();
        let text = |of: &dyn Fn(&Key, &Stream) -> Option<String>| -> ArrayRef {
            Arc::new(
                mine.iter()
                    .map(|(key, stream)| of(key, stream))
                    .collect::<StringArray>(),
            )
        };
        let int = |of: &dyn Fn(&Stream) -> Option<u64>| -> ArrayRef {
            let values = mine.iter().map(|(_, stream)| of(stream).map(rows::signed));
            Arc::new(values.collect::<Int64Array>())
        };
        let time = |of: &dyn Fn(&Stream) -> Option<i64>| -> ArrayRef {
            let values = mine.iter().map(|(_, stream)| of(stream));
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let silent = |stream: &Stream| {
            let age = |heard| now_us.saturating_sub(heard);
            Some(stream.heard_us.is_none_or(|heard| age(heard) > SILENT_AFTER_US))
        };
        let silent = mine.iter().map(|(_, stream)| silent(stream)).collect::<BooleanArray>();
        let sum = |stream: &Stream, of: fn(&Start) -> u64| {
            let values = stream.epochs.values().map(of);
            Some(values.fold(0, u64::saturating_add))
        };
        let columns = vec![
            text(&|key, _| Some(key.tenant.clone())),
            text(&|key, _| Some(key.node.clone())),
            text(&|key, _| Some(key.stream.clone())),
            time(&|stream| stream.heard_us),
            Arc::new(silent) as ArrayRef,
            int(&|stream| Some(stream.epochs.len() as u64)),
            text(&|_, stream| stream.last().map(|(epoch, _)| epoch.to_string())),
            int(&|stream| stream.last()?.1.highest()),
            int(&|stream| stream.last()?.1.seqs.watermark().checked_sub(1)),
            int(&|stream| sum(stream, Start::gaps)),
            int(&|stream| sum(stream, |start| start.batches)),
            int(&|stream| Some(sum(stream, |start| start.accepted)?.saturating_add(stream.backlog_rows()))),
            int(&|stream| sum(stream, |start| start.stored)),
            int(&|stream| sum(stream, |start| start.duplicates)),
            int(&|stream| Some(stream.report.as_ref()?.backlog)),
            int(&|stream| Some(stream.backlog_rows())),
            time(&|stream| Some(stream.report.as_ref()?.at_us)),
        ];
        RecordBatch::try_new(schema(), columns).map_err(|error| RowsError::Arrow(error.to_string()))
    }
}

/// The columns of `streams`; TABLES.md says what they mean.
pub(super) fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("tenant", DataType::Utf8),
        ("node", DataType::Utf8),
        ("stream", DataType::Utf8),
        ("last_heard", time()),
        ("silent", DataType::Boolean),
        ("epochs", DataType::Int64),
        ("last_epoch", DataType::Utf8),
        ("accepted_upto", DataType::Int64),
        ("stored_upto", DataType::Int64),
        ("gaps", DataType::Int64),
        ("batches", DataType::Int64),
        ("accepted_rows", DataType::Int64),
        ("rows", DataType::Int64),
        ("duplicates", DataType::Int64),
        ("backlog", DataType::Int64),
        ("backlog_rows", DataType::Int64),
        ("reported_at", time()),
    ];
    Arc::new(Schema::new(
        columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec(),
    ))
}

impl Stream {
    fn hear(&mut self, report: Report) {
        let newer = |held: &Report| (report.epoch, report.seq) > (held.epoch, held.seq);
        if self.report.as_ref().is_none_or(newer) {
            self.report = Some(report);
        }
    }

    fn last(&self) -> Option<(&Epoch, &Start)> {
        self.epochs.last_key_value()
    }

    /// Events that the edge has accepted and that did not arrive, by its newest word. A start that is over says nothing of today: what
    /// it left behind was sealed by the next one, under numbers of its own.
    fn backlog_rows(&self) -> u64 {
        match (&self.report, self.last()) {
            (Some(report), Some((epoch, start))) if report.epoch == *epoch => start.said.saturating_sub(start.accepted),
            _ => 0,
        }
    }
}

impl Start {
    /// Sequence numbers begin at 0 and have no gaps of their own, so the highest one that arrived says how far the edge is.
    fn highest(&self) -> Option<u64> {
        self.seqs.iter().last().map(|range| range.end - 1)
    }

    fn gaps(&self) -> u64 {
        self.highest().map_or(0, |highest| highest + 1 - self.seqs.len())
    }
}

fn count(counts: &MapArray, row: usize, name: &str) -> u64 {
    let entries = counts.value(row);
    let (keys, values) = (
        entries.column(0).as_string_opt::<i32>(),
        entries.column(1).as_string_opt::<i32>(),
    );
    let Some((keys, values)) = keys.zip(values) else {
        return 0;
    };
    let at = (0..entries.len()).find(|entry| keys.value(*entry) == name);
    at.and_then(|entry| values.value(entry).parse().ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use sluice_wire::counts::Counts;
    use sluice_wire::events::{Origin, Outcome, ledger_row};
    use sluice_wire::ids::{BatchId, NodeId, Partition, StreamId, TenantId};

    use super::*;

    fn row(offset: u64, node: u8, epoch: u32, seq: u64, outcome: Outcome, detail: &str) -> RecordBatch {
        let id = BatchId {
            stream: StreamId {
                tenant: TenantId::new("acme").unwrap(),
                node: NodeId::new(&format!("n{node}")).unwrap(),
                spool: [node; 16],
            },
            epoch: Epoch {
                number: epoch,
                random: 1,
            },
            seq,
        };
        let origin = Origin {
            id: &id,
            partition: Partition::default(),
            offset,
            ingested_at_us: 1_000_000 * offset as i64,
        };
        let counts = match outcome {
            Outcome::Accepted => Counts {
                accepted: 3,
                stored: 3,
                ..Counts::default()
            },
            _ => Counts::default(),
        };
        ledger_row(&origin, outcome, &counts, detail)
    }

    fn report(events: u64, backlog: u64) -> String {
        format!(
            "{{\"accepted\":{{\"log\":{events},\"span\":1}},\"spool\":{{\"batches\":{backlog},\"bytes\":9}},\"more\":[]}}"
        )
    }

    fn ints(rows: &RecordBatch, name: &'static str) -> Vec<Option<i64>> {
        rows::ints(rows, name).unwrap().iter().collect()
    }

    /// A report overtakes the backlog: it says what was accepted, the ledger says what is stored, between them lies the backlog.
    #[test]
    fn a_report_says_how_far_the_edge_is_and_what_it_still_holds() {
        let mut fold = Fold::default();
        let rows = [
            row(0, 1, 1, 0, Outcome::Accepted, ""),
            row(1, 1, 1, 1, Outcome::Accepted, ""),
            row(2, 1, 1, 5, Outcome::Report, &report(17, 3)),
            row(3, 1, 1, 1, Outcome::Duplicate, "seen before"),
            row(4, 1, 1, 4, Outcome::Report, "no JSON"),
        ];
        rows.iter().for_each(|row| fold.take(row, |_, _| true).unwrap());
        let shown = fold.rows(Some("acme"), 4_000_000 + SILENT_AFTER_US).unwrap();
        for (column, value) in [
            ("accepted_upto", 5),
            ("stored_upto", 1),
            ("gaps", 2),
            ("batches", 4),
            ("accepted_rows", 18),
            ("rows", 6),
            ("duplicates", 1),
            ("backlog", 3),
            ("backlog_rows", 12),
        ] {
            assert_eq!(ints(&shown, column), [Some(value)], "{column}");
        }
        let silent = |now_us| fold.rows(None, now_us).unwrap()["silent"].as_boolean().value(0);
        assert!(!silent(4_000_000 + SILENT_AFTER_US) && silent(4_000_001 + SILENT_AFTER_US));
        assert_eq!(fold.rows(Some("bolt"), 0).unwrap().num_rows(), 0);
    }

    /// What a start left behind is sealed by the next one under its own numbers: it must not be waited for in two places.
    #[test]
    fn a_start_that_is_over_has_no_backlog() {
        let mut fold = Fold::default();
        let rows = [
            row(0, 1, 1, 0, Outcome::Accepted, ""),
            row(1, 1, 1, 1, Outcome::Report, &report(99, 3)),
            row(2, 1, 2, 0, Outcome::Accepted, ""),
        ];
        rows.iter().for_each(|row| fold.take(row, |_, _| true).unwrap());
        let shown = fold.rows(None, 0).unwrap();
        let numbers = ["accepted_rows", "backlog_rows"].map(|column| ints(&shown, column)[0]);
        assert_eq!(numbers, [Some(6), Some(0)]);
    }

    /// A number that would be counted beyond the edge's word, or below zero, is not.
    #[test]
    fn an_edge_that_never_reported_has_an_unknown_backlog() {
        let mut fold = Fold::default();
        fold.take(&row(0, 1, 2, 1, Outcome::Accepted, ""), |_, _| true).unwrap();
        let shown = fold.rows(None, 0).unwrap();
        assert_eq!(ints(&shown, "stored_upto"), [None]);
        assert_eq!(ints(&shown, "backlog"), [None]);
        assert_eq!(
            (ints(&shown, "accepted_rows"), ints(&shown, "backlog_rows")),
            (vec![Some(3)], vec![Some(0)])
        );
    }

    proptest! {
        #[test]
        fn the_fold_of_any_pieces_in_any_order_is_the_fold_of_the_whole(
            records in prop::collection::vec((0u8..3, 1u32..3, 0u64..9, 0usize..3, 0u64..50), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let outcomes = [Outcome::Accepted, Outcome::Duplicate, Outcome::Report];
            let rows: Vec<_> = (0..)
                .zip(&records)
                .map(|(offset, (node, epoch, seq, outcome, n))| {
                    // One identity has one report: another would be a conflict.
                    let text = report(*n, *seq);
                    row(offset, *node, *epoch, *seq * 50 + *n, outcomes[*outcome], &text)
                })
                .collect();
            let fold = |rows: &[RecordBatch]| {
                let mut fold = Fold::default();
                rows.iter().for_each(|row| fold.take(row, |_, _| true).unwrap());
                fold
            };
            let cut = cut.index(rows.len() + 1);
            let mut turned = fold(&rows[cut..]);
            turned.merge(fold(&rows[..cut]));
            let (turned, whole) = (turned.rows(None, 0).unwrap(), fold(&rows).rows(None, 0).unwrap());
            // When one report came twice, either of its times will do.
            let columns: Vec<usize> = (0..whole.num_columns() - 1).collect();
            prop_assert_eq!(turned.project(&columns).unwrap(), whole.project(&columns).unwrap());
        }
    }
}
