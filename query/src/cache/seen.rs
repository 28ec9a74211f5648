//! Which groupings were asked for before. One that is asked for once, or never the same way again, is not worth its memory, nor a look at what its
//! ranges are made of: only from the second time on is it put together of ranges.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Groupings that are remembered, by a hash: more than dashboards ask for between two refreshes.
const MOST: usize = 16_384;

/// Under a cap: what was not asked for longest is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Seen {
    next: u64,
    known: HashMap<u64, Sight>,
    by_age: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Sight {
    at: u64,
    rests_until: Option<Instant>,
}

impl Seen {
    /// Whether a grouping was asked for before and is not at rest; it is from now on.
    pub(super) fn again(&mut self, grouping: u64, now: Instant) -> bool {
        self.next += 1;
        let at = self.next;
        self.by_age.insert(at, grouping);
        if let Some(sight) = self.known.get_mut(&grouping) {
            self.by_age.remove(&sight.at);
            sight.at = at;
            return sight.rests_until.is_none_or(|until| until <= now);
        }
        let rests_until = None;
        self.known.insert(grouping, Sight { at, rests_until });
        if self.known.len() > MOST
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.known.remove(&oldest);
        }
        false
    }

    /// What its ranges are made of could not be found out: it is not tried again until then.
    pub(super) fn rest(&mut self, grouping: u64, until: Instant) {
        if let Some(sight) = self.known.get_mut(&grouping) {
            sight.rests_until = Some(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_grouping_is_known_from_its_second_time_on_until_too_many_others_came() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert!(!seen.again(1, now) && seen.again(1, now) && !seen.again(2, now));
        seen.rest(1, now + Duration::from_secs(1));
        assert!(!seen.again(1, now) && seen.again(2, now));
        assert!(seen.again(1, now + Duration::from_secs(1)));
        for other in 0..MOST as u64 - 1 {
            assert!(!seen.again(10 + other, now));
        }
        assert!(seen.again(1, now + Duration::from_secs(1)), "it was asked for later");
        assert!(!seen.again(2, now), "it was forgotten");
        assert_eq!((seen.known.len(), seen.by_age.len()), (MOST, MOST));
    }
}
