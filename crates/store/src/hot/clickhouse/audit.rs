//! Whether the server still holds what it once acknowledged, by counting: each offset has exactly one ledger row, which says how many
//! rows stand beside it.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use super::client::{ClickHouseError, Statement};
use super::schema::TABLE;
use super::{ClickHouseHot, Held, META_WITHIN, MIGRATE_WITHIN, visible};
use crate::seam::SeamRecord;

/// What counting found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    Whole,
    Lost { what: String },
}

impl ClickHouseHot {
    /// Counts the rows of a partition that must be there: those that count, above L and below `next`.
    pub async fn audit(&self, partition: Partition, record: &SeamRecord, next: u64) -> Result<Audit, ClickHouseError> {
        let Some((first, last)) = record.spans().first().map(|span| span.first).zip(next.checked_sub(1)) else {
            return Ok(Audit::Whole);
        };
        if last < first {
            return Ok(Audit::Whole);
        }
        let seam = BTreeMap::from([(partition, record.clone())]);
        let held = self.held(&seam, META_WITHIN).await?;
        if sums_agree(record, &held, last) {
            return Ok(Audit::Whole);
        }
        // The sums are of whole generations; rows that do not count, or that were deleted with their day, disturb them.
        self.count(partition, record, first, last).await
    }

    /// How many rows count at some offsets, and a sum over the hashes of all that they say: equal for equal rows, whoever wrote them.
    pub async fn digest(
        &self,
        partition: Partition,
        record: &SeamRecord,
        (first, last): (u64, u64),
    ) -> Result<(u64, u64), ClickHouseError> {
        let condition = visible::between(partition, record, first, last).unwrap_or_else(|| "0".to_owned());
        let schema = sluice_wire::events::schema();
        let columns: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| format!("`{}`", field.name()))
            .collect();
        let text = format!(
            "SELECT count(), sum(cityHash64(toString(tuple({})))) FROM `{TABLE}` WHERE {condition}",
            columns.join(", ")
        );
        let rows = self.shared.client.run(Statement::new(text), MIGRATE_WITHIN).await?;
        let numbers: Vec<u64> = rows.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        match numbers[..] {
            [rows, sum] => Ok((rows, sum)),
            _ => Err(ClickHouseError::Answer("a digest gave no two numbers".to_owned())),
        }
    }

    async fn count(
        &self,
        partition: Partition,
        record: &SeamRecord,
        first: u64,
        last: u64,
    ) -> Result<Audit, ClickHouseError> {
        let condition = visible::between(partition, record, first, last).unwrap_or_else(|| "0".to_owned());
        let text = format!(
            "SELECT count(), countIf(`row` = -1), uniqExactIf(`offset`, `row` = -1), sum(`batch_rows`) FROM `{TABLE}` WHERE {condition}"
        );
        let rows = self.shared.client.run(Statement::new(text), MIGRATE_WITHIN).await?;
        let numbers: Vec<u64> = rows.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let [rows, ledger_rows, offsets, batch_rows] = numbers[..] else {
            return Err(ClickHouseError::Answer("counting gave no four numbers".to_owned()));
        };
        let wanted = last - first + 1;
        if (ledger_rows, offsets) == (wanted, wanted) && rows == ledger_rows + batch_rows {
            return Ok(Audit::Whole);
        }
        Ok(Audit::Lost {
            what: format!(
                "partition {partition}: of the {wanted} offsets {first} to {last} there are {offsets}, with {ledger_rows} ledger rows and \
                 {} of {batch_rows} other rows",
                rows.saturating_sub(ledger_rows)
            ),
        })
    }
}

/// Whether every generation reaches as far as it decides, has no gap, and has as many rows as its ledger says.
fn sums_agree(record: &SeamRecord, held: &[Held], last: u64) -> bool {
    record.spans().iter().filter(|span| span.first <= last).all(|span| {
        let end = span.last.map_or(last, |end| end.min(last));
        held.iter().any(|held| {
            held.generation == span.generation
                && held.first <= span.first
                && held.last >= end
                && held.ledger_rows == held.last - held.first + 1
                && held.rows == held.ledger_rows + held.batch_rows
        })
    })
}
