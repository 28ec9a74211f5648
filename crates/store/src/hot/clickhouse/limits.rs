//! What a server may use for one statement of a query: it then gives up by itself, wherever the one who asked has gone.

use std::time::Duration;

use super::client::{ClickHouseError, Statement};

/// Codes of the server: TOO_MANY_BYTES and MEMORY_LIMIT_EXCEEDED.
const TOO_MANY_BYTES: u32 = 307;
const MEMORY_LIMIT: u32 = 241;
/// Whoever asks gives up first, and says so in its own words.
const AFTER_THE_CALLER: Duration = Duration::from_secs(1);

/// The limits of a query, told to each statement. They travel as an extension of the session's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementLimits {
    pub time: Duration,
    /// Of what is read, before any filter.
    pub bytes: u64,
    /// Sorts and groupings spill before they reach it.
    pub memory: u64,
}

/// Which limit a server refused to exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Bytes,
    Memory,
}

impl StatementLimits {
    pub(super) fn bind(&self, statement: Statement) -> Statement {
        let time = self.time + AFTER_THE_CALLER;
        let spill = self.memory / 2;
        statement
            .with(
                "max_execution_time",
                time.as_secs() + u64::from(time.subsec_nanos() > 0),
            )
            // It is to end when the time is up, and not when it is thought that it will be.
            .with("timeout_before_checking_execution_speed", 0)
            .with("max_bytes_to_read", self.bytes)
            .with("max_memory_usage", self.memory)
            .with("max_bytes_before_external_group_by", spill)
            .with("max_bytes_before_external_sort", spill)
    }
}

impl ClickHouseError {
    /// The limit that ended a statement, before its first row or after.
    pub(crate) fn exceeded(&self) -> Option<Exceeded> {
        let of = |code: u32| match code {
            TOO_MANY_BYTES => Some(Exceeded::Bytes),
            MEMORY_LIMIT => Some(Exceeded::Memory),
            _ => None,
        };
        match self {
            ClickHouseError::Refused { code: Some(code), .. } => of(*code),
            ClickHouseError::Refused { message: text, .. }
            | ClickHouseError::Answer(text)
            | ClickHouseError::Broken(text) => {
                let (_, after) = text.split_once("Code: ")?;
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                of(after[..end].parse().ok()?)
            }
            ClickHouseError::Unreachable(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_known_by_its_code_before_and_after_the_first_row() {
        let refused = |code, message: &str| ClickHouseError::Refused {
            code,
            message: message.to_owned(),
        };
        assert_eq!(refused(Some(307), "").exceeded(), Some(Exceeded::Bytes));
        assert_eq!(refused(Some(60), "Code: 307").exceeded(), None);
        assert_eq!(
            refused(None, "status 500: Code: 241. DB::Exception").exceeded(),
            Some(Exceeded::Memory)
        );
        let late = ClickHouseError::Answer("cut short: Code: 307. DB::Exception: Limit for rows".to_owned());
        assert_eq!(late.exceeded(), Some(Exceeded::Bytes));
    }

    #[test]
    fn a_server_gives_up_after_the_one_who_asked() {
        let limits = StatementLimits {
            time: Duration::from_millis(1_500),
            bytes: 7,
            memory: 10,
        };
        let bound = limits.bind(Statement::new("SELECT 1"));
        let value = |name| {
            bound
                .settings
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("max_execution_time"), Some("3"));
        assert_eq!(
            (value("max_bytes_to_read"), value("max_memory_usage")),
            (Some("7"), Some("10"))
        );
    }
}
