//! Which of the spooled batches are live, and where each lane is read next. Pure: times are arguments, in milliseconds of a
//! monotonic clock. LINK.md has the rule.

use std::collections::VecDeque;
use std::ops::Range;

use sluice_wire::session::frame::Lane;

/// How many moments are remembered for one span of being live: batches age late by this part of it at most.
const MARKS: u64 = 8;

/// Where the live lane begins, as an index of the spool, and how far both lanes are read.
#[derive(Debug)]
pub(super) struct Frontier {
    live_for_ms: u64,
    /// Without a link what is sealed stays fresh for so much longer: until the edge tries again after the link came back.
    between_tries_ms: u64,
    /// The live lane is read only when the backlog is.
    oldest_first: bool,
    live_from: u64,
    /// By lane: where the next read begins.
    next: [u64; 2],
    /// After the newest batch.
    end: u64,
    marks: VecDeque<Mark>,
    down_since: Option<u64>,
    /// When the last outage ended, and the end of the spool at that moment.
    back_since: Option<(u64, u64)>,
}

/// At this time the spool ended there.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: u64,
    end: u64,
}

impl Frontier {
    /// `fresh`: of what the spool holds at the start, what was sealed last. It is the newest that the site has, so it goes first if a
    /// gateway is there at once.
    pub(super) fn new(
        fresh: Range<u64>,
        (live_for_ms, between_tries_ms): (u64, u64),
        oldest_first: bool,
        now: u64,
    ) -> Self {
        let mut next = [0; 2];
        next[Lane::Live as usize] = fresh.start;
        let mark = Mark {
            at: now,
            end: fresh.end,
        };
        Self {
            live_for_ms,
            // Who tries seldom has an outage's worth of batches until then.
            between_tries_ms: between_tries_ms.min(live_for_ms),
            oldest_first,
            live_from: fresh.start,
            next,
            end: fresh.end,
            marks: (!fresh.is_empty()).then_some(mark).into_iter().collect(),
            down_since: Some(now),
            back_since: None,
        }
    }

    /// The spool has grown.
    pub(super) fn handle_end(&mut self, now: u64, end: u64) {
        if end <= self.end {
            return;
        }
        self.end = end;
        let grain = self.live_for_ms / MARKS;
        let last_but_one = self.marks.len().checked_sub(2).map(|at| self.marks[at].at);
        if last_but_one.is_some_and(|at| now < at + grain) {
            self.marks.pop_back();
        }
        self.marks.push_back(Mark { at: now, end });
    }

    /// A gateway has welcomed us. What was sealed a moment ago is as fresh as if the link had been there: between the end of an
    /// outage and this moment an edge waits for its next try.
    pub(super) fn handle_up(&mut self, now: u64) {
        self.live_from(now);
        let since = self.down_since.take();
        if since.is_some_and(|since| now >= since + self.live_for_ms) {
            self.back_since = Some((now, self.end));
            let newest = self.marks.back().copied();
            self.marks = newest.map(|mark| Mark { at: now, ..mark }).into_iter().collect();
        }
    }

    /// How long what was sealed stays live.
    fn live_span(&self) -> u64 {
        match self.down_since {
            Some(_) => self.live_for_ms + self.between_tries_ms,
            None => self.live_for_ms,
        }
    }

    /// What was accepted before the link came back is sealed up to here. The last batch of it has what was accepted just now; if it is
    /// the only one, then what was sealed just before it is not much older.
    pub(super) fn handle_past(&mut self, now: u64, end: u64) {
        let last = end.min(self.end).saturating_sub(1);
        // Only right after an outage is it old.
        if self
            .back_since
            .is_some_and(|(back, end)| now < back + self.live_for_ms && last > end)
        {
            self.live_from = self.live_from.max(last);
        }
    }

    pub(super) fn handle_down(&mut self, now: u64) {
        self.down_since.get_or_insert(now);
    }

    /// The first live batch as of now.
    pub(super) fn live_from(&mut self, now: u64) -> u64 {
        let span = self.live_span();
        while let Some(mark) = self.marks.front()
            && now >= mark.at + span
        {
            self.live_from = self.live_from.max(mark.end);
            self.marks.pop_front();
        }
        let live = &mut self.next[Lane::Live as usize];
        *live = self.live_from.max(*live);
        self.live_from
    }

