//! What the node says of itself: counters, the status page and the metrics made of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sluice_runtime::PluginStats;
use sluice_wire::Signal;
use sluice_wire::counts::{Counts, Dropped};
use tokio::sync::{Notify, watch};

use crate::chain::{ChainError, ChainStatus, Keeper};
use crate::config::{EdgeConfig, OnFull, SourceSettings};
use crate::journal::Journal;
use crate::link::LinkStatus;
use crate::sealer::{Sealed, blocking};
use crate::source::stats::{SourceStatus, Sources};
use crate::spool::given_up;
use crate::spool::{Spool, SpoolStatus};
use crate::tap::{TapDoor, TokenError};

/// Nanoseconds since 1970; 0 on a clock before that.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: [AtomicU64; 3],
    pub(crate) requests: AtomicU64,
    /// Rows that a request held and that were not taken: partial successes.
    pub(crate) rejected_rows: AtomicU64,
    quarantined: AtomicU64,
    damaged: AtomicU64,
    sealed_batches: AtomicU64,
    pub(crate) unsealed_records: AtomicU64,
    pub(crate) unsealed_bytes: AtomicU64,
    /// Of records on their way to the journal.
    pub(crate) reserved_bytes: AtomicU64,
    /// Milliseconds after the start plus one; 0 when nothing waits.
    pub(crate) unsealed_since_ms: AtomicU64,
    /// Events are refused until there is room.
    disk_full: watch::Sender<bool>,
    dropped: Mutex<BTreeMap<(String, String), u64>>,
    /// Requests that were turned away, by the name of the refusal.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Events that a mask refused and that no sealed batch speaks of yet.
    refused_rows: Mutex<Counts>,
}

impl Counters {
    pub(crate) fn accepted(&self, signal: Signal, counts: &Counts) {
        self.accepted[signal as usize].fetch_add(counts.accepted, Ordering::Relaxed);
        self.quarantined.fetch_add(counts.quarantined, Ordering::Relaxed);
        let mut dropped = lock(&self.dropped);
        for entry in &counts.dropped {
            *dropped.entry((entry.plugin.clone(), entry.reason.clone())).or_default() += entry.rows;
        }
    }

    /// The disk takes nothing more: the cursor's keeper looks for room from now on.
    pub(crate) fn note_full(&self) {
        if !self.disk_full.send_replace(true) {
            tracing::warn!("disk is full, new events are refused until there is room");
        }
    }

    pub(crate) fn note_room(&self) {
        if self.disk_full.send_replace(false) {
            tracing::info!("disk has room again, new events are taken");
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        *self.disk_full.borrow()
    }

    pub(crate) fn full(&self) -> watch::Receiver<bool> {
        self.disk_full.subscribe()
    }

    /// Sealed events that were dropped for a reason.
    pub(crate) fn given_up(&self, reason: &str, rows: u64) {
        if rows > 0 {
            *lock(&self.dropped)
                .entry((given_up::PLUGIN.to_owned(), reason.to_owned()))
                .or_default() += rows;
        }
    }

    pub(crate) fn refused(&self, name: &'static str) {
        *lock(&self.refused).entry(name).or_default() += 1;
    }

    pub(crate) fn refused_by_plugin(&self, plugin: &str, reason: &str, rows: u64) {
        let entry = Dropped {
            plugin: plugin.to_owned(),
            reason: reason.to_owned(),
            rows,
        };
        lock(&self.refused_rows).merge(&Counts {
            refused: vec![entry],
            ..Counts::default()
        });
    }

    /// What the next batch tells of refused events.
    pub(crate) fn take_refused(&self) -> Counts {
        std::mem::take(&mut lock(&self.refused_rows))
    }

    pub(crate) fn put_back_refused(&self, counts: &Counts) {
        lock(&self.refused_rows).merge(counts);
    }

    pub(crate) fn sealed(&self, sealed: &Sealed) {
        self.sealed_batches.fetch_add(sealed.batches, Ordering::Relaxed);
        self.damaged.fetch_add(sealed.damaged, Ordering::Relaxed);
    }

    pub(crate) fn damaged(&self, rows: u64) {
        self.damaged.fetch_add(rows, Ordering::Relaxed);
    }
}

/// Where the node is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    #[default]
    Starting,
    Running,
    Draining,
    Failed,
}

/// One look at the node.
#[derive(Clone, Debug, Serialize)]
pub struct EdgeStatus {
    pub version: &'static str,
    pub phase: Phase,
    pub tenant: String,
    pub node: String,
    pub stream: String,
    pub epoch: String,
    pub uptime_ms: u64,
    pub accepted: Accepted,
    pub sources: Vec<SourceStatus>,
    pub requests: u64,
    pub rejected_rows: u64,
    pub refused: BTreeMap<&'static str, u64>,
    pub dropped: Vec<DroppedRows>,
    pub quarantined: u64,
    pub damaged: u64,
    pub disk_full: bool,
    pub journal: JournalStatus,
    pub spool: SpoolStatus,
    pub sealed_batches: u64,
    pub link: Option<LinkStatus>,
    pub plugins: Vec<PluginStats>,
    pub chain: ChainStatus,
    pub recovered: Recovered,
}

/// Events that senders were told are safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accepted {
    pub log: u64,
    pub span: u64,
    pub metric: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedRows {
    pub plugin: String,
    pub reason: String,
    pub rows: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JournalStatus {
    pub bytes: u64,
    /// Records that wait to be sealed, and since when the oldest does.
    pub unsealed_records: u64,
    pub unsealed_bytes: u64,
    pub oldest_unsealed_ms: Option<u64>,
}

/// What the start found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Journal records that were not in the spool yet, and their events.
    pub records: u64,
    pub events: u64,
    pub damaged_records: u64,
    pub damaged_events: u64,
    pub damaged_batches: u64,
    pub torn_bytes: u64,
    pub identity_rebuilt: bool,
}

