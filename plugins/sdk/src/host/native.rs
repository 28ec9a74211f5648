//! The stand-in for the host when a plugin runs without Wasm: one per thread, with the semantics of `wit/plugin.wit`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

use arrow_array::{Array, StringArray};
use regex::{Regex, RegexBuilder};

use super::log::Level;
use super::matching::{Hit, Pattern};
use super::state::Problem;

/// Bytes of a key, and of a value.
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 64 * 1024;
/// What the host's default for one plugin and tenant is.
pub(crate) const STATE_BYTES: usize = 1024 * 1024;
/// Counted for each key beside its bytes and those of its value, as the host does.
const ENTRY_OVERHEAD: usize = 192;
/// Allocators hand out multiples of this, with a header of half of it.
const GRAIN: usize = 16;

thread_local! {
    static HOST: RefCell<NativeHost> = RefCell::default();
}

pub(crate) fn with<T>(use_it: impl FnOnce(&mut NativeHost) -> T) -> T {
    HOST.with(|host| use_it(&mut host.borrow_mut()))
}

#[derive(Debug)]
pub(crate) struct NativeHost {
    pub(crate) now_ms: u64,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) state: State,
    pub(crate) tables: BTreeMap<String, NativeTable>,
    pub(crate) looked_up: Vec<String>,
    random: u64,
    pattern_sets: Vec<Vec<Regex>>,
}

impl Default for NativeHost {
    fn default() -> Self {
        NativeHost {
            now_ms: 0,
            log: Vec::new(),
            state: State::default(),
            tables: BTreeMap::new(),
            looked_up: Vec::new(),
            random: 1,
            pattern_sets: Vec::new(),
        }
    }
}

impl NativeHost {
    pub(crate) fn seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// SplitMix64: the same numbers in every run.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn table(&self, name: &str) -> Result<&NativeTable, String> {
        self.tables.get(name).ok_or_else(|| format!("no table `{name}`"))
    }

    pub(crate) fn look_up(
        &mut self,
        table: &str,
        keys: &[String],
        fields: &[String],
    ) -> Result<Vec<Option<String>>, String> {
        // Enough for a test to look at, not so much that a long run fills the memory.
        const REMEMBERED: usize = 100_000;
        let room = REMEMBERED.saturating_sub(self.looked_up.len());
        self.looked_up.extend(keys.iter().take(room).cloned());
        self.table(table)?.find(keys, fields)
    }

    pub(crate) fn compile(&mut self, patterns: &[Pattern]) -> Result<u32, String> {
        let mut set = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            let (text, any_case) = match pattern {
                Pattern::Literal(text) => (regex::escape(text), false),
                Pattern::LiteralAnyCase(text) => (regex::escape(text), true),
                Pattern::Regex(text) => (text.clone(), false),
            };
            let regex = RegexBuilder::new(&text).case_insensitive(any_case).build();
            set.push(regex.map_err(|e| format!("pattern {index}: {e}"))?);
        }
        self.pattern_sets.push(set);
        Ok(self.pattern_sets.len() as u32 - 1)
    }

    pub(crate) fn find(&self, set: u32, texts: &StringArray) -> Result<Vec<Hit>, String> {
        let patterns = self.pattern_sets.get(set as usize).ok_or("no such set of patterns")?;
        let mut hits = Vec::new();
        for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
            let before = hits.len();
            for (pattern, regex) in patterns.iter().enumerate() {
                hits.extend(regex.find_iter(texts.value(row)).map(|found| Hit {
                    text: row as u32,
                    start: found.start() as u32,
                    end: found.end() as u32,
                    pattern: pattern as u32,
                }));
            }
            hits[before..].sort_by_key(|hit| (hit.start, hit.pattern));
        }
        Ok(hits)
    }
}

/// A table as a CSV file has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NativeTable {
    pub(crate) fields: Vec<String>,
    pub(crate) rows: HashMap<String, Vec<String>>,
}

impl NativeTable {
    pub(crate) fn find(&self, keys: &[String], fields: &[String]) -> Result<Vec<Option<String>>, String> {
        let mut places = Vec::with_capacity(fields.len());
        for field in fields {
            let place = self.fields.iter().position(|known| known == field);
            places.push(place.ok_or_else(|| format!("no field `{field}`; there are: {}", self.fields.join(", ")))?);
        }
        let mut found = Vec::with_capacity(keys.len() * fields.len());
        for key in keys {
            let row = self.rows.get(key);
            found.extend(places.iter().map(|place| row.map(|row| row[*place].clone())));
        }
        Ok(found)
    }
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    /// Milliseconds since 1970.
    expires: Option<u64>,
    inserted: bool,
}

/// The key-value space.
#[derive(Debug)]
pub(crate) struct State {
    entries: HashMap<Vec<u8>, Entry>,
    /// Keys put by `insert`, oldest first; may name keys that are gone.
    inserted: VecDeque<Vec<u8>>,
    bytes: usize,
    pub(crate) limit: usize,
}

