//! How long a worker that failed is left alone: longer each time, and then one part finds out whether it is back, while all others still
//! run elsewhere. Pure: times are arguments.

use std::time::{Duration, Instant};

/// Of a worker that could not be reached, at first.
const AWAY: Duration = Duration::from_secs(5);
/// And at most, however often it was not.
const MOST_AWAY: Duration = Duration::from_secs(300);
/// Of one that can be reached and is none of ours: its operator has to change something.
const UNFIT: Duration = Duration::from_secs(60);

/// What a node knows of one worker's absence.
#[derive(Debug, Default)]
pub(super) struct Absence(Option<Away>);

#[derive(Debug)]
struct Away {
    until: Instant,
    lasts: Duration,
    /// A part is there to find out.
    is_tried: bool,
}

/// How a part goes to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    AsAlways,
    /// As the only one.
    ToFindOut,
}

impl Absence {
    /// Whether new work is meant for it.
    pub(super) fn is_present(&self, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|away| now >= away.until && !away.is_tried)
    }

    /// `None`: no part may go to it now.
    pub(super) fn go(&mut self, now: Instant) -> Option<Going> {
        if !self.is_present(now) {
            return None;
        }
        Some(match &mut self.0 {
            None => Going::AsAlways,
            Some(away) => {
                away.is_tried = true;
                Going::ToFindOut
            }
        })
    }

    /// Who went to find out is back, with or without an answer.
    pub(super) fn is_back(&mut self, went: Going) {
        if let (Going::ToFindOut, Some(away)) = (went, &mut self.0) {
            away.is_tried = false;
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self) {
        self.0 = None;
    }

    /// It could not be reached. Parts that break together count once.
    pub(super) fn gone(&mut self, now: Instant) {
        let lasts = match &self.0 {
            None => AWAY,
            Some(away) if now < away.until => return,
            Some(away) => away.lasts.saturating_mul(2).min(MOST_AWAY),
        };
        self.leave(now, lasts);
    }

    /// It is none of ours. Whether that is news.
    pub(super) fn unfit(&mut self, now: Instant) -> bool {
        let is_news = self.0.as_ref().is_none_or(|away| now >= away.until);
        if is_news {
            self.leave(now, UNFIT);
        }
        is_news
    }

    fn leave(&mut self, now: Instant, lasts: Duration) {
        let is_tried = self.0.as_ref().is_some_and(|away| away.is_tried);
        self.0 = now.checked_add(lasts).map(|until| Away { until, lasts, is_tried });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stays_away_is_tried_by_one_part_at_a_time_and_less_and_less_often() {
        let mut now = Instant::now();
        let mut absence = Absence::default();
        assert_eq!(absence.go(now), Some(Going::AsAlways));
        assert_eq!(absence.go(now), Some(Going::AsAlways), "as many as like to");
        let mut waits = Vec::new();
        absence.gone(now);
        absence.gone(now);
        for _ in 0..9 {
            let left = now;
            assert!(!absence.is_present(now) && absence.go(now).is_none());
            while !absence.is_present(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - left).as_secs());
            let went = absence.go(now);
            assert_eq!(went, Some(Going::ToFindOut));
            assert!(!absence.is_present(now) && absence.go(now).is_none(), "one is enough");
            absence.gone(now);
            absence.is_back(Going::ToFindOut);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        now += MOST_AWAY;
        assert_eq!(absence.go(now), Some(Going::ToFindOut));
        absence.is_back(Going::ToFindOut);
        assert_eq!(
            absence.go(now),
            Some(Going::ToFindOut),
            "the first came back without a word"
        );
        absence.answered();
        absence.is_back(Going::ToFindOut);
        assert_eq!(absence.go(now), Some(Going::AsAlways));
    }

    #[test]
    fn one_that_is_not_ours_is_left_alone_for_a_minute_and_told_of_once() {
        let now = Instant::now();
        let mut absence = Absence::default();
        assert!(absence.unfit(now));
        assert!(!absence.unfit(now), "told before");
        assert!(!absence.is_present(now + UNFIT - Duration::from_secs(1)));
        assert!(absence.is_present(now + UNFIT));
        assert!(absence.unfit(now + UNFIT));
    }
}
