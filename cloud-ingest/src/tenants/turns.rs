//! Whose batch is next where batches queue: deficit round robin over tenants, in the order of asking within each.
//!
//! A tenant with a long queue waits for itself. One whose batch comes into an empty queue waits for what is at work, and for one
//! quantum, or one batch, of every other tenant that waits.

use std::collections::{HashMap, VecDeque};

use sluice_wire::ids::TenantId;

/// Bytes that a tenant may send on in its turn: some batches of common size.
const QUANTUM: u64 = 256 << 10;

/// Those who wait, and what is at work. `T` is who is told.
#[derive(Debug)]
pub(super) struct Turns<T> {
    /// Of what is at work at once, in the caller's unit.
    room: u64,
    at_work: u64,
    lines: HashMap<TenantId, Line<T>>,
    /// Tenants with somebody in their line.
    ring: VecDeque<TenantId>,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Bytes that are left of its turn.
    left: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    units: u64,
    bytes: u64,
    who: T,
}

impl<T> Turns<T> {
    pub(super) fn new(room: u64) -> Self {
        Self {
            room: room.max(1),
            at_work: 0,
            lines: HashMap::new(),
            ring: VecDeque::new(),
        }
    }

    /// Somebody wants to work on so many bytes, and takes so many units of the room meanwhile; who wants more than there is gets all.
    pub(super) fn handle_asked(&mut self, tenant: &TenantId, units: u64, bytes: u64, who: T) {
        let units = units.clamp(1, self.room);
        let waiting = Waiting { units, bytes, who };
        match self.lines.get_mut(tenant) {
            Some(line) => line.waiting.push_back(waiting),
            None => {
                let line = Line {
                    waiting: VecDeque::from([waiting]),
                    left: 0,
                };
                self.lines.insert(tenant.clone(), line);
                self.ring.push_back(tenant.clone());
            }
        }
    }

    /// Somebody is done, who had so many units.
    pub(super) fn handle_done(&mut self, units: u64) {
        self.at_work = self.at_work.saturating_sub(units);
    }

    /// Who may begin, and with how many units.
    pub(super) fn poll_turn(&mut self) -> Option<(T, u64)> {
        while let Some(tenant) = self.ring.front() {
            // Nobody stands in the ring without a line.
            let line = self.lines.get_mut(tenant)?;
            let next = line.waiting.front()?;
            if next.bytes > line.left {
                // Its turn is over; in the next one it has more.
                line.left += QUANTUM;
                self.ring.rotate_left(1);
                continue;
            }
            // Whoever is next waits until there is room: others that would fit do not pass.
            if self.at_work + next.units > self.room {
                return None;
            }
            line.left -= next.bytes;
            let next = line.waiting.pop_front()?;
            if line.waiting.is_empty() {
                let tenant = self.ring.pop_front()?;
                self.lines.remove(&tenant);
            }
            self.at_work += next.units;
            return Some((next.who, next.units));
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).unwrap()
    }

    const LARGEST: u64 = 1 << 20;

    proptest! {
        /// A quiet tenant sends one batch at a time, while others have any number in their lines: it waits for what is at work, and for at
        /// most a quantum and a batch of each other tenant for every quantum of its own. Nobody is forgotten, the room is kept, and
        /// each tenant is served in its own order.
        #[test]
        fn p15_a_quiet_tenant_waits_for_a_bounded_number_of_the_others(
            noisy in 1usize..5,
            sizes in proptest::collection::vec(1u64..LARGEST, 50..200),
            quiet_size in 1u64..LARGEST,
            room in 1u64..4,
            served_before in 0usize..40,
        ) {
            let mut turns = Turns::new(room);
            for (n, bytes) in sizes.iter().enumerate() {
                turns.handle_asked(&tenant(1 + n % noisy), 1, *bytes, (1 + n % noisy, n, *bytes));
            }
            let mut at_work = VecDeque::new();
            let mut last = vec![None; noisy + 1];
            let (mut before_quiet, mut served, mut quiet_waits) = (0u64, 0usize, None);
            loop {
                if served == served_before {
                    turns.handle_asked(&tenant(0), 1, quiet_size, (0, 0, quiet_size));
                    quiet_waits = Some(true);
                    served += 1;
                }
                match turns.poll_turn() {
                    Some(((who, n, bytes), units)) => {
                        prop_assert!(last[who].is_none_or(|last| last < n) || who == 0);
                        last[who] = Some(n);
                        at_work.push_back(units);
                        prop_assert!(at_work.len() as u64 <= room);
                        served += 1;
                        if who == 0 {
                            quiet_waits = Some(false);
                        } else if quiet_waits == Some(true) {
                            before_quiet += bytes;
                        }
                    }
                    None => match at_work.pop_front() {
                        Some(units) => turns.handle_done(units),
                        None => break,
                    },
                }
            }
            prop_assert_eq!(served, sizes.len() + 1, "everybody is served");
            prop_assert_eq!(quiet_waits, Some(false));
            let rounds = quiet_size.div_ceil(QUANTUM);
            let most = noisy as u64 * (rounds + 1) * QUANTUM + noisy as u64 * LARGEST;
            prop_assert!(before_quiet <= most, "{before_quiet} bytes of others, at most {most}");
            prop_assert!(turns.lines.is_empty() && turns.ring.is_empty());
        }
    }

    #[test]
    fn who_wants_more_than_there_is_gets_all_and_is_not_passed_for_ever() {
        let mut turns = Turns::new(4);
        turns.handle_asked(&tenant(1), 3, 10, "three");
        assert_eq!(turns.poll_turn(), Some(("three", 3)));
        turns.handle_asked(&tenant(1), 9, 10, "all");
        turns.handle_asked(&tenant(1), 1, 10, "one");
        assert_eq!(turns.poll_turn(), None);
        turns.handle_done(3);
        assert_eq!(turns.poll_turn(), Some(("all", 4)));
        assert_eq!(turns.poll_turn(), None);
        turns.handle_done(4);
        assert_eq!(turns.poll_turn(), Some(("one", 1)));
    }
}
