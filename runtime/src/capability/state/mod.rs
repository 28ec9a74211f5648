//! What a plugin remembers between batches: one bounded key-value space per plugin and tenant.
//!
//! It outlives instances and new versions of the plugin, not the process. Time is an argument.

mod space;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::lock;
use space::Space;

/// Bytes of a key, as the contract has it.
pub const MAX_KEY_BYTES: usize = 256;
/// Bytes of a value, as the contract has it.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Spaces of one process, so at most 1 GiB with the default size of a space. Who serves more tenants at once than that
/// loses the memory of those that were silent for longest, not the node.
pub const MAX_SPACES: usize = 1024;

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateProblem {
    #[error("there is no room in the state")]
    Full,
    #[error("{0}")]
    Invalid(String),
}

/// An answer would be larger than a guest may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the values asked for at once have more than {limit_bytes} bytes")]
pub struct TooMuch {
    pub limit_bytes: usize,
}

/// What a space holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateUsage {
    pub keys: usize,
    /// With bookkeeping.
    pub bytes: usize,
    /// Keys that made room for newer ones.
    pub evicted: u64,
}

/// The memory of one plugin for one tenant. Shared by all instances; every call is atomic.
#[derive(Debug)]
pub struct StateSpace(Mutex<Space>);

impl StateSpace {
    pub fn new(limit_bytes: usize) -> StateSpace {
        StateSpace(Mutex::new(Space::new(limit_bytes)))
    }

    /// The values of these keys, in their order; together at most `limit_bytes`.
    pub fn get<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        now_ms: u64,
        limit_bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, TooMuch> {
        let mut space = lock(&self.0);
        space.expire(now_ms);
        let mut room = limit_bytes;
        let values = keys.iter().map(|key| {
            let value = space.get(key.as_ref());
            room = room
                .checked_sub(value.map_or(0, <[u8]>::len))
                .ok_or(TooMuch { limit_bytes })?;
            Ok(value.map(<[u8]>::to_vec))
        });
        values.collect()
    }

    /// Writes all or none; of a key given twice the last value. They are forgotten `ttl_s` seconds after `now_ms`.
    pub fn put<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: &[(K, V)],
        ttl_s: Option<u32>,
        now_ms: u64,
    ) -> Result<(), StateProblem> {
        for (key, value) in entries {
            check_key(key.as_ref())?;
            let bytes = value.as_ref().len();
            if bytes > MAX_VALUE_BYTES {
                return Err(StateProblem::Invalid(format!(
                    "a value has {bytes} bytes; at most {MAX_VALUE_BYTES}"
                )));
            }
        }
        let last: BTreeMap<&[u8], &[u8]> = entries.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect();
        let mut space = lock(&self.0);
        space.expire(now_ms);
        space.put(&last, expiry(ttl_s, now_ms))
    }

    /// Puts the keys that are not there yet, with an empty value, and says for each whether it was new. Where there is no
    /// room, the oldest keys that were put this way make it.
    pub fn insert<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        ttl_s: Option<u32>,
        now_ms: u64,
    ) -> Result<Vec<bool>, StateProblem> {
        for key in keys {
            check_key(key.as_ref())?;
        }
        let mut space = lock(&self.0);
        space.expire(now_ms);
        space.insert(keys, expiry(ttl_s, now_ms))
    }

    /// Adds to a number, kept as eight bytes, least significant first, and answers the sum. Keeps the time to live that
    /// the key has.
    pub fn add(&self, key: &[u8], delta: i64, now_ms: u64) -> Result<i64, StateProblem> {
        check_key(key)?;
        let mut space = lock(&self.0);
        space.expire(now_ms);
        space.add(key, delta)
    }

    pub fn remove<K: AsRef<[u8]>>(&self, keys: &[K]) {
        let mut space = lock(&self.0);
        for key in keys {
            space.remove(key.as_ref());
        }
    }

    pub fn usage(&self) -> StateUsage {
        lock(&self.0).usage()
    }

    fn set_limit(&self, limit_bytes: usize) {
        lock(&self.0).set_limit(limit_bytes);
    }
}

fn check_key(key: &[u8]) -> Result<(), StateProblem> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StateProblem::Invalid(format!(
            "a key has {} bytes; 1 to {MAX_KEY_BYTES} are allowed",
            key.len()
        )));
    }
    Ok(())
}

fn expiry(ttl_s: Option<u32>, now_ms: u64) -> Option<u64> {
    ttl_s.map(|ttl_s| now_ms.saturating_add(u64::from(ttl_s) * 1000))
}

/// All spaces of a process. Versions of a plugin share one by its name; a candidate in the shadow gets its own by being
/// called something else.
#[derive(Debug)]
pub struct States {
    spaces: Mutex<Spaces>,
    max_spaces: usize,
}

#[derive(Debug, Default)]
struct Spaces {
    /// By plugin and tenant, with the number of the last time that it was handed out.
    by_owner: BTreeMap<(String, String), (Arc<StateSpace>, u64)>,
    handed_out: u64,
}

impl Default for States {
    fn default() -> Self {
        States::new(MAX_SPACES)
    }
}

impl States {
    pub fn new(max_spaces: usize) -> States {
        States {
            spaces: Mutex::default(),
            max_spaces: max_spaces.max(1),
        }
    }

    /// The space of a plugin for a tenant, empty at first. A limit other than the one before holds from now on; where a
    /// space is larger than that, expired and inserted keys go, and nothing new finds room until it is smaller.
    pub fn space(&self, plugin: &str, tenant: &str, limit_bytes: usize) -> Arc<StateSpace> {
        let owner = (plugin.to_owned(), tenant.to_owned());
        let mut spaces = lock(&self.spaces);
        spaces.handed_out += 1;
        let turn = spaces.handed_out;
        if let Some((space, last)) = spaces.by_owner.get_mut(&owner) {
            *last = turn;
            let space = space.clone();
            drop(spaces);
            space.set_limit(limit_bytes);
            return space;
        }
        if spaces.by_owner.len() >= self.max_spaces {
            spaces.make_room();
        }
        let space = Arc::new(StateSpace::new(limit_bytes));
        spaces.by_owner.insert(owner, (space.clone(), turn));
        space
    }

    /// What the spaces of a plugin hold, summed over its tenants.
    pub fn usage(&self, plugin: &str) -> StateUsage {
        let spaces = lock(&self.spaces);
        let from = (plugin.to_owned(), String::new());
        let own = spaces
            .by_owner
            .range(from..)
            .take_while(|((owner, _), _)| owner == plugin);
        own.fold(StateUsage::default(), |sum, (_, (space, _))| {
            let usage = space.usage();
            StateUsage {
                keys: sum.keys + usage.keys,
                bytes: sum.bytes + usage.bytes,
                evicted: sum.evicted + usage.evicted,
            }
        })
    }

    /// Forgets a plugin that is no longer in any chain.
    pub fn forget(&self, plugin: &str) {
        lock(&self.spaces).by_owner.retain(|(owner, _), _| owner != plugin);
    }
}

impl Spaces {
    /// Takes out the space that was handed out longest ago, of those that nobody holds if there are any.
    fn make_room(&mut self) {
        let oldest = self
            .by_owner
            .iter()
            .min_by_key(|(_, (space, turn))| (Arc::strong_count(space) > 1, *turn))
            .map(|(owner, _)| owner.clone());
        if let Some(owner) = oldest {
            tracing::warn!(
                plugin = owner.0,
                tenant = owner.1,
                "state given up: too many tenants at once"
            );
            self.by_owner.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests;
