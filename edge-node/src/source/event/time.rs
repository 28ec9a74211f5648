//! Points in time as logs write them, as nanoseconds since 1970. Pure: what a text leaves out is an argument.

const DAY_SECONDS: i64 = 86_400;
const NANOS: i64 = 1_000_000_000;
pub(crate) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date and a time of day without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 to 12
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    /// 60 in a leap second.
    pub(crate) second: i64,
    pub(crate) nanos: i64,
}

impl Civil {
    /// Seconds since 1970 as if it were UTC; `None` if there is no such day or time.
    pub(crate) fn seconds(&self) -> Option<i64> {
        let valid = (0..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=days_of_month(self.year, self.month)).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second);
        let days = days_since_1970(self.year, self.month, self.day);
        valid.then_some(days * DAY_SECONDS + self.hour * 3600 + self.minute * 60 + self.second)
    }

    /// Nanoseconds since 1970, where local time is `offset` seconds ahead of UTC. `None` outside of what 64 bits hold, or
    /// before 1970.
    pub(crate) fn nanos_at(&self, offset: i64) -> Option<u64> {
        let seconds = self.seconds()? - offset;
        u64::try_from(seconds.checked_mul(NANOS)?.checked_add(self.nanos)?).ok()
    }
}

/// Algorithm of Howard Hinnant, `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The year of a point in time.
pub(crate) fn year_of(seconds: i64) -> i64 {
    // The reverse of `days_since_1970`, as far as the year.
    let days = seconds.div_euclid(DAY_SECONDS) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March in this reckoning.
    era * 400 + year_of_era + i64::from(day_of_year >= 306)
}

/// Takes parts off the front of a text.
pub(crate) struct Scan<'a>(pub(crate) &'a str);

impl<'a> Scan<'a> {
    pub(crate) fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        let number = head
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| head.parse().ok())
            .flatten()?;
        self.0 = rest;
        Some(number)
    }

    /// One of these characters.
    pub(crate) fn one_of(&mut self, chars: &[char]) -> Option<char> {
        let c = self.0.chars().next().filter(|c| chars.contains(c))?;
        self.0 = &self.0[c.len_utf8()..];
        Some(c)
    }

    /// A fraction of a second behind a point or a comma, any number of digits; 0 where there is none.
    pub(crate) fn fraction(&mut self) -> i64 {
        let digits = match self.0.strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if digits == 0 {
            return 0;
        }
        let text = &self.0[1..=digits];
        self.0 = &self.0[1 + digits..];
        let mut nanos = 0;
        for place in 0..9 {
            nanos = nanos * 10 + text.as_bytes().get(place).map_or(0, |b| i64::from(b - b'0'));
        }
        nanos
    }

    /// `Z`, `+02:00`, `+0200`, `+02`: seconds ahead of UTC.
    pub(crate) fn zone(&mut self) -> Option<i64> {
        if self.one_of(&['Z', 'z']).is_some() {
            return Some(0);
        }
        let sign = if self.one_of(&['+', '-'])? == '-' { -1 } else { 1 };
        let hours = self.number(2)?;
        let minutes = if self.0.starts_with(':') || self.0.starts_with(|c: char| c.is_ascii_digit()) {
            let _ = self.one_of(&[':']);
            self.number(2)?
        } else {
            0
        };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }

    pub(crate) fn month(&mut self) -> Option<i64> {
        let name = self.0.get(..3)?;
        let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(name))?;
        self.0 = &self.0[3..];
        Some(month as i64 + 1)
    }

    /// `hh:mm:ss`
    pub(crate) fn time_of_day(&mut self) -> Option<(i64, i64, i64)> {
        let hour = self.number(2)?;
        self.one_of(&[':'])?;
        let minute = self.number(2)?;
        self.one_of(&[':'])?;
        Some((hour, minute, self.number(2)?))
    }
}

/// A zone alone, as in a configuration: `UTC`, `Z`, `+02:00`.
pub(crate) fn parse_zone(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("utc") {
        return Some(0);
    }
    let mut scan = Scan(text);
    scan.zone().filter(|_| scan.0.is_empty())
}

/// `2026-11-21T18:00:00.123+01:00` and its relatives: a space for the `T`, a comma for the point, no zone (UTC then).
pub(crate) fn parse_iso(text: &str) -> Option<u64> {
    let mut scan = Scan(text.trim());
    let at = iso(&mut scan)?;
    scan.0.is_empty().then_some(at)
}

/// The same at the front of a text.
pub(crate) fn iso(scan: &mut Scan<'_>) -> Option<u64> {
    let year = scan.number(4)?;
    scan.one_of(&['-', '/'])?;
    let month = scan.number(2)?;
    scan.one_of(&['-', '/'])?;
    let day = scan.number(2)?;
    scan.one_of(&['T', 't', ' '])?;
    let (hour, minute, second) = scan.time_of_day()?;
    let nanos = scan.fraction();
    let space = scan
        .0
        .strip_prefix(' ')
        .filter(|rest| rest.starts_with(['+', '-', 'Z']));
    scan.0 = space.unwrap_or(scan.0);
    let offset = if scan.0.starts_with(['+', '-', 'Z', 'z']) {
        scan.zone()?
    } else {
        0
    };
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
    };
    civil.nanos_at(offset)
}

