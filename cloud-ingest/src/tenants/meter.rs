//! What every tenant took, against what it may. Time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sluice_tenants::Tenant;
use sluice_wire::ids::TenantId;

use super::account::{Account, Entry};

pub(super) const DAY_S: u64 = 86_400;

/// Now, by the two clocks that matter: a monotonic one for rates, and the time of day for the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) since: Duration,
    pub(super) unix_s: u64,
}

impl Moment {
    pub(super) fn day(self) -> u64 {
        self.unix_s / DAY_S
    }
}

/// Which limit holds a tenant back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    Events,
    Bytes,
    Day,
}

impl Limit {
    /// As it stands in the file of tenants, which is where it can be raised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events_per_second",
            Self::Bytes => "bytes_per_second",
            Self::Day => "bytes_per_day",
        }
    }
}

/// Nothing is taken of the tenant for now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tenant {tenant} is over its {}; nothing is lost, it is taken later", limit.name())]
pub struct Over {
    pub tenant: TenantId,
    pub limit: Limit,
    /// After this there is something left again.
    pub wait: Duration,
}

/// What one tenant used, since the start of this process where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantStatus {
    /// Batches, or requests at the OTLP door, with what they held.
    pub taken: u64,
    pub events: u64,
    pub bytes: u64,
    /// Of this day, UTC; kept over restarts.
    pub bytes_today: u64,
    /// Those that were told to wait, by what they were over.
    pub held_events_per_second: u64,
    pub held_bytes_per_second: u64,
    pub held_bytes_per_day: u64,
    /// Those that were told to wait because others have a right to the memory.
    pub held_memory: u64,
    /// Those that were looked at and are not taken, and their bytes, which were worth the work: they count for the rate.
    pub refused: u64,
    pub refused_bytes: u64,
}

/// All tenants that were ever heard of: as many as somebody certified or listed.
#[derive(Debug)]
pub(super) struct Meter {
    /// Limits are divided by this.
    gateways: u64,
    accounts: BTreeMap<TenantId, Account>,
    next_entry: u64,
}

impl Meter {
    pub(super) fn new(gateways: u32) -> Self {
        Self {
            gateways: u64::from(gateways.max(1)),
            accounts: BTreeMap::new(),
            next_entry: 0,
        }
    }

    /// So many bytes want to come. They are taken, or not, before anybody knows how many events they hold.
    pub(super) fn ask(&mut self, who: &TenantId, limits: &Tenant, bytes: u64, now: Moment) -> Result<Entry, Over> {
        let per_day = self.share(limits.bytes_per_day);
        let number = self.next_entry;
        let account = self.account(who, limits, now);
        if let Some((limit, wait)) = account.over(per_day, now) {
            return Err(account.hold(who, limit, wait));
        }
        account.take_bytes(bytes, now);
        account.status.taken += 1;
        let day = account.day;
        self.next_entry += 1;
        Ok(Entry { number, day })
    }

    /// So many bytes more have come of what was asked for: nobody knew how many there would be. Over the limit one goes on, as one whose
    /// size is known may be larger than what is left; the others have to wait.
    pub(super) fn more(
        &mut self,
        who: &TenantId,
        limits: &Tenant,
        (entry, bytes): (Entry, u64),
        now: Moment,
    ) -> Result<(), Over> {
        let per_day = self.share(limits.bytes_per_day);
        let account = self.account(who, limits, now);
        if let Some((limit, wait)) = account.over(per_day, now) {
            if account.debtor.is_some_and(|debtor| debtor != entry.number) {
                return Err(account.hold(who, limit, wait));
            }
            account.debtor = Some(entry.number);
        }
        account.take_bytes(bytes, now);
        Ok(())
    }

    /// Nothing more comes of it.
    pub(super) fn ended(&mut self, who: &TenantId, entry: Entry) {
        if let Some(account) = self.accounts.get_mut(who) {
            account.debtor = account.debtor.filter(|debtor| *debtor != entry.number);
        }
    }

