//! The seam as a model: a log, a writer of hot, one of cold, a deleter, a writer that believes it still owns the partition, and
//! queries, each a state machine. In whatever order they step, every query reads exactly the prefix of the log that it claims (P8).
//!
//! The decision which store serves what is the product's own code.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use sluice_store::seam::rule::Ends;

/// A row of hot: its offset and the generation of who wrote it.
type HotRow = (u64, u32);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct World {
    /// Next offset of the log.
    end: u64,
    /// Last claim: from, generation; and all of them.
    claims: Vec<(u64, u32)>,
    hot: BTreeSet<HotRow>,
    hot_next: u64,
    /// A writer that lost its claim but does not know: what it writes next, under which generation.
    zombie: Option<(u64, u32)>,
    /// Cold holds everything below.
    cold_next: u64,
    /// Hot may have deleted everything below.
    low_next: u64,
    query: Query,
}

/// A query reads the seam, then hot, then cold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Query {
    Idle,
    /// Knows the claims and L.
    Seam(Vec<(u64, u32)>, u64),
    /// Knows H too. The deleter waits for queries of this age, so the hot rows are those of any later moment.
    Hot(Vec<(u64, u32)>, u64, Option<u64>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Append,
    HotInsert,
    ColdCommit,
    Advance,
    Delete,
    /// A new writer takes over from C, as after a restart.
    TakeOver,
    ZombieInsert,
    Query,
}

const STEPS: [Step; 8] = [
    Step::Append,
    Step::HotInsert,
    Step::ColdCommit,
    Step::Advance,
    Step::Delete,
    Step::TakeOver,
    Step::ZombieInsert,
    Step::Query,
];

fn counts_at(claims: &[(u64, u32)], offset: u64) -> u32 {
    claims
        .iter()
        .rev()
        .find(|(from, _)| *from <= offset)
        .map_or(0, |(_, generation)| *generation)
}

impl World {
    fn new() -> Self {
        Self {
            end: 0,
            claims: vec![(0, 1)],
            hot: BTreeSet::new(),
            hot_next: 0,
            zombie: None,
            cold_next: 0,
            low_next: 0,
            query: Query::Idle,
        }
    }

    /// H: the last contiguous offset of rows that count, above L.
    fn high(&self, claims: &[(u64, u32)], low_next: u64) -> Option<u64> {
        let mut next = low_next;
        while self.hot.contains(&(next, counts_at(claims, next))) {
            next += 1;
        }
        (next > low_next).then(|| next - 1)
    }

    /// Takes a step if it is possible; checks the answer when it ends a query.
    fn step(&mut self, step: Step, max_end: u64) -> Option<()> {
        match step {
            Step::Append if self.end < max_end => self.end += 1,
            Step::HotInsert if self.hot_next < self.end => {
                let generation = self.claims.last().unwrap().1;
                self.hot.insert((self.hot_next, generation));
                self.hot_next += 1;
            }
            Step::ColdCommit if self.cold_next < self.end => self.cold_next += 1,
            Step::Advance if self.low_next < self.cold_next => self.low_next += 1,
            // Deletion waits until no query is older than L.
            Step::Delete if self.query == Query::Idle && self.hot.iter().any(|(o, _)| *o < self.low_next) => {
                self.hot.retain(|(offset, _)| *offset >= self.low_next);
            }
            Step::TakeOver if self.claims.len() < 3 => {
                let generation = self.claims.last().unwrap().1;
                self.zombie = Some((self.hot_next, generation));
                // From C + 1 with L = C: hot is a tail above cold that can be built again.
                self.low_next = self.low_next.max(self.cold_next);
                self.hot_next = self.cold_next;
                self.claims.push((self.cold_next, generation + 1));
            }
            Step::ZombieInsert => {
                let (next, generation) = self.zombie.filter(|(next, _)| *next < self.end)?;
                self.hot.insert((next, generation));
                self.zombie = Some((next + 1, generation));
            }
            Step::Query => self.query = self.next_of_query(),
            _ => return None,
        }
        Some(())
    }

    fn next_of_query(&self) -> Query {
        match &self.query {
            Query::Idle => Query::Seam(self.claims.clone(), self.low_next),
            Query::Seam(claims, low) => Query::Hot(claims.clone(), *low, self.high(claims, *low)),
            Query::Hot(claims, low, high) => {
                self.check_answer(claims, *low, *high);
                Query::Idle
            }
        }
    }

    fn check_answer(&self, claims: &[(u64, u32)], low: u64, high: Option<u64>) {
        let ends = Ends {
            low: low.checked_sub(1),
            high,
            cold: self.cold_next.checked_sub(1),
        };
        let share = ends.share().expect("cold never falls behind L");
        let mut answer: Vec<u64> = self
            .hot
            .iter()
            .filter(|(offset, generation)| share.hot_serves(*offset) && counts_at(claims, *offset) == *generation)
            .map(|(offset, _)| *offset)
            .collect();
        answer.extend((0..self.cold_next).filter(|offset| share.cold_serves(*offset)));
        answer.sort_unstable();
        let claimed: Vec<u64> = share.visible.map_or_else(Vec::new, |visible| (0..=visible).collect());
        assert_eq!(answer, claimed, "{self:?} {share:?}");
    }
}

/// Every interleaving of a log of three records.
#[test]
fn p8_every_order_of_steps_of_a_small_log_answers_with_a_prefix() {
    let mut seen = BTreeSet::from([World::new()]);
    let mut open = vec![World::new()];
    let mut answers = 0;
    while let Some(world) = open.pop() {
        for step in STEPS {
            let mut next = world.clone();
            if next.step(step, 3).is_none() {
                continue;
            }
            answers += usize::from(step == Step::Query && next.query == Query::Idle);
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    assert!(
        seen.len() > 10_000 && answers > 1_000,
        "{} states, {answers} answers",
        seen.len()
    );
}

/// Random walks through a longer log.
#[test]
fn p8_random_orders_of_a_longer_log_answer_with_a_prefix() {
    let mut state = 0x5eed_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % bound
    };
    for _ in 0..2_000 {
        let mut world = World::new();
        for _ in 0..200 {
            let step = STEPS[random(STEPS.len())];
            world.step(step, 40);
        }
    }
}
