//! Whose node runs. Time is an argument.
//!
//! A node whose tenant sends has a seat; there are `otlp.max_tenants` of them. One that only carries on what an earlier life accepted needs
//! none: a few of those run at once beside the seats, each until nothing is left of it, or for a turn if others wait. So what is on the
//! disk goes on its way however many tenants there are, and the number of nodes is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_wire::ids::TenantId;

/// Nodes that carry on what was left, at once: they open journals and seal, which is work for the disk.
pub(super) const CARRIERS: usize = 4;
/// How long one that does not get rid of what it has keeps others waiting.
const TURN: Duration = Duration::from_secs(60);
/// A node that could not be started, or ended, is started again after this if its tenant sends,
pub(super) const PAUSE: Duration = Duration::from_secs(5);
/// and else after this: somebody has to mend it first.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// A tenant that has sent nothing for so long, and of which everything is in the cloud, gives its seat to one that sends. Exporters
/// send every 60 s at least.
const QUIET: Duration = Duration::from_secs(120);

/// What is known of one tenant's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its tenant is one of ours.
    pub(super) is_served: bool,
    pub(super) node: Node,
    /// Of a running one: everything that it accepted is in the cloud.
    pub(super) is_drained: bool,
    /// Something may lie in its folder. Only of one that does not run.
    pub(super) has_left: bool,
    /// Since its tenant sent last; never in this life.
    pub(super) quiet_for: Option<Duration>,
    /// Since it carried on last what was left.
    pub(super) carried: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Node {
    #[default]
    Stopped,
    /// So long ago.
    Failed(Duration),
    Seated,
    /// For so long.
    Carrying(Duration),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stop(TenantId),
    Carry(TenantId),
}

/// What nobody has to ask for.
pub(super) fn steps(places: &BTreeMap<TenantId, Facts>) -> Vec<Step> {
    let mut waiting: Vec<_> = places.iter().filter(|(_, facts)| facts.waits()).collect();
    // Whoever never had a turn, then whoever had it longest ago.
    waiting.sort_by_key(|(_, facts)| std::cmp::Reverse(facts.carried.unwrap_or(Duration::MAX)));
    let is_over = |facts: &Facts| match facts.node {
        Node::Carrying(since) => !facts.is_served || facts.is_drained || (since >= TURN && !waiting.is_empty()),
        Node::Seated => !facts.is_served,
        Node::Stopped | Node::Failed(_) => false,
    };
    let stop = places.iter().filter(|(_, facts)| is_over(facts));
    let at_work = places.values().filter(|facts| matches!(facts.node, Node::Carrying(_)));
    let free = CARRIERS.saturating_sub(at_work.count());
    let carry = waiting.iter().take(free).map(|(who, _)| Step::Carry((*who).clone()));
    stop.map(|(who, _)| Step::Stop(who.clone())).chain(carry).collect()
}

/// Whose seat a tenant gets that sends, when none is free.
pub(super) fn gives_way(places: &BTreeMap<TenantId, Facts>) -> Option<TenantId> {
    let seated = places.iter().filter(|(_, facts)| facts.node == Node::Seated);
    let may = seated.filter(|(_, facts)| {
        !facts.is_served || (facts.is_drained && facts.quiet_for.is_none_or(|quiet| quiet >= QUIET))
    });
    let longest = may.max_by_key(|(_, facts)| (!facts.is_served, facts.quiet_for.unwrap_or(Duration::MAX)));
    longest.map(|(who, _)| who.clone())
}

impl Facts {
    /// For a turn to carry on what is left of it.
    fn waits(&self) -> bool {
        let may_start = match self.node {
            Node::Stopped => true,
            Node::Failed(since) => since >= TRY_AGAIN,
            Node::Seated | Node::Carrying(_) => false,
        };
        may_start && self.has_left && self.is_served
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::new(&format!("t{n}")).unwrap()
    }

