//! Stops calling a plugin that fails again and again, and tries it again later. Pure: time is an argument.
//!
//! Five faults in a row can mean a bad plugin or bad batches, and who sends bad batches (the same one over and over, or always new
//! ones) must not have everybody's events refused. So before it opens, the plugin is tried with a harmless batch (`probe`) on a
//! fresh instance:
//! * it fails there too: the plugin is bad. The breaker opens, for a second at first and twice as long after each failed trial.
//! * it does its work: the batches were to blame. Each of them failed by itself, the breaker stays closed, and the plugin is tried
//!   like this again after five more faults.
//! * but after fifty faults in a row it opens whatever the probe says: a plugin that fails with all that is real must not go on
//!   costing its deadline for each batch. It then stays open for a second at a time, however often that happens.
//!
//! One success closes it and forgets all.

/// Faults in a row after which the plugin is probed, and opened if it fails (4-plugins: five).
pub(crate) const PROBES_AFTER: u32 = 5;
/// Faults in a row that open it even if it passes the probe: at the default deadline of a small batch, one second of processor time.
const OPENS_ANYWAY_AFTER: u32 = 50;
/// Milliseconds until the first trial; doubles with each failed trial whose probe fails as well.
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

/// The plugin must be tried with a harmless batch; hand it back with the result.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Probe(());

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

    /// A fault of a real batch. Until the probe that this may ask for is handed back, nothing changes.
    pub(crate) fn failure(&mut self, _permit: Permit) -> Option<Probe> {
        self.faults_in_a_row = self.faults_in_a_row.saturating_add(1);
        match self.state {
            State::HalfOpen => Some(Probe(())),
            State::Closed if self.faults_in_a_row.is_multiple_of(PROBES_AFTER) => Some(Probe(())),
            // A late failure of an earlier call does not prolong the wait.
            State::Closed | State::Open { .. } => None,
        }
    }

    pub(crate) fn probed(&mut self, _probe: Probe, passed: bool, now_ms: u64) {
        match self.state {
            // Somebody's success closed it meanwhile.
            State::Closed if self.faults_in_a_row < PROBES_AFTER => {}
            State::Closed if passed && self.faults_in_a_row < OPENS_ANYWAY_AFTER => {}
            State::Closed => self.open(now_ms),
            State::HalfOpen if passed => {
                self.failed_trials = 0;
                self.open(now_ms);
            }
            State::HalfOpen => {
                self.failed_trials = self.failed_trials.saturating_add(1);
                self.open(now_ms);
            }
            State::Open { .. } => {}
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

    /// One faulty batch of a plugin that passes the probe or does not; whether it was probed.
    fn fail(breaker: &mut Breaker, passes: bool, now_ms: u64) -> bool {
        let permit = breaker.admit(now_ms).unwrap();
        let probe = breaker.failure(permit);
        let asked = probe.is_some();
        if let Some(probe) = probe {
            breaker.probed(probe, passes, now_ms);
        }
        asked
    }

    fn broken() -> Breaker {
        let mut breaker = Breaker::default();
        (0..5).for_each(|_| assert_eq!(fail(&mut breaker, false, 0), breaker.faults_in_a_row() == 5));
        breaker
    }

    #[test]
    fn a_bad_plugin_is_switched_off_after_five_faults_in_a_row_and_not_before() {
        let mut breaker = Breaker::default();
        (0..4).for_each(|_| assert!(!fail(&mut breaker, false, 0)));
        let permit = breaker.admit(0).unwrap();
        breaker.success(permit);
        for fault in 1..=5 {
            assert_eq!(breaker.as_str(), "closed");
            assert_eq!(fail(&mut breaker, false, 0), fault == 5);
        }
        assert_eq!(breaker.as_str(), "open");
        assert_eq!(breaker.admit(999), None);
    }

    #[test]
    fn bad_batches_do_not_switch_off_a_plugin_that_works() {
        let mut breaker = Breaker::default();
        for fault in 1..50 {
            assert_eq!(fail(&mut breaker, true, 0), fault % 5 == 0);
            assert_eq!(breaker.as_str(), "closed", "after {fault}");
        }
        fail(&mut breaker, true, 0);
        assert_eq!(breaker.as_str(), "open", "fifty and nothing else");
        // However often it is tried in vain, the next sender waits a second at most.
        for round in 1..20 {
            assert_eq!(breaker.admit(round * 1_000 - 1), None);
            assert!(fail(&mut breaker, true, round * 1_000));
        }
        let permit = breaker.admit(20_000).unwrap();
        breaker.success(permit);
        assert_eq!((breaker.as_str(), breaker.faults_in_a_row()), ("closed", 0));
    }

    #[test]
    fn one_trial_at_a_time_and_longer_waits() {
        let mut breaker = broken();
        let trial = breaker.admit(1_000).unwrap();
        assert_eq!(breaker.as_str(), "half_open");
        assert_eq!(breaker.admit(1_000), None);
        let probe = breaker.failure(trial).unwrap();
        assert_eq!(breaker.admit(1_000), None, "nor while it is probed");
        breaker.probed(probe, false, 1_000);
        assert_eq!(breaker.admit(2_999), None);
        let trial = breaker.admit(3_000).unwrap();
        breaker.success(trial);
        assert_eq!(breaker.as_str(), "closed");
        assert_eq!(breaker.faults_in_a_row(), 0);
    }

    #[test]
    fn a_success_while_it_is_probed_counts() {
        let mut breaker = Breaker::default();
        (0..4).for_each(|_| assert!(!fail(&mut breaker, false, 0)));
        let (bad, good) = (breaker.admit(0).unwrap(), breaker.admit(0).unwrap());
        let probe = breaker.failure(bad).unwrap();
        breaker.success(good);
        breaker.probed(probe, false, 0);
        assert_eq!(breaker.as_str(), "closed");
    }

    #[test]
    fn waits_are_bounded() {
        let mut breaker = broken();
        let mut now = 0;
        for _ in 0..100 {
            now += MAX_WAIT_MS;
            fail(&mut breaker, false, now);
        }
        assert!(breaker.admit(now + MAX_WAIT_MS).is_some());
    }

    #[test]
    fn a_late_failure_of_an_earlier_call_does_not_prolong_the_wait() {
        let mut breaker = Breaker::default();
        let late = breaker.admit(0).unwrap();
        (1..=5).for_each(|fault| assert_eq!(fail(&mut breaker, false, 0), fault == 5));
        assert_eq!(breaker.failure(late), None);
        assert!(breaker.admit(1_000).is_some());
    }
}
