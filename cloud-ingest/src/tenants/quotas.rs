//! The meter at work: which limits hold now, what time it is, who is told to wait.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_tenants::{Tenancy, Tenant};
use sluice_wire::ids::TenantId;

use super::account::Entry;
use super::day;
use super::meter::{Meter, Moment, Over, TenantStatus};
use crate::gateway::WallClock;

/// Whoever is told to wait asks again after this at the latest: a limit may be raised meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The quotas of all tenants at one door. Shared by its sessions.
#[derive(Debug)]
pub struct Quotas {
    meter: Mutex<Meter>,
    /// Without one, everybody may use everything.
    tenancy: Option<Arc<Tenancy>>,
    clock: WallClock,
    started: Instant,
    day_file: Option<PathBuf>,
}

/// What was taken, until it is kept or comes to nothing.
#[derive(Debug)]
pub struct Charge {
    quotas: Arc<Quotas>,
    who: TenantId,
    entry: Entry,
    bytes: u64,
    events: u64,
    fate: Fate,
}

/// What became of what was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    CameToNothing,
    Kept,
    Refused { comes_again: bool },
}

impl Quotas {
    /// `gateways` share each limit. The bytes of the day are read from `day_file`, if there is one. Blocks for a moment.
    pub fn new(tenancy: Option<Arc<Tenancy>>, gateways: u32, clock: WallClock, day_file: Option<PathBuf>) -> Self {
        let quotas = Self {
            meter: Mutex::new(Meter::new(gateways)),
            tenancy,
            clock,
            started: Instant::now(),
            day_file,
        };
        if let Some(path) = &quotas.day_file {
            let now = quotas.now();
            quotas.lock().resume(day::load(path), now);
        }
        quotas
    }

    /// So many bytes of a tenant want to come.
    pub fn ask(self: &Arc<Self>, who: &TenantId, bytes: u64) -> Result<Charge, Over> {
        let (limits, now) = (self.limits(who), self.now());
        let entry = self.lock().ask(who, &limits, bytes, now).map_err(capped)?;
        Ok(Charge {
            quotas: Arc::clone(self),
            who: who.clone(),
            entry,
            bytes,
            events: 0,
            fate: Fate::CameToNothing,
        })
    }

    pub(crate) fn held_for_memory(&self, who: &TenantId) {
        self.lock().held_for_memory(who);
    }

    pub fn status(&self) -> BTreeMap<String, TenantStatus> {
        self.lock().status(self.now())
    }

    /// Writes down the bytes of the day. Blocks.
    pub fn save(&self) {
        let Some(path) = &self.day_file else {
            return;
        };
        let today = self.lock().today(self.now());
        if let Err(error) = day::save(path, today) {
            tracing::warn!(path = %path.display(), %error, "the bytes of this day cannot be saved, a restart forgets them");
        }
    }

    fn limits(&self, who: &TenantId) -> Tenant {
        let of = |tenancy: &Arc<Tenancy>| tenancy.current().tenants.get(who).cloned();
        self.tenancy.as_ref().and_then(of).unwrap_or_default()
    }

    fn now(&self) -> Moment {
        Moment {
            since: self.started.elapsed(),
            unix_s: self.clock.current_time().map_or(0, |now| now.as_secs()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Meter> {
        // Each change is complete before anything can fail.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// So many events came to light. Over the limit, what was charged is given back when this is dropped.
    pub fn events(&mut self, events: u64) -> Result<(), Over> {
        let (limits, now) = (self.quotas.limits(&self.who), self.quotas.now());
        let charged = self.quotas.lock().events(&self.who, &limits, events, now);
        charged.map_err(capped)?;
        self.events += events;
        Ok(())
    }

    /// The same for events that were taken already.
    pub fn took(&mut self, events: u64) {
        let (limits, now) = (self.quotas.limits(&self.who), self.quotas.now());
        self.quotas.lock().took(&self.who, &limits, events, now);
        self.events += events;
    }

    /// So many bytes of it have come by now: more than was asked for, perhaps. Over the limit, the rest must not come.
    pub fn come(&mut self, bytes: u64) -> Result<(), Over> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let (limits, now) = (self.quotas.limits(&self.who), self.quotas.now());
        let taken = self.quotas.lock().more(&self.who, &limits, (self.entry, more), now);
        taken.map_err(capped)?;
        self.bytes = bytes;
        Ok(())
    }

    /// They turned out to be so many bytes.
    pub fn bytes(&mut self, bytes: u64) {
        let (limits, now) = (self.quotas.limits(&self.who), self.quotas.now());
        let (was, mut meter) = (self.bytes, self.quotas.lock());
        meter.settle(&self.who, &limits, self.entry, (was, bytes), now);
        drop(meter);
        self.bytes = bytes;
    }

    /// It was used for good.
    pub fn keep(&mut self) {
        self.fate = Fate::Kept;
    }

    /// It was looked at, which is work, and is not taken. `comes_again`: nothing is wrong with it, its sender is told to wait.
    pub fn refused(&mut self, comes_again: bool) {
        self.fate = Fate::Refused { comes_again };
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut meter = self.quotas.lock();
        meter.ended(&self.who, self.entry);
        match self.fate {
            Fate::CameToNothing => meter.give_back(&self.who, self.entry, self.bytes, self.events),
            Fate::Kept => {}
            Fate::Refused { comes_again } => {
                meter.refused(&self.who, self.entry, (self.bytes, self.events), comes_again);
            }
        }
    }
}

fn capped(mut over: Over) -> Over {
    over.wait = over.wait.min(MAX_WAIT);
    over
}
