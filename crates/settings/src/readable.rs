//! Numbers for a glance, in four or five characters and a unit. What scripts read is exact and stands elsewhere.

const SIZE_UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
const COUNT_UNITS: [&str; 4] = ["k", "M", "G", "T"];
/// Counts below this are shown as they are.
const COUNTED: u64 = 10_000;

/// `"512 B"`, `"12.3 MiB"`.
pub fn bytes(bytes: u64) -> String {
    match bytes < 1024 {
        true => format!("{bytes} B"),
        false => scaled(bytes, 1024.0, &SIZE_UNITS),
    }
}

/// `"9,999"`, `"12.3 k"`, `"1.2 M"`.
pub fn count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..COUNTED => format!("{},{:03}", count / 1_000, count % 1_000),
        _ => scaled(count, 1_000.0, &COUNT_UNITS),
    }
}

/// `"350 ms"`, `"3 s"`, `"2 min 5 s"`, `"2 h 5 min"`, `"3 d 4 h"`.
pub fn span(ms: u64) -> String {
    let (s, min, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{s} s"),
        60_000..600_000 => two(min, "min", s % 60, "s"),
        600_000..3_600_000 => format!("{min} min"),
        3_600_000..172_800_000 => two(h, "h", min % 60, "min"),
        _ => two(d, "d", h % 24, "h"),
    }
}

fn scaled(number: u64, step: f64, units: &[&str]) -> String {
    let mut value = number as f64 / step;
    let mut unit = 0;
    // What would be rounded up to a whole step is one of the next unit.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_round_as_people_do() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (9_999, "9,999"),
            (10_000, "10.0 k"),
            (999_949, "999.9 k"),
            (999_960, "1.0 M"),
            (1_234_567, "1.2 M"),
            (u64::MAX, "18446744.1 T"),
        ] {
            assert_eq!(count(number), shown);
        }
        for (number, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (12_900_000, "12.3 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (10 << 30, "10.0 GiB"),
        ] {
            assert_eq!(bytes(number), shown);
        }
    }

    #[test]
    fn times_have_two_units_where_the_second_matters() {
        for (ms, shown) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_900, "3 s"),
            (60_000, "1 min"),
            (125_000, "2 min 5 s"),
            (7_500_000, "2 h 5 min"),
            (36_000_000, "10 h"),
            (172_800_000, "2 d"),
            (277_000_000, "3 d 4 h"),
        ] {
            assert_eq!(span(ms), shown);
        }
    }
}