impl Default for State {
    fn default() -> Self {
        State {
            entries: HashMap::new(),
            inserted: VecDeque::new(),
            bytes: 0,
            limit: STATE_BYTES,
        }
    }
}

impl State {
    pub(crate) fn get(&mut self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        self.live(key, now).map(|entry| entry.value.clone())
    }

    pub(crate) fn put(&mut self, new: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<u32>, now: u64) -> Result<(), Problem> {
        // The last of several values of one key counts.
        let mut last: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (key, value) in &new {
            check_key(key)?;
            if value.len() > MAX_VALUE {
                return Err(Problem::Invalid(format!(
                    "a value of {} bytes; at most {MAX_VALUE}",
                    value.len()
                )));
            }
            last.insert(key, size(key, value));
        }
        let replaced: usize = last
            .keys()
            .filter_map(|key| self.entries.get(*key).map(|entry| size(key, &entry.value)))
            .sum();
        let after = self.bytes - replaced + last.values().sum::<usize>();
        if after > self.limit {
            self.expire(now);
        }
        let replaced: usize = last
            .keys()
            .filter_map(|key| self.entries.get(*key).map(|entry| size(key, &entry.value)))
            .sum();
        if self.bytes - replaced + last.values().sum::<usize>() > self.limit {
            return Err(Problem::Full);
        }
        for (key, value) in new {
            self.set(key, value, expiry(ttl, now), false);
        }
        Ok(())
    }

    pub(crate) fn insert(&mut self, keys: Vec<Vec<u8>>, ttl: Option<u32>, now: u64) -> Result<Vec<bool>, Problem> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let mut new = Vec::with_capacity(keys.len());
        for key in keys {
            if self.live(&key, now).is_some() {
                new.push(false);
                continue;
            }
            let needs = size(&key, b"");
            if self.bytes + needs > self.limit {
                self.expire(now);
            }
            while self.bytes + needs > self.limit {
                let Some(oldest) = self.inserted.pop_front() else {
                    return Err(Problem::Full);
                };
                if self.entries.get(&oldest).is_some_and(|entry| entry.inserted) {
                    self.remove(&oldest);
                }
            }
            self.inserted.push_back(key.clone());
            self.set(key, Vec::new(), expiry(ttl, now), true);
            new.push(true);
        }
        Ok(new)
    }

    /// The number is kept as 8 bytes, least significant first.
    pub(crate) fn add(&mut self, key: &[u8], delta: i64, now: u64) -> Result<i64, Problem> {
        check_key(key)?;
        let (before, expires) = match self.live(key, now) {
            None => (0, None),
            Some(entry) => match <[u8; 8]>::try_from(&entry.value[..]) {
                Ok(bytes) => (i64::from_le_bytes(bytes), entry.expires),
                Err(_) => return Err(Problem::Invalid("the value is not a number".to_owned())),
            },
        };
        let sum = before.saturating_add(delta);
        if !self.entries.contains_key(key) && self.bytes + size(key, &[0; 8]) > self.limit {
            self.expire(now);
            if self.bytes + size(key, &[0; 8]) > self.limit {
                return Err(Problem::Full);
            }
        }
        self.set(key.to_vec(), sum.to_le_bytes().to_vec(), expires, false);
        Ok(sum)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry.value);
        }
    }

    fn live(&mut self, key: &[u8], now: u64) -> Option<&Entry> {
        if self.entries.get(key).is_some_and(|entry| over(entry, now)) {
            self.remove(key);
        }
        self.entries.get(key)
    }

    fn expire(&mut self, now: u64) {
        let gone: Vec<Vec<u8>> = self
            .entries
            .iter()
            .filter(|(_, entry)| over(entry, now))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    fn set(&mut self, key: Vec<u8>, value: Vec<u8>, expires: Option<u64>, inserted: bool) {
        self.remove(&key);
        self.bytes += size(&key, &value);
        self.entries.insert(
            key,
            Entry {
                value,
                expires,
                inserted,
            },
        );
    }
}

fn size(key: &[u8], value: &[u8]) -> usize {
    let grain = |bytes: usize| match bytes {
        0 => 0,
        bytes => (bytes + GRAIN / 2).next_multiple_of(GRAIN),
    };
    grain(key.len()) + grain(value.len()) + ENTRY_OVERHEAD
}

fn over(entry: &Entry, now: u64) -> bool {
    entry.expires.is_some_and(|expires| expires <= now)
}

fn expiry(ttl: Option<u32>, now: u64) -> Option<u64> {
    ttl.map(|seconds| now.saturating_add(u64::from(seconds) * 1000))
}

fn check_key(key: &[u8]) -> Result<(), Problem> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(Problem::Invalid(format!("a key of {length} bytes; 1 to {MAX_KEY}"))),
    }
}
