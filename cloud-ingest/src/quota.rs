//! P15: how much of the state that recognises duplicates one edge may cause.
//!
//! That state never forgets (P16). It is small because an edge counts its batches without gaps: one piece for each start of the edge and
//! one for each run of numbers. An edge that skips numbers or begins again for ever would let it grow for ever; the gateway holds its
//! batches back before that. Of an honest edge whose link is too thin for what it takes in, every fresh batch leaves a gap before it,
//! which its backlog fills later: the backlog may go on beyond the limit, up to twice of it, so that such an edge finds its way back.
//! The writers say how many pieces they hold; what the gateway let in and no writer has taken in yet counts too.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_wire::ids::{BatchId, Epoch, NodeId, Partition, StreamId, TenantId};
use sluice_wire::intervals::IntervalSet;
use sluice_wire::session::frame::Lane;

/// One edge, whatever spools it had. Identity comes from its certificate, the spool from itself.
pub(crate) type Edge = (TenantId, NodeId);

pub(crate) fn edge_of(stream: &StreamId) -> Edge {
    (stream.tenant.clone(), stream.node.clone())
}

/// The edge's batches must wait until an operator has looked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "edge {tenant}/{node} has caused {pieces} pieces of the state that recognises duplicates, the limit is {limit}: \
     it restarts or skips numbers all the time; mend it, or raise gateway.max_edge_state"
)]
pub struct QuotaError {
    tenant: TenantId,
    node: NodeId,
    pieces: u64,
    limit: u64,
}

/// The pieces of every edge. Shared by gateway and writers.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the writer that is furthest has taken in.
    planned: HashMap<Partition, Planned>,
    admitted: HashMap<Edge, Admitted>,
}

#[derive(Debug, Default)]
struct Planned {
    next: u64,
    pieces: HashMap<Edge, u64>,
}

/// Batches of one edge that the gateway let in lately.
#[derive(Debug, Default)]
struct Admitted {
    sets: BTreeMap<([u8; 16], Epoch), IntervalSet>,
    pieces: u64,
    in_flight: u64,
    /// The last offset by partition.
    last: BTreeMap<Partition, u64>,
}

/// A batch that was let in, until it stands in the log or does not.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    edge: Edge,
}

impl Quota {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// Lets a batch in, or says that its edge is over the limit.
    pub(crate) fn admit(self: &Arc<Self>, id: &BatchId, lane: Lane) -> Result<Share, QuotaError> {
        let limit = match lane {
            Lane::Live => self.limit,
            Lane::Backlog => self.limit.saturating_mul(2),
        };
        let edge = edge_of(&id.stream);
        let mut guard = self.lock();
        let State { planned, admitted } = &mut *guard;
        let seen: u64 = planned.values().filter_map(|of| of.pieces.get(&edge)).sum();
        let of_edge = admitted.entry(edge.clone()).or_default();
        if of_edge.is_planned(planned) {
            *of_edge = Admitted::default();
        }
        let pieces = seen.saturating_add(of_edge.pieces);
        if pieces >= limit {
            return Err(QuotaError {
                tenant: edge.0,
                node: edge.1,
                pieces,
                limit,
            });
        }
        of_edge.insert(id);
        of_edge.in_flight += 1;
        Ok(Share {
            quota: Arc::clone(self),
            edge,
        })
    }

