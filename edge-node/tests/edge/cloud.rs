//! What a cloud would hold: batches by their identity, duplicates suppressed, and the ids of the events inside.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use bytes::Bytes;
use sluice_edge::link::BatchSource;
use sluice_edge::spool::Spool;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{Envelope, Kind};
use sluice_wire::ids::Epoch;
use sluice_wire::layout::IpcLimits;

#[derive(Debug, Default)]
pub(crate) struct Cloud {
    batches: BTreeMap<(Epoch, u64), [u8; 32]>,
    /// How often each event is stored.
    pub(crate) events: BTreeMap<String, u64>,
    /// The same in the order of the batches and of the rows in them.
    pub(crate) order: Vec<String>,
    pub(crate) rows: Vec<RecordBatch>,
    pub(crate) counts: Counts,
    pub(crate) tombstones: u64,
    pub(crate) duplicates: u64,
}

impl Cloud {
    /// Everything in a spool that is not acknowledged.
    pub(crate) fn of(spool: &Spool) -> Self {
        let mut cloud = Self::default();
        let mut at = 0;
        while let Some((index, bytes)) = spool.next_from(at).unwrap() {
            cloud.receive(bytes);
            at = index + 1;
        }
        cloud
    }

    pub(crate) fn receive(&mut self, bytes: Bytes) {
        let envelope = Envelope::parse(bytes).unwrap();
        let header = &envelope.header;
        let id = (header.id.epoch, header.id.seq);
        if let Some(hash) = self.batches.get(&id) {
            assert_eq!(*hash, envelope.hash, "two batches with the identity {}", header.id);
            self.duplicates += 1;
            return;
        }
        self.batches.insert(id, envelope.hash);
        assert!(header.counts.balances());
        self.counts.merge(&header.counts);
        self.tombstones += u64::from(header.kind == Kind::Tombstone);
        if let Some(rows) = envelope.rows(&IpcLimits::default()).unwrap() {
            for id in ids(&rows) {
                *self.events.entry(id.clone()).or_default() += 1;
                self.order.push(id);
            }
            self.rows.push(rows);
        }
    }

    /// Batches of one epoch are numbered without gaps.
    pub(crate) fn check_sequence(&self) {
        let mut next: BTreeMap<Epoch, u64> = BTreeMap::new();
        for (epoch, seq) in self.batches.keys() {
            let expected = next.entry(*epoch).or_default();
            assert_eq!(seq, expected, "gap in {epoch}");
            *expected += 1;
        }
    }
}

/// The ids of the rows, in a column of their own or among the rest when rows are few.
fn ids(rows: &RecordBatch) -> Vec<String> {
    let mut ids = Vec::new();
    if let Some(column) = rows.column_by_name("attrs:s:evt.id") {
        let text = arrow_cast::cast(column, &arrow_schema::DataType::Utf8).unwrap();
        ids.extend(text.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    if let Some(column) = rows.column_by_name("attrs:*") {
        let entries = column.as_list::<i32>().values().as_struct();
        let texts = |i: usize| entries.column(i).as_string::<i32>().iter().map(Option::unwrap);
        ids.extend(
            texts(0)
                .zip(texts(2))
                .filter(|(key, _)| *key == "evt.id")
                .map(|(_, id)| id.to_owned()),
        );
    }
    assert_eq!(ids.len(), rows.num_rows(), "rows without an id");
    ids
}
