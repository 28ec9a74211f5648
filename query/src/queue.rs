//! Who runs next. A tenant that waits for itself takes no place from others, tenants take turns, and the queries of one go in the order in
//! which they came. A query that has run for long gives up its place among the short ones for one of a few for long ones, so that
//! dashboards do not wait behind reports. Pure: time is an argument.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use sluice_wire::ids::TenantId;

/// How many of what. Long ones have half as many places again, at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Queries that run and are not long.
    pub(crate) places: usize,
    /// Of these, how many one tenant may hold.
    pub(crate) tenant_places: usize,
    /// Queries that wait, of all tenants and of one.
    pub(crate) waiting: usize,
    pub(crate) tenant_waiting: usize,
    /// A query that runs for this long is a long one.
    pub(crate) long_after: Duration,
}

impl Rules {
    fn long_places(&self) -> usize {
        (self.places / 2).max(1)
    }

    fn tenant_long_places(&self) -> usize {
        (self.tenant_places / 2).max(1)
    }
}

/// What tells one query from another; later ones have higher numbers.
pub(crate) type Id = u64;

#[derive(Debug)]
pub(crate) struct Queue {
    rules: Rules,
    tenants: HashMap<TenantId, Tenant>,
    /// Tenants with waiting queries, the one whose turn it is first.
    turns: VecDeque<TenantId>,
    waiting: BTreeMap<Id, TenantId>,
    running: BTreeMap<Id, Run>,
    short: usize,
    long: usize,
}

#[derive(Debug, Default)]
struct Tenant {
    waiting: VecDeque<Id>,
    short: usize,
    long: usize,
}

#[derive(Debug)]
struct Run {
    tenant: TenantId,
    began: Instant,
    long: bool,
}

impl Queue {
    pub(crate) fn new(rules: Rules) -> Queue {
        Queue {
            rules,
            tenants: HashMap::new(),
            turns: VecDeque::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            short: 0,
            long: 0,
        }
    }

    /// A query comes. It then runs, waits, or is neither because too many wait. Gives those that begin to run.
    pub(crate) fn enter(&mut self, id: Id, tenant: &TenantId, now: Instant) -> Vec<Id> {
        let of_tenant = self.tenants.entry(tenant.clone()).or_default();
        if of_tenant.waiting.is_empty() {
            self.turns.push_back(tenant.clone());
        }
        of_tenant.waiting.push_back(id);
        self.waiting.insert(id, tenant.clone());
        let mut begin = self.let_in(now);
        let of_tenant = self.tenants.get(tenant).map_or(0, |tenant| tenant.waiting.len());
        if self.waiting.contains_key(&id)
            && (self.waiting.len() > self.rules.waiting || of_tenant > self.rules.tenant_waiting)
        {
            begin.extend(self.leave(id, now));
        }
        begin
    }

    /// A query is done, or waits no more. Gives those that begin to run.
    pub(crate) fn leave(&mut self, id: Id, now: Instant) -> Vec<Id> {
        let tenant = if let Some(run) = self.running.remove(&id) {
            if let Some(tenant) = self.tenants.get_mut(&run.tenant) {
                match run.long {
                    true => (tenant.long, self.long) = (tenant.long - 1, self.long - 1),
                    false => (tenant.short, self.short) = (tenant.short - 1, self.short - 1),
                }
            }
            run.tenant
        } else if let Some(name) = self.waiting.remove(&id) {
            if let Some(tenant) = self.tenants.get_mut(&name) {
                tenant.waiting.retain(|waiting| *waiting != id);
                if tenant.waiting.is_empty() {
                    self.turns.retain(|turn| *turn != name);
                }
            }
            name
        } else {
            return Vec::new();
        };
        let idle = |tenant: &Tenant| tenant.waiting.is_empty() && tenant.short + tenant.long == 0;
        if self.tenants.get(&tenant).is_some_and(idle) {
            self.tenants.remove(&tenant);
        }
        self.let_in(now)
    }

