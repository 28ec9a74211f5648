//! The instances of one plugin. Each belongs to the tenant whose batch it was first given, and is never given another's.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::fault::Fault;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::lock;

/// What a pool looks at to tell whether an instance is worn.
pub(crate) trait Wear {
    /// Batches that it served.
    fn calls(&self) -> u32;
    fn memory_bytes(&self) -> usize;
}

/// Share of its memory that an instance may fill before it is replaced: a guest that leaks is recycled before it fails.
const HIGH_WATER_PERCENT: usize = 75;

#[derive(Debug)]
pub(crate) struct Pool<I = Instance> {
    instances: Mutex<Instances<I>>,
    returned: Condvar,
    max_alive: usize,
    max_idle: usize,
    recycle_after: u32,
    high_water_bytes: usize,
}

#[derive(Debug)]
struct Instances<I> {
    /// Those used last at the end.
    idle: Vec<Owned<I>>,
    /// Instances that exist, idle ones included.
    alive: usize,
}

/// An instance and whose it is; nobody's as long as it has not seen a batch.
#[derive(Debug)]
struct Owned<I> {
    instance: I,
    tenant: Option<String>,
}

/// An instance at work. Dropped, it is thrown away and its place is free, also where a panic drops it; [`Lease::release`] keeps it.
#[derive(Debug)]
pub(crate) struct Lease<'a, I = Instance> {
    pub(crate) instance: I,
    tenant: String,
    place: Place<'a, I>,
}

impl<I: Wear> Pool<I> {
    /// With one instance, which has not seen a batch.
    pub(crate) fn new(limits: &Limits, first: I) -> Pool<I> {
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
        make: impl FnOnce() -> Result<I, Fault>,
    ) -> Result<Lease<'_, I>, Fault> {
        let tenant = tenant.to_owned();
        let mut instances = lock(&self.instances);
        loop {
            if !fresh && let Some(owned) = instances.take(&tenant) {
                return Ok(Lease {
                    instance: owned.instance,
                    tenant,
                    place: Place(self),
                });
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
        Ok(Lease {
            instance,
            tenant,
            place,
        })
    }
}

impl<I: Wear> Lease<'_, I> {
    /// Back to the idle ones, or away with it if it is worn.
    pub(crate) fn release(self) {
        let pool = self.place.0;
        let worn = self.instance.calls() >= pool.recycle_after || self.instance.memory_bytes() > pool.high_water_bytes;
        if worn || pool.max_idle == 0 {
            return;
        }
        let Lease {
            instance,
            tenant,
            place,
        } = self;
        let tenant = Some(tenant);
        let mut instances = lock(&pool.instances);
        let given_up = (instances.idle.len() >= pool.max_idle).then(|| instances.idle.remove(0));
        instances.idle.push(Owned { instance, tenant });
        drop(instances);
        if given_up.is_none() {
            // It is idle and keeps its place.
            std::mem::forget(place);
            pool.returned.notify_one();
        }
    }
}

impl<I> Instances<I> {
    /// The instance of this tenant that was used last, or one that is still nobody's.
    fn take(&mut self, tenant: &str) -> Option<Owned<I>> {
        let of = |owner: Option<&str>| self.idle.iter().rposition(|idle| idle.tenant.as_deref() == owner);
        let place = of(Some(tenant)).or_else(|| of(None))?;
        Some(self.idle.remove(place))
    }
}

/// A place among the instances; given back when dropped.
#[derive(Debug)]
struct Place<'a, I>(&'a Pool<I>);

impl<I> Drop for Place<'_, I> {
    fn drop(&mut self) {
        let mut instances = lock(&self.0.instances);
        instances.alive = instances.alive.saturating_sub(1);
        drop(instances);
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Debug)]
    struct Fake {
        calls: u32,
    }

    impl Wear for Fake {
        fn calls(&self) -> u32 {
            self.calls
        }

        fn memory_bytes(&self) -> usize {
            0
        }
    }

    fn pool(max_instances: usize, idle_instances: usize) -> Pool<Fake> {
        let limits = Limits {
            max_instances,
            idle_instances,
            recycle_after: 10,
            ..Limits::default()
        };
        Pool::new(&limits, Fake { calls: 0 })
    }

    fn figures(pool: &Pool<Fake>) -> (usize, usize) {
        let instances = lock(&pool.instances);
        (instances.alive, instances.idle.len())
    }

    fn fresh() -> Result<Fake, Fault> {
        Ok(Fake { calls: 0 })
    }

    #[test]
    fn p10_a_panic_while_an_instance_is_at_work_gives_its_place_back() {
        let pool = pool(1, 1);
        for _ in 0..3 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let lease = pool.acquire("acme", false, fresh).unwrap();
                assert_eq!(figures(&pool), (1, 0));
                assert!(lease.instance.calls > 0, "the code that works with it breaks");
            }));
            assert!(panicked.is_err());
            assert_eq!(figures(&pool), (0, 0), "the instance is gone, and its place is free");
        }
        pool.acquire("acme", false, fresh).unwrap().release();
        assert_eq!(figures(&pool), (1, 1));
        let failed = pool.acquire("acme", true, || Err(Fault::Start("no".to_owned())));
        assert!(failed.is_err() && figures(&pool) == (0, 0));
    }

    #[test]
    fn an_instance_comes_back_until_it_is_worn_or_there_are_enough() {
        let pool = pool(3, 1);
        let mut first = pool.acquire("acme", false, fresh).unwrap();
        let second = pool.acquire("acme", false, fresh).unwrap();
        first.instance.calls = 9;
        first.release();
        assert_eq!(figures(&pool), (2, 1));
        second.release();
        assert_eq!(figures(&pool), (1, 1), "of two idle ones the older is given up");
        let mut worn = pool.acquire("acme", false, fresh).unwrap();
        worn.instance.calls = 10;
        worn.release();
        assert_eq!(figures(&pool), (0, 0));
    }
}
