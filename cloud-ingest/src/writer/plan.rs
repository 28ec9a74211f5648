//! What a log record becomes: rows for the table and exactly one ledger row. A pure function of the log, so that both writers
//! write the same and replaying the log gives the same tables.

use arrow::array::RecordBatch;
use bytes::Bytes;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{Envelope, Kind};
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::layout::IpcLimits;

use crate::dedup::{Dedup, Verdict};
use crate::log::{Head, LogRecord};
use crate::quota::{Meter, edge_of};

/// Owner of log records that nobody can read any more: no tenant can have this name by certificate, as it is reserved.
const UNKNOWN_TENANT: &str = "_unknown";

/// Stands where the content of a batch is not known.
const NO_HASH: [u8; 32] = [0; 32];

/// Plans the records of one partition in the order of their offsets.
#[derive(Clone, Debug)]
pub struct Planner {
    dedup: Dedup,
    limits: IpcLimits,
    meter: Option<Meter>,
    aside: Option<Vec<Aside>>,
}

/// A record whose batch is in no table, though there is one.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    pub(super) id: BatchId,
    pub(super) place: (Partition, u64),
    pub(super) why: String,
    pub(super) ingested_at_us: i64,
    pub(super) batch: Bytes,
}

/// What one log record becomes.
#[derive(Debug)]
pub struct Planned {
    pub outcome: Outcome,
    /// Data rows, if any, and last the ledger row.
    pub rows: Vec<RecordBatch>,
}

impl Planned {
    /// Rows for the table, the ledger's included.
    pub fn row_count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

impl Planner {
    /// Goes on where the state of duplicates stands.
    pub fn new(dedup: Dedup, limits: IpcLimits) -> Planner {
        Planner {
            dedup,
            limits,
            meter: None,
            aside: None,
        }
    }

    /// Moved out of its place, not copied: the state of duplicates may be large. What stays there knows nothing.
    pub(super) fn take(&mut self) -> Planner {
        let nothing = Planner::new(Dedup::default(), self.limits.clone());
        std::mem::replace(self, nothing)
    }

    /// Tells from now on, and once of all that is known, what each edge's batches cost.
    pub(super) fn report_to(&mut self, meter: Meter) {
        for (edge, pieces) in self.dedup.edges() {
            meter.planned(self.dedup.next(), edge, pieces);
        }
        self.meter = Some(meter);
    }

    /// Remembers from now on the batches that cannot be stored, until they are taken.
    pub(super) fn set_aside(&mut self) {
        self.aside = Some(Vec::new());
    }

