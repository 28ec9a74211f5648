//! How the two lanes of an edge share a link: whose turn it is, and how much of the window stays free for the other.

use super::frame::Lane;

/// What goes first when both lanes have something to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LanePolicy {
    /// The backlog gets what the live lane leaves.
    #[default]
    FreshFirst,
    /// Nothing live is sent while anything of the backlog waits.
    OldestFirst,
    /// Of the bytes of a busy link, so many percent are live; 1 to 99.
    Weighted { live_percent: u8 },
}

/// What a lane has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Nothing,
    /// Something that must not go now: the lane rests, or its part of the window is full.
    Blocked,
    Ready,
}

/// Batches and bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub batches: usize,
    pub bytes: u64,
}

impl Load {
    pub fn add(&mut self, bytes: u64) {
        self.batches += 1;
        self.bytes += bytes;
    }
}

/// Whose turn it is. Equal calls give equal answers.
#[derive(Clone, Debug)]
pub struct Turns {
    policy: LanePolicy,
    /// Bytes of each lane over its weight; only their difference counts.
    served: [u64; 2],
}

/// So much of the window stays free for the lane that must not wait.
const RESERVED_PERCENT: u64 = 25;

/// Batches of a window that a lane leaves to the other one.
pub fn left_by(policy: LanePolicy, lane: Lane, batches: usize) -> usize {
    batches - Turns::new(policy).part(lane, Load { batches, bytes: 0 }).batches
}

impl Turns {
    pub fn new(policy: LanePolicy) -> Self {
        Self { policy, served: [0; 2] }
    }

    /// The lane that goes next. `waiting` is by lane, in the order of [`Lane::ALL`].
    pub fn next(&mut self, waiting: [Waiting; 2]) -> Option<Lane> {
        use Waiting::{Nothing, Ready};
        let [live, backlog] = waiting;
        match self.policy {
            LanePolicy::FreshFirst if live == Ready => Some(Lane::Live),
            LanePolicy::FreshFirst => (backlog == Ready).then_some(Lane::Backlog),
            LanePolicy::OldestFirst if backlog == Ready => Some(Lane::Backlog),
            LanePolicy::OldestFirst => (backlog == Nothing && live == Ready).then_some(Lane::Live),
            LanePolicy::Weighted { .. } => self.next_by_weight(waiting),
        }
    }

    /// Counts what a lane has sent.
    pub fn sent(&mut self, lane: Lane, bytes: u64) {
        let weight = self.weight(lane);
        let served = &mut self.served[lane as usize];
        *served = served.saturating_add(bytes.saturating_mul(100) / weight);
        let least = self.served[0].min(self.served[1]);
        self.served = self.served.map(|s| s - least);
    }

    /// What a lane may have on its way of a window: one that must leave room for the other gets less than all of it.
    pub fn part(&self, lane: Lane, window: Load) -> Load {
        let kept_percent = match (self.policy, lane) {
            (LanePolicy::FreshFirst, Lane::Live) | (LanePolicy::OldestFirst, Lane::Backlog) => return window,
            (LanePolicy::FreshFirst, Lane::Backlog) | (LanePolicy::OldestFirst, Lane::Live) => RESERVED_PERCENT,
            (LanePolicy::Weighted { .. }, _) => RESERVED_PERCENT.min(100 - self.weight(lane)),
        };
        // Where there are two places, each lane has one.
        let least = usize::from(window.batches > 1);
        Load {
            batches: window.batches - (window.batches * kept_percent as usize / 100).max(least),
            bytes: window.bytes - window.bytes / 100 * kept_percent,
        }
    }

    /// Percent of a busy link.
    fn weight(&self, lane: Lane) -> u64 {
        let LanePolicy::Weighted { live_percent } = self.policy else {
            return 50;
        };
        let live = u64::from(live_percent.clamp(1, 99));
        match lane {
            Lane::Live => live,
            Lane::Backlog => 100 - live,
        }
    }

