//! Consistent probability sampling as OpenTelemetry has it: every node draws the same number for a trace.
//!
//! The randomness R of a trace is 56 bits: `rv` of the `ot` member of its trace state, or else the low 56 bits of its id.
//! A chance p is the threshold T = (1 - p) * 2^56, and a row is kept if R >= T. So what a chance keeps, every higher
//! chance keeps too, on whatever node. `th` of the same member is the threshold of the samplers before this one.

/// One more than the largest randomness.
pub(crate) const RANGE: u64 = 1 << 56;
/// Hex digits of `rv`, and at most of `th`.
const DIGITS: usize = 14;
/// Bits of a chance that follows a budget: thresholds are then short, and 1/4096 is finer than any budget is held.
const PRECISION_BITS: u32 = 13;
/// Bytes of the `ot` member; OpenTelemetry's limit for a member's value.
const MAX_MEMBER: usize = 256;

/// How likely a row is to be kept, and how many events it then stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    threshold: u64,
    weight: f64,
}

impl Chance {
    pub const ALL: Chance = Chance {
        threshold: 0,
        weight: 1.0,
    };

    /// A share between 0 and 1, as exactly as 56 bits can.
    pub fn exact(share: f64) -> Chance {
        Chance {
            threshold: ((1.0 - share) * RANGE as f64).round() as u64,
            weight: 1.0 / share,
        }
    }

    /// A share rounded down to few digits.
    pub fn rounded(share: f64) -> Chance {
        let chances = ((share.clamp(0.0, 1.0)) * RANGE as f64) as u64;
        let coarse = (u64::BITS - chances.leading_zeros()).saturating_sub(PRECISION_BITS);
        let chances = chances >> coarse << coarse;
        Chance {
            threshold: RANGE - chances,
            weight: RANGE as f64 / chances as f64,
        }
    }

    pub fn keeps(&self, randomness: u64) -> bool {
        randomness >= self.threshold
    }

    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Infinite for a chance of nothing, which keeps no row that could bear it.
    pub fn weight(&self) -> f64 {
        self.weight
    }
}

/// The low 56 bits of a trace id.
pub fn randomness(trace_id: [u8; 16]) -> u64 {
    (u128::from_be_bytes(trace_id) as u64) & (RANGE - 1)
}

/// The same of many ids. In two passes, as only the second is one that the sandbox has vector instructions for: it has none that
/// turns the bytes of one number around.
pub(crate) fn randomness_of_all(trace_ids: &[[u8; 16]], randomness: &mut [u64]) {
    for (randomness, id) in randomness.iter_mut().zip(trace_ids) {
        *randomness = (u128::from_le_bytes(*id) >> 64) as u64;
    }
    for randomness in randomness.iter_mut().take(trace_ids.len()) {
        *randomness = randomness.swap_bytes() & (RANGE - 1);
    }
}

/// What `ot` of a trace state says about sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Threshold of the samplers before; none is: not known.
    pub threshold: Option<u64>,
    pub randomness: Option<u64>,
}

impl Arrived {
    /// What is malformed reads as absent, as OpenTelemetry wants it.
    pub fn of(trace_state: &str) -> Arrived {
        let mut arrived = Arrived::default();
        let Some(value) = members(trace_state).find_map(|(key, value)| (key == "ot").then_some(value)) else {
            return arrived;
        };
        if value.len() > MAX_MEMBER {
            return arrived;
        }
        for (key, value) in value.split(';').filter_map(|part| part.split_once(':')) {
            match key {
                "th" => arrived.threshold = threshold(value),
                "rv" => arrived.randomness = hex(value).filter(|_| value.len() == DIGITS),
                _ => {}
            }
        }
        arrived
    }

    /// How many events a row with this state stands for, if it is known and the randomness of the trace fits it.
    pub fn weight(&self, randomness: u64) -> Option<f64> {
        let threshold = self.threshold.filter(|threshold| randomness >= *threshold)?;
        Some(RANGE as f64 / (RANGE - threshold) as f64)
    }
}

/// The trace state of a row that a threshold kept: `th` is the larger of both, everything else stays.
pub(crate) fn with_threshold(trace_state: Option<&str>, threshold: u64) -> String {
    let trace_state = trace_state.unwrap_or_default();
    let before = Arrived::of(trace_state).threshold.unwrap_or(0);
    let mut own = format!("ot=th:{}", digits(threshold.max(before)));
    let mut rest = String::new();
    for (key, value) in members(trace_state) {
        if key == "ot" {
            for part in value
                .split(';')
                .filter(|part| !part.is_empty() && !part.starts_with("th:"))
            {
                own.push(';');
                own.push_str(part);
            }
        } else {
            rest.push(',');
            rest.push_str(key);
            rest.push('=');
            rest.push_str(value);
        }
    }
    own + &rest
}

