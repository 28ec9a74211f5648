//! Rows that are made again: inserted under a generation that no seam record names yet. TABLES.md says how they come to count.

use std::collections::BTreeMap;

use sluice_wire::ids::Partition;

use super::{ClickHouseError, ClickHouseHot, HotError, encode};
use crate::hot::HotRows;
use crate::rows;
use crate::seam::SeamRecord;

impl ClickHouseHot {
    /// Inserts the rows of some offsets under a reserved generation. They count nowhere before the seam says so.
    pub async fn insert_replayed(&self, generation: u64, slice: HotRows) -> Result<(), HotError> {
        slice
            .rows
            .iter()
            .try_for_each(|batch| rows::check(batch, &[slice.range]))?;
        let last_day = self.lock().last_day;
        let block = encode::block(&[slice], |_| generation, last_day)?;
        self.send(block).await
    }

    /// H of a partition as a record would have it; `None`: nothing.
    pub async fn high(&self, partition: Partition, record: &SeamRecord) -> Result<Option<u64>, ClickHouseError> {
        let seam = BTreeMap::from([(partition, record.clone())]);
        let held = self.held(&seam, super::META_WITHIN).await?;
        Ok(record.high(&super::highest(&held, partition)))
    }
}
