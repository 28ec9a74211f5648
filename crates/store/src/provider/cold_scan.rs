//! The part of a scan that the Delta table serves.
//!
//! Whole files are passed over first: those that hot serves, of other tenants, of hidden rows, or outside the query's bounds. What
//! remains is read in two groups: files all of whose rows count, and files that need a look at every row.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::scalar::ScalarValue;

use super::Point;
use super::cold_read::{self, ColdRead};
use super::events::Wanted;
use super::inputs;
use super::part_exec::{PartExec, Restore};
use super::prune::{self, Piece};
use super::translate::to_stored;
use super::window::TimeBounds;
use crate::cold::ColdFile;
use crate::rows;

/// How the rows of a file meet the rules of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    None,
    All,
    Some,
}

impl Piece for &Arc<ColdFile> {
    fn bounds(&self, column: &str) -> Option<(ScalarValue, ScalarValue)> {
        self.stats.bounds.get(column).cloned()
    }

    fn nulls(&self, column: &str) -> Option<u64> {
        self.stats.nulls.get(column).copied()
    }

    fn rows(&self) -> Option<u64> {
        self.stats.rows
    }
}

/// Whether a filter is on a column of floats.
fn of_floats(filter: &Expr, schema: &SchemaRef) -> bool {
    let is_float = |name: &str| {
        schema
            .field_with_name(name)
            .is_ok_and(|field| field.data_type().is_floating())
    };
    filter.column_refs().iter().any(|column| is_float(&column.name))
}

/// What is asked of files whose rows are all of the time that is asked for.
pub(super) struct Within<'a> {
    pub(super) bounds: &'a TimeBounds,
    pub(super) wanted: Wanted<'a>,
    /// Those that say anything else.
    pub(super) filters: &'a [Expr],
}

/// Scans of some files.
#[derive(Default)]
pub(super) struct ColdParts {
    pub(super) parts: Vec<Arc<dyn ExecutionPlan>>,
    /// They give what is wanted of files whose rows are all of the time that is asked for.
    pub(super) within: Vec<Arc<dyn ExecutionPlan>>,
}

/// Plans the scans of the pinned version's files.
pub(super) fn plan(
    point: &Point,
    wanted: &Wanted<'_>,
    filters: &[Expr],
    within: Option<&Within<'_>>,
    state: &dyn Session,
) -> Result<ColdParts> {
    let mapping = point.table.mapping();
    let stored = DFSchema::try_from(Arc::clone(mapping.physical()))?;
    let scan = Scan::new(point, wanted, filters, &stored, state)?;
    let mut passed = Passed::default();
    let mut fits: Vec<(&Arc<ColdFile>, Fit)> = Vec::new();
    for file in &point.cold.files {
        match fit(file, point, wanted, &mut passed) {
            Fit::None => {}
            fit => fits.push((file, fit)),
        }
    }
    let pieces: Vec<&Arc<ColdFile>> = fits.iter().map(|(file, _)| *file).collect();
    let keep = prune::keep(&pieces, scan.filter.as_ref(), mapping.physical())?;
    let kept: Vec<(&Arc<ColdFile>, Fit)> = fits.into_iter().zip(keep).filter(|(_, k)| *k).map(|(f, _)| f).collect();
    // The newest first: a query for the newest rows then learns soon what it need not read.
    let mut kept = kept;
    kept.sort_by_key(|(file, _)| std::cmp::Reverse(file.stats.newest_us()));

    // Whoever sees one tenant's rows sees one tenant's files: how many others have is nobody else's business.
    let (read, all) = (kept.len(), point.cold.files.len() - passed.tenants);
    passed.filtered = all - read - passed.hidden - passed.hot;
    let label = format!("cold: {read} of {all} files{passed}, version {}", point.cold.number);
    let mut planned = ColdParts::default();
    if kept.is_empty() {
        planned.parts.push(scan.nothing(scan.named(label))?);
        return Ok(planned);
    }
    let is_within = |file: &ColdFile| {
        let times = file
            .stats
            .times_ns()
            .filter(|_| file.stats.nulls.get("time") == Some(&0));
        let held = within.zip(times);
        held.is_some_and(|(within, times)| within.bounds.hold_all(times))
    };
    let (inner, outer): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(file, _)| is_within(file));
    planned.parts = scan.parts(&scan.named(label.clone()), &outer)?;
    if let Some(within) = within.filter(|_| !inner.is_empty()) {
        let scan = Scan::new(point, &within.wanted, within.filters, &stored, state)?;
        let label = format!("{}, {} of them within the time", scan.named(label), inner.len());
        planned.within = scan.parts(&label, &inner)?;
    }
    Ok(planned)
}

