//! `[[source.filelog]]`

use std::collections::BTreeMap;
use std::time::Duration;

use regex_automata::meta::Regex;
use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::within;
use crate::config::ConfigError;

/// Files that grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLog {
    /// In status and metrics, and in the positions on disk: another name reads anew.
    pub name: String,
    /// Patterns of paths: `*`, `?`, `[a-z]`, and `**` for any folders.
    pub include: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Of files that are there when the source begins for the first time; later ones are read from their beginning.
    #[serde(default)]
    pub start_at: StartAt,
    #[serde(default)]
    pub format: Format,
    /// For `regex`: named groups become attributes, or time, severity and so on by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<Multiline>,
    /// An event that is longer is cut and marked.
    #[serde(default = "max_event_bytes", with = "units::size")]
    pub max_event_bytes: u64,
    /// A last line without an end, or an event of several lines that may go on, is taken after so long without more.
    #[serde(default = "last_line_after", with = "units::duration")]
    pub last_line_after: Duration,
    #[serde(default = "poll_interval", with = "units::duration")]
    pub poll_interval: Duration,
    /// Files open at once; more of them are read in turn.
    #[serde(default = "max_open_files")]
    pub max_open_files: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Given to every event.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    #[default]
    End,
    Beginning,
}

/// How a line is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    None,
    Json,
    Logfmt,
    Regex,
}

/// Which lines are one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "multiline is { start = \"a pattern of first lines\" } or \"indented\""
)]
pub enum Multiline {
    /// Lines until the next one that matches.
    Start { start: String },
    /// A line and the indented lines behind it.
    Indented(Indented),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Indented {
    Indented,
}

fn max_event_bytes() -> u64 {
    128 << 10
}

fn last_line_after() -> Duration {
    Duration::from_secs(5)
}

fn poll_interval() -> Duration {
    Duration::from_millis(250)
}

/// A quarter of what a process may usually open.
fn max_open_files() -> usize {
    256
}

impl FileLog {
    pub(super) fn check(&self, text: &str) -> Result<(), ConfigError> {
        let refuse = |key: &str, message: &str| {
            Err(ConfigError::value(
                text,
                &format!("source.filelog.{key}"),
                message.to_owned(),
            ))
        };
        if self.include.is_empty() {
            return refuse("include", "names no file");
        }
        for (key, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            if patterns.iter().any(String::is_empty) {
                return refuse(key, "an empty pattern matches nothing");
            }
        }
        match (self.format, &self.pattern) {
            (Format::Regex, None) => return refuse("format", "\"regex\" needs a `pattern`"),
            (Format::Regex, Some(pattern)) => {
                let regex = regex(text, "source.filelog.pattern", pattern)?;
                if regex.group_info().all_names().all(|(_, _, name)| name.is_none()) {
                    return refuse("pattern", "has no named group, such as (?<message>.*)");
                }
            }
            (_, Some(_)) => return refuse("pattern", "goes with format = \"regex\""),
            (_, None) => {}
        }
        if let Some(Multiline::Start { start }) = &self.multiline {
            regex(text, "source.filelog.multiline", start)?;
        }
        within(
            text,
            "source.filelog.max_event_bytes",
            self.max_event_bytes,
            256,
            1 << 20,
        )?;
        within(
            text,
            "source.filelog.max_open_files",
            self.max_open_files as u64,
            1,
            65_536,
        )?;
        if self.poll_interval.is_zero() {
            return refuse("poll_interval", "must be longer than nothing");
        }
        Ok(())
    }
}

fn regex(text: &str, key: &str, pattern: &str) -> Result<Regex, ConfigError> {
    compile(pattern).map_err(|why| ConfigError::value(text, key, why))
}

/// A pattern within the sizes that patterns may have here.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    use regex_automata::util::syntax;
    let sizes = Regex::config()
        .nfa_size_limit(Some(MAX_PATTERN_BYTES))
        .hybrid_cache_capacity(MAX_PATTERN_BYTES);
    Regex::builder()
        .configure(sizes)
        .syntax(syntax::Config::new().utf8(false))
        .build(pattern)
        .map_err(|error| match error.syntax_error() {
            // The first lines point into the pattern; the last one says what is wrong.
            Some(syntax) => syntax.to_string().lines().last().unwrap_or_default().to_owned(),
            None => format!("is larger than {MAX_PATTERN_BYTES} bytes once compiled"),
        })
}

/// Of a compiled pattern, and of what it remembers while it searches.
const MAX_PATTERN_BYTES: usize = 1 << 20;
