//! The stand-in for the host, as tests set it up. Each thread has its own, so tests do not disturb each other.

use crate::host::native::{self, NativeTable};
use crate::log::Level;

use super::Table;

/// What a plugin finds when it calls its host.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Host {
    /// As it was at the start: the clock at 0, no tables, no state, an empty log.
    pub fn reset() {
        native::with(|host| *host = native::NativeHost::default());
    }

    /// Milliseconds since 1970.
    pub fn set_clock(now: u64) {
        native::with(|host| host.now_ms = now);
    }

    /// The numbers that `random` gives follow from this one.
    pub fn set_seed(seed: u64) {
        native::with(|host| host.seed(seed));
    }

    /// Bytes that `state` has room for; 1 MiB otherwise.
    pub fn set_state_bytes(limit: usize) {
        native::with(|host| host.state.limit = limit);
    }

    pub fn set_table(name: &str, table: &Table) {
        let by_key = |row: &Vec<String>| Some((row.first()?.clone(), row.clone()));
        let table = NativeTable {
            fields: table.fields.clone(),
            rows: table.rows.iter().filter_map(by_key).collect(),
        };
        native::with(|host| host.tables.insert(name.to_owned(), table));
    }

    /// The keys that the plugin has looked up in tables since the last time that this was asked.
    pub fn take_looked_up() -> Vec<String> {
        native::with(|host| std::mem::take(&mut host.looked_up))
    }

    /// What the plugin has logged since the last time that this was asked.
    pub fn take_log() -> Vec<(Level, String)> {
        native::with(|host| std::mem::take(&mut host.log))
    }
}