struct Scan<'a> {
    point: &'a Point,
    wanted: &'a Wanted<'a>,
    state: &'a dyn Session,
    schema: &'a DFSchema,
    /// On stored columns: what can be said of the filters.
    stored: Option<Expr>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl<'a> Scan<'a> {
    /// `schema`: of the stored columns.
    fn new(
        point: &'a Point,
        wanted: &'a Wanted<'a>,
        filters: &[Expr],
        schema: &'a DFSchema,
        state: &'a dyn Session,
    ) -> Result<Scan<'a>> {
        // Least and greatest values of a file leave out NaN, which is greater than all here.
        let ordered = |filter: &&Expr| !of_floats(filter, &wanted.schema);
        let stored = filters
            .iter()
            .filter(ordered)
            .filter_map(|filter| to_stored(filter, point.table.mapping()));
        let mut scan = Scan {
            point,
            wanted,
            state,
            schema,
            stored: conjunction(stored),
            filter: None,
        };
        scan.filter = scan.physical(scan.stored.clone())?;
        Ok(scan)
    }

    fn physical(&self, expr: Option<Expr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        expr.map(|expr| self.state.create_physical_expr(expr, self.schema))
            .transpose()
    }

    /// A label that says of the filters what files can be asked.
    fn named(&self, label: String) -> String {
        match &self.stored {
            Some(stored) => format!("{label}, filter={stored}"),
            None => label,
        }
    }

    /// Of files that are read whole, and of files that are read by row.
    fn parts(&self, label: &str, files: &[(&Arc<ColdFile>, Fit)]) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let of = |wanted: Fit| {
            let of = files.iter().filter(move |(_, fit)| *fit == wanted);
            of.map(|(file, _)| Arc::clone(file)).collect()
        };
        let (whole, mixed): (Vec<_>, Vec<_>) = (of(Fit::All), of(Fit::Some));
        let mut parts = Vec::new();
        if !whole.is_empty() {
            let reads = self.reads(&whole);
            let read = self.read(whole, self.filter.clone(), self.wanted.limit);
            parts.push(self.part(label.to_owned(), reads, read)?);
        }
        if !mixed.is_empty() {
            let rule = row_rule(self.point, self.wanted);
            // The rule first: rows of others must not even reach a filter, which may say in an error what they hold.
            let both = self.physical(conjunction(rule.clone().into_iter().chain(self.stored.clone())))?;
            let label = format!("{label}, {} of them by row", mixed.len());
            let reads = self.reads(&mixed);
            let read = self.read_checked(mixed, both, rule)?;
            parts.push(self.part(label, reads, read)?);
        }
        Ok(parts)
    }

    /// The columns of the table that are asked for.
    fn logical(&self) -> Vec<usize> {
        self.wanted
            .projection
            .cloned()
            .unwrap_or_else(|| (0..self.wanted.schema.fields().len()).collect())
    }

    fn stored_schema(&self) -> Result<SchemaRef> {
        let mapping = self.point.table.mapping();
        Ok(Arc::new(
            mapping.physical().project(&mapping.physical_indices(&self.logical()))?,
        ))
    }

    /// A part without rows.
    fn nothing(&self, label: String) -> Result<Arc<dyn ExecutionPlan>> {
        let restore = Restore {
            mapping: self.point.table.mapping().clone(),
            columns: self.logical(),
        };
        let input = Arc::new(EmptyExec::new(self.stored_schema()?));
        let part = PartExec::new(cold_read::NAME, label, input, Some(restore), self.wanted.projected()?);
        Ok(Arc::new(part))
    }

    /// `reads`: what tells the part apart from others.
    fn part(&self, label: String, reads: String, read: ColdRead) -> Result<Arc<dyn ExecutionPlan>> {
        let part = Arc::new(read).part(label, self.wanted.projected()?, Some(self.state.runtime_env().as_ref()))?;
        Ok(Arc::new(part.reading(Some(reads.into()))))
    }

    /// What tells this scan apart from others: of each file, also which of its rows hot serves.
    fn reads(&self, files: &[Arc<ColdFile>]) -> String {
        let (point, wanted) = (self.point, self.wanted);
        let oldest = files.iter().map(|file| file.stats.oldest_us());
        let erased = inputs::erasures(&point.hidden, wanted.tenant, oldest);
        let mut text = format!("{} {erased}", wanted.text);
        for file in files {
            // writing to a String cannot fail
            let _ = write!(text, " {}", told(file, point));
        }
        text
    }

    /// How files are read; `filter` may drop rows that it refuses, or leave them in.
    fn read(&self, files: Vec<Arc<ColdFile>>, filter: Option<Arc<dyn PhysicalExpr>>, limit: Option<usize>) -> ColdRead {
        ColdRead {
            table: self.point.table.clone(),
            caches: Arc::clone(&self.point.caches),
            files,
            columns: self.logical(),
            filter,
            rule: None,
            limit,
            partitions: self.state.config().target_partitions(),
        }
    }

    /// How files are read of which not every row counts.
    fn read_checked(
        &self,
        files: Vec<Arc<ColdFile>>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        rule: Option<Expr>,
    ) -> Result<ColdRead> {
        let mut read = self.read(files, filter, None);
        if let Some(rule) = rule {
            let schema = DFSchema::try_from(read.rule_schema()?)?;
            read.rule = Some(self.state.create_physical_expr(rule, &schema)?);
        }
        Ok(read)
    }
}

