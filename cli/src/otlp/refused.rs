//! Who was turned away, and why: counted, and the last of each kind told to whoever watches.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_ingest::tenants::Limit;
use sluice_tenants::KeyRefusal;
use sluice_wire::ids::TenantId;

/// Lines in the log of one kind are no closer than this, however many come.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Lines about who was refused.
const AUDIT: &str = "sluice::otlp::audit";

/// Why a request does not reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    NoKey,
    /// With the id of the key, if there is such a key.
    Key(KeyRefusal, Option<String>),
    Over(Limit),
    NoNode(TenantId),
}

impl Why {
    /// In metrics and in the status.
    fn name(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::Key(refusal, _) => refusal.name(),
            Self::Over(limit) => limit.name(),
            Self::NoNode(_) => "no_node",
        }
    }

    /// Whether somebody should look: a limit is kept by design.
    fn is_alarm(&self) -> bool {
        !matches!(self, Self::Over(_))
    }

    pub(super) fn message(&self) -> String {
        match self {
            Self::NoKey => "exactly one key is wanted, as `authorization: Bearer KEY` or `x-api-key: KEY`".to_owned(),
            Self::Key(refusal, None) => refusal.to_string(),
            Self::Key(refusal, Some(id)) => format!("{refusal} ({id})"),
            Self::Over(limit) => format!("over {}", limit.name()),
            Self::NoNode(tenant) => format!("the chain of tenant {tenant} does not run"),
        }
    }
}

/// All of them since the start.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    count: u64,
    told: Option<Instant>,
    last: String,
    last_unix_s: u64,
    is_alarm: bool,
}

impl Refused {
    pub(super) fn note(&self, why: Why) {
        let message = why.message();
        let mut kinds = self.lock();
        let kind = kinds.entry(why.name()).or_insert(Kind {
            count: 0,
            told: None,
            last: String::new(),
            last_unix_s: 0,
            is_alarm: why.is_alarm(),
        });
        kind.count += 1;
        kind.last_unix_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        if why.is_alarm() && kind.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            kind.told = Some(Instant::now());
            tracing::warn!(target: AUDIT, reason = why.name(), count = kind.count, message, "request refused");
        }
        kind.last = message;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        // Every kind of a key is there from the start, so that an alarm sees it grow.
        let known = KeyRefusal::ALL.map(|refusal| (refusal.name(), 0));
        let counted = self
            .lock()
            .iter()
            .map(|(name, kind)| (*name, kind.count))
            .collect::<Vec<_>>();
        known.into_iter().chain([("no_key", 0)]).chain(counted).collect()
    }

    pub(super) fn alarms(&self) -> Vec<Value> {
        let kinds = self.lock();
        let alarms = kinds.iter().filter(|(_, kind)| kind.is_alarm);
        alarms
            .map(|(name, kind)| {
                json!({ "reason": name, "count": kind.count, "last": kind.last, "last_unix_s": kind.last_unix_s })
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Kind>> {
        // Each change is complete before anything can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
