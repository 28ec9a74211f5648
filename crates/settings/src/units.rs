//! Durations and sizes as people write them: a number and a unit, `"5 s"`, `"64 MiB"`.

use std::time::Duration;

/// Name and milliseconds, largest first: texts are written with the largest unit that loses nothing.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];
/// Sizes are shown in these alone: one spelling for one value.
const SHOWN_SIZES: usize = 4;

/// `"30 s"`, `"5ms"`, `"1.5 h"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(
        text,
        &TIME_UNITS,
        "a duration such as \"5 s\" (units: ms, s, min, h, d)",
    )
    .map(Duration::from_millis)
}

/// `"64 MiB"`, `"10GiB"`, `"500 KB"`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    parse(
        text,
        &SIZE_UNITS,
        "a size such as \"64 MiB\" (units: B, KiB, MiB, GiB, TiB, kB, MB, GB)",
    )
}

pub fn show_duration(value: Duration) -> String {
    show(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "ms")
}

pub fn show_size(value: u64) -> String {
    show(value, &SIZE_UNITS[..SHOWN_SIZES], "B")
}

fn parse(text: &str, units: &[(&str, u64)], expected: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is not {expected}");
    let text_trimmed = text.trim();
    let split = text_trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .ok_or_else(|| format!("{text:?} has no unit: write {expected}"))?;
    let (number, unit) = text_trimmed.split_at(split);
    let number = number.replace('_', "");
    let unit = unit.trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*factor).ok_or_else(refuse);
    }
    let value = number.parse::<f64>().map_err(|_| refuse())? * *factor as f64;
    // Above this a float skips integers, and no setting here is that large.
    if !(0.0..9e15).contains(&value) {
        return Err(refuse());
    }
    Ok(value.round() as u64)
}

fn show(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let (name, factor) = units
        .iter()
        .find(|(_, f)| value >= *f && value.is_multiple_of(*f))
        .copied()
        .unwrap_or((smallest, 1));
    format!("{} {name}", value / factor)
}

/// For `#[serde(with = …)]`.
pub mod duration {
    use super::{parse_duration, show_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show_duration(*value))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = …)]`.
pub mod size {
    use super::{parse_size, show_size};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show_size(*value))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        parse_size(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_with_units_are_read_and_others_refused() {
        assert_eq!(parse_duration("5 s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_duration("1.5h").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_size("64 MiB").unwrap(), 64 << 20);
        assert_eq!(parse_size("1_000 KB").unwrap(), 1_000_000);
        for bad in ["", "5", "5 parsec", "s", "-1 s", "1e99 s", "1..2 s", "999999999999 d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["64", "64 mib", "MiB", "1 s", "99999999 TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0u64..1 << 50, bytes in 0u64..1 << 50) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)).unwrap(), duration);
            prop_assert_eq!(parse_size(&show_size(bytes)).unwrap(), bytes);
        }
    }
}
