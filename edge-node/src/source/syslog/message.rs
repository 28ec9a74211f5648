//! One message of syslog: RFC 5424, and what RFC 3164 found in the wild. Pure. A text that is neither is taken whole as the message.

use crate::source::event::severity;
use crate::source::event::time::{Civil, Scan, iso, parse_zone, year_of};
use crate::source::event::{Origin, resource};
use crate::source::export::{Attributes, LogRecord, Request, Value};

/// The priority of a message that names none, as RFC 3164 has it: user, notice.
const DEFAULT_PRIORITY: u8 = 13;
/// Elements of structured data with their parameters; more stay out and the message says so.
const MAX_PARAMETERS: usize = 256;
/// Attributes of a message beside its parameters: five of its head and end, three of its sender.
pub(super) const OWN_ATTRIBUTES: usize = 8;
/// RFC 5424 allows 32. The name of an element is told with each of its parameters, so it must not be long.
const MAX_NAME_BYTES: usize = 128;
/// A sender's clock may be ahead by so much before its message is taken to be of last year.
const AHEAD_NS: u64 = 7 * 24 * 3600 * 1_000_000_000;

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    priority: u8,
    /// 1 for RFC 5424, 0 for RFC 3164.
    version: u8,
    time_ns: u64,
    host: Option<String>,
    app: Option<String>,
    process: Option<String>,
    id: Option<String>,
    /// Element, parameter, value.
    data: Vec<(String, String, String)>,
    text: String,
}

/// What a text alone does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) received_ns: u64,
    /// Of senders that name none.
    pub(super) zone: Zone,
}

/// What local time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// Seconds ahead of UTC.
    Fixed(i64),
    /// The zone in which a message was written just before it came.
    Guess,
}

/// Zones differ by half hours; the quarters of Nepal and the Chatham Islands cannot be guessed.
const ZONE_STEP: i64 = 1800;
/// The islands of the Line are 14 h ahead, Baker Island is 12 h behind.
const ZONES: std::ops::RangeInclusive<i64> = -12 * 3600..=14 * 3600;
/// A sender's clock may be ahead by so much where its zone is guessed.
const GUESS_AHEAD: i64 = 300;

impl Zone {
    /// `UTC`, `+02:00`, `guess`
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "guess" => Some(Self::Guess),
            _ => parse_zone(text).map(Self::Fixed),
        }
    }

    /// How far a local time is ahead of UTC. `local` and `received` are seconds since 1970, the first as if it were UTC.
    fn offset(self, local: i64, received: i64) -> i64 {
        match self {
            Self::Fixed(offset) => offset,
            // The smallest offset with which it is not in the future.
            Self::Guess => {
                let ahead = local - received - GUESS_AHEAD;
                let steps = -(-ahead).div_euclid(ZONE_STEP);
                let offset = steps * ZONE_STEP;
                // An old message tells nothing of its zone.
                if ZONES.contains(&offset) { offset } else { 0 }
            }
        }
    }
}

impl Message {
    pub(super) fn parse(text: &str, context: Context) -> Self {
        let text = text.trim_end_matches(['\n', '\r', '\0']);
        let Some((priority, rest)) = priority(text) else {
            return Self {
                priority: DEFAULT_PRIORITY,
                text: text.to_owned(),
                ..Self::default()
            };
        };
        let mut message = match rest.strip_prefix("1 ").and_then(modern) {
            Some(message) => message,
            None => legacy(rest, context),
        };
        message.priority = priority;
        message
    }

