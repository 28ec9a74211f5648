//! When to try again what could not be done. Pure.

use std::time::Duration;

/// After the first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(1);
/// At most: each attempt may cost a compiler's minute and its memory.
const LONGEST: Duration = Duration::from_secs(300);

/// Times are those of one clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    failures: u32,
    next: Option<Duration>,
}

impl Retry {
    pub(super) fn failed(&mut self, now: Duration) {
        let pause = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now.saturating_add(pause));
    }

    pub(super) fn done(&mut self) {
        *self = Retry::default();
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.next.is_some_and(|next| now >= next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_success() {
        let mut retry = Retry::default();
        assert!(!retry.is_due(Duration::MAX), "nothing failed");
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..100 {
            retry.failed(now);
            let mut pause = Duration::ZERO;
            while !retry.is_due(now + pause) {
                pause += Duration::from_secs(1);
            }
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[10..].iter().all(|pause| *pause == 300));
        retry.done();
        assert!(!retry.is_due(Duration::MAX));
        retry.failed(now);
        assert!(retry.is_due(now + FIRST));
    }
}
