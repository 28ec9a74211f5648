//! Which gateway is tried next. Pure: times are arguments, in milliseconds of a monotonic clock.

/// After a failure a gateway is tried again this late, or when it is time to go home, unless all of them have failed.
const REST_MS: u64 = 60_000;

/// The gateways of an edge and what became of them. One is home: edges that share a list are spread over it, and each goes
/// back to its own when that works again.
#[derive(Debug)]
pub(super) struct Gateways {
    places: Vec<Place>,
    home: usize,
    /// The one that worked last.
    current: usize,
    /// When the current one was reached.
    since: Option<u64>,
    return_after_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Place {
    rests_until: u64,
    /// In a row: which of its addresses comes first.
    failures: usize,
}

impl Gateways {
    /// `home` is taken modulo their number.
    pub(super) fn new(count: usize, home: u64, return_after_ms: u64) -> Self {
        let home = (home % count.max(1) as u64) as usize;
        Self {
            places: vec![Place::default(); count.max(1)],
            home,
            current: home,
            since: None,
            return_after_ms,
        }
    }

    /// The one to connect to: the one that works, else the next in turn that has not failed lately, else the one whose
    /// failure is the oldest.
    pub(super) fn choose(&self, now: u64) -> usize {
        let count = self.places.len();
        let in_turn = (0..count).map(|step| (self.current + step) % count);
        let is_rested = |at: &usize| self.places[*at].rests_until <= now;
        in_turn
            .clone()
            .find(is_rested)
            .or_else(|| in_turn.min_by_key(|at| self.places[*at].rests_until))
            .unwrap_or(self.home)
    }

    /// How many times in a row it has failed.
    pub(super) fn failures(&self, gateway: usize) -> usize {
        self.places[gateway].failures
    }

    pub(super) fn handle_worked(&mut self, now: u64, gateway: usize) {
        self.places[gateway] = Place::default();
        (self.current, self.since) = (gateway, Some(now));
    }

    /// Not reached, refused, lost, or leaving.
    pub(super) fn handle_failed(&mut self, now: u64, gateway: usize) {
        let place = &mut self.places[gateway];
        place.failures = place.failures.saturating_add(1);
        place.rests_until = now + REST_MS.min(self.return_after_ms);
        if gateway == self.current {
            self.since = None;
        }
    }

    /// The home to try to go back to, where another one serves and has for a while.
    pub(super) fn way_home(&self, now: u64) -> Option<usize> {
        let due = self.home_due()?;
        (now >= due).then_some(self.home)
    }

    /// When `way_home` may have an answer.
    pub(super) fn home_due(&self) -> Option<u64> {
        let since = self.since.filter(|_| self.current != self.home)?;
        Some((since + self.return_after_ms).max(self.places[self.home].rests_until))
    }

    /// The home was asked and does not answer.
    pub(super) fn handle_home_failed(&mut self, now: u64) {
        let home = self.home;
        self.handle_failed(now, home);
    }

    /// The home answers: it comes next.
    pub(super) fn handle_home_answers(&mut self) {
        self.places[self.home] = Place::default();
        (self.current, self.since) = (self.home, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_one_that_works_is_kept_one_that_fails_makes_room_for_the_next_and_home_is_gone_back_to() {
        let mut gateways = Gateways::new(3, 4, 300_000);
        assert_eq!(gateways.choose(0), 1);
        gateways.handle_worked(10, 1);
        assert_eq!((gateways.choose(20), gateways.way_home(1_000_000)), (1, None));
        gateways.handle_failed(1_000, 1);
        assert_eq!(gateways.choose(1_000), 2);
        gateways.handle_failed(2_000, 2);
        assert_eq!(gateways.choose(2_000), 0);
        gateways.handle_worked(2_500, 0);
        // A connection that is lost is made again where it worked, if that one has not failed.
        assert_eq!(gateways.choose(200_000), 0);
        assert_eq!(
            (gateways.way_home(302_000), gateways.way_home(302_500)),
            (None, Some(1))
        );
        // Home is still dead: it is asked again later, and the one that works goes on.
        gateways.handle_failed(302_600, 1);
        assert_eq!((gateways.way_home(302_700), gateways.home_due()), (None, Some(362_600)));
        assert_eq!(gateways.choose(302_700), 0);
        gateways.handle_home_answers();
        assert_eq!(gateways.choose(302_800), 1);
    }

    #[test]
    fn p9_when_all_have_failed_each_is_tried_in_turn() {
        let mut gateways = Gateways::new(3, 0, 300_000);
        let mut tried = Vec::new();
        for attempt in 0..9 {
            let gateway = gateways.choose(attempt * 1_500);
            tried.push(gateway);
            gateways.handle_failed(attempt * 1_500, gateway);
        }
        assert_eq!(tried, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(gateways.failures(0), 3);
        let mut alone = Gateways::new(1, 9, 1_000);
        alone.handle_failed(5, 0);
        assert_eq!((alone.choose(6), alone.way_home(1 << 40)), (0, None));
    }
}