    /// P1: however many tenants have something on the disk, and although some never get rid of theirs, each has its turn again and again,
    /// with no more than a few nodes at once; and what can go is gone soon.
    #[test]
    fn p1_what_every_tenant_left_is_carried_on_in_turn() {
        const TENANTS: usize = 40;
        const LOOK: Duration = Duration::from_secs(1);
        // Every fifth is refused by its gateways; every seventh does not even start.
        let (is_stuck, is_broken) = (|n: usize| n.is_multiple_of(5), |n: usize| n % 7 == 3);
        let served = || Facts {
            is_served: true,
            has_left: true,
            ..Facts::default()
        };
        let mut places: BTreeMap<_, _> = (0..TENANTS).map(|n| (tenant(n), served())).collect();
        // Nobody serves this one any more: it waits, and keeps nobody from its turn.
        places.insert(
            tenant(TENANTS),
            Facts {
                is_served: false,
                ..served()
            },
        );
        let mut turns = vec![0; TENANTS + 1];
        for _ in 0..3_600 {
            for step in steps(&places) {
                let of = |who: &TenantId| who.as_str()[1..].parse::<usize>().unwrap();
                match step {
                    Step::Stop(who) => {
                        let facts = places.get_mut(&who).unwrap();
                        assert!(matches!(facts.node, Node::Carrying(_)));
                        (facts.node, facts.has_left) = (Node::Stopped, !facts.is_drained);
                        facts.carried = Some(Duration::ZERO);
                    }
                    Step::Carry(who) => {
                        let n = of(&who);
                        turns[n] += 1;
                        let facts = places.get_mut(&who).unwrap();
                        facts.node = match is_broken(n) {
                            true => Node::Failed(Duration::ZERO),
                            false => Node::Carrying(Duration::ZERO),
                        };
                        facts.carried = Some(Duration::ZERO);
                    }
                }
            }
            let at_work = places.values().filter(|facts| matches!(facts.node, Node::Carrying(_)));
            assert!(at_work.count() <= CARRIERS);
            for n in 0..=TENANTS {
                let facts = places.get_mut(&tenant(n)).unwrap();
                match &mut facts.node {
                    Node::Carrying(since) => {
                        *since += LOOK;
                        facts.is_drained = !is_stuck(n);
                    }
                    Node::Failed(since) => *since += LOOK,
                    Node::Stopped | Node::Seated => {}
                }
                facts.carried = facts.carried.map(|since| since + LOOK);
            }
        }
        assert_eq!(turns.pop(), Some(0), "nobody serves it");
        for (n, turns) in turns.into_iter().enumerate() {
            let left = places[&tenant(n)].has_left;
            assert_eq!(left, is_stuck(n) || is_broken(n), "{n}");
            assert!(turns >= if left { 10 } else { 1 }, "{n} had {turns} turns");
        }
    }

    #[test]
    fn a_seat_goes_to_who_sends_from_who_needs_it_least_and_never_with_something_left() {
        let seated = |quiet: Option<u64>, is_drained, is_served| Facts {
            is_served,
            node: Node::Seated,
            is_drained,
            quiet_for: quiet.map(Duration::from_secs),
            ..Facts::default()
        };
        let of = |facts: &[Facts]| {
            gives_way(
                &facts
                    .iter()
                    .cloned()
                    .enumerate()
                    .map(|(n, facts)| (tenant(n), facts))
                    .collect(),
            )
        };
        let (busy, full) = (seated(Some(1), true, true), seated(Some(900), false, true));
        assert_eq!(of(&[busy.clone(), full.clone()]), None);
        let quiet = |s| seated(Some(s), true, true);
        assert_eq!(of(&[busy.clone(), quiet(130), quiet(500), full]), Some(tenant(2)));
        // Of one that nobody serves any more the rest waits on the disk.
        assert_eq!(of(&[quiet(500), seated(Some(1), false, false)]), Some(tenant(1)));
        let gone = BTreeMap::from([(tenant(0), seated(Some(1), false, false)), (tenant(1), busy)]);
        assert_eq!(steps(&gone), [Step::Stop(tenant(0))]);
    }
}
