//! Who a connection belongs to and what it has set. A setting either means something here or is one that every client sends; a name
//! that is neither is refused, so that nobody believes in a setting that does nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pg_catalog::SERVER_VERSION;
use crate::tokens::Identity;

/// Prepared statements and open portals that one connection may name.
pub(super) const MAX_NAMES: usize = 1_024;
/// Bytes of one value.
const MAX_VALUE: usize = 1_024;

/// Name, value at the start, and what it may become.
const SETTINGS: [(&str, &str, Change); 31] = [
    ("application_name", "", Change::Free),
    ("bytea_output", "hex", Change::Same),
    ("client_encoding", "UTF8", Change::Same),
    ("client_min_messages", "notice", Change::Free),
    ("datestyle", "ISO, MDY", Change::Same),
    ("default_transaction_isolation", "read committed", Change::Free),
    ("default_transaction_read_only", "on", Change::Free),
    ("extra_float_digits", "1", Change::Free),
    ("geqo", "on", Change::Free),
    ("idle_in_transaction_session_timeout", "0", Change::Free),
    ("in_hot_standby", "off", Change::Never),
    ("integer_datetimes", "on", Change::Never),
    ("intervalstyle", "postgres", Change::Same),
    ("is_superuser", "off", Change::Never),
    ("jit", "off", Change::Free),
    ("lc_collate", "C", Change::Never),
    ("lc_ctype", "C", Change::Never),
    ("lock_timeout", "0", Change::Free),
    ("max_identifier_length", "63", Change::Never),
    ("row_security", "on", Change::Free),
    ("search_path", "public", Change::Free),
    ("server_encoding", "UTF8", Change::Never),
    ("server_version", SERVER_VERSION, Change::Never),
    ("server_version_num", "160006", Change::Never),
    ("standard_conforming_strings", "on", Change::Same),
    ("statement_timeout", "0", Change::Timeout),
    ("synchronize_seqscans", "on", Change::Free),
    ("timezone", "UTC", Change::Same),
    ("transaction_isolation", "read committed", Change::Free),
    ("transaction_read_only", "on", Change::Free),
    ("xmloption", "content", Change::Free),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It changes nothing here, so anything goes.
    Free,
    /// Only to what it is already; anything else is told and not done.
    Same,
    Never,
    Timeout,
}

/// What came of a SET.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Accepted, and not done.
    Told(String),
    /// SQLSTATE and message.
    Refused(&'static str, String),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) who: Identity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    changed: BTreeMap<String, String>,
    statement_timeout: Option<Duration>,
    names: HashSet<(Name, String)>,
}

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    New,
    Known,
    NoRoom,
}

/// What a client gives a name to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Statement,
    Portal,
}

impl Session {
    pub(super) fn new(who: Identity) -> Session {
        Session {
            who,
            state: Mutex::default(),
        }
    }

    /// How long the client lets a query run; `None`: as long as the server does.
    pub(super) fn statement_timeout(&self) -> Option<Duration> {
        self.state().statement_timeout
    }

    pub(super) fn show(&self, name: &str) -> Option<String> {
        let changed = self.state().changed.get(name).cloned();
        changed.or_else(|| find(name).map(|(_, value, _)| (*value).to_owned()))
    }

    /// `longest` is what a query may ask for at most.
    pub(super) fn set(&self, name: &str, value: &str, longest: Duration) -> Outcome {
        if value.len() > MAX_VALUE {
            return Outcome::Refused("22023", format!("a value has up to {MAX_VALUE} bytes"));
        }
        let Some((_, start, change)) = find(name) else {
            return Outcome::Refused("42704", format!("unrecognized configuration parameter \"{name}\""));
        };
        match change {
            Change::Never => Outcome::Refused("55P02", format!("parameter \"{name}\" cannot be changed")),
            Change::Same if same(start, value) => Outcome::Done,
            Change::Same => Outcome::Told(format!("\"{name}\" stays {start}: nothing else is offered here")),
            Change::Timeout => self.set_timeout(value, longest),
            Change::Free => {
                self.state().changed.insert(name.to_owned(), value.to_owned());
                Outcome::Done
            }
        }
    }

    pub(super) fn reset(&self, name: &str) {
        let mut state = self.state();
        if matches!(name, "all" | "statement_timeout") {
            state.statement_timeout = None;
        }
        match name {
            "all" => state.changed.clear(),
            name => drop(state.changed.remove(name)),
        }
    }