    /// Appends it. `sender` are attributes of where it came from. Parameters beyond what an event may have of attributes share one: a
    /// request in which one event has too many is refused as a whole, with the messages of others in it.
    pub(super) fn push(
        &self,
        request: &mut Request,
        origin: &Origin,
        sender: &Attributes,
        is_cut: bool,
        max_attributes: usize,
    ) {
        let (number, name) = severity::of_syslog(self.priority & 7);
        let resource = resource(
            self.app.as_deref().or(origin.service.as_deref()),
            self.host.as_deref().or(origin.host.as_deref()),
        );
        let mut own = Attributes::default();
        own.push("syslog.facility", Value::Int((self.priority >> 3).into()));
        if self.version > 0 {
            own.push("syslog.version", Value::Int(self.version.into()));
        }
        if let Some(process) = &self.process {
            own.text("syslog.procid", process);
        }
        if let Some(id) = &self.id {
            own.text("syslog.msgid", id);
        }
        let most = max_attributes.saturating_sub(OWN_ATTRIBUTES);
        let singly = if self.data.len() > most {
            most.saturating_sub(1)
        } else {
            most
        };
        let (data, rest) = self.data.split_at(singly.min(self.data.len()));
        for (element, name, value) in data {
            let key = match name.is_empty() {
                true => format!("syslog.structured_data.{element}"),
                false => format!("syslog.structured_data.{element}.{name}"),
            };
            own.text(&key, value);
        }
        if !rest.is_empty() {
            let parameter = |(element, name, value): &(String, String, String)| format!("{element}.{name}={value:?}");
            let rest: Vec<String> = rest.iter().map(parameter).collect();
            own.text("syslog.structured_data", &rest.join(" "));
        }
        if is_cut {
            own.push("log.truncated", Value::Bool(true));
        }
        let record = LogRecord {
            time_ns: self.time_ns,
            observed_ns: origin.observed_ns,
            severity: number,
            severity_text: name,
            body: Some(Value::Text(&self.text)),
            ..LogRecord::default()
        };
        request.push_log(&resource, &record, &[&own, sender]);
    }
}

/// `<0>` to `<191>`
fn priority(text: &str) -> Option<(u8, &str)> {
    let (number, rest) = text.strip_prefix('<')?.split_once('>')?;
    let digits = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let priority = digits.then(|| number.parse().ok()).flatten().filter(|p| *p <= 191)?;
    Some((priority, rest))
}

/// What stands behind `<PRI>1 `.
fn modern(text: &str) -> Option<Message> {
    let mut rest = text;
    let mut word = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        word
    };
    let (time, host, app, process, id) = (word(), word(), word(), word(), word());
    let given = |text: &str| (text != "-" && !text.is_empty()).then(|| text.to_owned());
    let time_ns = match time {
        "-" => 0,
        // One that cannot be read means another format.
        time => {
            let mut scan = Scan(time);
            let at = iso(&mut scan)?;
            scan.0.is_empty().then_some(at)?
        }
    };
    if id.is_empty() {
        return None;
    }
    let (data, text) = structured(rest)?;
    Some(Message {
        priority: 0,
        version: 1,
        time_ns,
        host: given(host),
        app: given(app),
        process: given(process),
        id: given(id),
        data,
        text: text.trim_start_matches('\u{feff}').to_owned(),
    })
}

type Data = Vec<(String, String, String)>;

