//! Which values of a field are within its number, counted in the host's state so that it holds for all instances.
//!
//! In the state, per window: one key for every value let through, and one number for how many there are. Both are forgotten with
//! the window. Values are kept as hashes of 128 bits. Instances that see a new value at the same moment may both count it, so the
//! limit is met a little early, never exceeded by more than what they let through at once in the first batch of a window.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use sluice_plugin::state;

/// Values that an instance remembers to have been let through, so that the state is not asked for them; 32 bytes each.
const REMEMBERED: usize = 16 * 1024;
/// Keys of one call; all of a batch of 8,192 rows fit.
const KEYS_PER_CALL: usize = 8192;

/// What is counted together: a field, of one service or of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    hash: u64,
    max: u64,
}

impl Scope {
    pub(crate) fn new(field: &str, service: Option<&str>, max: u64) -> Scope {
        Scope {
            hash: hash(0, &(field, service, max)),
            max,
        }
    }
}

/// The values let through so far in the window at hand.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    window: u64,
    seconds: u64,
    ends_in: u64,
    known: HashSet<[u8; 24]>,
    /// Windows for which it was told that the state is full.
    told: Option<u64>,
    full: bool,
}

impl Budget {
    /// A batch of this time (seconds since 1970) begins.
    pub(crate) fn begin(&mut self, now: u64, seconds: u64) {
        let window = now / seconds;
        if (window, seconds) != (self.window, self.seconds) || self.known.len() > REMEMBERED {
            self.known.clear();
        }
        self.window = window;
        self.seconds = seconds;
        self.ends_in = seconds - now % seconds;
    }

    /// What to tell the operator, once per window.
    pub(crate) fn take_full(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.full) || self.told == Some(self.window) {
            return None;
        }
        self.told = Some(self.window);
        Some(
            "no room in the state: new values count as over their limit; raise the plugin's state limit or lower `max`"
                .to_owned(),
        )
    }

    /// The places of the texts that are over the limit. Texts are different from each other; the first ones go first.
    pub(crate) fn refused(&mut self, scope: &Scope, texts: &[&str]) -> Result<Vec<usize>, String> {
        // Of this window: with the next one all keys are others.
        let scope = &Scope {
            hash: hash(0, &(scope.hash, self.seconds, self.window)),
            max: scope.max,
        };
        let mut unknown: Vec<(usize, [u8; 24])> = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            let value = value_key(scope, text);
            if !self.known.contains(&value) {
                unknown.push((place, value));
            }
        }
        let mut refused = Vec::new();
        for unknown in unknown.chunks(KEYS_PER_CALL) {
            self.admit(scope, unknown, &mut refused)?;
        }
        Ok(refused)
    }

    fn admit(&mut self, scope: &Scope, unknown: &[(usize, [u8; 24])], refused: &mut Vec<usize>) -> Result<(), String> {
        let counter = key(b'n', &scope.hash.to_le_bytes());
        let mut keys = vec![counter.clone()];
        keys.extend(unknown.iter().map(|(_, value)| key(b'v', value)));
        let found = state::get_many(&keys);
        let count = found.first().and_then(|count| number(count.as_deref()?));
        let mut new: Vec<(usize, [u8; 24])> = Vec::new();
        for ((place, value), found) in unknown.iter().zip(found.iter().skip(1)) {
            match found {
                Some(_) => {
                    self.known.insert(*value);
                }
                None => new.push((*place, *value)),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let room = scope.max.saturating_sub(count.unwrap_or(0));
        let wanted = (new.len() as u64).min(room);
        let admitted = self.reserve(&counter, count.is_none(), wanted, scope.max)?;
        let (through, over) = new.split_at(admitted as usize);
        refused.extend(over.iter().map(|(place, _)| *place));
        let entries: Vec<(Vec<u8>, &[u8])> = through.iter().map(|(_, value)| (key(b'v', value), &[][..])).collect();
        match state::put_many(&entries, self.ttl()) {
            Ok(()) => self.known.extend(through.iter().map(|(_, value)| *value)),
            Err(state::Problem::Full) => {
                self.full = true;
                refused.extend(through.iter().map(|(place, _)| *place));
                state::add(&counter, -(admitted as i64)).map_err(String::from)?;
            }
            Err(problem) => return Err(problem.into()),
        }
        Ok(())
    }

    /// How many of the wanted values are within the limit, after they were counted.
    fn reserve(&mut self, counter: &[u8], first: bool, wanted: u64, max: u64) -> Result<u64, String> {
        if wanted == 0 {
            return Ok(0);
        }
        if first {
            // With a number of its own it is forgotten with the window; adding keeps that.
            match state::put(counter, 0i64.to_le_bytes(), self.ttl()) {
                Ok(()) => {}
                Err(state::Problem::Full) => {
                    self.full = true;
                    return Ok(0);
                }
                Err(problem) => return Err(problem.into()),
            }
        }
        let sum = match state::add(counter, wanted as i64) {
            Ok(sum) => sum.max(0) as u64,
            Err(state::Problem::Full) => {
                self.full = true;
                return Ok(0);
            }
            Err(problem) => return Err(problem.into()),
        };
        let excess = sum.saturating_sub(max).min(wanted);
        if excess > 0 {
            state::add(counter, -(excess as i64)).map_err(String::from)?;
        }
        Ok(wanted - excess)
    }

    /// To the end of the window, and a minute for batches that are late.
    fn ttl(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.ends_in + 60))
    }
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

/// The scope and 128 bits of the value.
fn value_key(scope: &Scope, text: &str) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&scope.hash.to_le_bytes());
    key[8..16].copy_from_slice(&hash(1, text).to_le_bytes());
    key[16..].copy_from_slice(&hash(2, text).to_le_bytes());
    key
}

/// The same in every instance of one build, which is as long as the state lasts.
fn hash(seed: u8, what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(seed);
    what.hash(&mut hasher);
    hasher.finish()
}

fn number(bytes: &[u8]) -> Option<u64> {
    let number = i64::from_le_bytes(bytes.try_into().ok()?);
    Some(number.max(0) as u64)
}
