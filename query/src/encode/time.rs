//! Points in time as RFC 3339 text, to the nanosecond, for the whole range of 64 bits.

use std::fmt::Write;

const SECONDS_PER_DAY: i64 = 86_400;

/// `2026-11-21T07:09:53.123456789Z`. `per_second` is how many ticks a second has; as many digits are written as it takes.
pub(crate) fn write_utc(ticks: i64, per_second: i64, out: &mut String) {
    let seconds = ticks.div_euclid(per_second);
    let fraction = ticks.rem_euclid(per_second);
    write_date(seconds.div_euclid(SECONDS_PER_DAY), out);
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    // writing to a String cannot fail
    let _ = write!(out, "T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    match per_second {
        1 => {}
        1_000 => drop(write!(out, ".{fraction:03}")),
        1_000_000 => drop(write!(out, ".{fraction:06}")),
        _ => drop(write!(out, ".{fraction:09}")),
    }
    out.push('Z');
}

/// `2026-11-21`, counted in days since 1970, by the proleptic Gregorian calendar.
pub(crate) fn write_date(days: i64, out: &mut String) {
    // Years begin in March here, so that the leap day is the last of its year; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // RFC 3339 has years 0 to 9999; beyond them the sign says so
    let _ = if (0..=9999).contains(&year) {
        write!(out, "{year:04}-{month:02}-{day:02}")
    } else {
        write!(out, "{year:+05}-{month:02}-{day:02}")
    };
}

/// Milliseconds since 1970 as text.
pub(crate) fn utc_millis(ms: i64) -> String {
    let mut out = String::with_capacity(24);
    write_utc(ms, 1_000, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(ticks: i64, per_second: i64) -> String {
        let mut out = String::new();
        write_utc(ticks, per_second, &mut out);
        out
    }

    #[test]
    fn known_instants() {
        assert_eq!(utc(0, 1), "1970-01-01T00:00:00Z");
        assert_eq!(utc(-1, 1_000_000_000), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(utc(951_782_400, 1), "2000-02-29T00:00:00Z");
        assert_eq!(utc(4_107_542_400_000, 1_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(
            utc(1_795_244_993_123_456_789, 1_000_000_000),
            "2026-11-21T07:09:53.123456789Z"
        );
        assert_eq!(utc(i64::MIN, 1_000_000_000), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(utc(i64::MAX, 1_000_000_000), "2262-04-11T23:47:16.854775807Z");
    }
}
