//! Who may hold how much of a memory that all share. Nothing is taken away from anybody: what is held comes back when it is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_wire::ids::TenantId;

/// A tenant may hold as much as is free: the more the others hold, the less it gets, and the last part of the room is always for
/// whoever has least. One noisy tenant ends at half of the whole, two at a third each once what they took is done, and so on; who
/// holds little finds room at once. It is how switches divide their buffers (dynamic thresholds, with a factor of one).
#[derive(Debug)]
struct Division {
    total: u64,
    used: u64,
    holders: HashMap<TenantId, Holder>,
    /// Tenants that are here at all.
    present: usize,
    /// Somebody else may come at any time, so nobody gets everything.
    is_for_many: bool,
}

#[derive(Debug, Default)]
struct Holder {
    held: u64,
    sessions: usize,
}

impl Division {
    fn take(&mut self, who: &TenantId, amount: u64) -> bool {
        let free = self.total - self.used;
        let held = self.holders.get(who).map_or(0, |holder| holder.held);
        let others = self.present - usize::from(self.holders.get(who).is_some_and(|holder| holder.sessions > 0));
        let fits = match self.is_for_many || others > 0 {
            true => held.saturating_add(amount) <= free,
            false => amount <= free,
        };
        if fits {
            self.used += amount;
            self.holders.entry(who.clone()).or_default().held += amount;
        }
        fits
    }

    fn give_back(&mut self, who: &TenantId, amount: u64) {
        self.used -= amount;
        if let Some(holder) = self.holders.get_mut(who) {
            holder.held -= amount;
        }
        self.forget(who);
    }

    fn enter(&mut self, who: &TenantId) {
        let holder = self.holders.entry(who.clone()).or_default();
        self.present += usize::from(holder.sessions == 0);
        holder.sessions += 1;
    }

    fn leave(&mut self, who: &TenantId) {
        if let Some(holder) = self.holders.get_mut(who) {
            holder.sessions -= 1;
            self.present -= usize::from(holder.sessions == 0);
        }
        self.forget(who);
    }

    fn forget(&mut self, who: &TenantId) {
        if self
            .holders
            .get(who)
            .is_some_and(|holder| holder.held == 0 && holder.sessions == 0)
        {
            self.holders.remove(who);
        }
    }
}

/// Shared by all sessions. Amounts are in a unit of the caller's.
#[derive(Debug)]
pub(crate) struct Shares(Mutex<Division>);

/// What is held, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    shares: Arc<Shares>,
    who: TenantId,
    amount: u64,
}

/// A session of a tenant, until it is dropped.
#[derive(Debug)]
pub(crate) struct Presence {
    shares: Arc<Shares>,
    who: TenantId,
}

impl Shares {
    pub(crate) fn new(total: u64, is_for_many: bool) -> Self {
        Self(Mutex::new(Division {
            total,
            used: 0,
            holders: HashMap::new(),
            present: 0,
            is_for_many,
        }))
    }

    /// `None`: there is no room, or others have a right to it.
    pub(crate) fn take(self: &Arc<Self>, who: &TenantId, amount: u64) -> Option<Claim> {
        self.lock().take(who, amount).then(|| Claim {
            shares: Arc::clone(self),
            who: who.clone(),
            amount,
        })
    }

    pub(crate) fn enter(self: &Arc<Self>, who: &TenantId) -> Presence {
        self.lock().enter(who);
        Presence {
            shares: Arc::clone(self),
            who: who.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Division> {
        // Each change is complete before anything can fail.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shares.lock().give_back(&self.who, self.amount);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shares.lock().leave(&self.who);
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

    const TOTAL: u64 = 1_000;
    const LARGEST: u64 = 40;

    proptest! {
        /// Whatever up to three greedy tenants do, and in whatever order: one that holds little, as LARGEST is a batch, is never refused;
        /// and never is more held than there is.
        #[test]
        fn p15_a_quiet_tenant_always_finds_room(
            greedy in 1usize..=3,
            steps in proptest::collection::vec((0usize..=3, 1u64..=LARGEST, any::<bool>()), 1..600),
        ) {
            let shares = Arc::new(Shares::new(TOTAL, true));
            let mut held: Vec<Vec<Claim>> = (0..=greedy).map(|_| Vec::new()).collect();
            // Each that comes may take half of what was left, but for the batch that it was granted last; what is left is halved
            // again, as what the quiet one holds is not free for itself either.
            let least = (0..greedy).fold(TOTAL, |left, _| (left - LARGEST) / 2);
            let quiet_may = least / 2;
            for (who, amount, gives) in steps {
                let who = who.min(greedy);
                if gives && !held[who].is_empty() {
                    held[who].remove(0);
                    continue;
                }
                if who > 0 {
                    held[who].extend(shares.take(&tenant(who), amount));
                } else if held[0].iter().map(|claim| claim.amount).sum::<u64>() + amount <= quiet_may {
                    let claim = shares.take(&tenant(0), amount);
                    prop_assert!(claim.is_some(), "refused beside {greedy} greedy ones");
                    held[0].extend(claim);
                }
                let all: u64 = held.iter().flatten().map(|claim| claim.amount).sum();
                prop_assert!(all <= TOTAL && all == shares.lock().used);
            }
            drop(held);
            prop_assert!(shares.lock().used == 0 && shares.lock().holders.is_empty());
        }
    }

    #[test]
    fn whoever_is_alone_may_have_everything_until_another_one_comes() {
        let shares = Arc::new(Shares::new(10, false));
        let _here = shares.enter(&tenant(1));
        let mut all: Vec<_> = (0..10).filter_map(|_| shares.take(&tenant(1), 1)).collect();
        assert_eq!(all.len(), 10);
        let other = shares.enter(&tenant(2));
        all.truncate(5);
        assert!(shares.take(&tenant(1), 1).is_none());
        let little = shares.take(&tenant(2), 2);
        assert!(little.is_some());
        drop((other, little));
        assert!(shares.take(&tenant(1), 1).is_some());
    }
}
