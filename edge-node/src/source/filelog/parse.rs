//! What the text of an event says, by the format of its file. A text that is not of the format stays whole, as the body, and is
//! marked: nothing is lost because it was expected to look otherwise.

use std::borrow::Cow;

use regex_automata::meta::Regex;
use serde_json::{Map, Value as Json};

use crate::source::event::{Event, EventLimits, Origin, logfmt, resource};
use crate::source::export::{Attributes, LogRecord, Request, Value};

/// Marks of an event.
const CUT: &str = "log.truncated";
const UNPARSED: &str = "log.parse_error";

/// How the text of an event is read.
#[derive(Clone, Debug)]
pub(super) enum Parser {
    None,
    Json,
    Logfmt,
    /// Named groups are members.
    Regex(Regex),
}

/// What a text turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) not_utf8: bool,
    pub(super) unparsed: bool,
}

impl Parser {
    /// Appends the event of a text.
    pub(super) fn push(
        &self,
        text: &[u8],
        is_cut: bool,
        limits: EventLimits,
        origin: &Origin,
        attributes: &Attributes,
        request: &mut Request,
    ) -> Found {
        // Some programs begin their files with a mark of the byte order.
        let text = String::from_utf8_lossy(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text));
        let mut found = Found {
            not_utf8: matches!(text, Cow::Owned(_)),
            unparsed: false,
        };
        let mut marked = Cow::Borrowed(attributes);
        if is_cut {
            marked.to_mut().push(CUT, Value::Bool(true));
        }
        let name = match self {
            Self::None => "",
            Self::Json => "json",
            Self::Logfmt => "logfmt",
            Self::Regex(_) => "regex",
        };
        if let Some(object) = self.object(&text)
            && let Ok(event) = Event::from_object(object, limits)
        {
            event.push(request, origin, &marked);
            return found;
        }
        if !matches!(self, Self::None) {
            found.unparsed = true;
            marked.to_mut().text(UNPARSED, name);
        }
        let record = LogRecord {
            observed_ns: origin.observed_ns,
            body: Some(Value::Text(&text)),
            ..LogRecord::default()
        };
        let resource = resource(origin.service.as_deref(), origin.host.as_deref());
        request.push_log(&resource, &record, &[&marked]);
        found
    }

    fn object(&self, text: &str) -> Option<Map<String, Json>> {
        match self {
            Self::None => None,
            Self::Json => serde_json::from_str(text).ok(),
            Self::Logfmt => logfmt::parse(text),
            Self::Regex(pattern) => {
                let mut captures = pattern.create_captures();
                pattern.captures(text, &mut captures);
                let names = captures.group_info().pattern_names(captures.pattern()?);
                let groups = names.zip(captures.iter()).filter_map(|(name, span)| {
                    let value = text.get(span?.range())?;
                    Some((name?.to_owned(), Json::String(value.to_owned())))
                });
                Some(groups.collect())
            }
        }
    }
}
