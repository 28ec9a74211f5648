//! Points in time as packages write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

const FORM: &str = "%Y-%m-%dT%H:%M:%SZ";
/// The last second of the year 9999: later ones would have another form.
const LAST: i64 = 253_402_300_799;

/// A second in UTC, written `2026-11-21T15:04:05Z` and in no other form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a time: write it as 2026-11-21T15:04:05Z")]
pub struct TimeError;

impl Timestamp {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_seconds(i64::try_from(since.as_secs()).unwrap_or(LAST))
    }

    /// Seconds since 1970; what lies outside the years 1970 to 9999 becomes their end.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.clamp(0, LAST))
    }

    pub fn seconds(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let more = i64::try_from(duration.as_secs()).unwrap_or(LAST);
        Self::from_seconds(self.0.saturating_add(more))
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let time = NaiveDateTime::parse_from_str(text, FORM).map_err(|_| TimeError)?;
        let parsed = Self(time.and_utc().timestamp());
        let plain = (0..=LAST).contains(&parsed.0) && parsed.to_string() == text;
        plain.then_some(parsed).ok_or(TimeError)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimeError;

    fn try_from(text: String) -> Result<Self, TimeError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time: DateTime<Utc> = DateTime::from_timestamp(self.0, 0).unwrap_or_default();
        write!(f, "{}", time.format(FORM))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling() {
        for good in [
            "1970-01-01T00:00:00Z",
            "2026-11-21T15:04:05Z",
            "2028-02-29T23:59:59Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(good.parse::<Timestamp>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T15:04:05",
            "2026-11-21T15:04:05+00:00",
            "2026-11-21 15:04:05Z",
            "2026-02-30T00:00:00Z",
            "2026-11-21T15:04:05.0Z",
            "1969-12-31T23:59:59Z",
            "+10000-01-01T00:00:00Z",
            "2026-1-21T15:04:05Z",
            "2026-11-21T15:04:60Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
        assert_eq!(Timestamp::from_seconds(i64::MAX).after(Duration::MAX).seconds(), LAST);
    }
}
