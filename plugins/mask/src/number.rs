//! The digits of a number, however it is written.

/// Whole numbers up to here are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The digits of a whole number that was written as an integer or as a double (`4111111111111111.0`, `4.111111111111111e15`), without
/// its sign; `None` for fractions and for what is no number.
pub(crate) fn whole(text: &str) -> Option<String> {
    let digits = text.trim_start_matches('-');
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(digits.to_owned());
    }
    let (head, zeros) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits(head) && zeros.bytes().all(|byte| byte == b'0') && !head.is_empty() {
        return Some(head.to_owned());
    }
    of_double(digits.parse().ok()?).map(|number| number.to_string())
}

/// A double that is a whole number, without its sign.
pub(crate) fn of_double(value: f64) -> Option<u64> {
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value.abs() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_known_however_they_are_written() {
        for (text, digits) in [
            ("4111111111111111", Some("4111111111111111")),
            ("-4111111111111111", Some("4111111111111111")),
            ("4111111111111111.0", Some("4111111111111111")),
            ("4.111111111111111e15", Some("4111111111111111")),
            ("4.111111111111111E+15", Some("4111111111111111")),
            ("4111111111111111.5", None),
            ("0.5", None),
            ("1e300", None),
            ("NaN", None),
            ("4539578763621486123", Some("4539578763621486123")),
        ] {
            assert_eq!(whole(text).as_deref(), digits, "{text}");
        }
    }
}
