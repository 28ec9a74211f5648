//! A log in memory that can be told to fail or to take its time.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_ingest::log::Head;
use sluice_ingest::{Log, LogError, LogRecord};
use sluice_wire::ids::Partition;
use tokio::sync::watch;

const PARTITIONS: u16 = 4;

pub(crate) struct MemoryLog {
    records: Mutex<Vec<LogRecord>>,
    fail_next: Mutex<u32>,
    /// How many appends were begun.
    pub(crate) begun: watch::Sender<u32>,
    /// Appends return only while this is true.
    pub(crate) open: watch::Sender<bool>,
}

impl MemoryLog {
    pub(crate) fn new() -> Self {
        Self {
            records: Mutex::default(),
            fail_next: Mutex::new(0),
            begun: watch::channel(0).0,
            open: watch::channel(true).0,
        }
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        self.records.lock().unwrap().clone()
    }

    pub(crate) fn fail_next(&self, times: u32) {
        *self.fail_next.lock().unwrap() = times;
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn partitions(&self) -> Vec<Partition> {
        (0..PARTITIONS)
            .map(|index| Partition { generation: 3, index })
            .collect()
    }

    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError> {
        self.begun.send_modify(|n| *n += 1);
        {
            let mut left = self.fail_next.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(LogError::Retry {
                    reason: "no quorum".to_owned(),
                });
            }
        }
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        let mut records = self.records.lock().unwrap();
        let offset = records.iter().filter(|r| r.partition == partition).count() as u64;
        records.push(LogRecord {
            partition,
            offset,
            ingested_at_us,
            envelope,
            head: Some(head.clone()),
            damaged: None,
        });
        Ok(offset)
    }

    async fn read(&self, _: Partition, _: u64, _: usize) -> Result<Vec<LogRecord>, LogError> {
        Ok(Vec::new())
    }

    async fn wait_beyond(&self, _: Partition, _: u64) {}

    fn end(&self, partition: Partition) -> u64 {
        self.records
            .lock()
            .unwrap()
            .iter()
            .filter(|r| r.partition == partition)
            .count() as u64
    }

    async fn trim(&self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }
}
