//! Reading the rows of some offsets in the order of the log, for whoever makes another store of them.

use arrow::array::RecordBatch;
use arrow::datatypes::TimeUnit;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use sluice_wire::ids::Partition;

use crate::hot::EmbeddedHot;
use crate::provider::{PinError, Scope, Tables, TablesOptions};
use crate::rows::{self, LEDGER, OffsetRange};
use crate::state::StateObjects;
use crate::stores::{LogEnds, Stores};

/// Rows that one step reads, about.
const STEP_ROWS: u64 = 100_000;

/// Why rows of cold could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the tables")]
    Pin(#[from] PinError),
    #[error("reading the rows of cold")]
    Read(#[from] DataFusionError),
    #[error(
        "cold does not hold offsets {first} to {last} of partition {partition} as they must be there: {found} of them have a ledger row"
    )]
    Missing {
        partition: Partition,
        first: u64,
        last: u64,
        found: u64,
    },
}

struct NoEnds;

impl LogEnds for NoEnds {
    fn end(&self, _: Partition) -> Option<u64> {
        None
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        None
    }
}

impl Stores {
    /// The rows of some offsets that cold holds and queries see, ledger rows included, by offset.
    pub async fn rows_of_cold(&self, range: OffsetRange) -> Result<Vec<RecordBatch>, ScanError> {
        rows_in(self.cold_session().await?, range).await
    }

    /// The same with those that no query sees any more, because they are erased: for whoever leaves them out and charges their batches.
    pub async fn whole_rows_of_cold(&self, range: OffsetRange) -> Result<Vec<RecordBatch>, ScanError> {
        let whole = Stores {
            erasures: StateObjects::nowhere(),
            state: StateObjects::nowhere(),
            ..self.clone()
        };
        rows_in(whole.cold_session().await?, range).await
    }

    /// How many offsets of a partition one step of reading has, so that its rows fit into memory.
    pub async fn step_of_cold(&self) -> Result<u64, crate::ColdError> {
        let extent = self.cold.extent().await?;
        let offsets: u64 = extent.committed.values().map(|last| last + 1).sum();
        Ok((STEP_ROWS.saturating_mul(offsets.max(1)) / extent.rows.max(1)).clamp(1, STEP_ROWS))
    }

    /// The first offset of a partition whose record was taken in at or after a time; `None`: cold has none.
    pub async fn first_in_cold_since(&self, partition: Partition, cutoff_us: i64) -> Result<Option<u64>, ScanError> {
        let ctx = self.cold_session().await?;
        let at = ScalarValue::TimestampMicrosecond(Some(cutoff_us), Some("UTC".into())).cast_to(
            &arrow::datatypes::DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        )?;
        let conditions: Expr = ident("signal")
            .eq(lit(LEDGER))
            .and(ident("partition").eq(lit(partition.as_i64())))
            .and(ident("ingested_at").gt_eq(lit(at)));
        let frame = ctx.table("everything").await?.filter(conditions)?;
        let lowest = datafusion::functions_aggregate::expr_fn::min(ident("offset"));
        let found = frame.aggregate(Vec::new(), vec![lowest])?.collect().await?;
        let value = found
            .iter()
            .filter(|batch| batch.num_rows() > 0)
            .find_map(|batch| ScalarValue::try_from_array(batch.column(0), 0).ok());
        Ok(match value {
            Some(ScalarValue::Int64(Some(offset))) => u64::try_from(offset).ok(),
            _ => None,
        })
    }

    /// `everything` over cold alone, as of now.
    async fn cold_session(&self) -> Result<SessionContext, ScanError> {
        let alone = Stores {
            hot: EmbeddedHot::new(0).into(),
            ..self.clone()
        };
        let tables = Tables::new(alone, std::sync::Arc::new(NoEnds), TablesOptions::default());
        let pinned = tables.pin().await?;
        let ctx = SessionContext::new();
        ctx.register_table("everything", pinned.everything(Scope::All))?;
        Ok(ctx)
    }
}

async fn rows_in(ctx: SessionContext, range: OffsetRange) -> Result<Vec<RecordBatch>, ScanError> {
    let OffsetRange { partition, first, last } = range;
    let place = ident("partition").eq(lit(partition.as_i64()));
    let offsets = ident("offset").between(lit(rows::signed(first)), lit(rows::signed(last)));
    let order = vec![ident("offset").sort(true, true), ident("row").sort(true, true)];
    let frame = ctx.table("everything").await?.filter(place.and(offsets))?.sort(order)?;
    let found = frame.collect().await?;
    let ledger: u64 = found
        .iter()
        .filter_map(|batch| rows::texts(batch, "signal").ok())
        .map(|signals| signals.iter().filter(|signal| *signal == Some(LEDGER)).count() as u64)
        .sum();
    if ledger != last - first + 1 {
        let found = ledger;
        return Err(ScanError::Missing {
            partition,
            first,
            last,
            found,
        });
    }
    Ok(found)
}
