//! What each source says of itself: what it accepted, what it turned away and why, how far it has read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// One source at work.
#[derive(Debug)]
pub(crate) struct SourceStats {
    name: String,
    kind: &'static str,
    accepted: AtomicU64,
    last_ns: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    gauges: Mutex<BTreeMap<&'static str, u64>>,
    counters: Mutex<BTreeMap<&'static str, u64>>,
    addresses: Mutex<BTreeMap<&'static str, String>>,
    problem: Mutex<Option<String>>,
}

/// One look at a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    pub name: String,
    pub kind: &'static str,
    /// Events that are safe.
    pub accepted: u64,
    /// What was turned away, by reason: requests at the doors of OTLP and JSON lines, messages, lines or scrapes elsewhere.
    pub refused: BTreeMap<&'static str, u64>,
    /// Milliseconds since the last event was accepted.
    pub quiet_ms: Option<u64>,
    /// Where it listens, by protocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<&'static str, String>,
    /// What is peculiar to its kind, such as `files` and `unread_bytes`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<&'static str, u64>,
    /// The same for what only grows, such as `waits` and `cut_events`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<&'static str, u64>,
    /// What an operator should look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl SourceStats {
    pub(crate) fn new(name: &str, kind: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            kind,
            accepted: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            refused: Mutex::default(),
            gauges: Mutex::default(),
            counters: Mutex::default(),
            addresses: Mutex::default(),
            problem: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn accepted(&self, events: u64, now_ns: u64) {
        self.accepted.fetch_add(events, Ordering::Relaxed);
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, reason: &'static str, many: u64) {
        if many > 0 {
            *lock(&self.refused).entry(reason).or_default() += many;
        }
    }

    pub(crate) fn gauge(&self, name: &'static str, value: u64) {
        lock(&self.gauges).insert(name, value);
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, name: &'static str, more: u64) {
        if more > 0 {
            *lock(&self.counters).entry(name).or_default() += more;
        }
    }

    pub(crate) fn listens(&self, protocol: &'static str, address: String) {
        lock(&self.addresses).insert(protocol, address);
    }

    pub(crate) fn addresses(&self) -> BTreeMap<&'static str, String> {
        lock(&self.addresses).clone()
    }

    /// Tells it once in the log, and in the status for as long as it lasts.
    pub(crate) fn problem(&self, what: Option<String>) {
        let mut problem = lock(&self.problem);
        if *problem == what {
            return;
        }
        match &what {
            Some(what) => tracing::warn!(source = self.name, problem = what, "source has a problem"),
            None => tracing::info!(source = self.name, "source is well again"),
        }
        *problem = what;
    }

    pub(crate) fn status(&self, now_ns: u64) -> SourceStatus {
        let last = self.last_ns.load(Ordering::Relaxed);
        SourceStatus {
            name: self.name.clone(),
            kind: self.kind,
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: lock(&self.refused).clone(),
            quiet_ms: (last > 0).then(|| now_ns.saturating_sub(last) / 1_000_000),
            addresses: self.addresses(),
            gauges: lock(&self.gauges).clone(),
            counters: lock(&self.counters).clone(),
            problem: lock(&self.problem).clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds these locks can panic half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All sources of a node.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) otlp_grpc: Arc<SourceStats>,
    pub(crate) otlp_http: Arc<SourceStats>,
    pub(crate) json_lines: Arc<SourceStats>,
    /// Those of the configuration, in its order.
    configured: Mutex<Vec<Arc<SourceStats>>>,
}

impl Sources {
    pub(crate) fn new(configured: Vec<Arc<SourceStats>>) -> Self {
        let door = |name| SourceStats::new(name, name);
        Self {
            otlp_grpc: door("otlp-grpc"),
            otlp_http: door("otlp-http"),
            json_lines: door("json-lines"),
            configured: Mutex::new(configured),
        }
    }

    /// Takes over those of another configuration.
    pub(crate) fn configure(&self, configured: Vec<Arc<SourceStats>>) {
        *lock(&self.configured) = configured;
    }

    pub(crate) fn status(&self, now_ns: u64) -> Vec<SourceStatus> {
        let configured = lock(&self.configured).clone();
        [&self.otlp_grpc, &self.otlp_http, &self.json_lines]
            .into_iter()
            .chain(&configured)
            .map(|source| source.status(now_ns))
            .collect()
    }
}
