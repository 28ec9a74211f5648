//! The writers of one process: which ones run, for which partitions, and what happens when a group gives it others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_store::{ClickHouseHot, Hot, Stores};
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{ColdWriter, ColdWriterOptions, HotWriter, SharedHotOptions, SharedHotWriter, Snapshots, WriterError};
use crate::log::Log;
use crate::quarantine::Quarantine;
use crate::quota::Quota;
use crate::status::WriterCounters;

/// What all writers of a process share.
#[derive(Clone)]
pub(crate) struct Crew {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) stores: Stores,
    pub(crate) snapshots: Snapshots,
    pub(crate) counters: Arc<WriterCounters>,
    pub(crate) quota: Option<Arc<Quota>>,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) cold: ColdWriterOptions,
    pub(crate) shared_hot: SharedHotOptions,
    /// Both are written here.
    pub(crate) beside_hot: bool,
    pub(crate) drains: bool,
}

/// The partitions that one kind of writer has, as of now.
pub(crate) type Mine = watch::Receiver<BTreeSet<u16>>;

type Ended = Result<(), WriterError>;

impl Crew {
    /// The hot writers, until told to stop or until one cannot go on.
    pub(crate) async fn run_hot(self, mine: Mine, shutdown: CancellationToken) -> Ended {
        match self.stores.hot.clone() {
            Hot::Embedded(_) => self.run_embedded(mine, shutdown).await,
            Hot::ClickHouse(hot) => {
                let run = |partitions, stop| self.shared(hot.clone(), partitions).run(stop);
                self.run_one(run, mine, shutdown).await
            }
        }
    }

    /// One cold writer for all partitions; when they change, it commits what it has and begins again.
    pub(crate) async fn run_cold(self, mine: Mine, shutdown: CancellationToken) -> Ended {
        let run = |partitions, stop| self.cold_writer(partitions).run(stop);
        self.run_one(run, mine, shutdown).await
    }

    /// A hot writer for each partition.
    async fn run_embedded(self, mut mine: Mine, shutdown: CancellationToken) -> Ended {
        let mut running: BTreeMap<Partition, CancellationToken> = BTreeMap::new();
        let mut writers: JoinSet<(Partition, Ended)> = JoinSet::new();
        // One that was told to stop ends before the partition may get a new one here.
        let mut ending = BTreeSet::new();
        loop {
            let wanted = self.partitions(&mine.borrow_and_update());
            running.retain(|partition, stop| {
                let stays = wanted.contains(partition);
                if !stays {
                    stop.cancel();
                    ending.insert(*partition);
                }
                stays
            });
            for partition in wanted {
                if running.contains_key(&partition) || ending.contains(&partition) {
                    continue;
                }
                let stop = shutdown.child_token();
                running.insert(partition, stop.clone());
                let writer = self.hot(partition);
                writers.spawn(async move { (partition, writer.run(stop).await) });
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = mine.changed() => if changed.is_err() { shutdown.cancelled().await },
                Some(ended) = writers.join_next() => {
                    let (partition, ended) = ended.map_err(|error| WriterError::Task(error.to_string()))?;
                    if !ending.remove(&partition) && !shutdown.is_cancelled() {
                        return ended.and(Err(WriterError::Task("a writer ended by itself".to_owned())));
                    }
                    ended?;
                }
            }
        }
        let mut result = Ok(());
        while let Some(ended) = writers.join_next().await {
            let ended = ended.map_err(|error| WriterError::Task(error.to_string()));
            result = result.and(ended.and_then(|(_, ended)| ended));
        }
        result
    }

    /// One writer for all partitions; when they change, it finishes what it has and begins again.
    async fn run_one<F: Future<Output = Ended>>(
        &self,
        run: impl Fn(Vec<Partition>, CancellationToken) -> F,
        mut mine: Mine,
        shutdown: CancellationToken,
    ) -> Ended {
        loop {
            let partitions = self.partitions(&mine.borrow_and_update());
            let stop = shutdown.child_token();
            if partitions.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    changed = mine.changed() => if changed.is_err() { shutdown.cancelled().await },
                }
                continue;
            }
            let mut running = Box::pin(run(partitions, stop.clone()));
            let ended = tokio::select! {
                ended = &mut running => ended,
                Ok(()) = mine.changed() => {
                    stop.cancel();
                    running.await
                }
            };
            ended?;
            if shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn partitions(&self, mine: &BTreeSet<u16>) -> Vec<Partition> {
        let all = self.log.partitions().into_iter();
        all.filter(|partition| mine.contains(&partition.index)).collect()
    }

    fn hot(&self, partition: Partition) -> HotWriter {
        HotWriter {
            log: Arc::clone(&self.log),
            stores: self.stores.clone(),
            partition,
            limits: IpcLimits::default(),
            snapshots: self.snapshots.clone(),
            counters: Arc::clone(&self.counters),
            quota: self.quota.clone(),
        }
    }

    fn shared(&self, hot: ClickHouseHot, partitions: Vec<Partition>) -> SharedHotWriter {
        SharedHotWriter {
            log: Arc::clone(&self.log),
            stores: self.stores.clone(),
            hot,
            partitions,
            limits: IpcLimits::default(),
            snapshots: self.snapshots.clone(),
            drains: self.drains,
            counters: Arc::clone(&self.counters),
            quota: self.quota.clone(),
            options: self.shared_hot.clone(),
        }
    }

    fn cold_writer(&self, partitions: Vec<Partition>) -> ColdWriter {
        ColdWriter {
            log: Arc::clone(&self.log),
            stores: self.stores.clone(),
            limits: IpcLimits::default(),
            partitions,
            snapshots: self.snapshots.clone(),
            drains: self.drains,
            beside_hot: self.beside_hot,
            quarantine: self.quarantine.clone(),
            options: self.cold.clone(),
            counters: Arc::clone(&self.counters),
            quota: self.quota.clone(),
        }
    }
}
