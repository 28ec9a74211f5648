//! How many bytes the link may cost, by second and by day. Pure: both clocks are arguments.
//!
//! A bucket of a second's bytes is filled at the rate that holds now; the backlog draws from its upper half alone, so that a
//! fresh batch finds the lower one full. Of a day's bytes the backlog leaves a part to what is fresh, too. When they are used
//! up, everything waits for the next day: a limit is a limit.

use serde::Serialize;
use sluice_wire::session::frame::Lane;

/// What a link may cost. Times of the day are in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub per_second: Option<u64>,
    pub per_day: Option<u64>,
    /// Percent of a day's bytes that the backlog does not touch.
    pub live_percent: u8,
    /// The first that holds counts instead of `per_second`.
    pub windows: Vec<Window>,
}

/// Some minutes of every day. A window that ends before it begins goes over midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub from_minute: u16,
    pub to_minute: u16,
    pub per_second: Option<u64>,
    /// Bytes do not count against the day.
    pub free: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            per_second: None,
            per_day: None,
            live_percent: 50,
            windows: Vec::new(),
        }
    }
}

/// What is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BudgetStatus {
    /// The rate that holds now.
    pub bytes_per_second: Option<u64>,
    pub bytes_per_day: Option<u64>,
    /// Of the day in UTC, everything on the wire included.
    pub used_today: u64,
    pub left_today: Option<u64>,
    /// Bytes do not count now.
    pub free: bool,
    /// What may go out in a second if the rest of the day is to last until its end.
    pub room_per_second: Option<u64>,
    /// Nothing may be sent before the next day or a free window.
    pub exhausted: bool,
}

/// Now, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) monotonic_ms: u64,
    pub(super) unix_s: u64,
}

const DAY_S: u64 = 86_400;
/// A bucket holds a second, and no less than this.
const MIN_BUCKET: f64 = 65_536.0;
/// Less is not worth a packet.
const MIN_WRITE: f64 = 1_024.0;

/// What was spent, and what may be.
#[derive(Debug)]
pub(super) struct Purse {
    budget: Budget,
    /// Bytes in the bucket; below zero when something went out that nobody asked for.
    tokens: f64,
    filled_ms: u64,
    spent: Spent,
}

/// Of which day how many bytes are used. Survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(super) struct Spent {
    pub(super) day: u64,
    pub(super) bytes: u64,
}

impl Purse {
    pub(super) fn new(budget: Budget, spent: Spent, now: Clocks) -> Self {
        let mut purse = Self {
            budget,
            tokens: 0.0,
            filled_ms: now.monotonic_ms,
            spent,
        };
        purse.tokens = purse.rate(now).map_or(0.0, bucket);
        purse
    }

    /// Whether there is any limit at all.
    pub(super) fn is_limited(&self) -> bool {
        let limited = |window: &Window| window.per_second.is_some();
        self.budget.per_second.is_some() || self.budget.per_day.is_some() || self.budget.windows.iter().any(limited)
    }

    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// How many bytes of a lane may be sent now.
    pub(super) fn allowed(&mut self, now: Clocks, lane: Lane) -> u64 {
        self.pass(now);
        let of_rate = self.rate(now).map(|rate| {
            let kept = if lane == Lane::Backlog { bucket(rate) / 2.0 } else { 0.0 };
            let free = self.tokens - kept;
            if free < MIN_WRITE { 0 } else { free as u64 }
        });
        let of_day = self.left(now, lane);
        of_rate.unwrap_or(u64::MAX).min(of_day.unwrap_or(u64::MAX))
    }

    /// Bytes went out or came in.
    pub(super) fn spend(&mut self, now: Clocks, bytes: u64) {
        self.spend_of_day(now, bytes);
        self.tokens -= bytes as f64;
    }

    /// The same of bytes that are no matter of a second: none waits for them.
    pub(super) fn spend_of_day(&mut self, now: Clocks, bytes: u64) {
        self.pass(now);
        if !self.is_free(now) {
            self.spent.bytes = self.spent.bytes.saturating_add(bytes);
        }
    }

