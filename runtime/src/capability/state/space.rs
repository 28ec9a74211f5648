//! One space: a table of slots, the order in which keys were inserted, and when which key is forgotten.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{StateProblem, StateUsage};

/// What a key costs beside its bytes: a slot of 64 bytes in a vector that may be twice as long as needed (128), its place in
/// the table (9) and among the free ones (8), and 16 where it expires, in a tree whose nodes may be half empty (36).
const KEY_OVERHEAD: usize = 192;
/// Allocators hand out multiples of this, with a header of half of it.
const GRAIN: usize = 16;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    key: Box<[u8]>,
    value: Box<[u8]>,
    /// Milliseconds since 1970.
    expires: Option<u64>,
    /// Its neighbours in the order of insertion; both [`NONE`] and not the head for a key that was put.
    older: u32,
    newer: u32,
    inserted: bool,
}

impl Slot {
    fn bytes(&self) -> usize {
        charge(self.key.len(), self.value.len())
    }
}

/// What a key and its value take.
pub(super) fn charge(key: usize, value: usize) -> usize {
    let grain = |bytes: usize| {
        if bytes == 0 {
            0
        } else {
            (bytes + GRAIN / 2).next_multiple_of(GRAIN)
        }
    };
    KEY_OVERHEAD + grain(key) + grain(value)
}

#[derive(Debug)]
pub(super) struct Space {
    limit: usize,
    bytes: usize,
    /// Of `bytes` those of inserted keys, which may make room.
    inserted_bytes: usize,
    evicted: u64,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    expiries: BTreeSet<(u64, u32)>,
    oldest: u32,
    newest: u32,
}

impl Space {
    pub(super) fn new(limit: usize) -> Space {
        Space {
            limit,
            bytes: 0,
            inserted_bytes: 0,
            evicted: 0,
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            expiries: BTreeSet::new(),
            oldest: NONE,
            newest: NONE,
        }
    }

    pub(super) fn usage(&self) -> StateUsage {
        StateUsage {
            keys: self.index.len(),
            bytes: self.bytes,
            evicted: self.evicted,
        }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        if limit != self.limit {
            self.limit = limit;
            self.evict_to(limit);
        }
    }

