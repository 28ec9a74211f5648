//! Stops calling a plugin that fails again and again, and tries it again later. Pure: time is an argument.

/// Faults in a row that open it (4-plugins: five).
pub(crate) const OPENS_AFTER: u32 = 5;
/// Milliseconds until the first trial; doubles with each failed trial.
const FIRST_WAIT_MS: u64 = 1_000;
/// Milliseconds between trials at most.
const MAX_WAIT_MS: u64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: State,
    faults_in_a_row: u32,
    failed_trials: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until_ms: u64,
    },
    /// One call is on trial; the others are turned away until it ends.
    HalfOpen,
}

/// Leave to call; hand it back with the result.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Permit(());

impl Breaker {
    /// Whether the plugin may be called now.
    pub(crate) fn admit(&mut self, now_ms: u64) -> Option<Permit> {
        match self.state {
            State::Closed => Some(Permit(())),
            State::Open { until_ms } if now_ms >= until_ms => {
                self.state = State::HalfOpen;
                Some(Permit(()))
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    pub(crate) fn success(&mut self, _permit: Permit) {
        *self = Breaker::default();
    }

    pub(crate) fn failure(&mut self, _permit: Permit, now_ms: u64) {
        self.faults_in_a_row = self.faults_in_a_row.saturating_add(1);
        match self.state {
            State::HalfOpen => {
                self.failed_trials = self.failed_trials.saturating_add(1);
                self.open(now_ms);
            }
            State::Closed if self.faults_in_a_row >= OPENS_AFTER => self.open(now_ms),
            State::Closed | State::Open { .. } => {}
        }
    }

    pub(crate) fn faults_in_a_row(&self) -> u32 {
        self.faults_in_a_row
    }

    pub(crate) fn as_str(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half_open",
        }
    }

    fn open(&mut self, now_ms: u64) {
        let wait_ms = FIRST_WAIT_MS
            .saturating_mul(1 << self.failed_trials.min(16))
            .min(MAX_WAIT_MS);
        self.state = State::Open {
            until_ms: now_ms.saturating_add(wait_ms),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fail(breaker: &mut Breaker, now_ms: u64) {
        let permit = breaker.admit(now_ms).unwrap();
        breaker.failure(permit, now_ms);
    }

    #[test]
    fn opens_after_five_faults_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            fail(&mut breaker, 0);
        }
        let permit = breaker.admit(0).unwrap();
        breaker.success(permit);
        for _ in 0..5 {
            assert_eq!(breaker.as_str(), "closed");
            fail(&mut breaker, 0);
        }
        assert_eq!(breaker.as_str(), "open");
        assert_eq!(breaker.admit(999), None);
    }

    #[test]
    fn one_trial_at_a_time_and_longer_waits() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| fail(&mut breaker, 0));
        let trial = breaker.admit(1_000).unwrap();
        assert_eq!(breaker.as_str(), "half_open");
        assert_eq!(breaker.admit(1_000), None);
        breaker.failure(trial, 1_000);
        assert_eq!(breaker.admit(2_999), None);
        let trial = breaker.admit(3_000).unwrap();
        breaker.success(trial);
        assert_eq!(breaker.as_str(), "closed");
        assert_eq!(breaker.faults_in_a_row(), 0);
    }

    #[test]
    fn waits_are_bounded() {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| fail(&mut breaker, 0));
        let mut now = 0;
        for _ in 0..100 {
            now += MAX_WAIT_MS;
            fail(&mut breaker, now);
        }
        assert!(breaker.admit(now + MAX_WAIT_MS).is_some());
    }

    #[test]
    fn a_late_failure_of_an_earlier_call_does_not_prolong_the_wait() {
        let mut breaker = Breaker::default();
        let late = breaker.admit(0).unwrap();
        (0..5).for_each(|_| fail(&mut breaker, 0));
        breaker.failure(late, 900);
        assert!(breaker.admit(1_000).is_some());
    }
}