    fn next_by_weight(&mut self, waiting: [Waiting; 2]) -> Option<Lane> {
        let [live, backlog] = waiting.map(|w| w == Waiting::Ready);
        let lane = match (live, backlog) {
            (true, true) if self.served[0] <= self.served[1] => Lane::Live,
            (true, true) => Lane::Backlog,
            (true, false) => Lane::Live,
            (false, true) => Lane::Backlog,
            (false, false) => return None,
        };
        // A lane that has nothing to send saves nothing up for later.
        let other = 1 - lane as usize;
        if waiting[other] == Waiting::Nothing {
            self.served[other] = self.served[other].max(self.served[lane as usize]);
        }
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Waiting::{Blocked, Nothing, Ready};

    #[test]
    fn each_policy_has_its_order() {
        let next = |policy, waiting| Turns::new(policy).next(waiting);
        let fresh = LanePolicy::FreshFirst;
        assert_eq!(next(fresh, [Ready, Ready]), Some(Lane::Live));
        assert_eq!(next(fresh, [Blocked, Ready]), Some(Lane::Backlog));
        assert_eq!(next(fresh, [Nothing, Blocked]), None);
        let oldest = LanePolicy::OldestFirst;
        assert_eq!(next(oldest, [Ready, Ready]), Some(Lane::Backlog));
        assert_eq!(
            next(oldest, [Ready, Blocked]),
            None,
            "nothing overtakes a backlog that rests"
        );
        assert_eq!(next(oldest, [Ready, Nothing]), Some(Lane::Live));
    }

    #[test]
    fn weights_share_a_busy_link_and_silence_earns_nothing() {
        let mut turns = Turns::new(LanePolicy::Weighted { live_percent: 80 });
        let mut sent = [0u64; 2];
        let run = |turns: &mut Turns, waiting, rounds, sent: &mut [u64; 2]| {
            for round in 0..rounds {
                if let Some(lane) = turns.next(waiting) {
                    // Batches of the backlog are larger.
                    let bytes = if lane == Lane::Live { 500 + round % 7 } else { 9_000 };
                    turns.sent(lane, bytes);
                    sent[lane as usize] += bytes;
                }
            }
        };
        run(&mut turns, [Ready, Ready], 10_000, &mut sent);
        let share = sent[0] as f64 / (sent[0] + sent[1]) as f64;
        assert!((share - 0.8).abs() < 0.01, "{share}");
        // After hours of backlog alone the live lane takes its share, not what it missed.
        run(&mut turns, [Nothing, Ready], 100_000, &mut sent);
        let mut after = [0; 2];
        run(&mut turns, [Ready, Ready], 10_000, &mut after);
        let share = after[0] as f64 / (after[0] + after[1]) as f64;
        assert!((share - 0.8).abs() < 0.01, "{share}");
    }

    #[test]
    fn the_lane_that_gives_way_leaves_a_quarter() {
        let window = Load {
            batches: 32,
            bytes: 8000,
        };
        let part = |policy, lane| Turns::new(policy).part(lane, window);
        let less = Load {
            batches: 24,
            bytes: 6000,
        };
        assert_eq!(part(LanePolicy::FreshFirst, Lane::Live), window);
        assert_eq!(part(LanePolicy::FreshFirst, Lane::Backlog), less);
        assert_eq!(part(LanePolicy::OldestFirst, Lane::Live), less);
        let weighted = LanePolicy::Weighted { live_percent: 50 };
        assert_eq!(part(weighted, Lane::Live), less);
        let one = Load { batches: 1, bytes: 1 };
        assert_eq!(Turns::new(weighted).part(Lane::Backlog, one), one);
        let two = Load { batches: 2, bytes: 8 };
        assert_eq!(part(LanePolicy::FreshFirst, Lane::Backlog).batches, 24);
        assert_eq!(Turns::new(LanePolicy::FreshFirst).part(Lane::Backlog, two).batches, 1);
        let heavy = LanePolicy::Weighted { live_percent: 90 };
        assert_eq!(
            (part(heavy, Lane::Live).bytes, part(heavy, Lane::Backlog).bytes),
            (7200, 6000)
        );
    }
}