/// Key and value of each member, in order. What has no `=` is no member.
fn members(trace_state: &str) -> impl Iterator<Item = (&str, &str)> {
    let members = trace_state.split(',').filter_map(|member| member.split_once('='));
    members.map(|(key, value)| (key.trim(), value.trim()))
}

/// 1 to 14 digits, with zeros at the end left out.
fn threshold(text: &str) -> Option<u64> {
    let value = hex(text).filter(|_| (1..=DIGITS).contains(&text.len()))?;
    Some(value << (4 * (DIGITS - text.len())))
}

fn digits(threshold: u64) -> String {
    let all = format!("{threshold:014x}");
    match all.trim_end_matches('0') {
        "" => "0".to_owned(),
        short => short.to_owned(),
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ids_have_the_randomness_of_each() {
        for count in [0, 1, 2, 7, 100] {
            let ids: Vec<[u8; 16]> = (0..count)
                .map(|n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
                .collect();
            // Rows without an id keep what they have.
            let mut all = vec![7; ids.len() + 1];
            randomness_of_all(&ids, &mut all);
            let expected: Vec<u64> = ids.iter().map(|id| randomness(*id)).chain([7]).collect();
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn states_are_read_as_opentelemetry_writes_them() {
        let check = |state: &str, threshold: Option<u64>, randomness: Option<u64>| {
            assert_eq!(Arrived::of(state), Arrived { threshold, randomness }, "{state:?}");
        };
        check("", None, None);
        check("ot=th:0", Some(0), None);
        check("ot=th:8", Some(RANGE / 2), None);
        check("ot=th:c", Some(RANGE / 4 * 3), None);
        check(
            "vendor=x, ot=rv:6e6d1a75832a2f;th:fd70a4 ,b=y",
            Some(0xfd70a4 << 32),
            Some(0x6e6d1a75832a2f),
        );
        for malformed in [
            "ot=th:",
            "ot=th:G",
            "ot=th:C",
            "ot=th:123456789012345",
            "ot=th:+8",
            "th:8",
            "ot",
            "OT=th:8",
        ] {
            check(malformed, None, None);
        }
        check("ot=rv:123", None, None);
        check("ot=rv:-e6d1a75832a2f", None, None);
        check(&format!("ot=th:8;x:{}", "y".repeat(300)), None, None);
    }

    #[test]
    fn a_threshold_that_does_not_fit_the_trace_says_nothing() {
        let arrived = Arrived::of("ot=th:8");
        assert_eq!(arrived.weight(RANGE / 2), Some(2.0));
        assert_eq!(arrived.weight(RANGE / 2 - 1), None);
    }

    #[test]
    fn the_threshold_is_written_into_the_state_and_nothing_else_changes() {
        let half = Chance::rounded(0.5).threshold();
        assert_eq!(with_threshold(None, half), "ot=th:8");
        assert_eq!(
            with_threshold(Some("a=1,ot=rv:6e6d1a75832a2f;th:4;x:y,b=2"), half),
            "ot=th:8;rv:6e6d1a75832a2f;x:y,a=1,b=2"
        );
        assert_eq!(with_threshold(Some("ot=th:c"), half), "ot=th:c", "a stricter one stays");
        assert_eq!(
            with_threshold(Some(""), Chance::exact(0.1).threshold()),
            "ot=th:e6666666666668"
        );
    }

    #[test]
    fn rounded_chances_are_close_and_short() {
        for share in [1.0, 0.999, 0.37, 0.1, 0.0123, 1e-4, 1e-9] {
            let chance = Chance::rounded(share);
            let got = 1.0 / chance.weight();
            assert!(got <= share && got > share * (1.0 - 1.0 / 4096.0), "{share}: {got}");
            assert!(
                (Arrived {
                    threshold: Some(chance.threshold()),
                    randomness: None
                }
                .weight(RANGE - 1))
                    == Some(chance.weight())
            );
        }
        assert_eq!(Chance::rounded(1.0), Chance::ALL);
        assert!(!Chance::rounded(0.0).keeps(RANGE - 1));
        assert!(digits(Chance::rounded(0.1).threshold()).len() <= 5);
    }
}
