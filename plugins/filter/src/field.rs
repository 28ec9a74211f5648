//! The columns and attributes that an expression can name.

use std::fmt;

use sluice_plugin::Field;

use crate::mistake::nearest;

/// What a core column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    /// Whole numbers that have names.
    Severity,
    /// Whole nanoseconds.
    Duration,
    Double,
    Bool,
    /// So many bytes, written as twice as many hexadecimal digits.
    Id(usize),
    /// An attribute: text, whole number, double or boolean, row by row.
    Any,
}

/// Names of core columns, the columns that they stand for, and what these hold. What is not here is not read: times, which
/// the host has checked, and the large columns of JSON text.
pub(crate) const CORE: [(&str, &[&str], Kind); 31] = [
    ("signal", &["signal"], Kind::Text),
    ("name", &["name"], Kind::Text),
    ("body", &["body"], Kind::Text),
    ("body_type", &["body_type"], Kind::Text),
    ("severity", &["severity"], Kind::Severity),
    ("severity_text", &["severity_text"], Kind::Text),
    ("kind", &["kind"], Kind::Text),
    ("status", &["status"], Kind::Text),
    ("status_message", &["status_message"], Kind::Text),
    ("duration", &["duration_ns"], Kind::Duration),
    ("duration_ns", &["duration_ns"], Kind::Duration),
    ("trace_id", &["trace_id"], Kind::Id(16)),
    ("span_id", &["span_id"], Kind::Id(8)),
    ("parent_span_id", &["parent_span_id"], Kind::Id(8)),
    ("trace_state", &["trace_state"], Kind::Text),
    ("scope_name", &["scope_name"], Kind::Text),
    ("scope_version", &["scope_version"], Kind::Text),
    ("metric_type", &["metric_type"], Kind::Text),
    ("temporality", &["temporality"], Kind::Text),
    ("monotonic", &["monotonic"], Kind::Bool),
    ("unit", &["unit"], Kind::Text),
    ("description", &["description"], Kind::Text),
    ("value", &["value", "value_int"], Kind::Double),
    ("count", &["count"], Kind::Int),
    ("sum", &["sum"], Kind::Double),
    ("min", &["min"], Kind::Double),
    ("max", &["max"], Kind::Double),
    ("weight", &["weight"], Kind::Double),
    ("flags", &["flags"], Kind::Int),
    ("dropped_attributes", &["dropped_attributes"], Kind::Int),
    ("scope_schema_url", &["scope_schema_url"], Kind::Text),
];
const GROUPS: [&str; 3] = ["attrs", "resource", "scope"];
/// Types of attribute columns that hold scalars.
const SCALARS: [&str; 4] = ["s", "i", "d", "b"];

/// All columns that some expression can name, as `describe` declares them.
pub(crate) fn declared() -> Vec<String> {
    let core = CORE
        .iter()
        .flat_map(|(_, columns, _)| columns.iter().map(ToString::to_string));
    let attributes = GROUPS.iter().flat_map(|group| {
        let scalars = SCALARS.iter().map(move |scalar| format!("{group}:{scalar}:*"));
        scalars.chain([format!("{group}:*")])
    });
    core.chain(attributes).collect()
}

/// A column or an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub kind: Kind,
    /// Columns of which a row has a value in one.
    pub columns: Vec<String>,
    /// For attributes: the column of rare ones, and how to read it.
    pub rare: Option<(String, Field)>,
    name: String,
}

impl Source {
    /// A name of the language: a core column, `service`, `host` or `attrs.KEY`. The error says what may have been meant.
    pub(crate) fn of_name(name: &str) -> Result<Source, String> {
        match name {
            "service" => return Source::attribute("resource", "service.name"),
            "host" => return Source::attribute("resource", "host.name"),
            _ => {}
        }
        if let Some((group, key)) = name.split_once('.')
            && GROUPS.contains(&group)
        {
            return Source::attribute(group, key);
        }
        if let Some((_, columns, kind)) = CORE.iter().find(|(known, ..)| *known == name) {
            return Ok(Source {
                kind: *kind,
                columns: columns.iter().map(ToString::to_string).collect(),
                rare: None,
                name: name.to_owned(),
            });
        }
        let known = CORE
            .iter()
            .map(|(name, ..)| *name)
            .chain(["service", "host"])
            .chain(GROUPS);
        Err(match name.split_once('.') {
            _ if GROUPS.contains(&name) => format!("say which of the attributes: `{name}[\"key\"]`"),
            Some((group, key)) if nearest(group, GROUPS).is_some() => {
                format!(
                    "`{name}` is no column; did you mean `{}.{key}`?",
                    nearest(group, GROUPS).unwrap_or_default()
                )
            }
            Some(_) => format!("`{name}` is no column; an attribute is written `attrs[\"{name}\"]`"),
            None => match nearest(name, known) {
                Some(meant) => format!("`{name}` is no column; did you mean `{meant}`?"),
                None => format!("`{name}` is no column; an attribute is written `attrs[\"{name}\"]`, a text in quotes"),
            },
        })
    }

    pub(crate) fn attribute(group: &str, key: &str) -> Result<Source, String> {
        if !GROUPS.contains(&group) {
            return Err(format!("only attrs, resource and scope have keys; `{group}` has none"));
        }
        let name = format!("{group}.{key}");
        let rare = Field::parse(&name)?;
        Ok(Source {
            kind: Kind::Any,
            columns: SCALARS.iter().map(|scalar| format!("{group}:{scalar}:{key}")).collect(),
            rare: Some((format!("{group}:*"), rare)),
            name,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
