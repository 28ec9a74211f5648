//! The instances of one plugin. Each belongs to the tenant whose batch it was first given, and is never given another's.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::fault::Fault;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::lock;

/// Share of its memory that an instance may fill before it is replaced: a guest that leaks is recycled before it fails.
const HIGH_WATER_PERCENT: usize = 75;

#[derive(Debug)]
pub(crate) struct Pool {
    instances: Mutex<Instances>,
    returned: Condvar,
    max_alive: usize,
    max_idle: usize,
    recycle_after: u32,
    high_water_bytes: usize,
}

#[derive(Debug, Default)]
struct Instances {
    /// Those used last at the end.
    idle: Vec<Owned>,
    /// Instances that exist, idle ones included.
    alive: usize,
}

/// An instance and whose it is; nobody's as long as it has not seen a batch.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) instance: Instance,
    tenant: Option<String>,
}

impl Pool {
    /// With one instance, which has not seen a batch.
    pub(crate) fn new(limits: &Limits, first: Instance) -> Pool {
        let first = Owned {
            instance: first,
            tenant: None,
        };
        Pool {
            instances: Mutex::new(Instances {
                idle: vec![first],
                alive: 1,
            }),
            returned: Condvar::new(),
            max_alive: limits.max_instances,
            max_idle: limits.idle_instances,
            recycle_after: limits.recycle_after,
            high_water_bytes: limits.memory_bytes / 100 * HIGH_WATER_PERCENT,
        }
    }

    /// An idle instance of this tenant, or what `make` makes; waits while too many are at work.
    pub(crate) fn acquire(
        &self,
        tenant: &str,
        fresh: bool,
        make: impl FnOnce() -> Result<Instance, Fault>,
    ) -> Result<Owned, Fault> {
        let mut instances = lock(&self.instances);
        loop {
            if !fresh && let Some(mut owned) = instances.take(tenant) {
                owned.tenant = Some(tenant.to_owned());
                return Ok(owned);
            }
            if instances.alive < self.max_alive {
                instances.alive += 1;
                break;
            }
            // An idle one of somebody else, or one that is not wanted, gives up its place.
            if !instances.idle.is_empty() {
                drop(instances.idle.remove(0));
                break;
            }
            instances = self.returned.wait(instances).unwrap_or_else(PoisonError::into_inner);
        }
        drop(instances);
        let place = Place(self);
        let instance = make()?;
        std::mem::forget(place);
        Ok(Owned {
            instance,
            tenant: Some(tenant.to_owned()),
        })
    }

    /// Back to the idle ones, or away with it if it is worn.
    pub(crate) fn release(&self, owned: Owned) {
        let instance = &owned.instance;
        let worn = instance.calls() >= self.recycle_after || instance.memory_bytes() > self.high_water_bytes;
        if worn || self.max_idle == 0 {
            return self.discard(owned);
        }
        let mut instances = lock(&self.instances);
        let given_up = (instances.idle.len() >= self.max_idle).then(|| instances.idle.remove(0));
        instances.idle.push(owned);
        drop(instances);
        match given_up {
            Some(old) => self.discard(old),
            None => self.returned.notify_one(),
        }
    }

    pub(crate) fn discard(&self, owned: Owned) {
        drop(owned);
        drop(Place(self));
    }
}

impl Instances {
    /// The instance of this tenant that was used last, or one that is still nobody's.
    fn take(&mut self, tenant: &str) -> Option<Owned> {
        let of = |owner: Option<&str>| self.idle.iter().rposition(|idle| idle.tenant.as_deref() == owner);
        let place = of(Some(tenant)).or_else(|| of(None))?;
        Some(self.idle.remove(place))
    }
}

/// A place among the instances; given back when dropped.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut instances = lock(&self.0.instances);
        instances.alive = instances.alive.saturating_sub(1);
        drop(instances);
        self.0.returned.notify_one();
    }
}
