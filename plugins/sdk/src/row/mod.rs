//! Row by row: the function of a plugin sees one row; columns are found once per batch, not once per row.

pub(crate) mod columns;
mod edit;
pub mod severity;
mod value;
mod without;

use std::cell::RefCell;
use std::time::Duration;

use arrow_buffer::BooleanBuffer;

use crate::{Batch, Outcome};
use columns::{Columns, Core, Group, hex};
pub use edit::RowMut;
pub use value::Value;
pub(crate) use without::{bytes_without, without};

/// What becomes of a row. Reasons have 1 to 64 letters, digits, `_`, `.`, `-` or spaces, and there are few of them: they become
/// part of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep,
    Drop(&'static str),
    Quarantine(&'static str),
}

/// Why rows are dropped for which a function answers `false`.
pub const FILTERED: &str = "filtered";

impl From<bool> for Decision {
    fn from(keep: bool) -> Self {
        if keep { Decision::Keep } else { Decision::Drop(FILTERED) }
    }
}

/// One row. Texts that are not there read as empty, numbers as 0, and what must be told apart has an `Option`.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a Columns<'a>,
    index: usize,
}

impl<'a> Row<'a> {
    /// The place of the row in its batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// `log`, `span` or `metric`.
    pub fn signal(&self) -> &'a str {
        self.core_text(Core::Signal)
    }

    /// Nanoseconds since 1970.
    pub fn time(&self) -> i64 {
        self.core_int(Core::Time).unwrap_or(0)
    }

    pub fn observed_time(&self) -> Option<i64> {
        self.core_int(Core::ObservedTime)
    }

    pub fn start_time(&self) -> Option<i64> {
        self.core_int(Core::StartTime)
    }

    /// Of a span; zero without one.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.core_int(Core::Duration).unwrap_or(0).max(0) as u64)
    }

    pub fn name(&self) -> &'a str {
        self.core_text(Core::Name)
    }

    /// The text of the body; of an array or object, JSON.
    pub fn body(&self) -> &'a str {
        self.core_text(Core::Body)
    }

    /// `None` for a body that is text or not there.
    pub fn body_type(&self) -> Option<&'a str> {
        self.columns.core(Core::BodyType).text(self.index)
    }

    /// OpenTelemetry's number: compare with `WARN`, `ERROR` and the others of [`severity`].
    pub fn severity(&self) -> i32 {
        self.core_int(Core::Severity).unwrap_or(0) as i32
    }

    pub fn severity_text(&self) -> &'a str {
        self.core_text(Core::SeverityText)
    }

    /// Of a span: `internal`, `server`, `client`, `producer`, `consumer`.
    pub fn kind(&self) -> &'a str {
        self.core_text(Core::Kind)
    }

    /// Of a span: `ok`, `error`; empty if unset.
    pub fn status(&self) -> &'a str {
        self.core_text(Core::Status)
    }

    pub fn status_message(&self) -> &'a str {
        self.core_text(Core::StatusMessage)
    }

    /// Lower-case hexadecimal; empty if there is none.
    pub fn trace_id(&self) -> String {
        self.trace_id_bytes().map(hex).unwrap_or_default()
    }

    pub fn trace_id_bytes(&self) -> Option<&'a [u8]> {
        self.columns.core(Core::TraceId).id(self.index)
    }

    pub fn span_id(&self) -> String {
        self.columns
            .core(Core::SpanId)
            .id(self.index)
            .map(hex)
            .unwrap_or_default()
    }

    pub fn parent_span_id(&self) -> String {
        let id = self.columns.core(Core::ParentSpanId).id(self.index);
        id.map(hex).unwrap_or_default()
    }

    pub fn trace_state(&self) -> &'a str {
        self.core_text(Core::TraceState)
    }

    pub fn scope_name(&self) -> &'a str {
        self.core_text(Core::ScopeName)
    }

    pub fn scope_version(&self) -> &'a str {
        self.core_text(Core::ScopeVersion)
    }

    /// `gauge`, `sum`, `histogram`, `exponential_histogram`, `summary`.
    pub fn metric_type(&self) -> &'a str {
        self.core_text(Core::MetricType)
    }

    pub fn unit(&self) -> &'a str {
        self.core_text(Core::Unit)
    }

    /// Of a metric, whichever number was sent.
    pub fn value(&self) -> Option<f64> {
        let double = self.columns.core(Core::Value).double(self.index);
        double.or_else(|| self.core_int(Core::ValueInt).map(|value| value as f64))
    }

    pub fn count(&self) -> Option<i64> {
        self.core_int(Core::Count)
    }

    pub fn sum(&self) -> Option<f64> {
        self.columns.core(Core::Sum).double(self.index)
    }

    /// How many events the row stands for.
    pub fn weight(&self) -> f64 {
        self.columns.core(Core::Weight).double(self.index).unwrap_or(1.0)
    }

    /// The resource's `service.name`.
    pub fn service(&self) -> &'a str {
        self.group_text(Group::Resource, "service.name")
    }

    /// The resource's `host.name`.
    pub fn host(&self) -> &'a str {
        self.group_text(Group::Resource, "host.name")
    }

    /// An attribute, of whatever scalar type, whether it has a column or is among the rare ones.
    pub fn attr(&self, key: &str) -> Value<'a> {
        self.columns.attribute(Group::Attrs, key, self.index)
    }

    pub fn attr_i64(&self, key: &str) -> Option<i64> {
        self.attr(key).as_i64()
    }

    pub fn attr_f64(&self, key: &str) -> Option<f64> {
        self.attr(key).as_f64()
    }

    pub fn attr_bool(&self, key: &str) -> Option<bool> {
        self.attr(key).as_bool()
    }

    /// An attribute of the resource.
    pub fn resource(&self, key: &str) -> Value<'a> {
        self.columns.attribute(Group::Resource, key, self.index)
    }

    /// An attribute of the instrumentation scope.
    pub fn scope(&self, key: &str) -> Value<'a> {
        self.columns.attribute(Group::Scope, key, self.index)
    }

    /// Any column by its name in the contract.
    pub fn column(&self, name: &str) -> Value<'a> {
        self.columns.other(name).value(self.index)
    }

    fn core_text(&self, core: Core) -> &'a str {
        self.columns.core(core).text(self.index).unwrap_or("")
    }

    fn core_int(&self, core: Core) -> Option<i64> {
        self.columns.core(core).int(self.index)
    }

    fn group_text(&self, group: Group, key: &str) -> &'a str {
        match self.columns.attribute(group, key, self.index) {
            Value::Text(std::borrow::Cow::Borrowed(text)) => text,
            _ => "",
        }
    }
}