    /// When `live_from` moves by itself.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.marks.front().map(|mark| mark.at + self.live_span())
    }

    pub(super) fn lane_of(&self, index: u64) -> Lane {
        if index < self.live_from {
            Lane::Backlog
        } else {
            Lane::Live
        }
    }

    /// Where a lane is read next, if there may be something.
    pub(super) fn next_read(&self, lane: Lane) -> Option<u64> {
        let backlog = self.next[Lane::Backlog as usize];
        let live = self.next[Lane::Live as usize];
        match lane {
            Lane::Backlog => (backlog < self.live_from).then_some(backlog),
            Lane::Live if self.oldest_first && backlog < self.live_from => None,
            Lane::Live => (live < self.end).then_some(live),
        }
    }

    /// A read from `from` found that everything below `upto` is acknowledged or can be offered now. False: the lane has moved
    /// meanwhile, and what was read does not count.
    pub(super) fn handle_read(&mut self, lane: Lane, from: u64, upto: u64) -> bool {
        let next = &mut self.next[lane as usize];
        let is_current = *next == from;
        if is_current {
            *next = upto.max(from);
        }
        is_current
    }

    /// Everything of the backlog below it was offered or is acknowledged.
    pub(super) fn backlog_read(&self) -> u64 {
        self.next[Lane::Backlog as usize]
    }

    /// A batch that was read as live has to be read again as backlog.
    pub(super) fn handle_forgotten(&mut self, index: u64) {
        let next = &mut self.next[Lane::Backlog as usize];
        *next = index.min(*next);
    }

    /// The indices of a lane.
    pub(super) fn range(&self, lane: Lane) -> Range<u64> {
        match lane {
            Lane::Live => self.live_from..self.end,
            Lane::Backlog => 0..self.live_from,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIVE_FOR: u64 = 2_000;

    #[test]
    fn p6_what_an_outage_or_a_start_finds_is_backlog_and_what_comes_after_is_live() {
        let mut frontier = Frontier::new(100..100, (LIVE_FOR, 0), false, 0);
        assert_eq!(
            (frontier.next_read(Lane::Backlog), frontier.next_read(Lane::Live)),
            (Some(0), None)
        );
        frontier.handle_end(50, 101);
        frontier.handle_up(60);
        assert_eq!(frontier.next_read(Lane::Live), Some(100), "sealed since the start");
        frontier.handle_down(10_000);
        frontier.handle_end(11_000, 150);
        // A moment without a link makes nothing old.
        frontier.handle_up(11_500);
        assert_eq!(frontier.live_from(11_500), 101);
        frontier.handle_down(12_000);
        frontier.handle_down(12_500);
        for minute in 1..10 {
            frontier.handle_end(12_000 + minute * 60_000, 150 + minute * 100);
        }
        // What the last minutes sealed is old, what was sealed a second ago is not.
        frontier.handle_end(699_000, 1051);
        frontier.live_from(699_999);
        frontier.handle_up(700_000);
        assert_eq!(frontier.live_from(700_000), 1050);
        frontier.handle_end(700_100, 1052);
        let before = frontier.live_from;
        frontier.handle_past(700_100 + LIVE_FOR, 1052);
        assert_eq!(frontier.live_from, before, "long after it came back nothing is old");
        assert_eq!(
            (frontier.next_read(Lane::Live), frontier.next_read(Lane::Backlog)),
            (Some(1050), Some(0))
        );
        assert_eq!(
            (frontier.lane_of(1049), frontier.lane_of(1050)),
            (Lane::Backlog, Lane::Live)
        );
    }

    #[test]
    fn p9_rows_that_waited_for_a_batch_during_an_outage_are_as_old_as_what_it_left_but_the_last_of_them() {
        let mut frontier = Frontier::new(10..10, (LIVE_FOR, 0), false, 0);
        frontier.handle_up(60_000);
        frontier.handle_end(60_050, 14);
        frontier.handle_past(60_050, 14);
        frontier.handle_end(60_100, 15);
        assert_eq!(frontier.live_from(60_100), 13);
        assert_eq!(
            (frontier.lane_of(12), frontier.lane_of(13)),
            (Lane::Backlog, Lane::Live)
        );
    }

    #[test]
    fn p9_what_was_sealed_just_before_a_stop_is_live_at_the_start_if_a_gateway_is_there() {
        for (up, live) in [(300, Some(97)), (LIVE_FOR + 300, None)] {
            let mut frontier = Frontier::new(97..100, (LIVE_FOR, 0), false, 0);
            frontier.handle_up(up);
            frontier.live_from(up);
            assert_eq!(frontier.next_read(Lane::Live), live);
            assert_eq!(frontier.next_read(Lane::Backlog), Some(0));
            assert_eq!(frontier.lane_of(96), Lane::Backlog);
        }
    }

    /// An edge that tries again every two seconds may be that late to notice that the link is back, and what was sealed since is no
    /// backlog; nor does it become backlog in the moment of the welcome.
    #[test]
    fn p9_what_was_sealed_between_the_end_of_an_outage_and_the_next_try_is_live() {
        let mut frontier = Frontier::new(0..0, (LIVE_FOR, 1_500), false, 0);
        frontier.handle_up(0);
        frontier.handle_down(1_000);
        for (at, end) in [(60_000, 10), (61_000, 11), (62_000, 12)] {
            frontier.handle_end(at, end);
            frontier.live_from(at);
        }
        let up = 60_000 + LIVE_FOR + 1_500;
        frontier.live_from(up - 1);
        assert_eq!(frontier.next_read(Lane::Live), Some(0), "sealed just so long ago");
        frontier.handle_up(up);
        // What waited to be sealed is one batch more.
        frontier.handle_end(up + 50, 13);
        frontier.handle_past(up + 50, 13);
        for now in [up + 50, up + LIVE_FOR - 1] {
            assert_eq!(frontier.live_from(now), 10);
        }
        let from = frontier.live_from(up + LIVE_FOR + 50);
        assert_eq!(from, 13, "as late as if sealed at the welcome");
    }

    #[test]
    fn oldest_first_reads_nothing_live_before_the_backlog_is_read() {
        let mut frontier = Frontier::new(3..3, (LIVE_FOR, 0), true, 0);
        frontier.handle_end(10, 5);
        assert_eq!(frontier.next_read(Lane::Live), None);
        assert!(frontier.handle_read(Lane::Backlog, 0, 3));
        assert_eq!(frontier.next_read(Lane::Live), Some(3));
    }

    #[test]
    fn p2_what_has_to_be_read_again_is_not_passed_over_by_a_read_that_is_under_way() {
        let mut frontier = Frontier::new(100..100, (LIVE_FOR, 0), false, 0);
        assert!(frontier.handle_read(Lane::Backlog, 0, 50));
        let from = frontier.next_read(Lane::Backlog).unwrap();
        frontier.handle_forgotten(20);
        assert!(!frontier.handle_read(Lane::Backlog, from, from + 1));
        assert_eq!(frontier.next_read(Lane::Backlog), Some(20));
    }

    proptest! {
        /// However often the spool grows: memory is bounded, nothing ages early, and nothing stays live for much longer.
        #[test]
        fn p6_batches_age_on_time(gaps in proptest::collection::vec(0u64..700, 1..300)) {
            let mut frontier = Frontier::new(0..0, (LIVE_FOR, 0), false, 0);
            frontier.handle_up(0);
            let (mut now, mut sealed) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                sealed.push(now);
                frontier.handle_end(now, sealed.len() as u64);
                prop_assert!(frontier.marks.len() <= 2 * MARKS as usize + 2);
                let live_from = frontier.live_from(now) as usize;
                prop_assert!(sealed[..live_from].iter().all(|at| at + LIVE_FOR <= now));
                prop_assert!(sealed[live_from..].iter().all(|at| at + LIVE_FOR + LIVE_FOR / MARKS >= now));
            }
            if let Some(wake) = frontier.next_wake() {
                let before = frontier.live_from;
                prop_assert!(frontier.live_from(wake) > before);
            }
            prop_assert_eq!(frontier.live_from(now + 2 * LIVE_FOR), sealed.len() as u64);
        }
    }
}
