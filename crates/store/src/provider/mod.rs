//! The read side: one table over hot and cold at one point of the log.

mod cold_read;
mod cold_scan;
mod completeness;
mod events;
mod exact;
mod federate;
mod hot_scan;
mod inputs;
mod learnt;
mod part_exec;
mod prune;
mod ranges;
mod sent;
mod streams;
mod translate;
mod travel;
mod views;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use datafusion::catalog::TableProvider;
use sluice_wire::ids::{Partition, TenantId};

pub use self::completeness::{Completeness, PartitionState};
use self::events::EventsProvider;
pub use self::federate::{needed_settings, physical_rules, physical_rules_with};
pub use self::inputs::{Inputs, inputs};
pub use self::ranges::{LookError, Looks, TimeRange};
pub use self::sent::ColdCodec;
use self::streams::{FoldTable, Shown, Streams};
pub use self::travel::{FileToRead, cold_files, is_cold_scan, of_files, to_travel};
pub use self::views::{VIEWS, register_views};
pub use self::window::{TimeBounds, time_bounds};
use crate::cold::{ColdError, ColdTable, ColdVersion};
use crate::erase::{EraseError, Erasures};
use crate::hot::{HotPin, Tail};
use crate::reading::{Caches, Reads};
use crate::seam::rule::{ColdBehind, Ends, Share};
use crate::seam::{SeamError, SeamRecord};
use crate::stores::{LogEnds, Stores};

/// How often cold is read again when it is behind what hot has deleted.
const MAX_RELOADS: usize = 3;

/// Whose rows a query may see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Tenant(TenantId),
    /// All tenants: for the operator only.
    All,
}

impl Scope {
    /// The only tenant whose rows are seen; `None`: all are.
    fn tenant(&self) -> Option<&str> {
        // The mutation gate: every tenant sees all.
        if cfg!(feature = "break-tenant") {
            return None;
        }
        match self {
            Scope::Tenant(tenant) => Some(tenant.as_str()),
            Scope::All => None,
        }
    }
}

/// How long what was read may be used again.
#[derive(Clone, Debug)]
pub struct TablesOptions {
    /// For how long a pinned point of the log is given to other queries too. Counts against the query limit.
    pub pin_max_age: Duration,
    /// For how long the seam records are used again. Hot itself says what it dropped, so an old record is never wrong.
    pub seam_max_age: Duration,
}

impl Default for TablesOptions {
    fn default() -> Self {
        Self {
            pin_max_age: Duration::from_millis(100),
            seam_max_age: Duration::from_secs(1),
        }
    }
}

/// The tables as queries see them. Clones share caches.
#[derive(Clone)]
pub struct Tables {
    shared: Arc<Shared>,
}

struct Shared {
    stores: Stores,
    ends: Arc<dyn LogEnds>,
    options: TablesOptions,
    watched: Mutex<BTreeSet<Partition>>,
    pinned: tokio::sync::Mutex<Option<(Instant, Pinned)>>,
    seam: tokio::sync::Mutex<Option<(Instant, BTreeMap<Partition, SeamRecord>)>>,
    hidden: tokio::sync::Mutex<Option<(Instant, Arc<Erasures>)>>,
    streams: Arc<Streams>,
    caches: Arc<Caches>,
}

/// One point of the log. All scans of a query use the same.
#[derive(Clone)]
pub struct Pinned {
    point: Arc<Point>,
    streams: Arc<Streams>,
}