/// Decides about each row. `reads` are the declared columns.
pub fn filter<D: Into<Decision>>(
    batch: &Batch,
    reads: &[String],
    mut decide: impl FnMut(Row<'_>) -> D,
) -> Result<Outcome, String> {
    let columns = Columns::new(batch, reads);
    let mut tally = Tally::default();
    let keep = BooleanBuffer::collect_bool(batch.rows(), |index| {
        let row = Row {
            columns: &columns,
            index,
        };
        tally.take(index, decide(row).into())
    });
    match columns.mistake() {
        Some(mistake) => Err(mistake),
        None => Ok(tally.outcome(keep)),
    }
}

/// Changes each row. `reads` and `writes` are the declared columns; what is written is read, too, for the rows that keep theirs.
pub fn change(
    batch: &Batch,
    reads: &[String],
    writes: &[String],
    mut change: impl FnMut(&mut RowMut<'_>),
) -> Result<Outcome, String> {
    let edits = RefCell::new(edit::Edits::new(reads, writes));
    let columns = Columns::new(batch, reads);
    let mut tally = Tally::default();
    let keep = BooleanBuffer::collect_bool(batch.rows(), |index| {
        let row = Row {
            columns: &columns,
            index,
        };
        let mut row = RowMut::new(row, &edits);
        change(&mut row);
        let decision = row.decision();
        tally.take(index, decision)
    });
    if let Some(mistake) = columns.mistake() {
        return Err(mistake);
    }
    edits.take().finish(batch, tally.outcome(keep))
}

/// Decisions so far.
#[derive(Debug, Default)]
struct Tally {
    drops: Vec<(&'static str, u64)>,
    quarantined: Vec<usize>,
    reasons: Vec<&'static str>,
}

impl Tally {
    /// Whether the row stays in the selection.
    fn take(&mut self, row: usize, decision: Decision) -> bool {
        match decision {
            Decision::Keep => true,
            Decision::Drop(reason) => {
                match self.drops.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, rows)) => *rows += 1,
                    None => self.drops.push((reason, 1)),
                }
                false
            }
            Decision::Quarantine(reason) => {
                self.quarantined.push(row);
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
                true
            }
        }
    }

    fn outcome(self, keep: BooleanBuffer) -> Outcome {
        let rows = keep.len();
        let mut outcome = Outcome::unchanged();
        if !self.drops.is_empty() {
            outcome = outcome.selected(keep, self.drops);
        }
        if !self.quarantined.is_empty() {
            let mut places = self.quarantined.iter().copied().peekable();
            let set = BooleanBuffer::collect_bool(rows, |row| places.next_if_eq(&row).is_some());
            // A batch has one reason in the contract.
            let reason = match &self.reasons[..] {
                [reason] => (*reason).to_owned(),
                reasons => format!("{} and {} more", reasons[0], reasons.len() - 1),
            };
            outcome = outcome.quarantine(set, &reason);
        }
        outcome
    }
}
