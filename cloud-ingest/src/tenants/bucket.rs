//! One rate and its burst. Time is an argument.

use std::time::Duration;

const SECOND_NS: i128 = 1_000_000_000;

/// A bucket of tokens, kept as the moment at which it would be full again: so it is exact, whatever the rate.
///
/// Something is taken while anything is left; what it is larger than the rest is a debt that is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// 0: no limit.
    per_second: u64,
    burst_ns: i128,
    full_at: i128,
}

impl Bucket {
    /// The limits as of now. What was taken under other ones stays taken.
    pub(super) fn set(&mut self, per_second: u64, burst: Duration, now: Duration) {
        let burst_ns = ns(burst);
        if (self.per_second, self.burst_ns) == (per_second, burst_ns) {
            return;
        }
        let taken = (self.full_at - ns(now)).max(0) * i128::from(self.per_second);
        self.full_at = ns(now) + taken / i128::from(per_second.max(1));
        (self.per_second, self.burst_ns) = (per_second, burst_ns);
    }

    /// After which time something is left; zero if something is.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        if self.per_second == 0 {
            return Duration::ZERO;
        }
        // A moment more than that it is empty.
        let wait = self.full_at - ns(now) - self.burst_ns + 1;
        Duration::from_nanos(u64::try_from(wait.max(0)).unwrap_or(u64::MAX))
    }

    pub(super) fn take(&mut self, tokens: u64, now: Duration) {
        if self.per_second > 0 {
            self.full_at = self.full_at.max(ns(now)) + self.time_of(tokens);
        }
    }

    pub(super) fn give_back(&mut self, tokens: u64) {
        if self.per_second > 0 {
            self.full_at -= self.time_of(tokens);
        }
    }

    fn time_of(&self, tokens: u64) -> i128 {
        i128::from(tokens) * SECOND_NS / i128::from(self.per_second)
    }
}

fn ns(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is asked and when: never more than rate and burst and one more, and who waits as long as told gets something.
        #[test]
        fn p15_a_rate_holds_and_its_wait_is_true(
            rate in 1u64..5_000,
            burst_ms in 100u64..20_000,
            asks in proptest::collection::vec((0u64..500, 1u64..3_000), 1..300),
        ) {
            let burst = Duration::from_millis(burst_ms);
            let mut bucket = Bucket::default();
            bucket.set(rate, burst, Duration::ZERO);
            let (mut now, mut taken, mut largest) = (Duration::ZERO, 0u64, 0u64);
            for (pause, tokens) in asks {
                now += Duration::from_millis(pause);
                let wait = bucket.wait(now);
                if wait > Duration::ZERO {
                    prop_assert!(bucket.wait(now + wait - Duration::from_nanos(1)) > Duration::ZERO);
                    prop_assert_eq!(bucket.wait(now + wait), Duration::ZERO);
                    continue;
                }
                bucket.take(tokens, now);
                taken += tokens;
                largest = largest.max(tokens);
                let most = (now + burst).as_secs_f64() * rate as f64 + largest as f64 + 1.0;
                prop_assert!(taken as f64 <= most, "{taken} of at most {most}");
            }
        }
    }

    #[test]
    fn another_rate_keeps_what_was_taken_and_what_was_given_back_counts() {
        let s = Duration::from_secs;
        let mut bucket = Bucket::default();
        bucket.set(100, s(1), s(5));
        bucket.take(1_100, s(5));
        assert_eq!(bucket.wait(s(5)).as_secs(), 10);
        bucket.set(1_000, s(1), s(5));
        assert_eq!(bucket.wait(s(5)).as_millis(), 100);
        bucket.give_back(200);
        assert_eq!(bucket.wait(s(5)), Duration::ZERO);
        bucket.set(0, s(1), s(6));
        bucket.take(u64::MAX, s(6));
        assert_eq!(bucket.wait(s(6)), Duration::ZERO);
    }
}