/// Files that are not read, by the reason.
#[derive(Debug, Default)]
struct Passed {
    /// Of other tenants, which are not told.
    tenants: usize,
    hidden: usize,
    hot: usize,
    filtered: usize,
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reasons = [
            (self.hot, "served by hot"),
            (self.hidden, "of the ledger"),
            (self.filtered, "outside of the filters"),
        ];
        let told: Vec<String> = reasons
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        match told.is_empty() {
            true => Ok(()),
            false => write!(f, " (passed over: {})", told.join(", ")),
        }
    }
}

fn fit(file: &ColdFile, point: &Point, wanted: &Wanted<'_>, passed: &mut Passed) -> Fit {
    let mut worst = Fit::All;
    let looks = [
        (fit_tenant(file, wanted.tenant), &mut passed.tenants),
        (fit_hidden(file, wanted.hidden), &mut passed.hidden),
        (fit_seam(file, point), &mut passed.hot),
    ];
    for (fit, count) in looks {
        if fit == Fit::None {
            *count += 1;
            return Fit::None;
        }
        worst = worst.max(fit);
    }
    worst
}

/// Names a file with rows that cold serves of some tenant, or of all, and says which of them hot serves; `None`: cold serves none of it.
pub(super) fn served(file: &ColdFile, point: &Point, tenant: Option<&str>, hidden: bool) -> Option<String> {
    let fits = [
        fit_tenant(file, tenant),
        fit_hidden(file, hidden),
        fit_seam(file, point),
    ];
    (!fits.contains(&Fit::None)).then(|| told(file, point))
}