    /// Keeps a name if there is room for it.
    pub(super) fn name(&self, kind: Name, name: &str) -> Kept {
        let mut state = self.state();
        let key = (kind, name.to_owned());
        if state.names.contains(&key) {
            return Kept::Known;
        }
        if state.names.len() >= MAX_NAMES {
            return Kept::NoRoom;
        }
        state.names.insert(key);
        Kept::New
    }

    pub(super) fn forget(&self, kind: Name, name: &str) {
        self.state().names.remove(&(kind, name.to_owned()));
    }

    pub(super) fn forget_portals(&self) {
        self.state().names.retain(|(kind, _)| *kind != Name::Portal);
    }

    fn set_timeout(&self, value: &str, longest: Duration) -> Outcome {
        let Some(asked) = duration(value) else {
            let message = format!("invalid value for parameter \"statement_timeout\": \"{value}\"");
            return Outcome::Refused("22023", message);
        };
        let mut state = self.state();
        state.statement_timeout = (!asked.is_zero()).then(|| asked.min(longest));
        state.changed.insert("statement_timeout".into(), value.to_owned());
        match asked > longest {
            true => Outcome::Told(format!("a query runs for {} s at most", longest.as_secs())),
            false => Outcome::Done,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(name: &str) -> Option<&'static (&'static str, &'static str, Change)> {
    SETTINGS.iter().find(|(known, _, _)| *known == name)
}

/// Whether a value says what the setting is already, in one of the ways in which clients say it.
fn same(start: &str, value: &str) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' ', '\''], "");
    let (start, value) = (plain(start), plain(value));
    match start.as_str() {
        "utc" => matches!(
            value.as_str(),
            "utc" | "etc/utc" | "gmt" | "etc/gmt" | "z" | "default" | "local" | "0"
        ),
        "utf8" => matches!(value.as_str(), "utf8" | "unicode" | "default"),
        "on" => matches!(value.as_str(), "on" | "true" | "1" | "yes" | "default"),
        _ => value == start || value == "default" || start.starts_with(&format!("{value},")),
    }
}

/// Milliseconds, or a number with one of Postgres' units.
fn duration(value: &str) -> Option<Duration> {
    let value = value.trim();
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms: u64 = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tokens::{Reach, Tokens, mint};
    use sluice_wire::ids::TenantId;

    #[test]
    fn a_setting_does_what_it_says_or_says_that_it_does_not() {
        let (token, entry) = mint([1; 32], "a", &TenantId::new("acme").unwrap(), Reach::Tenant);
        let who = Tokens::from_entries(&[entry]).unwrap().identify(&token).unwrap();
        let session = Session::new(who);
        let longest = Duration::from_secs(300);
        assert_eq!(session.set("application_name", "x", longest), Outcome::Done);
        assert_eq!(session.show("application_name").unwrap(), "x");
        assert_eq!(session.set("client_encoding", "utf-8", longest), Outcome::Done);
        assert_eq!(session.set("datestyle", "ISO", longest), Outcome::Done);
        assert!(matches!(
            session.set("timezone", "Europe/Berlin", longest),
            Outcome::Told(_)
        ));
        assert_eq!(session.show("timezone").unwrap(), "UTC");
        assert!(matches!(
            session.set("work_memory", "1", longest),
            Outcome::Refused("42704", _)
        ));
        assert!(matches!(
            session.set("server_version", "1", longest),
            Outcome::Refused("55P02", _)
        ));
        for (value, ms) in [("1500", 1_500), ("2s", 2_000), ("1 min", 60_000), ("9 h", 300_000)] {
            session.set("statement_timeout", value, longest);
            assert_eq!(session.statement_timeout(), Some(Duration::from_millis(ms)), "{value}");
        }
        assert!(matches!(
            session.set("statement_timeout", "soon", longest),
            Outcome::Refused("22023", _)
        ));
        session.reset("all");
        assert_eq!(session.statement_timeout(), None);
        assert_eq!(session.show("application_name").unwrap(), "");
    }

    #[test]
    fn names_are_bounded() {
        let (token, entry) = mint([1; 32], "a", &TenantId::new("acme").unwrap(), Reach::Tenant);
        let session = Session::new(Tokens::from_entries(&[entry]).unwrap().identify(&token).unwrap());
        assert!((0..MAX_NAMES).all(|n| session.name(Name::Statement, &n.to_string()) == Kept::New));
        assert_eq!(session.name(Name::Portal, "one more"), Kept::NoRoom);
        assert_eq!(session.name(Name::Statement, "7"), Kept::Known);
        session.forget(Name::Statement, "7");
        assert_eq!(session.name(Name::Portal, "one more"), Kept::New);
        session.forget_portals();
        assert_eq!(session.name(Name::Statement, "7"), Kept::New);
    }
}
