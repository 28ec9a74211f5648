//! How many queries run: all together, and of one tenant, so that one busy tenant leaves room for the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_wire::ids::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;
use crate::error::{Kind, QueryError};

/// Waiting queries per running one; beyond it a query is told at once to come back.
const WAITING_PER_PLACE: usize = 16;

#[derive(Debug)]
pub(crate) struct Admission {
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
    per_tenant: usize,
    places: usize,
    waiting: Arc<AtomicUsize>,
    wait: Duration,
}

/// A place among the running queries, held until the work has really ended.
#[derive(Debug)]
pub(crate) struct Place {
    _tenant: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(crate) fn new(limits: &LimitsConfig) -> Admission {
        Admission {
            all: Arc::new(Semaphore::new(limits.concurrency)),
            tenants: Mutex::new(HashMap::new()),
            per_tenant: limits.tenant_concurrency.min(limits.concurrency),
            places: limits.concurrency,
            waiting: Arc::new(AtomicUsize::new(0)),
            wait: limits.queue_wait,
        }
    }

    /// Waits for a place, the tenant's own first: a tenant that waits for itself takes no place from others.
    pub(crate) async fn admit(&self, tenant: &TenantId) -> Result<Place, QueryError> {
        let queue = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(Arc::clone(&self.waiting));
        if queue >= self.places * WAITING_PER_PLACE {
            return Err(self.busy());
        }
        let of_tenant = self.of(tenant);
        let all = Arc::clone(&self.all);
        let both = async {
            let tenant = of_tenant.acquire_owned().await.ok()?;
            let all = all.acquire_owned().await.ok()?;
            Some(Place {
                _tenant: tenant,
                _all: all,
            })
        };
        match tokio::time::timeout(self.wait, both).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) | Err(_) => Err(self.busy()),
        }
    }

    pub(crate) fn running(&self) -> usize {
        self.places - self.all.available_permits()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Tenants come from the token file, so this map is as bounded as that file.
    fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            tenants
                .entry(tenant.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(self.per_tenant))),
        )
    }

    fn busy(&self) -> QueryError {
        QueryError::new(
            Kind::Busy,
            "as many queries as `limits.concurrency` or `limits.tenant_concurrency` allows are running",
        )
        .retry_after(self.wait.max(Duration::from_secs(1)))
    }
}