    /// Takes out what is to be forgotten by now.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while let Some((_, place)) = self.expiries.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.take(place);
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.slot(self.find(key)?).map(|slot| &*slot.value)
    }

    pub(super) fn put(&mut self, entries: &BTreeMap<&[u8], &[u8]>, expires: Option<u64>) -> Result<(), StateProblem> {
        let mut lasting = self.bytes - self.inserted_bytes;
        for (key, value) in entries {
            let old = self.find(key).and_then(|place| self.slot(place));
            lasting =
                lasting - old.filter(|slot| !slot.inserted).map_or(0, Slot::bytes) + charge(key.len(), value.len());
        }
        if lasting > self.limit {
            return Err(StateProblem::Full);
        }
        for (key, value) in entries {
            self.remove(key);
            self.place(key, value, expires, false);
        }
        self.evict_to(self.limit);
        Ok(())
    }

    pub(super) fn insert<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
        expires: Option<u64>,
    ) -> Result<Vec<bool>, StateProblem> {
        let lasting = self.bytes - self.inserted_bytes;
        let largest = keys
            .iter()
            .map(AsRef::as_ref)
            .filter(|key| self.find(key).is_none())
            .map(|key| charge(key.len(), 0))
            .max();
        if largest.is_some_and(|largest| lasting + largest > self.limit) {
            return Err(StateProblem::Full);
        }
        // More new keys than there is room for push out each other; one of them given again is still not new.
        let mut gone: HashSet<Box<[u8]>> = HashSet::new();
        let mut news = Vec::with_capacity(keys.len());
        for key in keys.iter().map(AsRef::as_ref) {
            let new = self.find(key).is_none() && !gone.contains(key);
            if new {
                let room = self.limit.saturating_sub(charge(key.len(), 0));
                while self.bytes > room && self.oldest != NONE {
                    if let Some(slot) = self.take(self.oldest) {
                        self.evicted += 1;
                        gone.insert(slot.key);
                    }
                }
                self.place(key, &[], expires, true);
            }
            news.push(new);
        }
        Ok(news)
    }

    pub(super) fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, StateProblem> {
        let place = self.find(key);
        let Some(slot) = place.and_then(|place| self.slot(place)) else {
            self.put(&BTreeMap::from([(key, delta.to_le_bytes().as_slice())]), None)?;
            return Ok(delta);
        };
        let (old, expires) = (<[u8; 8]>::try_from(&*slot.value), slot.expires);
        let old = old.map_err(|_| StateProblem::Invalid("the value of this key is no number".to_owned()))?;
        let sum = i64::from_le_bytes(old).checked_add(delta);
        let sum = sum.ok_or_else(|| StateProblem::Invalid("the sum does not fit into 64 bits".to_owned()))?;
        self.put(&BTreeMap::from([(key, sum.to_le_bytes().as_slice())]), expires)?;
        Ok(sum)
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(place) = self.find(key) {
            self.take(place);
        }
    }

    fn evict_to(&mut self, limit: usize) {
        while self.bytes > limit && self.oldest != NONE {
            self.take(self.oldest);
            self.evicted += 1;
        }
    }

    fn slot(&self, place: u32) -> Option<&Slot> {
        self.slots.get(place as usize)?.as_ref()
    }

    fn slot_mut(&mut self, place: u32) -> Option<&mut Slot> {
        self.slots.get_mut(place as usize)?.as_mut()
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |place: &u32| self.slot(*place).is_some_and(|slot| *slot.key == *key);
        self.index.find(hash, same).copied()
    }

    /// Puts a key that is not there.
    fn place(&mut self, key: &[u8], value: &[u8], expires: Option<u64>, inserted: bool) {
        let slot = Slot {
            key: key.into(),
            value: value.into(),
            expires,
            older: if inserted { self.newest } else { NONE },
            newer: NONE,
            inserted,
        };
        self.bytes += slot.bytes();
        if inserted {
            self.inserted_bytes += slot.bytes();
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                // Bounded by the limit in bytes, which is far below 2^32 slots.
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        if let Some(free) = self.slots.get_mut(place as usize) {
            *free = Some(slot);
        }
        if inserted {
            match self.slot_mut(self.newest) {
                Some(newest) => newest.newer = place,
                None => self.oldest = place,
            }
            self.newest = place;
        }
        if let Some(at) = expires {
            self.expiries.insert((at, place));
        }
        let Space {
            slots, hasher, index, ..
        } = self;
        let hash_of = |place: &u32| {
            let slot = slots.get(*place as usize).and_then(Option::as_ref);
            hasher.hash_one(slot.map_or(&[][..], |slot| &*slot.key))
        };
        index.insert_unique(hasher.hash_one(key), place, hash_of);
    }

    fn take(&mut self, place: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(place as usize)?.take()?;
        let hash = self.hasher.hash_one(&*slot.key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == place) {
            entry.remove();
        }
        self.free.push(place);
        self.bytes -= slot.bytes();
        if let Some(at) = slot.expires {
            self.expiries.remove(&(at, place));
        }
        if slot.inserted {
            self.inserted_bytes -= slot.bytes();
            match self.slot_mut(slot.older) {
                Some(older) => older.newer = slot.newer,
                None => self.oldest = slot.newer,
            }
            match self.slot_mut(slot.newer) {
                Some(newer) => newer.older = slot.older,
                None => self.newest = slot.older,
            }
        }
        Some(slot)
    }
}

const _: () = assert!(
    size_of::<Slot>() == 64,
    "KEY_OVERHEAD was reckoned with slots of 64 bytes"
);
