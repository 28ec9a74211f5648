//! What a short budget asks of the rest of the node: fewer rows, and smaller ones. Pure: the clock is an argument.
//!
//! Sealed bytes are what the link will have to carry, now or as backlog. They are compared with what the budget has room for, and the
//! share of rows that `sample` may keep follows: down quickly, up slowly, so that a burst does not make it swing.

/// Of the room, what sealed batches may take; the rest is for acknowledgements, packets' own bytes and the backlog.
const OF_ROOM: f64 = 0.85;
/// How much the newest measurement counts.
const WEIGHT: f64 = 0.4;
/// A step changes the share by no more than this.
const STEP: std::ops::RangeInclusive<f64> = 0.5..=1.25;
/// Below it, changes would take forever to come back.
const MIN_SHARE: f64 = 0.001;
/// Batches are packed as tightly as they can be from this part of the room on, and below the second no more.
const TIGHT: (f64, f64) = (0.7, 0.5);

/// What the node is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wish {
    /// Of the rows that come in, 0 to 1.
    pub(crate) share: f64,
    /// Bytes are dearer than processor time.
    pub(crate) is_tight: bool,
}

/// Watches what is sealed against what there is room for.
#[derive(Debug)]
pub(crate) struct Thrift {
    wish: Wish,
    /// Bytes a second.
    sealed_rate: f64,
    seen: Option<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at_ms: u64,
    sealed_bytes: u64,
}

impl Default for Thrift {
    fn default() -> Self {
        Self {
            wish: Wish {
                share: 1.0,
                is_tight: false,
            },
            sealed_rate: 0.0,
            seen: None,
        }
    }
}

impl Thrift {
    /// `sealed_bytes` in all until now; `room` in bytes a second, `None` without a limit.
    pub(crate) fn handle(&mut self, now_ms: u64, sealed_bytes: u64, room: Option<u64>) -> Wish {
        let now = Seen {
            at_ms: now_ms,
            sealed_bytes,
        };
        let Some(before) = self.seen.replace(now) else {
            return self.wish;
        };
        let seconds = now_ms.saturating_sub(before.at_ms) as f64 / 1_000.0;
        if seconds <= 0.0 {
            self.seen = Some(before);
            return self.wish;
        }
        let rate = sealed_bytes.saturating_sub(before.sealed_bytes) as f64 / seconds;
        self.sealed_rate += (rate - self.sealed_rate) * WEIGHT;
        let Some(room) = room else {
            self.wish = Self::default().wish;
            return self.wish;
        };
        let target = room as f64 * OF_ROOM;
        let Wish { share, is_tight } = self.wish;
        let factor = if self.sealed_rate > 0.0 {
            (target / self.sealed_rate).clamp(*STEP.start(), *STEP.end())
        } else {
            *STEP.end()
        };
        // What would be sealed if every row were kept.
        let wanted = self.sealed_rate / share;
        let edge = if is_tight { TIGHT.1 } else { TIGHT.0 };
        self.wish = Wish {
            share: (share * factor).clamp(MIN_SHARE, 1.0),
            is_tight: wanted > target * edge,
        };
        self.wish
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP_MS: u64 = 5_000;

    /// A node that seals `offered` bytes a second times the share that it was told.
    fn settle(
        thrift: &mut Thrift,
        from_ms: u64,
        sealed: &mut u64,
        offered: f64,
        room: Option<u64>,
        steps: u64,
    ) -> Wish {
        let mut wish = thrift.wish;
        for step in 1..=steps {
            *sealed += (offered * wish.share * STEP_MS as f64 / 1_000.0) as u64;
            wish = thrift.handle(from_ms + step * STEP_MS, *sealed, room);
        }
        wish
    }

    proptest! {
        /// Whatever is offered and whatever there is room for: what is sealed comes to lie below the room, and not far below it.
        #[test]
        fn what_is_sealed_settles_just_below_the_room(offered in 1_000f64..10_000_000.0, room in 1_000u64..10_000_000) {
            let (mut thrift, mut sealed) = (Thrift::default(), 0);
            thrift.handle(0, 0, Some(room));
            let wish = settle(&mut thrift, 0, &mut sealed, offered, Some(room), 80);
            let rate = offered * wish.share;
            prop_assert!(rate <= room as f64 * 0.9 || wish.share <= MIN_SHARE, "{rate} {room} {wish:?}");
            prop_assert!(wish.share == 1.0 || rate >= room as f64 * 0.75, "{rate} {room} {wish:?}");
            prop_assert!(wish.share == 1.0 || wish.is_tight);
        }
    }

    #[test]
    fn a_budget_that_has_room_again_gives_the_rows_back() {
        let (mut thrift, mut sealed) = (Thrift::default(), 0);
        let calm = thrift.handle(0, 0, Some(100_000));
        assert_eq!(settle(&mut thrift, 0, &mut sealed, 10_000.0, Some(100_000), 20), calm);
        let short = settle(&mut thrift, 100_000, &mut sealed, 1_000_000.0, Some(100_000), 60);
        assert!(short.share < 0.1 && short.is_tight, "{short:?}");
        let quiet = settle(&mut thrift, 500_000, &mut sealed, 0.0, Some(100_000), 60);
        assert_eq!(quiet, calm);
        let short = settle(&mut thrift, 900_000, &mut sealed, 1_000_000.0, Some(100_000), 60);
        assert!(short.share < 0.1);
        // A free window begins.
        assert_eq!(thrift.handle(2_000_000, sealed, None), calm);
    }
}
