//! Durations and sizes as people write them in a configuration: `"5 s"`, `"64 MiB"`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// Milliseconds per unit of time.
const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Bytes per unit of size.
const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// `"30 s"` as a duration.
pub(crate) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Unit {
        table: &TIMES,
        example: "30 s",
    })
    .map(Duration::from_millis)
}

/// `"64 MiB"` as bytes.
pub(crate) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_str(Unit {
        table: &SIZES,
        example: "64 MiB",
    })
}

/// A whole or decimal number, a space if you like, a unit.
fn parse(text: &str, table: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = table.iter().find(|(name, _)| *name == unit.trim())?;
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor),
        Err(_) => {
            let value = number.parse::<f64>().ok()? * *factor as f64;
            // 2^53: above it a decimal number no longer says which byte is meant
            (value.is_finite() && (0.0..9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
        }
    }
}

struct Unit {
    table: &'static [(&'static str, u64)],
    example: &'static str,
}

impl Visitor<'_> for Unit {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number with a unit, such as \"{}\"", self.example)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text, self.table).ok_or_else(|| {
            let units: Vec<_> = self.table.iter().map(|(name, _)| *name).collect();
            E::custom(format!(
                "\"{text}\" is not a number with one of the units {}, such as \"{}\"",
                units.join(", "),
                self.example
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_a_known_unit_and_never_overflow() {
        for (text, want) in [
            ("30 s", Some(30_000)),
            ("1.5s", Some(1_500)),
            (" 2 min ", Some(120_000)),
            ("5", None),
            ("5 sec", None),
            ("-1 s", None),
            ("99999999999999999999 s", None),
            ("18446744073709551615 d", None),
        ] {
            assert_eq!(parse(text, &TIMES), want, "{text}");
        }
        assert_eq!(parse("64 MiB", &SIZES), Some(64 << 20));
        assert_eq!(parse("64 mib", &SIZES), None);
    }
}