    /// The batches that could not be stored since the last time.
    pub(super) fn take_aside(&mut self) -> Vec<Aside> {
        self.aside.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn put_aside(&mut self, record: &LogRecord, id: &BatchId, why: &str) {
        if let Some(aside) = &mut self.aside {
            aside.push(Aside {
                id: id.clone(),
                place: (record.partition, record.offset),
                why: why.to_owned(),
                ingested_at_us: record.ingested_at_us,
                batch: record.envelope.clone(),
            });
        }
    }

    /// The offset of the record to plan next.
    pub fn next(&self) -> u64 {
        self.dedup.next()
    }

    /// The state of duplicates below [`Planner::next`].
    pub fn snapshot(&self) -> Vec<u8> {
        self.dedup.encode()
    }

    /// Folds a record in without making rows of it: some store holds them already.
    pub fn pass(&mut self, record: &LogRecord) {
        match (self.read(record), &record.head) {
            (Ok(envelope), _) => {
                self.observe(&envelope.header.id, envelope.header.kind, &envelope.hash);
            }
            (Err(_), Some(head)) => {
                self.observe(&head.id, Kind::Tombstone, &NO_HASH);
            }
            (Err(_), None) => self.dedup.pass(),
        }
    }

    fn observe(&mut self, id: &BatchId, kind: Kind, hash: &[u8; 32]) -> Verdict {
        let verdict = self.dedup.observe(id, kind, hash);
        if let Some(meter) = &self.meter {
            let edge = edge_of(&id.stream);
            meter.planned(self.dedup.next(), &edge, self.dedup.pieces(&edge));
        }
        verdict
    }

    /// Plans the next record.
    pub fn plan(&mut self, record: &LogRecord) -> Planned {
        let envelope = match self.read(record) {
            Ok(envelope) => envelope,
            Err(what) => {
                return match &record.head {
                    Some(head) => self.plan_lost(record, head, &what),
                    None => {
                        self.dedup.pass();
                        unreadable(record, &what)
                    }
                };
            }
        };
        let header = &envelope.header;
        let origin = origin(record, &header.id);
        let ledger = |outcome, counts: &Counts, detail: &str| Planned {
            outcome,
            rows: vec![events::ledger_row(&origin, outcome, counts, detail)],
        };
        match self.observe(&header.id, header.kind, &envelope.hash) {
            Verdict::New => {}
            // Its rows are counted where it occurred first: here it adds nothing.
            Verdict::Duplicate => return ledger(Outcome::Duplicate, &Counts::default(), "seen before"),
            Verdict::Conflict => {
                tracing::error!(
                    stream = %header.id.stream, epoch = %header.id.epoch, seq = header.id.seq, offset = record.offset,
                    "one batch identity came with two contents; the first one stays"
                );
                let detail = format!(
                    "the identity of an earlier batch with other content, {} rows",
                    header.rows
                );
                self.put_aside(record, &header.id, &detail);
                return ledger(Outcome::Quarantined, &Counts::default(), &detail);
            }
        }
        match header.kind {
            Kind::Tombstone => ledger(Outcome::Tombstone, &header.counts, &header.detail),
            Kind::Report => ledger(Outcome::Report, &header.counts, &header.detail),
            Kind::Data => match self.rows(&envelope, &origin) {
                Ok(rows) => {
                    let mut planned = ledger(Outcome::Accepted, &header.counts, "");
                    planned.rows.splice(0..0, rows);
                    planned
                }
                Err(what) => {
                    tracing::error!(stream = %header.id.stream, seq = header.id.seq, %what, "a batch in the log has no rows");
                    self.put_aside(record, &header.id, &what);
                    ledger(Outcome::Quarantined, &lost(&header.counts), &what)
                }
            },
        }
    }

    /// A record of which only the head is left. It stands for its batch as a tombstone does, so that a copy that comes later counts
    /// nothing twice.
    fn plan_lost(&mut self, record: &LogRecord, head: &Head, what: &str) -> Planned {
        let id = &head.id;
        tracing::error!(stream = %id.stream, epoch = %id.epoch, seq = id.seq, offset = record.offset, what, "a log record is lost");
        let verdict = self.observe(id, Kind::Tombstone, &NO_HASH);
        let (outcome, counts) = match (verdict, head.kind) {
            (Verdict::Duplicate | Verdict::Conflict, _) => (Outcome::Duplicate, Counts::default()),
            // A tombstone has nothing but what its head says.
            (Verdict::New, Kind::Tombstone) => (Outcome::Tombstone, head.counts.clone()),
            (Verdict::New, Kind::Data | Kind::Report) => (Outcome::Quarantined, lost(&head.counts)),
        };
        Planned {
            outcome,
            rows: vec![events::ledger_row(&origin(record, id), outcome, &counts, what)],
        }
    }

    fn read(&self, record: &LogRecord) -> Result<Envelope, String> {
        if let Some(what) = &record.damaged {
            return Err(format!("log record is damaged: {what}"));
        }
        Envelope::parse(record.envelope.clone()).map_err(|error| format!("log record holds no batch: {error}"))
    }

    fn rows(&self, envelope: &Envelope, origin: &Origin<'_>) -> Result<Option<RecordBatch>, String> {
        let Some(batch) = envelope.rows(&self.limits).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        events::fold(&batch, origin)
            .map(Some)
            .map_err(|error| error.to_string())
    }
}

fn origin<'a>(record: &LogRecord, id: &'a BatchId) -> Origin<'a> {
    Origin {
        id,
        partition: record.partition,
        offset: record.offset,
        ingested_at_us: record.ingested_at_us,
    }
}

/// The counts of a batch whose rows cannot be had: what was stored is damaged.
fn lost(counts: &Counts) -> Counts {
    let mut counts = counts.clone();
    counts.damaged += counts.stored + counts.quarantined;
    (counts.stored, counts.quarantined) = (0, 0);
    counts
}