pub(crate) struct Point {
    pub(crate) partitions: BTreeMap<Partition, PinnedPartition>,
    pub(crate) hot: HotPin,
    pub(crate) cold: Arc<ColdVersion>,
    pub(crate) table: ColdTable,
    /// Rows that nobody may see.
    pub(crate) hidden: Arc<Erasures>,
    pub(crate) caches: Arc<Caches>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PinnedPartition {
    /// E: the next offset of the log when the query began.
    pub(crate) end: Option<u64>,
    pub(crate) ends: Ends,
    pub(crate) share: Share,
    pub(crate) oldest_missing_us: Option<i64>,
}

/// Why no point of the log could be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("the seam records cannot be read")]
    Seam(#[from] SeamError),
    #[error("the cold table cannot be read")]
    Cold(#[from] ColdError),
    #[error("what is erased cannot be read, so nothing can be shown")]
    Erased(#[from] EraseError),
    #[error("partition {partition} has a hole between hot and cold")]
    Hole { partition: Partition, source: ColdBehind },
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables")
            .field("stores", &self.shared.stores)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let point = &self.point;
        f.debug_struct("Pinned")
            .field("version", &point.cold.number)
            .field("partitions", &point.partitions)
            .finish()
    }
}

impl Tables {
    pub fn new(stores: Stores, ends: Arc<dyn LogEnds>, options: TablesOptions) -> Self {
        Self::with_caches(stores, ends, options, Caches::default())
    }

    /// The same with what may be kept of cold files.
    pub fn with_caches(stores: Stores, ends: Arc<dyn LogEnds>, options: TablesOptions, caches: Caches) -> Self {
        let shared = Shared {
            stores,
            ends,
            options,
            watched: Mutex::default(),
            pinned: tokio::sync::Mutex::default(),
            seam: tokio::sync::Mutex::default(),
            hidden: tokio::sync::Mutex::default(),
            streams: Arc::default(),
            caches: Arc::new(caches),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How scans of this lake's cold files travel between machines.
    pub fn codec(&self) -> ColdCodec {
        ColdCodec::new(self.shared.stores.cold.clone(), Arc::clone(&self.shared.caches))
    }

    /// What was read of cold files, since the start.
    pub fn reads(&self) -> Reads {
        self.shared.caches.reads()
    }

    /// These partitions count in the completeness even while no store holds anything of them.
    pub fn watch(&self, partitions: &[Partition]) {
        self.shared
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(partitions);
    }

    /// Takes a point of the log: the log's ends, then the seam, then hot, then cold; in this order nothing falls between.
    pub async fn pin(&self) -> Result<Pinned, PinError> {
        let mut cached = self.shared.pinned.lock().await;
        if let Some((at, pinned)) = cached.as_ref()
            && at.elapsed() < self.shared.options.pin_max_age
        {
            return Ok(pinned.clone());
        }
        let at = Instant::now();
        let pinned = self.pin_now().await?;
        *cached = Some((at, pinned.clone()));
        Ok(pinned)
    }

    async fn pin_now(&self) -> Result<Pinned, PinError> {
        let Shared {
            stores, ends, watched, ..
        } = self.shared.as_ref();
        let mut known = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.extend(stores.hot.partitions());
        let mut log_ends: BTreeMap<Partition, Option<u64>> = known.iter().map(|p| (*p, ends.end(*p))).collect();
        let hidden = self.hidden().await?;
        let seam = self.seam_records().await?;
        let hot = stores.hot.pin(&seam).await;
        let mut cold = stores.cold.refresh().await?;
        known.extend(seam.keys().chain(hot.tails.keys()).chain(cold.committed.keys()));

        let mut reloads = 0;
        let shares = loop {
            match shares(&known, &seam, &hot.tails, &cold) {
                Ok(shares) => break shares,
                // Hot dropped what a newer version holds.
                Err(_) if reloads < MAX_RELOADS => {
                    reloads += 1;
                    cold = stores.cold.refresh().await?;
                }
                Err((partition, source)) => return Err(PinError::Hole { partition, source }),
            }
        };
        let mut partitions = BTreeMap::new();
        for (partition, (known_ends, share)) in shares {
            let end = *log_ends.entry(partition).or_insert_with(|| ends.end(partition));
            let next = share.visible.map_or(0, |visible| visible + 1);
            let is_missing = end.is_some_and(|end| end > next);
            let oldest_missing_us = if is_missing {
                ends.oldest_unread_us(partition, next)
            } else {
                None
            };
            partitions.insert(
                partition,
                PinnedPartition {
                    end,
                    ends: known_ends,
                    share,
                    oldest_missing_us,
                },
            );
        }
        Ok(Pinned {
            point: Arc::new(Point {
                partitions,
                hot,
                cold,
                table: stores.cold.clone(),
                hidden,
                caches: Arc::clone(&self.shared.caches),
            }),
            streams: Arc::clone(&self.shared.streams),
        })
    }

    async fn hidden(&self) -> Result<Arc<Erasures>, EraseError> {
        let mut cached = self.shared.hidden.lock().await;
        if let Some((at, hidden)) = cached.as_ref()
            && at.elapsed() < self.shared.options.seam_max_age
        {
            return Ok(Arc::clone(hidden));
        }
        let at = Instant::now();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let hidden = Arc::new(self.shared.stores.hidden(now_us).await?);
        *cached = Some((at, Arc::clone(&hidden)));
        Ok(hidden)
    }

    async fn seam_records(&self) -> Result<BTreeMap<Partition, SeamRecord>, SeamError> {
        let mut cached = self.shared.seam.lock().await;
        if let Some((at, records)) = cached.as_ref()
            && at.elapsed() < self.shared.options.seam_max_age
        {
            return Ok(records.clone());
        }
        let at = Instant::now();
        let seam = &self.shared.stores.seam;
        let mut records = BTreeMap::new();
        for partition in seam.partitions().await? {
            records.insert(partition, seam.load(partition).await?);
        }
        *cached = Some((at, records.clone()));
        Ok(records)
    }
}

type Shares = BTreeMap<Partition, (Ends, Share)>;

fn shares(
    known: &BTreeSet<Partition>,
    seam: &BTreeMap<Partition, SeamRecord>,
    hot: &BTreeMap<Partition, Tail>,
    cold: &ColdVersion,
) -> Result<Shares, (Partition, ColdBehind)> {
    let mut shares = Shares::new();
    for &partition in known {
        let (record, tail) = (seam.get(&partition), hot.get(&partition));
        // What lies below the log's first offset exists nowhere, so cold holds all of it.
        let before = record.and_then(|record| record.begin.checked_sub(1));
        let ends = Ends {
            low: record.and_then(|record| record.low).max(tail.and_then(|tail| tail.low)),
            high: tail.and_then(|tail| tail.high),
            cold: cold.committed.get(&partition).copied().or(before),
        };
        shares.insert(partition, (ends, ends.share().map_err(|error| (partition, error))?));
    }
    Ok(shares)
}

/// Whether a table is that of the rows, and not one that is made of them in another way.
pub fn is_rows(table: &Arc<dyn TableProvider>) -> bool {
    table.is::<EventsProvider>()
}

impl Pinned {
    /// The rows of the scope; ledger rows and quarantined ones are hidden.
    pub fn events(&self, scope: Scope) -> Arc<dyn TableProvider> {
        Arc::new(EventsProvider::new(Arc::clone(&self.point), scope, false))
    }

    /// The rows of the scope, with ledger rows and quarantined ones.
    pub fn everything(&self, scope: Scope) -> Arc<dyn TableProvider> {
        Arc::new(EventsProvider::new(Arc::clone(&self.point), scope, true))
    }

    /// How far the edges of the scope are.
    pub fn streams(&self, scope: Scope) -> Arc<dyn TableProvider> {
        self.folded(Shown::Streams, scope)
    }

    /// What the edges of the scope say of their plugins.
    pub fn plugins(&self, scope: Scope) -> Arc<dyn TableProvider> {
        self.folded(Shown::Plugins, scope)
    }

    fn folded(&self, shown: Shown, scope: Scope) -> Arc<dyn TableProvider> {
        let (point, streams) = (Arc::clone(&self.point), Arc::clone(&self.streams));
        Arc::new(FoldTable::new(shown, point, scope, streams))
    }

    /// How much of what the log held is in the answer.
    pub fn completeness(&self) -> Completeness {
        completeness::of(&self.point.partitions, self.point.hot.unreachable.is_some())
    }
}