    /// The bytes turned out to hold so many events. Of several that were let in together, some may still have to wait.
    pub(super) fn events(&mut self, who: &TenantId, limits: &Tenant, events: u64, now: Moment) -> Result<(), Over> {
        let account = self.account(who, limits, now);
        let wait = account.events.wait(now.since);
        if events > 0 && wait > Duration::ZERO {
            return Err(account.hold(who, Limit::Events, wait));
        }
        account.owe(events, now);
        Ok(())
    }

    /// The same for events that are taken already.
    pub(super) fn took(&mut self, who: &TenantId, limits: &Tenant, events: u64, now: Moment) {
        self.account(who, limits, now).owe(events, now);
    }

    /// What was taken as so many bytes is another number of them.
    pub(super) fn settle(&mut self, who: &TenantId, limits: &Tenant, entry: Entry, (was, is): (u64, u64), now: Moment) {
        let account = self.account(who, limits, now);
        account.bytes.give_back(was);
        account.bytes.take(is, now.since);
        account.uncount(entry, was.saturating_sub(is));
        let status = &mut account.status;
        status.bytes_today = status.bytes_today.saturating_add(is.saturating_sub(was));
        status.bytes = status.bytes.saturating_sub(was).saturating_add(is);
    }

    /// What was taken came to nothing.
    pub(super) fn give_back(&mut self, who: &TenantId, entry: Entry, bytes: u64, events: u64) {
        if let Some(account) = self.accounts.get_mut(who) {
            account.bytes.give_back(bytes);
            account.events.give_back(events);
            account.uncount(entry, bytes);
            account.not_taken(bytes, events);
        }
    }

    /// What was taken was looked at, and is refused: the work was done. What is good and comes again does not count for its day twice.
    pub(super) fn refused(&mut self, who: &TenantId, entry: Entry, (bytes, events): (u64, u64), comes_again: bool) {
        if let Some(account) = self.accounts.get_mut(who) {
            account.events.give_back(events);
            if comes_again {
                account.uncount(entry, bytes);
            }
            account.not_taken(bytes, events);
            account.status.refused += 1;
            account.status.refused_bytes = account.status.refused_bytes.saturating_add(bytes);
        }
    }

    pub(super) fn held_for_memory(&mut self, who: &TenantId) {
        self.accounts.entry(who.clone()).or_default().status.held_memory += 1;
    }

    pub(super) fn status(&self, now: Moment) -> BTreeMap<String, TenantStatus> {
        let of = |(who, account): (&TenantId, &Account)| {
            let mut status = account.status.clone();
            if account.day < now.day() {
                status.bytes_today = 0;
            }
            (who.to_string(), status)
        };
        self.accounts.iter().map(of).collect()
    }

    /// The day, and the bytes of it by tenant.
    pub(super) fn today(&self, now: Moment) -> (u64, BTreeMap<TenantId, u64>) {
        let of_today = |(who, account): (&TenantId, &Account)| {
            (account.day >= now.day() && account.status.bytes_today > 0)
                .then(|| (who.clone(), account.status.bytes_today))
        };
        (now.day(), self.accounts.iter().filter_map(of_today).collect())
    }

    /// What an earlier life had counted.
    pub(super) fn resume(&mut self, (day, bytes): (u64, BTreeMap<TenantId, u64>), now: Moment) {
        if day == now.day() {
            for (who, bytes) in bytes {
                let account = self.accounts.entry(who).or_default();
                account.day = day;
                account.status.bytes_today = bytes;
            }
        }
    }

    fn share(&self, limit: u64) -> u64 {
        limit.div_ceil(self.gateways)
    }

