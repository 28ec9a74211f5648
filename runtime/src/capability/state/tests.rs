#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::space::charge;
use super::*;

/// What the contract says, written down as slowly as possible.
#[derive(Default)]
struct Model {
    /// In order of insertion.
    entries: Vec<Entry>,
    limit: usize,
}

#[derive(Clone)]
struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    expires: Option<u64>,
    inserted: bool,
}

impl Model {
    fn bytes(&self, lasting_only: bool) -> usize {
        let counted = self.entries.iter().filter(|e| !(lasting_only && e.inserted));
        counted.map(|e| charge(e.key.len(), e.value.len())).sum()
    }

    fn expire(&mut self, now: u64) {
        self.entries.retain(|e| e.expires.is_none_or(|at| at > now));
    }

    fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    fn evict(&mut self, room: usize) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while self.bytes(false) > room {
            let oldest = self.entries.iter().position(|e| e.inserted).unwrap();
            gone.push(self.entries.remove(oldest).key);
        }
        gone
    }

    fn put(&mut self, entries: &[(Vec<u8>, Vec<u8>)], expires: Option<u64>) -> Result<(), StateProblem> {
        let before = self.entries.clone();
        for (key, value) in entries {
            self.entries.retain(|e| e.key != *key);
            self.entries.push(Entry {
                key: key.clone(),
                value: value.clone(),
                expires,
                inserted: false,
            });
        }
        if self.bytes(true) > self.limit {
            self.entries = before;
            return Err(StateProblem::Full);
        }
        self.evict(self.limit);
        Ok(())
    }

    fn insert(&mut self, keys: &[Vec<u8>], expires: Option<u64>) -> Result<Vec<bool>, StateProblem> {
        let lasting = self.bytes(true);
        let mut seen: Vec<Vec<u8>> = self.entries.iter().map(|e| e.key.clone()).collect();
        if keys
            .iter()
            .any(|k| !seen.contains(k) && lasting + charge(k.len(), 0) > self.limit)
        {
            return Err(StateProblem::Full);
        }
        let mut news = Vec::new();
        for key in keys {
            let new = !seen.contains(key);
            if new {
                seen.push(key.clone());
                self.evict(self.limit - charge(key.len(), 0));
                self.entries.push(Entry {
                    key: key.clone(),
                    value: Vec::new(),
                    expires,
                    inserted: true,
                });
            }
            news.push(new);
        }
        Ok(news)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<(Vec<u8>, Vec<u8>)>, Option<u32>),
    Insert(Vec<Vec<u8>>, Option<u32>),
    Add(Vec<u8>, i64),
    Remove(Vec<Vec<u8>>),
    Wait(u64),
    Limit(usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few keys, so that they meet again; of different sizes.
    (0..12u8).prop_map(|n| vec![n; 1 + usize::from(n) * 5])
}

fn ttl() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (0..4u32).prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![Just(vec![0; 8]), (0..400usize).prop_map(|n| vec![7; n])];
    prop_oneof![
        (prop::collection::vec((key(), value), 0..4), ttl()).prop_map(|(e, t)| Op::Put(e, t)),
        (prop::collection::vec(key(), 0..8), ttl()).prop_map(|(k, t)| Op::Insert(k, t)),
        (key(), prop_oneof![Just(i64::MAX), -3..3i64]).prop_map(|(k, d)| Op::Add(k, d)),
        prop::collection::vec(key(), 0..3).prop_map(Op::Remove),
        (0..2500u64).prop_map(Op::Wait),
        (0..3000usize).prop_map(Op::Limit),
    ]
}

proptest! {
    #[test]
    fn a_space_is_what_the_contract_says(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model { limit: 2000, ..Model::default() };
        let space = StateSpace::new(model.limit);
        let mut now = 1_000_000;
        for op in ops {
            let expires = |ttl: &Option<u32>| ttl.map(|s| now + u64::from(s) * 1000);
            model.expire(now);
            match &op {
                Op::Put(entries, ttl) => {
                    prop_assert_eq!(space.put(entries, *ttl, now), model.put(entries, expires(ttl)));
                }
                Op::Insert(keys, ttl) => {
                    prop_assert_eq!(space.insert(keys, *ttl, now), model.insert(keys, expires(ttl)));
                }
                Op::Add(key, delta) => {
                    let old = model.get(key).cloned();
                    let expected = match &old {
                        None => Some(*delta),
                        Some(e) => e.value.clone().try_into().ok().and_then(|v| i64::from_le_bytes(v).checked_add(*delta)),
                    };
                    let answer = space.add(key, *delta, now);
                    match expected {
                        None => prop_assert!(matches!(answer, Err(StateProblem::Invalid(_)))),
                        Some(sum) => {
                            let entry = (key.clone(), sum.to_le_bytes().to_vec());
                            let put = model.put(&[entry], old.and_then(|e| e.expires));
                            prop_assert_eq!(answer, put.map(|()| sum));
                        }
                    }
                }
                Op::Remove(keys) => {
                    space.remove(keys);
                    model.entries.retain(|e| !keys.contains(&e.key));
                }
                Op::Wait(ms) => now += ms,
                Op::Limit(limit) => {
                    space.set_limit(*limit);
                    if *limit != model.limit {
                        model.limit = *limit;
                        while model.bytes(false) > *limit && model.entries.iter().any(|e| e.inserted) {
                            let oldest = model.entries.iter().position(|e| e.inserted).unwrap();
                            model.entries.remove(oldest);
                        }
                    }
                }
            }
            model.expire(now);
            let keys: Vec<Vec<u8>> = (0..12u8).map(|n| vec![n; 1 + usize::from(n) * 5]).collect();
            let expected: Vec<_> = keys.iter().map(|k| model.get(k).map(|e| e.value.clone())).collect();
            prop_assert_eq!(space.get(&keys, now, usize::MAX).unwrap(), expected, "after {:?}", op);
            let usage = space.usage();
            prop_assert_eq!((usage.keys, usage.bytes), (model.entries.len(), model.bytes(false)));
        }
    }
}

