//! What the sampler remembers between batches, as the host keeps it: the instances of a node share it, and any of them may
//! be replaced after any batch.

#[cfg(feature = "state")]
use std::time::Duration;

#[cfg(feature = "state")]
use sluice_plugin::state;

/// The host's `state`, as far as the sampler needs it. The error says why nothing was changed.
pub trait Memory {
    fn get(&self, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>>;
    /// Writes all or none, to be forgotten after so many seconds.
    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl_s: Option<u32>) -> Result<(), String>;
    /// Whether each key was new.
    fn insert(&self, keys: &[Vec<u8>], ttl_s: u32) -> Result<Vec<bool>, String>;
    /// The sum after adding.
    fn add(&self, key: &[u8], delta: i64) -> Result<i64, String>;
}

/// The first byte of a key: what it belongs to.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Space {
    /// Cost and offer of one slot of time.
    Slot = b's',
    /// Cost of one day.
    Day = b'd',
    /// When the budget began.
    Start = b't',
    /// A pattern that was seen.
    Pattern = b'p',
    /// How many patterns were new in one hour.
    Hour = b'h',
    /// Thresholds of slowness of some groups.
    Slow = b'q',
}

impl Space {
    pub(crate) fn key(self, number: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(9);
        key.push(self as u8);
        key.extend_from_slice(&number.to_le_bytes());
        key
    }
}

/// A number as `add` keeps it.
pub(crate) fn number(value: Option<&Vec<u8>>) -> Option<i64> {
    Some(i64::from_le_bytes(value?.as_slice().try_into().ok()?))
}

/// Numbers that are there from now on, at zero if they were not, and are forgotten some day. Two instances that begin the same
/// number at the same time may lose what one of them added in between: a batch at most.
pub(crate) fn begin(memory: &dyn Memory, keys: &[Vec<u8>], ttl_s: u32) -> Result<(), String> {
    let known = memory.get(keys);
    let fresh = keys.iter().zip(known).filter(|(_, value)| value.is_none());
    let fresh: Vec<_> = fresh.map(|(key, _)| (key.clone(), vec![0; 8])).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    memory.put(fresh, Some(ttl_s))
}

/// The host itself.
#[cfg(feature = "state")]
#[derive(Debug)]
pub(crate) struct Host;

#[cfg(feature = "state")]
impl Memory for Host {
    fn get(&self, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        state::get_many(keys)
    }

    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl_s: Option<u32>) -> Result<(), String> {
        let ttl = ttl_s.map(|ttl_s| Duration::from_secs(ttl_s.into()));
        Ok(state::put_many(&entries, ttl)?)
    }

    fn insert(&self, keys: &[Vec<u8>], ttl_s: u32) -> Result<Vec<bool>, String> {
        Ok(state::insert_many(keys, Some(Duration::from_secs(ttl_s.into())))?)
    }

    fn add(&self, key: &[u8], delta: i64) -> Result<i64, String> {
        Ok(state::add(key, delta)?)
    }
}