    /// A writer has taken in everything of a partition below `next`; `edge` has caused `pieces` in it. A writer that lags is not heard.
    pub(crate) fn planned(&self, partition: Partition, next: u64, edge: &Edge, pieces: u64) {
        let mut state = self.lock();
        let planned = state.planned.entry(partition).or_default();
        if next >= planned.next {
            planned.next = next;
            match planned.pieces.get_mut(edge) {
                Some(held) => *held = pieces,
                None => drop(planned.pieces.insert(edge.clone(), pieces)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Whether the writers count all of it.
    fn is_planned(&self, planned: &HashMap<Partition, Planned>) -> bool {
        let taken = |(partition, last): (&Partition, &u64)| planned.get(partition).is_some_and(|of| of.next > *last);
        self.in_flight == 0 && self.last.iter().all(taken)
    }

    fn insert(&mut self, id: &BatchId) {
        let key = (id.stream.spool, id.epoch);
        let before = self.sets.get(&key).map_or(0, cost);
        let set = self.sets.entry(key).or_default();
        set.insert(id.seq);
        self.pieces = self.pieces + cost(set) - before;
    }
}

/// What the numbers of one start cost.
pub(crate) fn cost(seqs: &IntervalSet) -> u64 {
    1 + seqs.ranges() as u64
}

impl Share {
    /// The batch stands in the log.
    pub(crate) fn stands_at(self, partition: Partition, offset: u64) {
        let mut state = self.quota.lock();
        if let Some(of_edge) = state.admitted.get_mut(&self.edge) {
            let last = of_edge.last.entry(partition).or_insert(offset);
            *last = offset.max(*last);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(of_edge) = self.quota.lock().admitted.get_mut(&self.edge) {
            of_edge.in_flight -= 1;
        }
    }
}

/// Where one writer's planner says what it holds of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) quota: Arc<Quota>,
    pub(crate) partition: Partition,
}

impl Meter {
    pub(crate) fn planned(&self, next: u64, edge: &Edge, pieces: u64) {
        self.quota.planned(self.partition, next, edge, pieces);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dedup::Dedup;
    use sluice_wire::envelope::Kind;

    const P: Partition = Partition {
        generation: 0,
        index: 0,
    };
    const LIMIT: u64 = 40;

    fn id(node: &str, spool: u8, epoch: u32, seq: u64) -> BatchId {
        let stream = StreamId {
            tenant: TenantId::new("acme").unwrap(),
            node: NodeId::new(node).unwrap(),
            spool: [spool; 16],
        };
        let epoch = Epoch {
            number: epoch,
            random: 7,
        };
        BatchId { stream, epoch, seq }
    }

    /// A log of one partition, and a writer that reads it every `lag` records.
    struct World {
        quota: Arc<Quota>,
        log: Vec<BatchId>,
        dedup: Dedup,
        lag: usize,
    }

    impl World {
        fn new(lag: usize) -> Self {
            Self {
                quota: Arc::new(Quota::new(LIMIT)),
                log: Vec::new(),
                dedup: Dedup::default(),
                lag,
            }
        }

        fn send(&mut self, id: &BatchId) -> Result<(), QuotaError> {
            self.send_in(Lane::Live, id)
        }

        fn send_in(&mut self, lane: Lane, id: &BatchId) -> Result<(), QuotaError> {
            let share = self.quota.admit(id, lane)?;
            share.stands_at(P, self.log.len() as u64);
            self.log.push(id.clone());
            if self.log.len() - self.dedup.next() as usize >= self.lag {
                self.plan();
            }
            Ok(())
        }

        fn plan(&mut self) {
            while let Some(id) = self.log.get(self.dedup.next() as usize) {
                let id = id.clone();
                self.dedup.observe(&id, Kind::Data, &[0; 32]);
                let pieces = self.dedup.pieces(&edge_of(&id.stream));
                self.quota.planned(P, self.dedup.next(), &edge_of(&id.stream), pieces);
            }
        }
    }

    /// P15: whatever an edge does with its numbers, and however far the writers are behind, its state stays within the limit; and
    /// only its own batches wait.
    #[test]
    fn p15_an_edge_cannot_make_the_state_of_duplicates_grow_beyond_its_limit() {
        type Numbering = fn(u64) -> BatchId;
        let hostile: [(&str, Numbering); 4] = [
            ("every second number", |n| id("bad", 1, 1, 2 * n)),
            ("ever new starts", |n| id("bad", 1, n as u32, 0)),
            ("ever new spools", |n| id("bad", n as u8, 1, 0)),
            ("starts without a number", |n| id("bad", 1, n as u32, u64::MAX)),
        ];
        for (what, batch) in hostile {
            for lag in [1, 7, 1000] {
                let mut world = World::new(lag);
                let send = |world: &mut World, numbers: std::ops::Range<u64>| {
                    numbers.take_while(|n| world.send(&batch(*n)).is_ok()).count()
                };
                let sent = send(&mut world, 0..200);
                assert!((5..=LIMIT as usize).contains(&sent), "{what}, lag {lag}: {sent}");
                // What was counted twice while the writers were behind is counted once now, and then the limit holds for good.
                world.plan();
                let more = send(&mut world, 200..220);
                assert!(
                    more <= 3 && send(&mut world, 220..240) == 0,
                    "{what}, lag {lag}: {more} more"
                );
                world.plan();
                assert_eq!(send(&mut world, 240..250), 0, "{what}, lag {lag}");
                let pieces = world.dedup.pieces(&edge_of(&batch(0).stream));
                assert!(pieces <= LIMIT + 1, "{what}, lag {lag}: {pieces}");
                world.send(&id("good", 1, 1, 0)).unwrap();
            }
        }
    }

    /// P16: an honest edge is never held back, however long it runs, in whatever order its batches come and come again.
    #[test]
    fn p16_an_honest_edge_is_never_held_back() {
        for lag in [1, 7, 100_000] {
            let mut world = World::new(lag);
            for epoch in 0..4 {
                for block in 0..500 {
                    // Overtaking, and sent again after a lost answer.
                    for seq in [3, 0, 2, 1, 1] {
                        world.send(&id("good", 1, epoch, 4 * block + seq)).unwrap();
                    }
                }
            }
            world.plan();
            assert_eq!(world.dedup.pieces(&edge_of(&id("good", 1, 0, 0).stream)), 8);
        }
    }

    /// P15, P16: fresh batches over a link that is too thin for all leave gaps until they are held; the backlog, from its oldest batch on,
    /// is taken, closes them, and then the edge is as it was. Whoever makes gaps with a backlog is held, too.
    #[test]
    fn p15_p16_an_edge_that_left_too_many_gaps_closes_them_by_its_backlog() {
        for lag in [1, 7] {
            let mut world = World::new(lag);
            let held = (0..)
                .find(|n| world.send(&id("thin", 1, 1, 3 * n + 2)).is_err())
                .unwrap();
            assert!(held < LIMIT);
            for seq in (0..3 * held).filter(|seq| seq % 3 != 2) {
                world.send_in(Lane::Backlog, &id("thin", 1, 1, seq)).unwrap();
            }
            world.plan();
            world.send(&id("thin", 1, 1, 3 * held + 2)).unwrap();
            let made = (0..1_000).take_while(|n| world.send_in(Lane::Backlog, &id("bad", 1, 1, 2 * n)).is_ok());
            assert!(made.count() as u64 <= 2 * LIMIT);
        }
    }

    /// A batch that the log did not take is not counted for ever.
    #[test]
    fn a_batch_that_did_not_reach_the_log_is_let_in_again() {
        let mut world = World::new(1);
        for _ in 0..10 * LIMIT {
            drop(world.quota.admit(&id("good", 1, 1, 0), Lane::Live).unwrap());
        }
        for n in 0..10 * LIMIT {
            drop(world.quota.admit(&id("good", 1, 1, 2 * n), Lane::Live).unwrap());
        }
        world.send(&id("good", 1, 1, 0)).unwrap();
    }
}