/// `21/Nov/2026:18:00:00 +0100`, as web servers write it.
fn parse_common_log(text: &str) -> Option<u64> {
    let mut scan = Scan(text.trim());
    let day = scan.number(2)?;
    scan.one_of(&['/'])?;
    let month = scan.month()?;
    scan.one_of(&['/'])?;
    let year = scan.number(4)?;
    scan.one_of(&[':'])?;
    let (hour, minute, second) = scan.time_of_day()?;
    let nanos = scan.fraction();
    let _ = scan.one_of(&[' ']);
    let offset = if scan.0.is_empty() { 0 } else { scan.zone()? };
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
    };
    scan.0.is_empty().then(|| civil.nanos_at(offset)).flatten()
}

/// Any text that says when: ISO 8601, the form of web servers, or a number since 1970.
pub(crate) fn parse_text(text: &str) -> Option<u64> {
    parse_iso(text).or_else(|| parse_common_log(text)).or_else(|| {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match plain.then(|| text.parse::<u64>()) {
            Some(Ok(whole)) => epoch_integer(whole),
            Some(Err(_)) => epoch_decimal(text.parse().ok()?),
            None => None,
        }
    })
}

/// The units that a count since 1970 may have, with the factor to nanoseconds: a number below the bound is in that unit. In
/// each unit the years 1973 to 5138 are told apart from the next one.
const UNITS: [(u64, u64); 3] = [
    (100_000_000_000, 1_000_000_000),
    (100_000_000_000_000, 1_000_000),
    (100_000_000_000_000_000, 1_000),
];

/// Seconds, milliseconds, microseconds or nanoseconds, told apart by their size.
pub(crate) fn epoch_integer(number: u64) -> Option<u64> {
    let factor = UNITS.iter().find(|(below, _)| number < *below).map_or(1, |(_, f)| *f);
    number.checked_mul(factor)
}

/// The same with a fraction.
pub(crate) fn epoch_decimal(number: f64) -> Option<u64> {
    if !(0.0..1.8e19).contains(&number) {
        return None;
    }
    let whole = number.trunc();
    let factor = UNITS
        .iter()
        .find(|(below, _)| whole < *below as f64)
        .map_or(1, |(_, f)| *f);
    // A double holds seconds to about a quarter of a microsecond: the rest is not what was written.
    let fraction = (number.fract() * 1e6).round() / 1e6 * factor as f64;
    (whole as u64).checked_mul(factor)?.checked_add(fraction as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2023-11-14 22:13:20 UTC
    const T: u64 = 1_700_000_000;
    const S: u64 = 1_000_000_000;

    #[test]
    fn times_as_logs_write_them_are_read_and_others_are_not() {
        for (text, ns) in [
            ("2023-11-14T22:13:20Z", T * S),
            ("2023-11-14T22:13:20.5Z", T * S + S / 2),
            ("2023-11-14 22:13:20,123", T * S + 123_000_000),
            ("2023-11-15T00:13:20.000000001+02:00", T * S + 1),
            ("2023-11-14T17:13:20-0500", T * S),
            ("2023/11/14 22:13:20 +0000", T * S),
            ("14/Nov/2023:23:13:20 +0100", T * S),
            ("1700000000", T * S),
            ("1700000000.25", T * S + S / 4),
            ("1700000000123", T * S + 123_000_000),
            ("1700000000123456", T * S + 123_456_000),
            ("1700000000123456789", T * S + 123_456_789),
            ("2024-02-29T00:00:00Z", 1_709_164_800 * S),
            ("2016-12-31T23:59:60Z", 1_483_228_800 * S),
        ] {
            assert_eq!(parse_text(text), Some(ns), "{text}");
        }
        for text in [
            "",
            "now",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-11-14",
            "2023-11-14T25:00:00Z",
            "2023-11-14T22:13:20X",
            "2023-11-14T22:13:20Zx",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "-5",
            "99999999999999999999",
            "1.2.3",
            "é023-11-14T22:13:20Z",
        ] {
            assert_eq!(parse_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_not(text in "\\PC{0,40}") {
            let _ = parse_text(&text);
        }

        #[test]
        fn days_and_years_agree(days in 0i64..200_000) {
            // Day by day, without any formula.
            let (mut year, mut month, mut day) = (1970, 1, 1);
            let mut left = days;
            while left >= 365 + i64::from(days_of_month(year, 2) == 29) {
                left -= 365 + i64::from(days_of_month(year, 2) == 29);
                year += 1;
            }
            while left >= days_of_month(year, month) {
                left -= days_of_month(year, month);
                month += 1;
            }
            day += left;
            prop_assert_eq!(days_since_1970(year, month, day), days);
            prop_assert_eq!(year_of(days * DAY_SECONDS), year);
            prop_assert_eq!(year_of(days * DAY_SECONDS + DAY_SECONDS - 1), year);
        }
    }
}
