//! The time by which rows and files are deleted for their age.
//!
//! A wall clock that is set a year ahead must not delete a year of rows, so the time is not taken from it alone: it moves with the
//! monotonic clock, and follows a step of the wall clock to the front only as far as a machine that rested explains it. It always follows
//! one to the back, because that deletes less.

use serde::{Deserialize, Serialize};

use super::rules::EraseError;
use crate::stores::Stores;

const VERSION: u32 = 1;
const NAME: &str = "clock";
/// Steps to the front that are believed, together, in microseconds: a long weekend at rest. They are forgotten as fast as time passes.
pub const MAX_JUMP_US: i64 = 4 * 86_400_000_000;
/// Others that save it in the same moment.
const MAX_RACES: u32 = 8;

/// The time, as it was seen last. Pure: both clocks are arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeClock {
    version: u32,
    /// Microseconds since 1970.
    pub at_us: i64,
    /// How far it may still jump to the front.
    jump_us: i64,
}

impl AgeClock {
    /// Before anything is known of earlier times: `newest_us` is when the newest rows came, as far as that is known.
    pub fn begin(wall_us: i64, newest_us: Option<i64>) -> Self {
        Self {
            version: VERSION,
            at_us: newest_us.map_or(wall_us, |newest| newest.min(wall_us)),
            jump_us: MAX_JUMP_US,
        }
    }

    /// Because somebody looked at a clock: this is the time.
    pub fn trusted(wall_us: i64) -> Self {
        Self::begin(wall_us, None)
    }

    /// Moves on by what the monotonic clock counted since the last look, and to the wall clock if it can be believed. Returns by how
    /// much the wall clock is ahead of what is believed; 0: it is believed.
    pub fn look(&mut self, wall_us: i64, elapsed_us: i64) -> i64 {
        let elapsed_us = elapsed_us.max(0);
        self.jump_us = self.jump_us.saturating_add(elapsed_us).clamp(0, MAX_JUMP_US);
        let reached = self.at_us.saturating_add(elapsed_us);
        let ahead = wall_us.saturating_sub(reached);
        if ahead > self.jump_us {
            self.at_us = reached;
            return ahead;
        }
        self.jump_us -= ahead.max(0);
        self.at_us = wall_us;
        0
    }

    /// Takes over what another process or an operator saved, if that is further; never beyond the wall clock.
    pub fn adopt(&mut self, saved: AgeClock, wall_us: i64) -> bool {
        let is_further = saved.at_us > self.at_us && wall_us > self.at_us;
        if is_further {
            self.at_us = saved.at_us.min(wall_us);
        }
        is_further
    }
}

impl Stores {
    /// The time by which was deleted last; `None`: never yet.
    pub async fn age_clock(&self) -> Result<Option<AgeClock>, EraseError> {
        let Some(text) = self.state.newest(NAME).await? else {
            return Ok(None);
        };
        let (what, number) = ("the time of retention", 0);
        let unreadable = |source| EraseError::Unreadable { what, number, source };
        let clock: AgeClock = serde_json::from_slice(&text).map_err(unreadable)?;
        if clock.version > VERSION {
            let version = clock.version;
            return Err(EraseError::Newer { what, number, version });
        }
        Ok(Some(clock))
    }

    /// Remembers it over restarts.
    pub async fn save_age_clock(&self, clock: &AgeClock) -> Result<(), EraseError> {
        let text = serde_json::to_vec(clock).map_err(EraseError::Write)?;
        for _ in 0..MAX_RACES {
            if self.state.append_and_prune(NAME, text.clone()).await? {
                return Ok(());
            }
        }
        Err(EraseError::Contended)
    }

    /// The time by which a command may delete, that does not run for long enough to know more: never beyond what ingest believed last;
    /// 1970 where it never did.
    pub async fn believed_us(&self, wall_us: i64) -> Result<i64, EraseError> {
        Ok(self.age_clock().await?.map_or(0, |clock| clock.at_us.min(wall_us)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400_000_000;
    const NOW: i64 = 20_000 * DAY;

    #[test]
    fn a_clock_a_year_ahead_is_not_believed_however_often_it_is_read_and_a_weekend_is() {
        let mut clock = AgeClock::begin(NOW, None);
        assert_eq!(clock.look(NOW + 3 * DAY, 0), 0);
        assert_eq!(clock.at_us, NOW + 3 * DAY);
        // A process that starts again and again, and one that goes on.
        let ahead = NOW + 365 * DAY;
        for _ in 0..1000 {
            assert!(clock.look(ahead, 0) > 300 * DAY);
        }
        assert_eq!(clock.at_us, NOW + 3 * DAY);
        for day in 1..=30 {
            assert!(clock.look(ahead + day * DAY, DAY) > 300 * DAY);
            assert_eq!(clock.at_us, NOW + (3 + day) * DAY);
        }
        // It is set right, then somebody says that the year has passed.
        assert_eq!(clock.look(NOW + 33 * DAY, 0), 0);
        assert!(clock.adopt(AgeClock::trusted(ahead), ahead));
        assert_eq!((clock.at_us, clock.look(ahead + DAY, DAY)), (ahead, 0));
    }

    #[test]
    fn many_steps_are_believed_no_further_than_one() {
        let mut clock = AgeClock::begin(NOW, None);
        for step in 1..=100 {
            clock.look(NOW + step * DAY, 0);
        }
        assert_eq!(clock.at_us, NOW + MAX_JUMP_US);
    }

    #[test]
    fn what_is_there_tells_the_time_before_anything_else_does() {
        let mut clock = AgeClock::begin(NOW + 365 * DAY, Some(NOW));
        assert_eq!((clock.at_us, clock.look(NOW + 365 * DAY, 0)), (NOW, 365 * DAY));
        let mut clock = AgeClock::begin(NOW, Some(NOW + DAY));
        assert_eq!((clock.look(NOW, 0), clock.at_us), (0, NOW));
    }

    proptest! {
        /// Never further than the real time and what is believed of steps, and always back with the wall clock.
        #[test]
        fn it_never_runs_away(steps in proptest::collection::vec((-400i64..400, 0i64..3), 1..60)) {
            let mut clock = AgeClock::begin(NOW, None);
            let mut real = NOW;
            for (off, days) in steps {
                real += days * DAY;
                clock.look(real + off * DAY, days * DAY);
                prop_assert!(clock.at_us <= real + 2 * MAX_JUMP_US + (real - NOW), "{:?} {}", clock, real);
                prop_assert!((0..=MAX_JUMP_US).contains(&clock.jump_us));
            }
            let back = clock.at_us - DAY;
            prop_assert_eq!((clock.look(back, 0), clock.at_us), (0, back));
        }
    }
}