fn told(file: &ColdFile, point: &Point) -> String {
    let mut text = format!("{} {}", file.path, file.bytes);
    if fit_seam(file, point) != Fit::All {
        // writing to a String cannot fail
        let _ = write!(text, " {:?}", in_hot(file, point));
    }
    text
}

fn fit_tenant(file: &ColdFile, tenant: Option<&str>) -> Fit {
    let Some(tenant) = tenant else {
        return Fit::All;
    };
    match file.stats.texts("tenant") {
        Some((low, high)) if tenant < low || high < tenant => Fit::None,
        Some((low, high)) if low == high => Fit::All,
        _ => Fit::Some,
    }
}

fn fit_hidden(file: &ColdFile, hidden: bool) -> Fit {
    if hidden || !file.may_hold_hidden() {
        Fit::All
    } else if file.only_ledger() {
        Fit::None
    } else {
        Fit::Some
    }
}

/// The offsets of a file's rows that hot serves: partition, first, last.
fn in_hot(file: &ColdFile, point: &Point) -> Vec<(i64, i64, i64)> {
    let all = point
        .partitions
        .iter()
        .filter_map(|(partition, pinned)| Some((partition.as_i64(), pinned.share.hot?)))
        .map(|(partition, (first, last))| (partition, rows::signed(first), rows::signed(last)));
    match &file.offsets {
        None => all.collect(),
        Some(spans) => all
            .flat_map(|(partition, first, last)| {
                let here = spans.iter().filter(move |span| span.partition == partition);
                here.map(move |span| (partition, first.max(span.first), last.min(span.last)))
            })
            .filter(|(_, first, last)| first <= last)
            .collect(),
    }
}

/// Cold serves what hot does not.
fn fit_seam(file: &ColdFile, point: &Point) -> Fit {
    let served = point
        .partitions
        .iter()
        .filter_map(|(partition, pinned)| Some((partition.as_i64(), pinned.share.hot?)))
        .map(|(partition, (first, last))| (partition, rows::signed(first), rows::signed(last)));
    let one = |partition: i64, low: i64, high: i64| {
        let hot = served.clone().find(|(of, _, _)| *of == partition);
        match hot {
            Some((_, first, last)) if first <= low && high <= last => Fit::None,
            Some((_, first, last)) if low <= last && first <= high => Fit::Some,
            _ => Fit::All,
        }
    };
    if let Some(spans) = &file.offsets {
        let mut fits = spans.iter().map(|span| one(span.partition, span.first, span.last));
        let first = fits.next().unwrap_or(Fit::All);
        return fits.fold(first, |fit, next| if fit == next { fit } else { Fit::Some });
    }
    match (file.stats.ints("partition"), file.stats.ints("offset")) {
        (Some((low, high)), Some(offsets)) if low == high => one(low, offsets.0, offsets.1),
        (Some((low, high)), Some(offsets)) => {
            let touches = served.clone().any(|(partition, first, last)| {
                (low..=high).contains(&partition) && offsets.0 <= last && first <= offsets.1
            });
            if touches { Fit::Some } else { Fit::All }
        }
        _ => Fit::Some,
    }
}

/// What every row must meet.
fn row_rule(point: &Point, wanted: &Wanted<'_>) -> Option<Expr> {
    let mut rules = Vec::new();
    if let Some(tenant) = wanted.tenant {
        rules.push(ident("tenant").eq(lit(tenant)));
    }
    if !wanted.hidden {
        rules.push(ident("signal").not_eq(lit(rows::LEDGER)));
        rules.push(ident("quarantined_by").is_null());
    }
    for (partition, pinned) in &point.partitions {
        let Some((first, last)) = pinned.share.hot else {
            continue;
        };
        let (first, last) = (lit(rows::signed(first)), lit(rows::signed(last)));
        let elsewhere = ident("partition").not_eq(lit(partition.as_i64()));
        rules.push(elsewhere.or(ident("offset").lt(first)).or(ident("offset").gt(last)));
    }
    conjunction(rules)
}
