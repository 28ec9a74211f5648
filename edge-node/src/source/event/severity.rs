//! How severe an event is, in the numbers of OTLP: 1 trace, 5 debug, 9 info, 13 warn, 17 error, 21 fatal; 0 for unknown.

/// The severities of syslog in their order, as OpenTelemetry's log data model maps them.
const SYSLOG: [(u8, &str); 8] = [
    (21, "emerg"),
    (19, "alert"),
    (18, "crit"),
    (17, "err"),
    (13, "warning"),
    (10, "notice"),
    (9, "info"),
    (5, "debug"),
];

/// Number and name of a severity of syslog, 0 to 7.
pub(crate) fn of_syslog(severity: u8) -> (u8, &'static str) {
    SYSLOG[usize::from(severity & 7)]
}

pub(crate) fn of_text(text: &str) -> u8 {
    match text.trim().to_ascii_lowercase().as_str() {
        "trace" | "t" | "verbose" | "finest" => 1,
        "debug" | "d" | "fine" => 5,
        "info" | "information" | "informational" | "i" => 9,
        "notice" => 10,
        "warn" | "warning" | "w" => 13,
        "error" | "err" | "e" | "severe" => 17,
        "critical" | "crit" | "c" => 18,
        "alert" => 19,
        "fatal" | "f" | "emergency" | "emerg" | "panic" | "dpanic" => 21,
        other => match other.parse() {
            Ok(level) => of_level(level).unwrap_or(0),
            Err(_) => 0,
        },
    }
}

/// A level as a number: those of syslog and GELF are 0 to 7, those of Bunyan and Pino 10 to 60.
pub(crate) fn of_level(level: u64) -> Option<u8> {
    match level {
        0..=7 => Some(of_syslog(level as u8).0),
        10..20 => Some(1),
        20..30 => Some(5),
        30..40 => Some(9),
        40..50 => Some(13),
        50..60 => Some(17),
        60 => Some(21),
        _ => None,
    }
}