    /// When more may be allowed to a lane that may not send now, on the monotonic clock.
    pub(super) fn next_wake(&mut self, now: Clocks) -> Option<u64> {
        let blocked = Lane::ALL.map(|lane| self.allowed(now, lane) == 0);
        if blocked == [false; 2] {
            return None;
        }
        // Windows and days begin with a minute.
        let minute = now.monotonic_ms + (60 - now.unix_s % 60) * 1_000;
        let Some(rate) = self.rate(now) else {
            return Some(minute);
        };
        let wanted = if blocked[Lane::Live as usize] {
            MIN_WRITE
        } else {
            bucket(rate) / 2.0 + MIN_WRITE
        };
        // The bucket of a lane that the day holds back is no matter.
        let by_day = |lane| self.left(now, lane) == Some(0);
        if Lane::ALL
            .into_iter()
            .all(|lane| !blocked[lane as usize] || by_day(lane))
        {
            return Some(minute);
        }
        let missing = (wanted - self.tokens).max(0.0);
        let wait = (missing * 1_000.0 / rate.max(1) as f64).ceil() as u64;
        Some(minute.min(now.monotonic_ms + wait.max(10)))
    }

    pub(super) fn status(&mut self, now: Clocks) -> BudgetStatus {
        self.pass(now);
        BudgetStatus {
            bytes_per_second: self.rate(now),
            bytes_per_day: self.budget.per_day,
            used_today: self.spent.bytes,
            left_today: self.budget.per_day.map(|all| all.saturating_sub(self.spent.bytes)),
            free: self.is_free(now),
            room_per_second: self.room(now),
            exhausted: self.left(now, Lane::Live) == Some(0),
        }
    }

    /// The rate that holds, or what is left of the day spread over it if that is less.
    fn room(&self, now: Clocks) -> Option<u64> {
        let of_day = self
            .left(now, Lane::Live)
            .map(|left| left / (DAY_S - now.unix_s % DAY_S));
        [self.rate(now), of_day].into_iter().flatten().min()
    }

    /// What is left of the day for a lane; `None` without a limit.
    fn left(&self, now: Clocks, lane: Lane) -> Option<u64> {
        let all = self.budget.per_day.filter(|_| !self.is_free(now))?;
        let kept = match lane {
            Lane::Live => 0,
            Lane::Backlog => u64::try_from(u128::from(all) * u128::from(self.budget.live_percent) / 100).unwrap_or(all),
        };
        Some(all.saturating_sub(kept).saturating_sub(self.spent.bytes))
    }

    /// Lets time pass: the bucket fills, a new day begins.
    fn pass(&mut self, now: Clocks) {
        let day = now.unix_s / DAY_S;
        if day != self.spent.day {
            self.spent = Spent { day, bytes: 0 };
        }
        let elapsed = now.monotonic_ms.saturating_sub(self.filled_ms) as f64 / 1_000.0;
        self.filled_ms = now.monotonic_ms;
        self.tokens = match self.rate(now) {
            Some(rate) => (self.tokens + elapsed * rate as f64).min(bucket(rate)),
            // What goes out while there is no limit is no debt for later.
            None => MIN_BUCKET,
        };
    }

    fn rate(&self, now: Clocks) -> Option<u64> {
        match self.window(now) {
            Some(window) => window.per_second,
            None => self.budget.per_second,
        }
    }

    fn is_free(&self, now: Clocks) -> bool {
        self.window(now).is_some_and(|window| window.free)
    }

    fn window(&self, now: Clocks) -> Option<&Window> {
        let minute = (now.unix_s % DAY_S / 60) as u16;
        let holds = |window: &&Window| match window.from_minute <= window.to_minute {
            true => (window.from_minute..window.to_minute).contains(&minute),
            false => minute >= window.from_minute || minute < window.to_minute,
        };
        self.budget.windows.iter().find(holds)
    }
}

