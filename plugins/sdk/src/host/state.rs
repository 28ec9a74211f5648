//! A bounded key-value space in the host's memory, of this plugin and the tenant of the batch. It outlives instances and new
//! versions of the plugin, but not the process. Keys have 1 to 256 bytes, values at most 64 KiB.

use std::fmt;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use crate::bindings::sluice::plugin::state as imported;

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no room; nothing was changed.
    Full,
    Invalid(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Full => f.write_str("the plugin's state is full; the operator's limit is `state_bytes`"),
            Problem::Invalid(what) => write!(f, "state: {what}"),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for String {
    fn from(problem: Problem) -> String {
        problem.to_string()
    }
}

pub fn get(key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    get_many(&[key]).pop().flatten()
}

/// The values of these keys, in their order. One call for many keys is much cheaper than many calls.
pub fn get_many<K: AsRef<[u8]>>(keys: &[K]) -> Vec<Option<Vec<u8>>> {
    let keys = owned(keys);
    #[cfg(target_arch = "wasm32")]
    return imported::get(&keys);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| {
        let now = host.now_ms;
        keys.iter().map(|key| host.state.get(key, now)).collect()
    })
}

/// Forgotten after `ttl`, if given (whole seconds, rounded up).
pub fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<(), Problem> {
    put_many(&[(key, value)], ttl)
}

/// Writes all or none.
pub fn put_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(entries: &[(K, V)], ttl: Option<Duration>) -> Result<(), Problem> {
    let ttl = seconds(ttl);
    let own = entries
        .iter()
        .map(|(key, value)| (key.as_ref().to_vec(), value.as_ref().to_vec()));
    #[cfg(target_arch = "wasm32")]
    {
        let entries: Vec<_> = own.map(|(key, value)| imported::Entry { key, value }).collect();
        imported::put(&entries, ttl).map_err(problem)
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let entries: Vec<_> = own.collect();
        super::native::with(|host| host.state.put(entries, ttl, host.now_ms))
    }
}

/// Puts a key that is not there yet; says whether it was new. Atomic, whatever other instances do.
pub fn insert(key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<bool, Problem> {
    insert_many(&[key], ttl).map(|new| new.first().copied().unwrap_or(false))
}

/// The same for many keys; a key given twice is new once. Where there is no room, the oldest keys that were put this way
/// make it.
pub fn insert_many<K: AsRef<[u8]>>(keys: &[K], ttl: Option<Duration>) -> Result<Vec<bool>, Problem> {
    let (keys, ttl) = (owned(keys), seconds(ttl));
    #[cfg(target_arch = "wasm32")]
    return imported::insert(&keys, ttl).map_err(problem);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.state.insert(keys, ttl, host.now_ms))
}

/// Adds to a number (0 if the key is not there) and answers the sum. Atomic.
pub fn add(key: impl AsRef<[u8]>, delta: i64) -> Result<i64, Problem> {
    #[cfg(target_arch = "wasm32")]
    return imported::add(key.as_ref(), delta).map_err(problem);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| host.state.add(key.as_ref(), delta, host.now_ms))
}

pub fn remove(key: impl AsRef<[u8]>) {
    remove_many(&[key]);
}

pub fn remove_many<K: AsRef<[u8]>>(keys: &[K]) {
    let keys = owned(keys);
    #[cfg(target_arch = "wasm32")]
    imported::remove(&keys);
    #[cfg(not(target_arch = "wasm32"))]
    super::native::with(|host| keys.iter().for_each(|key| host.state.remove(key)));
}

fn owned<K: AsRef<[u8]>>(keys: &[K]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.as_ref().to_vec()).collect()
}

fn seconds(ttl: Option<Duration>) -> Option<u32> {
    ttl.map(|ttl| u32::try_from(ttl.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX))
}

#[cfg(target_arch = "wasm32")]
fn problem(problem: imported::Problem) -> Problem {
    match problem {
        imported::Problem::Full => Problem::Full,
        imported::Problem::Invalid(what) => Problem::Invalid(what),
    }
}