#[test]
fn a_full_space_forgets_the_oldest_inserted_keys_and_nothing_else() {
    let space = StateSpace::new(100 * charge(8, 0) + charge(8, 16));
    let key = |n: u64| n.to_le_bytes();
    space.put(&[(b"lasting!", [1; 16])], None, 0).unwrap();
    let first: Vec<_> = (0..100).map(key).collect();
    assert_eq!(space.insert(&first, None, 0), Ok(vec![true; 100]));
    assert_eq!(
        space.insert(&[key(100), key(99), key(100)], None, 0),
        Ok(vec![true, false, false])
    );
    assert_eq!(
        space.insert(&[key(1)], None, 0),
        Ok(vec![false]),
        "only the oldest made room"
    );
    assert_eq!(space.insert(&[key(0)], None, 0), Ok(vec![true]));
    assert_eq!(space.usage().evicted, 2);
    assert_eq!(space.get(&[b"lasting!"], 0, 16).unwrap(), [Some(vec![1; 16])]);
    assert_eq!(space.get(&[b"lasting!"; 2], 0, 31), Err(TooMuch { limit_bytes: 31 }));
}

#[test]
fn what_the_contract_forbids_changes_nothing() {
    let space = StateSpace::new(1 << 20);
    let invalid = |answer: Result<(), StateProblem>| matches!(answer, Err(StateProblem::Invalid(_)));
    let fine = (b"fine".to_vec(), vec![]);
    assert!(invalid(space.put(&[fine.clone(), (vec![], vec![])], None, 0)));
    assert!(invalid(space.put(
        &[fine.clone(), (vec![1; MAX_KEY_BYTES + 1], vec![])],
        None,
        0
    )));
    assert!(invalid(space.put(
        &[fine, (vec![1], vec![0; MAX_VALUE_BYTES + 1])],
        None,
        0
    )));
    assert!(invalid(space.insert(&[vec![1], vec![]], None, 0).map(drop)));
    assert!(invalid(space.add(&[], 1, 0).map(drop)));
    let many: Vec<_> = (0..17u8).map(|n| (vec![n], vec![0; MAX_VALUE_BYTES])).collect();
    assert_eq!(space.put(&many, None, 0), Err(StateProblem::Full));
    assert_eq!(space.usage(), StateUsage::default());
    assert_eq!(space.get(&[vec![], vec![1; 1000]], 0, 0).unwrap(), [None, None]);
}

#[test]
fn adding_and_inserting_are_atomic() {
    let space = StateSpace::new(1 << 20);
    let news: usize = std::thread::scope(|scope| {
        let count = |_| {
            let mut news = 0;
            for n in 0..1000u32 {
                space.add(b"sum", 1, 0).unwrap();
                news += space
                    .insert(&[n.to_le_bytes()], None, 0)
                    .unwrap()
                    .iter()
                    .filter(|new| **new)
                    .count();
            }
            news
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || count(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(space.add(b"sum", 0, 0), Ok(4000));
    assert_eq!(news, 1000);
}

#[test]
fn spaces_belong_to_a_plugin_and_a_tenant_and_are_bounded_in_number() {
    let states = States::new(3);
    let put = |plugin: &str, tenant: &str| {
        states
            .space(plugin, tenant, 1000)
            .put(&[(b"k", b"v")], None, 0)
            .unwrap()
    };
    let keys = |plugin: &str, tenant: &str| states.space(plugin, tenant, 1000).usage().keys;
    put("sample", "a");
    assert_eq!(keys("sample", "a"), 1, "outlives whoever used it");
    assert_eq!((keys("sample", "b"), keys("sample.shadow", "a")), (0, 0));
    let held = states.space("sample", "a", 1000);
    assert_eq!(keys("mask", "a"), 0);
    assert_eq!(keys("sample", "a"), 1, "a space in use does not make room for others");
    assert_eq!(states.usage("sample").keys, 1);
    assert!(
        states.space("sample", "a", 10).put(&[(b"l", b"v")], None, 0).is_err(),
        "a new limit holds at once"
    );
    assert_eq!(held.usage().keys, 1);
    states.forget("sample");
    assert_eq!(keys("sample", "a"), 0);
}
