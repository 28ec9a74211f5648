//! What happened to the places of a chain, for whoever watches it: a bounded list with running numbers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lock;

/// Events that are remembered; reports carry all of them.
const MAX_EVENTS: usize = 32;

/// One change of a place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChainEvent {
    /// Counts from 1.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub what: What,
    pub plugin: String,
    pub version: String,
    /// The version that was replaced, or that serves again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Added,
    Removed,
    /// A new version is in service; where the one before it can, that one stands by.
    Replaced,
    /// The new version has served long enough to stay.
    Proven,
    /// The new version failed and the one before it serves again.
    RolledBack,
    Enabled,
    Disabled,
    /// Somebody took back that it may run; `fault` says why.
    Blocked,
    Unblocked,
}

impl ChainEvent {
    pub(crate) fn new(what: What, plugin: &str, version: &str) -> ChainEvent {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ChainEvent {
            number: 0,
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            what,
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            other: None,
            fault: None,
        }
    }
}

/// The events of one chain.
#[derive(Default)]
pub(crate) struct Events {
    list: Mutex<(u64, VecDeque<ChainEvent>)>,
    watcher: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Events {
    pub(crate) fn push(&self, mut event: ChainEvent) {
        let mut list = lock(&self.list);
        list.0 += 1;
        event.number = list.0;
        if list.1.len() == MAX_EVENTS {
            list.1.pop_front();
        }
        list.1.push_back(event);
        drop(list);
        if let Some(watcher) = self.watcher.get() {
            watcher();
        }
    }

    /// Those with a larger number, the oldest first.
    pub(crate) fn after(&self, number: u64) -> Vec<ChainEvent> {
        let list = lock(&self.list);
        list.1.iter().filter(|event| event.number > number).cloned().collect()
    }

    /// Called after every event. Must not block; only the first watcher counts.
    pub(crate) fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.watcher.set(Box::new(watcher));
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("list", &self.list)
            .finish_non_exhaustive()
    }
}