    /// Time went by. Gives those that begin to run.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Id> {
        self.let_in(now)
    }

    /// When time going by may let somebody in, if only that can.
    pub(crate) fn next_tick(&self, now: Instant) -> Option<Instant> {
        let ends = self
            .running
            .values()
            .filter(|run| !run.long)
            .map(|run| run.began + self.rules.long_after);
        ends.filter(|end| *end > now).min()
    }

    pub(crate) fn runs(&self, id: Id) -> bool {
        self.running.contains_key(&id)
    }

    pub(crate) fn waits(&self, id: Id) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn let_in(&mut self, now: Instant) -> Vec<Id> {
        if self.turns.is_empty() {
            return Vec::new();
        }
        self.make_long(now);
        let mut begin = Vec::new();
        // turns that nobody could take since the last one who did
        let mut passed = 0;
        while self.short < self.rules.places && passed < self.turns.len() {
            let Some(name) = self.turns.pop_front() else { break };
            let Some(tenant) = self.tenants.get_mut(&name) else {
                continue;
            };
            passed += 1;
            if tenant.short < self.rules.tenant_places
                && let Some(id) = tenant.waiting.pop_front()
            {
                tenant.short += 1;
                self.short += 1;
                self.waiting.remove(&id);
                let run = Run {
                    tenant: name.clone(),
                    began: now,
                    long: false,
                };
                self.running.insert(id, run);
                begin.push(id);
                passed = 0;
            }
            if !tenant.waiting.is_empty() {
                self.turns.push_back(name);
            }
        }
        begin
    }

    /// Those that have run for long take places for long ones, as far as there are any.
    fn make_long(&mut self, now: Instant) {
        for run in self.running.values_mut() {
            let Some(tenant) = self.tenants.get_mut(&run.tenant) else {
                continue;
            };
            if run.long || now.saturating_duration_since(run.began) < self.rules.long_after {
                continue;
            }
            if self.long < self.rules.long_places() && tenant.long < self.rules.tenant_long_places() {
                run.long = true;
                (tenant.long, tenant.short) = (tenant.long + 1, tenant.short - 1);
                (self.long, self.short) = (self.long + 1, self.short - 1);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules {
        places: 4,
        tenant_places: 2,
        waiting: 12,
        tenant_waiting: 8,
        long_after: Duration::from_secs(1),
    };

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(usize),
        /// The query at this place among those that are here goes.
        Leave(prop::sample::Index),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..4).prop_map(Step::Enter),
            2 => any::<prop::sample::Index>().prop_map(Step::Leave),
            1 => (0u64..1_500).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever comes and goes: no bound is passed, nobody waits who could run, everybody who begins was waiting, and those of one
        /// tenant begin in their order.
        #[test]
        fn places_are_bounded_and_never_idle(steps in prop::collection::vec(step(), 1..200)) {
            let mut queue = Queue::new(RULES);
            let mut now = Instant::now();
            let mut here: Vec<(Id, usize)> = Vec::new();
            let mut began: HashMap<usize, Id> = HashMap::new();
            for (id, step) in (0..).zip(steps) {
                let begin = match step {
                    Step::Enter(n) => {
                        let begin = queue.enter(id, &tenant(n), now);
                        if queue.runs(id) || queue.waits(id) {
                            here.push((id, n));
                        }
                        begin
                    }
                    Step::Leave(at) if !here.is_empty() => queue.leave(here.swap_remove(at.index(here.len())).0, now),
                    Step::Leave(_) => continue,
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms);
                        queue.tick(now)
                    }
                };
                for id in begin {
                    let n = here.iter().find(|(known, _)| *known == id).unwrap().1;
                    prop_assert!(queue.runs(id) && !queue.waits(id));
                    prop_assert!(began.insert(n, id).is_none_or(|before| before < id));
                }
                prop_assert_eq!(queue.running.len() + queue.waiting.len(), here.len());
                prop_assert!(queue.short <= 4 && queue.long <= 2 && queue.waiting.len() <= 12);
                for (name, tenant) in &queue.tenants {
                    prop_assert!(tenant.short <= 2 && tenant.long <= 1 && tenant.waiting.len() <= 8);
                    prop_assert_eq!(queue.turns.iter().filter(|turn| *turn == name).count(), usize::from(!tenant.waiting.is_empty()));
                    prop_assert!(tenant.waiting.is_empty() || tenant.short == 2 || queue.short == 4, "somebody waits for nothing");
                }
                for (name, long) in queue.tenants.iter().map(|(name, tenant)| (name, tenant.long)) {
                    prop_assert_eq!(queue.running.values().filter(|run| run.tenant == *name && run.long).count(), long);
                }
            }
            for (id, _) in here {
                queue.leave(id, now);
            }
            prop_assert!(queue.tenants.is_empty() && queue.turns.is_empty() && queue.short + queue.long == 0);
        }
    }

    #[test]
    fn tenants_take_turns_however_many_one_of_them_sends() {
        let mut queue = Queue::new(RULES);
        let now = Instant::now();
        // four places are taken by two tenants, a third sends many and a fourth one
        for (id, n) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
            assert_eq!(queue.enter(id, &tenant(n), now), [id]);
        }
        for id in 10..18 {
            assert!(queue.enter(id, &tenant(2), now).is_empty());
        }
        assert!(queue.enter(20, &tenant(3), now).is_empty());
        assert_eq!(queue.leave(0, now), [10]);
        assert_eq!(queue.leave(1, now), [20], "the one who came late has its turn");
        assert_eq!(queue.leave(2, now), [11]);
    }

    #[test]
    fn what_runs_for_long_makes_room_for_what_does_not() {
        let mut queue = Queue::new(RULES);
        let start = Instant::now();
        for id in [0, 1] {
            queue.enter(id, &tenant(0), start);
        }
        assert!(queue.enter(2, &tenant(0), start).is_empty());
        let later = queue.next_tick(start).unwrap();
        assert_eq!(later, start + RULES.long_after);
        assert_eq!(queue.tick(later), [2]);
        // one tenant has one place for long ones: the other keeps its own
        assert!(queue.enter(3, &tenant(0), later).is_empty());
        assert_eq!(
            queue.leave(0, later),
            [3],
            "the long one went, and the next takes its place"
        );
    }
}