fn unreadable(record: &LogRecord, detail: &str) -> Planned {
    tracing::error!(partition = %record.partition, offset = record.offset, detail, "a log record cannot be read");
    let id = nobody(record.partition, record.offset);
    let row = events::ledger_row(&origin(record, &id), Outcome::Quarantined, &Counts::default(), detail);
    Planned {
        outcome: Outcome::Quarantined,
        rows: vec![row],
    }
}

fn nobody(partition: Partition, offset: u64) -> BatchId {
    let stream = StreamId {
        tenant: TenantId::new(UNKNOWN_TENANT).expect("a name of allowed letters"),
        node: NodeId::new(&format!("log-{partition}")).expect("letters, digits and hyphens"),
        spool: [0; 16],
    };
    BatchId {
        stream,
        epoch: Epoch { number: 0, random: 0 },
        seq: offset,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int32Type;
    use bytes::Bytes;
    use proptest::prelude::*;
    use sluice_wire::Signal;
    use sluice_wire::envelope::{Compression, Header, seal};
    use sluice_wire::otlp::{DecodeLimits, Decoder};

    use super::*;

    const PARTITION: Partition = Partition {
        generation: 0,
        index: 0,
    };

    fn header(seq: u64, kind: Kind, rows: u32) -> Header {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new("site-1").unwrap(),
            spool: [1; 16],
        };
        let counts = Counts {
            accepted: 2,
            stored: u64::from(rows),
            damaged: 2 - u64::from(rows),
            ..Counts::default()
        };
        Header {
            id: BatchId {
                stream,
                epoch: Epoch { number: 1, random: 7 },
                seq,
            },
            generation: 0,
            kind,
            rows,
            counts: if kind == Kind::Report {
                Counts::default()
            } else {
                counts
            },
            journal_upto: seq,
            time_min_ns: 0,
            time_max_ns: 0,
            sealed_at_ns: 0,
            detail: String::new(),
        }
    }

    /// Two log records whose body is `text`.
    fn batch(seq: u64, text: &str) -> Bytes {
        let field = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
        let record = field(0x12, &field(0x2a, &field(0x0a, text.as_bytes())));
        let request = field(0x0a, &field(0x12, &[record.clone(), record].concat()));
        let decoded = Decoder::new(DecodeLimits::default())
            .decode(Signal::Log, &request, 5)
            .unwrap();
        seal(
            &header(seq, Kind::Data, 2),
            Some(&decoded.batch),
            Compression::default(),
        )
        .unwrap()
    }

    fn record(offset: u64, envelope: Bytes) -> LogRecord {
        LogRecord {
            partition: PARTITION,
            offset,
            ingested_at_us: 1000,
            envelope,
            head: None,
            damaged: None,
        }
    }

    /// What the log gives for a record whose envelope is damaged.
    fn damaged(offset: u64, head: Header) -> LogRecord {
        LogRecord {
            head: Some(Head::from(&head)),
            damaged: Some("bit flip".into()),
            ..record(offset, Bytes::new())
        }
    }

    fn count(planned: &Planned, name: &str) -> Option<u64> {
        let counts = planned.rows.last()?.column_by_name("attrs")?.as_map().value(0);
        let at = (0..counts.len()).find(|at| counts.column(0).as_string::<i32>().value(*at) == name)?;
        counts.column(1).as_string::<i32>().value(at).parse().ok()
    }

    fn planner() -> Planner {
        Planner::new(Dedup::default(), IpcLimits::default())
    }

    /// P3: whatever a record is, it leaves exactly one ledger row, the last one, with row -1.
    fn check(planned: &Planned, outcome: Outcome, data_rows: usize) {
        assert_eq!(planned.outcome, outcome);
        let ledger = planned.rows.last().unwrap();
        assert_eq!((ledger.num_rows(), planned.row_count()), (1, data_rows + 1));
        for batch in &planned.rows {
            let rows = batch.column_by_name("row").unwrap().as_primitive::<Int32Type>().clone();
            let expected: Vec<i32> = if batch.num_rows() == 1 {
                vec![-1]
            } else {
                (0..batch.num_rows() as i32).collect()
            };
            assert_eq!(rows.values().to_vec(), expected);
        }
    }

    #[test]
    fn p3_every_log_record_leaves_exactly_one_ledger_row() {
        let mut planner = planner();
        check(&planner.plan(&record(0, batch(0, "a"))), Outcome::Accepted, 2);
        check(&planner.plan(&record(1, batch(0, "a"))), Outcome::Duplicate, 0);
        check(&planner.plan(&record(2, batch(0, "b"))), Outcome::Quarantined, 0);
        let tombstone = seal(&header(1, Kind::Tombstone, 0), None, Compression::default()).unwrap();
        check(&planner.plan(&record(3, tombstone)), Outcome::Tombstone, 0);
        check(&planner.plan(&record(4, batch(1, "late"))), Outcome::Duplicate, 0);
        let report = seal(&header(2, Kind::Report, 0), None, Compression::default()).unwrap();
        check(&planner.plan(&record(5, report)), Outcome::Report, 0);
        check(
            &planner.plan(&record(6, Bytes::from_static(b"noise"))),
            Outcome::Quarantined,
            0,
        );
        let damaged = LogRecord {
            damaged: Some("bit flip".into()),
            ..record(7, Bytes::new())
        };
        check(&planner.plan(&damaged), Outcome::Quarantined, 0);
        assert_eq!(planner.next(), 8);
    }

    /// P3: as long as the head of a damaged record is left, its tenant's ledger says how many events were lost, once.
    #[test]
    fn p3_a_damaged_record_with_a_head_is_counted_damage_of_its_tenant() {
        let mut planner = planner();
        let lost = planner.plan(&damaged(0, header(0, Kind::Data, 2)));
        check(&lost, Outcome::Quarantined, 0);
        assert_eq!(
            ["accepted", "stored", "damaged"].map(|name| count(&lost, name)),
            [Some(2), Some(0), Some(2)]
        );
        let tenant = lost.rows[0]
            .column_by_name("tenant")
            .unwrap()
            .as_string::<i32>()
            .value(0);
        assert_eq!(tenant, "acme");
        // A copy that comes later, or came earlier, adds nothing.
        check(&planner.plan(&record(1, batch(0, "again"))), Outcome::Duplicate, 0);
        check(&planner.plan(&record(2, batch(1, "b"))), Outcome::Accepted, 2);
        let copy = planner.plan(&damaged(3, header(1, Kind::Data, 2)));
        check(&copy, Outcome::Duplicate, 0);
        assert_eq!(count(&copy, "damaged"), Some(0));
        // A tombstone loses nothing.
        let tombstone = planner.plan(&damaged(4, header(2, Kind::Tombstone, 0)));
        check(&tombstone, Outcome::Tombstone, 0);
        assert_eq!(count(&tombstone, "damaged"), Some(2));
        // Who only passes over the records knows the same afterwards.
        let mut passed = Planner::new(Dedup::default(), IpcLimits::default());
        passed.pass(&damaged(0, header(0, Kind::Data, 2)));
        check(&passed.plan(&record(1, batch(0, "again"))), Outcome::Duplicate, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// P2, P16: with batches sent again in any order and a writer that begins anew anywhere, what is written is the same,
        /// and each batch is written once.
        #[test]
        fn p2_what_is_written_is_a_function_of_the_log(
            seqs in prop::collection::vec(0u64..12, 1..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let log: Vec<_> = (0..).zip(&seqs).map(|(offset, seq)| record(offset, batch(*seq, "x"))).collect();
            let mut whole = planner();
            let planned: Vec<_> = log.iter().map(|record| whole.plan(record).rows).collect();

            let cut = cut.index(log.len());
            let mut first = planner();
            log[..cut].iter().for_each(|record| first.pass(record));
            let mut second = Planner::new(Dedup::decode(&first.snapshot()).unwrap(), IpcLimits::default());
            let again: Vec<_> = log[cut..].iter().map(|record| second.plan(record).rows).collect();
            prop_assert_eq!(&planned[cut..], &again[..]);

            let distinct = seqs.iter().collect::<std::collections::HashSet<_>>().len();
            let data_rows: usize = planned.iter().flatten().map(RecordBatch::num_rows).sum::<usize>() - log.len();
            prop_assert_eq!(data_rows, 2 * distinct);
        }
    }
}