    fn account(&mut self, who: &TenantId, limits: &Tenant, now: Moment) -> &mut Account {
        let (events, bytes) = (
            self.share(limits.events_per_second),
            self.share(limits.bytes_per_second),
        );
        if !self.accounts.contains_key(who) {
            self.accounts.insert(who.clone(), Account::default());
        }
        let account = self.accounts.entry(who.clone()).or_default();
        account.events.set(events, limits.burst, now.since);
        account.bytes.set(bytes, limits.burst, now.since);
        // A clock that is set back does not give a day twice.
        if account.day < now.day() {
            account.day = now.day();
            account.status.bytes_today = 0;
        }
        account
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn acme() -> TenantId {
        TenantId::new("acme").unwrap()
    }

    fn at(since_s: u64) -> Moment {
        Moment {
            since: Duration::from_secs(since_s),
            // Ten seconds before midnight.
            unix_s: 20 * DAY_S - 10 + since_s,
        }
    }

    #[test]
    fn each_limit_holds_by_itself_and_says_how_long() {
        let limits = Tenant {
            events_per_second: 10,
            bytes_per_second: 1_000,
            bytes_per_day: 5_000,
            burst: Duration::from_secs(1),
            ..Tenant::default()
        };
        let mut meter = Meter::new(1);
        let ask = |meter: &mut Meter, bytes, s| {
            let asked = meter.ask(&acme(), &limits, bytes, at(s)).map(drop);
            asked.map_err(|over| (over.limit, over.wait.as_secs_f64().ceil() as u64))
        };
        // One that is larger than the burst is taken, and waited for.
        assert_eq!(ask(&mut meter, 3_000, 0), Ok(()));
        assert_eq!(ask(&mut meter, 1, 0), Err((Limit::Bytes, 3)));
        assert_eq!(ask(&mut meter, 1, 3), Ok(()));
        meter.events(&acme(), &limits, 40, at(3)).unwrap();
        assert_eq!(ask(&mut meter, 1, 4), Err((Limit::Events, 3)));
        // Its events come to light after it was let in together with others.
        assert!(meter.events(&acme(), &limits, 5, at(4)).is_err());
        meter.events(&acme(), &limits, 0, at(4)).unwrap();
        let none = Entry { number: 0, day: 0 };
        meter.give_back(&acme(), none, 0, 40);
        assert_eq!(ask(&mut meter, 1_999, 4), Ok(()));
        // The day is over at ten.
        assert_eq!(ask(&mut meter, 1, 7), Err((Limit::Day, 3)));
        assert_eq!(ask(&mut meter, 1, 10), Ok(()));
        let status = &meter.status(at(10))["acme"];
        assert_eq!((status.bytes_today, status.bytes), (1, 5_001));
        assert_eq!(
            (
                status.held_events_per_second,
                status.held_bytes_per_second,
                status.held_bytes_per_day
            ),
            (2, 1, 1)
        );
    }

    #[test]
    fn gateways_share_a_limit_and_a_day_goes_on_after_a_restart() {
        let limits = Tenant {
            bytes_per_day: 10_000,
            ..Tenant::default()
        };
        let mut meter = Meter::new(4);
        meter.ask(&acme(), &limits, 2_400, at(0)).unwrap();
        let saved = meter.today(at(1));
        let mut next = Meter::new(4);
        next.resume(saved.clone(), at(2));
        next.ask(&acme(), &limits, 200, at(2)).unwrap();
        assert_eq!(next.ask(&acme(), &limits, 1, at(3)).unwrap_err().limit, Limit::Day);
        // Of yesterday nothing is left; a clock that goes back gives nothing back.
        let mut tomorrow = Meter::new(4);
        tomorrow.resume(saved, at(10));
        tomorrow.ask(&acme(), &limits, 2_500, at(10)).unwrap();
        assert!(tomorrow.ask(&acme(), &limits, 1, at(9)).is_err());
    }

    #[test]
    fn without_limits_everything_is_taken_and_counted() {
        let mut meter = Meter::new(1);
        for _ in 0..100 {
            meter.ask(&acme(), &Tenant::default(), 1 << 40, at(0)).unwrap();
            meter.events(&acme(), &Tenant::default(), 1 << 40, at(0)).unwrap();
        }
        assert_eq!(meter.status(at(0))["acme"].events, 100 << 40);
    }

    /// P15: what was counted for a day is given back to that day, and not to the one that has begun meanwhile.
    #[test]
    fn p15_a_day_that_is_over_gives_nothing_to_the_next() {
        let limits = Tenant {
            bytes_per_day: 5_000,
            ..Tenant::default()
        };
        let mut meter = Meter::new(1);
        let before = meter.ask(&acme(), &limits, 4_000, at(9)).unwrap();
        let grown = meter.ask(&acme(), &limits, 100, at(9)).unwrap();
        meter.ask(&acme(), &limits, 3_000, at(10)).unwrap();
        meter.give_back(&acme(), before, 4_000, 0);
        // Of what has grown, the rest came today.
        meter.settle(&acme(), &limits, grown, (100, 1_100), at(10));
        assert_eq!(meter.status(at(10))["acme"].bytes_today, 4_000);
        let today = meter.ask(&acme(), &limits, 900, at(10)).unwrap();
        meter.give_back(&acme(), today, 900, 0);
        assert_eq!(meter.status(at(10))["acme"].bytes_today, 4_000);
    }

    /// P15: whoever has batches decoded that are refused pays for the work with its rate; what is good and comes again counts once for its day.
    #[test]
    fn p15_what_was_decoded_and_refused_is_paid_for() {
        let limits = Tenant {
            bytes_per_second: 1_000,
            bytes_per_day: 10_000,
            burst: Duration::from_secs(1),
            ..Tenant::default()
        };
        let mut meter = Meter::new(1);
        let bad = meter.ask(&acme(), &limits, 3_000, at(0)).unwrap();
        meter.refused(&acme(), bad, (3_000, 0), false);
        let over = meter.ask(&acme(), &limits, 1, at(0)).unwrap_err();
        assert_eq!((over.limit, over.wait.as_secs()), (Limit::Bytes, 2));
        let good = meter.ask(&acme(), &limits, 2_000, at(3)).unwrap();
        meter.events(&acme(), &limits, 7, at(3)).unwrap();
        meter.refused(&acme(), good, (2_000, 7), true);
        assert!(meter.ask(&acme(), &limits, 1, at(3)).is_err());
        let status = &meter.status(at(3))["acme"];
        assert_eq!((status.taken, status.bytes, status.events), (0, 0, 0));
        assert_eq!(
            (status.refused, status.refused_bytes, status.bytes_today),
            (2, 5_000, 3_000)
        );
    }

    /// P15: many that come together and do not say how large they are get no more than those that do: the burst, and one more.
    #[test]
    fn p15_a_limit_holds_for_those_who_do_not_say_their_size() {
        const CHUNK: u64 = 16 << 10;
        const SIZE: u64 = 1 << 20;
        let limits = Tenant {
            bytes_per_second: 1 << 20,
            burst: Duration::from_secs(2),
            ..Tenant::default()
        };
        let mut meter = Meter::new(1);
        let mut coming: Vec<(Entry, u64)> = (0..100)
            .map(|_| (meter.ask(&acme(), &limits, 0, at(0)).unwrap(), 0))
            .collect();
        let mut whole = Vec::new();
        while !coming.is_empty() {
            let mut left = Vec::new();
            for (entry, came) in coming {
                match meter.more(&acme(), &limits, (entry, CHUNK), at(0)) {
                    Ok(()) if came + CHUNK == SIZE => {
                        meter.ended(&acme(), entry);
                        whole.push(entry);
                    }
                    Ok(()) => left.push((entry, came + CHUNK)),
                    Err(over) => {
                        assert_eq!(over.limit, Limit::Bytes);
                        meter.ended(&acme(), entry);
                        meter.give_back(&acme(), entry, came, 0);
                    }
                }
            }
            coming = left;
        }
        assert!((1..=3).contains(&whole.len()), "{} of 100 came through", whole.len());
        let status = &meter.status(at(0))["acme"];
        assert_eq!(
            (status.bytes, status.taken),
            (whole.len() as u64 * SIZE, whole.len() as u64)
        );
        // One that is alone comes through, however large it is, and is waited for.
        let mut alone = Meter::new(1);
        let entry = alone.ask(&acme(), &limits, 0, at(0)).unwrap();
        for _ in 0..1_000 {
            alone.more(&acme(), &limits, (entry, CHUNK), at(0)).unwrap();
        }
        assert!(alone.ask(&acme(), &limits, 0, at(0)).unwrap_err().wait > Duration::from_secs(10));
    }
}