/// Why a running node cannot take over all that a configuration asks for.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Tap(#[from] TokenError),
}

/// Looks at a running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    pub(crate) shared: Arc<StatusShared>,
}

#[derive(Debug)]
pub(crate) struct StatusShared {
    pub(crate) started: Instant,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) plugins: Arc<Keeper>,
    pub(crate) tap: TapDoor,
    pub(crate) link: Option<watch::Receiver<LinkStatus>>,
    /// Makes the link look at its certificates.
    pub(crate) look_again: Option<Arc<Notify>>,
    pub(crate) max_bytes: u64,
    pub(crate) on_full: OnFull,
    pub(crate) data_dir: PathBuf,
    /// Held while it is decided who gets the room that is left.
    pub(crate) deciding: Mutex<()>,
    /// Held while the oldest batches are dropped.
    pub(crate) dropping: Mutex<()>,
    /// What the sources are to be.
    pub(crate) source_settings: watch::Sender<SourceSettings>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) state: RwLock<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) recovered: Recovered,
    pub(crate) journal: Option<Arc<Journal>>,
}

impl StatusHandle {
    pub fn snapshot(&self) -> EdgeStatus {
        let shared = &*self.shared;
        let counters = &*shared.counters;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (recovered, journal_bytes) = {
            let state = shared.state();
            (
                state.recovered.clone(),
                state.journal.as_ref().map_or(0, |j| j.bytes_on_disk()),
            )
        };
        let uptime_ms = shared.started.elapsed().as_millis() as u64;
        let since = load(&counters.unsealed_since_ms);
        let dropped = lock(&counters.dropped)
            .iter()
            .map(|((plugin, reason), rows)| DroppedRows {
                plugin: plugin.clone(),
                reason: reason.clone(),
                rows: *rows,
            })
            .collect();
        let [log, span, metric] = [0, 1, 2].map(|signal: usize| load(&counters.accepted[signal]));
        EdgeStatus {
            version: env!("CARGO_PKG_VERSION"),
            phase: *shared.phase.borrow(),
            tenant: shared.spool.stream().tenant.to_string(),
            node: shared.spool.stream().node.to_string(),
            stream: shared.spool.stream().to_string(),
            epoch: shared.spool.epoch().0.to_string(),
            uptime_ms,
            accepted: Accepted { log, span, metric },
            sources: shared.sources.status(now_ns()),
            requests: load(&counters.requests),
            rejected_rows: load(&counters.rejected_rows),
            refused: lock(&counters.refused).clone(),
            dropped,
            quarantined: load(&counters.quarantined),
            damaged: load(&counters.damaged),
            disk_full: counters.is_full(),
            journal: JournalStatus {
                bytes: journal_bytes,
                unsealed_records: load(&counters.unsealed_records),
                unsealed_bytes: load(&counters.unsealed_bytes),
                oldest_unsealed_ms: (since > 0).then(|| uptime_ms.saturating_sub(since - 1)),
            },
            spool: shared.spool.status(),
            sealed_batches: load(&counters.sealed_batches),
            link: shared.link.as_ref().map(|link| link.borrow().clone()),
            plugins: shared.plugins.chain().stats(),
            chain: shared.plugins.status(),
            recovered,
        }
    }

    /// Whether events are taken: running, with room on the disk.
    pub fn is_ready(&self) -> bool {
        let running = *self.shared.phase.borrow() == Phase::Running;
        running && !self.shared.counters.is_full() && self.shared.has_room(0) && self.shared.disk_has_room(0)
    }

    /// What the node does although someone has to act soon, or it will not do it much longer.
    pub fn degraded(&self) -> Option<String> {
        let link = self.shared.link.as_ref()?.borrow();
        let certificate = link.certificate.as_ref().filter(|certificate| certificate.degraded)?;
        certificate.problem.clone()
    }

    /// Makes the link look at its certificate files at once; every few seconds it does by itself.
    pub fn look_at_certificates(&self) {
        if let Some(look_again) = &self.shared.look_again {
            look_again.notify_one();
        }
    }

    /// Returns when the node serves, or false when it never will.
    pub async fn serving(&self) -> bool {
        let mut phase = self.shared.phase.subscribe();
        match phase.wait_for(|phase| *phase != Phase::Starting).await {
            Ok(phase) => *phase == Phase::Running,
            Err(_) => false,
        }
    }

    /// Takes over from a configuration what needs no restart: whether the tap is open, the plugin chain, and the sources. New versions of
    /// plugins are compiled and started while the old ones run; a chain that cannot be loaded leaves the one from before. Sources change
    /// once the node serves, whole or not at all; the log and `problem` of a source tell if not.
    pub async fn reload(&self, config: &EdgeConfig) -> Result<(), ReloadError> {
        let (shared, entries, open) = (self.shared.clone(), config.plugin.clone(), config.admin.tap);
        self.shared.source_settings.send_if_modified(|settings| {
            let is_other = *settings != config.source;
            settings.clone_from(&config.source);
            is_other
        });
        blocking(move || {
            let tap = shared.tap.set(open, &shared.data_dir);
            if let Err(error) = &tap {
                tracing::error!(%error, "the tap is closed");
            }
            shared.plugins.set(&entries)?;
            tap.map_err(ReloadError::from)
        })
        .await
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
    }
}

impl StatusShared {
    // No code that holds this lock can panic half way through a change.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // No code that holds these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
