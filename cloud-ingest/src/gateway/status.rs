//! What the gateway says of itself: totals since its start, and levels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::tenants::{Quotas, TenantStatus};

/// A reading of the gateway's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayStatus {
    pub sessions: u64,
    pub sessions_opened: u64,
    pub handshakes_failed: u64,
    /// Connections and sessions that were refused, by what was wrong.
    pub refused_overload: u64,
    pub refused_identity: u64,
    pub refused_revoked: u64,
    pub refused_protocol: u64,
    /// Batches inside a session that say they are of another stream: of another tenant or node.
    pub refused_foreign: u64,
    pub batches_in_flight: u64,
    pub batches_received: u64,
    pub bytes_received: u64,
    pub batches_acknowledged: u64,
    pub rows_acknowledged: u64,
    pub retries_asked: u64,
    pub holds_asked: u64,
    /// Batches held back because their edge used up its share of the state that recognises duplicates.
    pub quota_holds: u64,
    /// Batches of the backlog that were told to wait because the log is behind.
    pub backlog_rests: u64,
    pub batches_invalid: u64,
    pub append_failures: u64,
    pub revoked_serials: u64,
    /// Changed certificates or deny lists that could not be used; the last good ones stayed.
    pub reload_failures: u64,
    /// Sessions that were ended because their certificate was revoked, or is not valid any more.
    pub cut_revoked: u64,
    pub cut_expired: u64,
    /// Certificates that edges got, and requests that came to nothing.
    pub renewals: u64,
    pub renewal_failures: u64,
    /// Sessions that may do nothing but renew.
    pub sessions_renewal_only: u64,
    /// When the gateway's own certificate expires.
    pub certificate_expires_unix_s: u64,
    /// Tenants of the folder that are served; 0 without a folder.
    pub tenants_served: u64,
    /// Sessions that were refused or ended because their tenant is suspended, or is not one of ours.
    pub refused_tenant: u64,
    pub cut_tenant: u64,
    /// Changed files that are not used, and why.
    pub problems: Vec<String>,
    /// What each tenant used here, and how often it was told to wait.
    pub tenants: BTreeMap<String, TenantStatus>,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
            problems: Mutex<BTreeMap<&'static str, String>>,
        }

        impl Counters {
            fn read(&self) -> GatewayStatus {
                let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
                GatewayStatus {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    problems: problems.values().cloned().collect(),
                    tenants: BTreeMap::new(),
                }
            }
        }
    };
}
counters!(
    sessions,
    sessions_opened,
    handshakes_failed,
    refused_overload,
    refused_identity,
    refused_revoked,
    refused_protocol,
    refused_foreign,
    batches_in_flight,
    batches_received,
    bytes_received,
    batches_acknowledged,
    rows_acknowledged,
    retries_asked,
    holds_asked,
    quota_holds,
    backlog_rests,
    batches_invalid,
    append_failures,
    revoked_serials,
    reload_failures,
    cut_revoked,
    cut_expired,
    renewals,
    renewal_failures,
    sessions_renewal_only,
    certificate_expires_unix_s,
    tenants_served,
    refused_tenant,
    cut_tenant,
);

impl Counters {
    /// What is wrong with some of the files; `None` if nothing is.
    pub(super) fn set_problem(&self, which: &'static str, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(which, problem),
            None => problems.remove(which),
        };
    }
}

/// Reads the gateway's counters at any time, also after it ended.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle {
    pub(super) counters: Arc<Counters>,
    pub(super) quotas: Option<Arc<Quotas>>,
}

impl StatusHandle {
    pub fn snapshot(&self) -> GatewayStatus {
        let tenants = self.quotas.as_ref().map(|quotas| quotas.status());
        GatewayStatus {
            tenants: tenants.unwrap_or_default(),
            ..self.counters.read()
        }
    }
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Counts one while it lives.
#[derive(Debug)]
pub(super) struct Level(Arc<Counters>, fn(&Counters) -> &AtomicU64);

impl Level {
    pub(super) fn enter(counters: &Arc<Counters>, which: fn(&Counters) -> &AtomicU64) -> Self {
        which(counters).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters), which)
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}
