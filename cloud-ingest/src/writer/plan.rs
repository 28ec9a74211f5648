//! What a log record becomes: rows for the table and exactly one ledger row. A pure function of the log, so that both writers
//! write the same and replaying the log gives the same tables.

use arrow::array::RecordBatch;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{Envelope, Kind};
use sluice_wire::events::{self, Origin, Outcome};
use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::layout::IpcLimits;

use crate::dedup::{Dedup, Verdict};
use crate::log::LogRecord;

/// Owner of log records that nobody can read any more: no tenant can have this name by certificate, as it is reserved.
const UNKNOWN_TENANT: &str = "_unknown";

/// Plans the records of one partition in the order of their offsets.
#[derive(Clone, Debug)]
pub struct Planner {
    dedup: Dedup,
    limits: IpcLimits,
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
        Planner { dedup, limits }
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
        match self.read(record) {
            Ok(envelope) => drop(self.dedup.observe(&envelope.header.id, envelope.header.kind, &envelope.hash)),
            Err(_) => self.dedup.pass(),
        }
    }

    /// Plans the next record.
    pub fn plan(&mut self, record: &LogRecord) -> Planned {
        let envelope = match self.read(record) {
            Ok(envelope) => envelope,
            Err(what) => {
                self.dedup.pass();
                return unreadable(record, &what);
            }
        };
        let header = &envelope.header;
        let origin = origin(record, &header.id);
        let ledger = |outcome, counts: &Counts, detail: &str| Planned {
            outcome,
            rows: vec![events::ledger_row(&origin, outcome, counts, detail)],
        };
        match self.dedup.observe(&header.id, header.kind, &envelope.hash) {
            Verdict::New => {}
            // Its rows are counted where it occurred first: here it adds nothing.
            Verdict::Duplicate => return ledger(Outcome::Duplicate, &Counts::default(), "seen before"),
            Verdict::Conflict => {
                tracing::error!(
                    stream = %header.id.stream, epoch = %header.id.epoch, seq = header.id.seq, offset = record.offset,
                    "one batch identity came with two contents; the first one stays"
                );
                let detail = format!("the identity of an earlier batch with other content, {} rows", header.rows);
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
                    ledger(Outcome::Quarantined, &lost(&header.counts), &what)
                }
            },
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
        events::fold(&batch, origin).map(Some).map_err(|error| error.to_string())
    }
}

fn origin<'a>(record: &LogRecord, id: &'a BatchId) -> Origin<'a> {
    Origin { id, partition: record.partition, offset: record.offset, ingested_at_us: record.ingested_at_us }
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
    Planned { outcome: Outcome::Quarantined, rows: vec![row] }
}

fn nobody(partition: Partition, offset: u64) -> BatchId {
    let stream = StreamId {
        tenant: TenantId::new(UNKNOWN_TENANT).expect("a name of allowed letters"),
        node: NodeId::new(&format!("log-{partition}")).expect("letters, digits and hyphens"),
        spool: [0; 16],
    };
    BatchId { stream, epoch: Epoch { number: 0, random: 0 }, seq: offset }
}
