//! When a writer takes over a partition that another one owns. Pure.
//!
//! Taking over too early harms nothing but work: the generation decides who counts.

use std::time::Duration;

use sluice_store::Position;
use tokio::time::Instant;

/// What is known of a partition of somebody else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standby {
    seen: Option<Position>,
    since: Instant,
}

impl Standby {
    pub(super) fn new(now: Instant) -> Self {
        Self { seen: None, since: now }
    }

    /// Whether the owner has let the partition lie for `patience`.
    pub(super) fn takes_over(
        &mut self,
        now: Instant,
        position: Option<Position>,
        log_end: u64,
        patience: Duration,
    ) -> bool {
        let is_done = position.is_some_and(|position| position.next >= log_end);
        if position != self.seen || is_done {
            self.seen = position;
            self.since = now;
            return false;
        }
        now.duration_since(self.since) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_owner_that_stands_still_with_work_to_do_loses_its_partition() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let patience = Duration::from_secs(30);
        let mut standby = Standby::new(begun);
        let mut check = |seconds, next, end, expected| {
            let position = Some(Position::new(2, next));
            assert_eq!(
                standby.takes_over(at(seconds), position, end, patience),
                expected,
                "after {seconds} s"
            );
        };
        check(0, 5, 9, false);
        check(29, 5, 9, false);
        check(31, 6, 9, false);
        // Nothing to do for long, then something.
        check(50, 9, 9, false);
        check(500, 9, 9, false);
        check(501, 9, 10, false);
        check(529, 9, 10, false);
        check(531, 9, 10, true);
    }
}