/// `-` or `[id name="value" …][…]`, and the message behind it.
fn structured(text: &str) -> Option<(Data, &str)> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some((Data::new(), rest.strip_prefix(' ').unwrap_or(rest)));
    }
    let mut data = Data::new();
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']']).filter(|end| *end <= MAX_NAME_BYTES)?;
        let id = &element[..end];
        let mut inside = &element[end..];
        let mut has_parameters = false;
        loop {
            inside = inside.trim_start_matches(' ');
            if let Some(after) = inside.strip_prefix(']') {
                rest = after;
                break;
            }
            let (name, after) = inside
                .split_once("=\"")
                .filter(|(name, _)| name.len() <= MAX_NAME_BYTES)?;
            let (value, after) = parameter(after)?;
            inside = after;
            has_parameters = true;
            if data.len() < MAX_PARAMETERS {
                data.push((id.to_owned(), name.to_owned(), value));
            }
        }
        if !has_parameters && data.len() < MAX_PARAMETERS {
            data.push((id.to_owned(), String::new(), String::new()));
        }
    }
    let is_whole = rest.is_empty() || rest.starts_with(' ');
    (is_whole && rest.len() < text.len()).then(|| (data, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// A value and what stands behind its quote. Only `"`, `\` and `]` are escaped.
fn parameter(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

/// `Nov 21 18:00:00 host app[123]: text`, where anything may be missing. Some senders write the time as RFC 5424 has it.
fn legacy(text: &str, context: Context) -> Message {
    let mut message = Message::default();
    let mut scan = Scan(text.trim_start_matches(' '));
    match legacy_time(&scan, context) {
        Some((time_ns, rest)) => {
            message.time_ns = time_ns;
            scan.0 = rest.trim_start_matches(' ');
            // With a time there is a host, unless the word is a tag.
            if let Some((host, rest)) = scan.0.split_once(' ')
                && !host.is_empty()
                && !host.ends_with(':')
                && !host.contains('[')
            {
                message.host = Some(host.to_owned());
                scan.0 = rest;
            }
        }
        None => message.time_ns = 0,
    }
    let rest = scan.0;
    let tag_end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_./\\".contains(c)))
        .unwrap_or(rest.len());
    let (tag, behind) = rest.split_at(tag_end);
    let (process, behind) = match behind.strip_prefix('[').and_then(|b| b.split_once(']')) {
        Some((process, behind)) if !process.is_empty() => (Some(process), behind),
        _ => (None, behind),
    };
    match behind.strip_prefix(':') {
        Some(body) if !tag.is_empty() && tag.len() <= MAX_TAG_BYTES => {
            message.app = Some(tag.to_owned());
            message.process = process.map(str::to_owned);
            message.text = body.strip_prefix(' ').unwrap_or(body).to_owned();
        }
        _ => message.text = rest.to_owned(),
    }
    message
}

/// RFC 3164 says 32; programs have longer names.
const MAX_TAG_BYTES: usize = 128;

fn legacy_time<'a>(scan: &Scan<'a>, context: Context) -> Option<(u64, &'a str)> {
    let mut modern = Scan(scan.0);
    if let Some(at) = iso(&mut modern)
        && modern.0.starts_with(' ')
    {
        return Some((at, modern.0));
    }
    let mut scan = Scan(scan.0);
    let month = scan.month()?;
    scan.one_of(&[' '])?;
    // A day of one digit has a space before it.
    let padded = scan.one_of(&[' ']).is_some();
    let two = !padded && scan.0.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let day = scan.number(if two { 2 } else { 1 })?;
    scan.one_of(&[' '])?;
    // Cisco and others put the year here.
    let mut with_year = Scan(scan.0);
    let given = with_year.number(4).filter(|_| with_year.one_of(&[' ']).is_some());
    if given.is_some() {
        scan = with_year;
    }
    let (hour, minute, second) = scan.time_of_day()?;
    let nanos = scan.fraction();
    let _ = scan.one_of(&[':']);
    if !scan.0.is_empty() && !scan.0.starts_with(' ') {
        return None;
    }
    let received = (context.received_ns / 1_000_000_000) as i64;
    let now_year = year_of(received);
    let at = |year| {
        let civil = Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanos,
        };
        let offset = context.zone.offset(civil.seconds()?, received);
        civil.nanos_at(offset)
    };
    // The latest year in which it is not in the future; the 29th of February may need an earlier one.
    let limit = context.received_ns.saturating_add(AHEAD_NS);
    let years = given.map_or(now_year - 4..=now_year + 1, |year| year..=year);
    let time = years.rev().filter_map(at).find(|at| given.is_some() || *at <= limit)?;
    Some((time, scan.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2024-01-01 00:10:00 UTC
    const NEW_YEAR: u64 = 1_704_067_800;
    const S: u64 = 1_000_000_000;

    fn parse(text: &str) -> Message {
        let context = Context {
            received_ns: NEW_YEAR * S,
            zone: Zone::Fixed(0),
        };
        Message::parse(text, context)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_examples_of_rfc_5424_are_read() {
        let message = parse(
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
        );
        assert_eq!((message.priority, message.version), (34, 1));
        assert_eq!(message.time_ns, 1_065_910_455_003_000_000);
        assert_eq!((message.host, message.app), (some("mymachine.example.com"), some("su")));
        assert_eq!((message.process, message.id), (None, some("ID47")));
        assert_eq!(message.text, "'su root' failed for lonvick on /dev/pts/8");

        let message = parse(
            r#"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - [exampleSDID@32473 iut="3" eventSource="Appl\"ic\\at\]ion"][examplePriority@32473 class="high"][empty] done"#,
        );
        let data: Vec<_> = message
            .data
            .iter()
            .map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
            .collect();
        assert_eq!(
            data,
            [
                ("exampleSDID@32473", "iut", "3"),
                ("exampleSDID@32473", "eventSource", "Appl\"ic\\at]ion"),
                ("examplePriority@32473", "class", "high"),
                ("empty", "", ""),
            ]
        );
        assert_eq!((message.process, message.text.as_str()), (some("8710"), "done"));
        assert_eq!(parse("<0>1 - - - - - -").text, "");
    }

    #[test]
    fn what_rfc_3164_found_is_read() {
        let message = parse("<34>Oct 11 22:14:15 mymachine su[42]: 'su root' failed");
        assert_eq!(message.time_ns, 1_697_062_455 * S);
        assert_eq!(
            (message.host, message.app, message.process),
            (some("mymachine"), some("su"), some("42"))
        );
        assert_eq!(message.text, "'su root' failed");
        // Without a host, as local loggers send it; with the time of RFC 5424, as rsyslog writes it.
        let local = parse("<13>Jan  1 00:09:00 root: hello");
        assert_eq!(
            (local.time_ns, local.app, local.host),
            ((NEW_YEAR - 60) * S, some("root"), None)
        );
        let rsyslog = parse("<13>2024-01-01T00:09:00.5+00:00 box app: hi: there");
        assert_eq!(rsyslog.time_ns, (NEW_YEAR - 60) * S + S / 2);
        assert_eq!(
            (rsyslog.host, rsyslog.app, rsyslog.text.as_str()),
            (some("box"), some("app"), "hi: there")
        );
        // Cisco, with a year; nothing but a text; no priority; Python, which sends neither time nor host.
        assert_eq!(
            parse("<189>Dec 31 2023 23:59:00: %SYS-5-CONFIG: x").time_ns,
            1_704_067_140 * S
        );
        assert_eq!(parse("<13>just a text").text, "just a text");
        let bare = parse("no priority at all\n\0");
        assert_eq!(
            (bare.priority, bare.text.as_str()),
            (DEFAULT_PRIORITY, "no priority at all")
        );
        assert_eq!(parse("<999>x").priority, DEFAULT_PRIORITY);
    }

    #[test]
    fn the_year_is_that_of_the_sender_and_the_zone_that_of_the_configuration() {
        let year = |text: &str| year_of((parse(text).time_ns / S) as i64);
        assert_eq!(year("<13>Dec 31 23:59:00 h t: x"), 2023);
        assert_eq!(year("<13>Jan  1 00:30:00 h t: x"), 2024);
        assert_eq!(year("<13>Jan  6 00:30:00 h t: x"), 2024);
        assert_eq!(year("<13>Jan 20 00:30:00 h t: x"), 2023);
        assert_eq!(year("<13>Feb 29 00:00:00 h t: x"), 2020);
        let context = Context {
            received_ns: NEW_YEAR * S,
            zone: Zone::Fixed(3600),
        };
        let message = Message::parse("<13>Jan  1 01:10:00 h t: x", context);
        assert_eq!(message.time_ns, NEW_YEAR * S);
    }

    #[test]
    fn a_zone_is_guessed_from_when_a_message_comes() {
        let seen = |text: &str| {
            let context = Context {
                received_ns: NEW_YEAR * S,
                zone: Zone::Guess,
            };
            NEW_YEAR as i64 - (Message::parse(text, context).time_ns / S) as i64
        };
        // Seconds ago: New York, India, Kiribati, UTC; a clock that is ahead, one that is behind.
        assert_eq!(seen("<13>Dec 31 19:09:58 h t: x"), 2);
        assert_eq!(seen("<13>Jan  1 05:39:58 h t: x"), 2);
        assert_eq!(seen("<13>Jan  1 14:09:58 h t: x"), 2);
        assert_eq!(seen("<13>Jan  1 00:09:58 h t: x"), 2);
        assert_eq!(seen("<13>Jan  1 00:12:00 h t: x"), -120);
        assert_eq!(seen("<13>Jan  1 00:00:00 h t: x"), 600);
        // What is days old is taken to be of UTC.
        assert_eq!(seen("<13>Dec 29 00:10:00 h t: x"), 3 * 86_400);
    }

    proptest! {
        #[test]
        fn any_text_is_a_message(text in "\\PC{0,80}") {
            parse(&text);
            parse(&format!("<13>{text}"));
            parse(&format!("<13>1 - - - - - {text}"));
            parse(&format!("<13>Jan  1 {text}"));
        }
    }
}
