//! Memory and disk of a query: its own limits, and one for all queries together. What does not fit is spilled, and what cannot be spilled
//! ends with the name of the limit and its value.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::config::LimitsConfig;

/// The folder within the one that is configured: it is emptied at every start, so nobody else's files may be in it.
const SPILL_FOLDER: &str = "sluice-spill";

/// What all queries share of a machine.
#[derive(Debug)]
pub(crate) struct Room {
    memory: usize,
    spill: u64,
    folder: Option<PathBuf>,
    all: Arc<Budget>,
}

/// Memory of all queries together.
#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    most: usize,
}

impl Room {
    pub(crate) fn new(limits: &LimitsConfig) -> Room {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Room {
            memory: size(limits.memory),
            spill: limits.spill,
            folder: (!limits.spill_dir.as_os_str().is_empty()).then(|| limits.spill_dir.join(SPILL_FOLDER)),
            all: Arc::new(Budget {
                used: AtomicUsize::new(0),
                most: size(limits.total_memory),
            }),
        }
    }

    /// Makes the folder for what is spilled, without what a killed process left there.
    pub(crate) fn clear(limits: &LimitsConfig) -> std::io::Result<()> {
        if limits.spill_dir.as_os_str().is_empty() {
            return Ok(());
        }
        let folder: &Path = &limits.spill_dir.join(SPILL_FOLDER);
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(folder)
    }

    /// Memory and spill space of one query. Stores of files are known only once a provider brings its own.
    pub(crate) fn environment(&self) -> Result<RuntimeEnv> {
        let pool = Arc::new(QueryPool {
            own: FairSpillPool::new(self.memory),
            most: self.memory,
            all: Arc::clone(&self.all),
        });
        let spill = match (self.spill, &self.folder) {
            (0, _) => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            (bytes, None) => DiskManagerBuilder::default().with_max_temp_directory_size(bytes),
            (bytes, Some(folder)) => DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![folder.clone()]))
                .with_max_temp_directory_size(bytes),
        };
        let stores = DefaultObjectStoreRegistry::new();
        stores.deregister_store(ObjectStoreUrl::local_filesystem().as_ref())?;
        RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(spill)
            .with_object_store_registry(Arc::new(stores))
            .build()
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.most);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One query's share: what it holds counts against its own limit and against that of all.
#[derive(Debug)]
struct QueryPool {
    own: FairSpillPool,
    most: usize,
    all: Arc<Budget>,
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    /// What cannot be refused is counted all the same, so that others are.
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.all.used.fetch_add(additional, Ordering::Relaxed);
        self.own.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if !self.all.take(additional) {
            return Err(exhausted(
                "all queries together need more memory",
                "limits.total_memory",
                self.all.most,
            ));
        }
        self.own.try_grow(reservation, additional).map_err(|_| {
            self.all.give_back(additional);
            exhausted("the query needs more memory", "limits.memory", self.most)
        })
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query(most: {})", self.most)
    }
}

/// `error` reads it as it is written here.
fn exhausted(what: &str, limit: &str, bytes: usize) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("{what} than `{limit}` allows, which is {bytes} bytes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn room(total: u64) -> Room {
        Room::new(&LimitsConfig {
            memory: 1_000,
            total_memory: total,
            ..LimitsConfig::default()
        })
    }

    #[test]
    fn a_query_is_held_to_its_own_limit_and_to_that_of_all() {
        let room = room(1_500);
        let pool = |room: &Room| room.environment().unwrap().memory_pool;
        let (first, second) = (pool(&room), pool(&room));
        let one = MemoryConsumer::new("one").register(&first);
        let two = MemoryConsumer::new("two").register(&second);
        let refused = |error: DataFusionError| error.to_string();
        assert!(refused(one.try_grow(1_001).unwrap_err()).contains("`limits.memory`"));
        one.try_grow(900).unwrap();
        assert!(refused(two.try_grow(700).unwrap_err()).contains("`limits.total_memory` allows, which is 1500 bytes"));
        two.try_grow(600).unwrap();
        one.shrink(400);
        two.try_grow(400).unwrap();
        drop((one, two));
        assert_eq!(room.all.used.load(Ordering::Relaxed), 0, "all of it was given back");
    }

    #[test]
    fn the_folder_for_spilling_is_emptied_and_what_lies_beside_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let limits = LimitsConfig {
            spill_dir: folder.path().to_owned(),
            ..LimitsConfig::default()
        };
        Room::clear(&limits).unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        fs::write(folder.path().join(SPILL_FOLDER).join("left"), "x").unwrap();
        Room::clear(&limits).unwrap();
        assert!(folder.path().join("other").exists());
        assert!(!folder.path().join(SPILL_FOLDER).join("left").exists());
    }
}
