//! The looks of one query at what its ranges of time are made of: none is made twice, and together they cost a small share of what the query may.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::Expr;
use tokio::time::{Instant, timeout};

use super::{Found, TimeRange};
use crate::hot::PinnedRows;
use crate::hot::clickhouse::StatementLimits;
use crate::provider::events::EventsProvider;
use crate::provider::hot_scan::{self, Window};
use crate::provider::inputs::Inputs;

/// Of the time, the bytes and the memory that a query may use, what its looks may use of a server.
const SHARE: u32 = 8;
/// However long a query may take, its looks at a server take no longer.
const MOST: Duration = Duration::from_secs(2);

/// Hot did not say what its ranges of time hold, which it may do another time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("hot does not say what its ranges of time hold: {0}")]
pub struct LookError(String);

/// What each of some ranges is made of. `None` for one: nothing is worth keeping for it.
type Made = Result<Option<Arc<[Option<Inputs>]>>, LookError>;

/// What one query found out.
#[derive(Debug)]
pub struct Looks {
    limits: Option<StatementLimits>,
    /// How long looks at a server may still take.
    left: Duration,
    made: Vec<Look>,
}

#[derive(Debug)]
struct Look {
    table: Arc<dyn TableProvider>,
    ranges: Vec<TimeRange>,
    filters: Vec<Expr>,
    made: Made,
}

impl Looks {
    /// For a query under these limits.
    pub fn new(limits: Option<&StatementLimits>) -> Self {
        let share = limits.map(|limits| StatementLimits {
            time: (limits.time / SHARE).min(MOST),
            bytes: limits.bytes / u64::from(SHARE),
            memory: limits.memory / u64::from(SHARE),
        });
        Self {
            limits: share,
            left: share.map_or(MOST, |share| share.time),
            made: Vec::new(),
        }
    }

    /// What each of some ranges is made of, which follow each other. Only of rows that pass the filters it is sure to be another value
    /// whenever they are others. `None`: the table is not that of the rows, its ranges cannot be told apart at the moment, or a server has
    /// all of their rows, and computes what is asked of them itself.
    pub async fn look(&mut self, table: &Arc<dyn TableProvider>, ranges: &[TimeRange], filters: &[Expr]) -> Made {
        let Some((point, scope, hidden)) = table.downcast_ref::<EventsProvider>().map(EventsProvider::rows) else {
            return Ok(None);
        };
        // Erasures charge ledger rows in place: as many of them need not say the same.
        if hidden || point.hot.unreachable.is_some() || ranges.is_empty() {
            return Ok(None);
        }
        let filters = match &point.hot.rows {
            // All rows are looked at, whatever the filters are.
            PinnedRows::Memory(_) => &[][..],
            PinnedRows::Server { .. } => filters,
        };
        let is_same = |look: &&Look| {
            Arc::ptr_eq(&look.table, table) && look.ranges.as_slice() == ranges && look.filters.as_slice() == filters
        };
        if let Some(look) = self.made.iter().find(is_same) {
            return look.made.clone();
        }
        let mut found = Found::new(point, scope, ranges);
        let window = Window {
            ranges,
            tenant: scope.tenant(),
            schema: point.table.mapping().logical(),
            filters,
        };
        let served = hot_scan::served(point);
        let held = match &point.hot.rows {
            _ if found.files().is_none() => Ok(None),
            PinnedRows::Memory(chunks) => Ok(hot_scan::in_memory(chunks, &served, &window).await),
            // Nor was a server asked for which no time is left: it has done nothing wrong.
            PinnedRows::Server { .. } if found.is_hot() || self.left.is_zero() => Ok(None),
            PinnedRows::Server { hot, seam, .. } => {
                let began = Instant::now();
                let limits = self.limits.map(|limits| StatementLimits {
                    time: self.left,
                    ..limits
                });
                let asked = hot_scan::on_server(hot, seam, &served, &window, limits.as_ref());
                let held = match timeout(self.left, asked).await {
                    Ok(held) => held.map(Some).map_err(|error| LookError(error.to_string())),
                    Err(_) => Err(LookError(format!("not within {} ms", self.left.as_millis()))),
                };
                self.left = self.left.saturating_sub(began.elapsed());
                held
            }
        };
        let made = held.map(|held| {
            for (range, held) in held? {
                found.parts.get_mut(range)?.held(held);
            }
            Some(found.inputs().into())
        });
        self.made.push(Look {
            table: Arc::clone(table),
            ranges: ranges.to_vec(),
            filters: filters.to_vec(),
            made: made.clone(),
        });
        made
    }
}