fn bucket(rate: u64) -> f64 {
    (rate as f64).max(MIN_BUCKET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: u64 = 20_000 * DAY_S + DAY_S / 2;

    fn at(seconds: u64) -> Clocks {
        Clocks {
            monotonic_ms: seconds * 1_000,
            unix_s: NOON + seconds,
        }
    }

    fn purse(budget: Budget) -> Purse {
        Purse::new(budget, Spent::default(), at(0))
    }

    proptest! {
        /// Whoever asks whenever, for whichever lane: over any span no more than the rate and one bucket goes out, the day's bytes
        /// hold, and what is fresh finds the lower half of the bucket full unless fresh batches emptied it.
        #[test]
        fn p6_budgets_hold_and_leave_room_for_what_is_fresh(
            asks in proptest::collection::vec((0u64..2_000, any::<bool>(), 1u64..300_000), 1..300),
            rate in 1_000u64..1_000_000,
            per_day in 1_000_000u64..50_000_000,
        ) {
            let budget = Budget { per_second: Some(rate), per_day: Some(per_day), ..Budget::default() };
            let mut purse = purse(budget);
            let (mut ms, mut sent, mut backlog, mut fresh_spent) = (0, 0u64, 0u64, false);
            for (pause, is_live, wants) in asks {
                ms += pause;
                let now = Clocks { monotonic_ms: ms, unix_s: NOON + ms / 1_000 };
                if !fresh_spent && sent < per_day {
                    prop_assert!(purse.allowed(now, Lane::Live) >= (bucket(rate) as u64 / 2 - 1).min(per_day - sent));
                }
                let lane = if is_live { Lane::Live } else { Lane::Backlog };
                let bytes = wants.min(purse.allowed(now, lane));
                purse.spend(now, bytes);
                sent += bytes;
                fresh_spent |= is_live && bytes > 0;
                backlog += if is_live { 0 } else { bytes };
                prop_assert!(sent as f64 <= bucket(rate) + rate as f64 * ms as f64 / 1_000.0 + 1.0);
                prop_assert!(sent <= per_day && backlog <= per_day / 2 + 1);
                if bytes == 0 {
                    let wake = purse.next_wake(now);
                    prop_assert!(wake.is_some_and(|wake| wake > ms && wake <= ms + 60_000));
                }
            }
        }
    }

    #[test]
    fn windows_change_the_rate_and_may_be_free_and_a_new_day_begins_anew() {
        let night = Window {
            from_minute: 22 * 60,
            to_minute: 6 * 60,
            per_second: None,
            free: true,
        };
        let mut purse = purse(Budget {
            per_second: Some(10_000),
            per_day: Some(1_000_000),
            windows: vec![night],
            ..Budget::default()
        });
        assert!(purse.is_limited());
        purse.spend(at(10), 2_000_000);
        assert_eq!(purse.status(at(10)).room_per_second, Some(0));
        let status = purse.status(at(10));
        assert_eq!(
            (status.left_today, status.exhausted, status.free),
            (Some(0), true, false)
        );
        assert_eq!(purse.allowed(at(3_600), Lane::Live), 0);
        // At ten in the evening everything may go, and nothing of it counts.
        let ten = at(10 * 3_600);
        assert_eq!(purse.allowed(ten, Lane::Backlog), u64::MAX);
        purse.spend(ten, 1 << 40);
        let status = purse.status(ten);
        assert_eq!(
            (status.used_today, status.free, status.exhausted),
            (2_000_000, true, false)
        );
        // After midnight it still holds; at six the new day's bytes are all there.
        let night = purse.status(at(17 * 3_600));
        assert!(night.free && night.room_per_second.is_none());
        let six = at(18 * 3_600);
        assert_eq!(purse.status(six).left_today, Some(1_000_000));
        assert_eq!(purse.status(six).room_per_second, Some(1_000_000 / (18 * 3_600)));
        assert!(purse.allowed(six, Lane::Live) > 0 && purse.allowed(six, Lane::Backlog) > 0);
        purse.spend(six, 600_000);
        let later = at(18 * 3_600 + 600);
        assert!(purse.allowed(later, Lane::Live) > 0);
        assert_eq!(
            purse.allowed(later, Lane::Backlog),
            0,
            "half of the day is for what is fresh"
        );
    }

    #[test]
    fn without_limits_nothing_is_held_up() {
        let mut purse = purse(Budget::default());
        purse.spend(at(5), 1 << 40);
        assert!(!purse.is_limited());
        assert_eq!(purse.allowed(at(5), Lane::Backlog), u64::MAX);
        assert_eq!(purse.next_wake(at(5)), None);
    }
}
