//! What the operator writes, key by key. What it means is checked where it is used.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use sluice_plugin::schemars::JsonSchema;

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Share of the traces that is kept, 0 to 1. With a budget it is the highest rate, 1 if not given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rate: Option<f64>,
    /// Keeps severity 17 and above, spans with status `error`, and HTTP status codes 500 to 599.
    #[serde(default = "yes")]
    pub keep_errors: bool,
    /// Keeps spans that took long.
    pub keep_slow: Option<Slow>,
    /// Keeps events that look like a matter of security: `true` for the rules that come with the plugin, or rules.
    #[serde(default, deserialize_with = "switch")]
    #[schemars(with = "Option<Switch<Security>>")]
    pub keep_security: Option<Security>,
    /// Keeps the first event of each pattern: `true`, or how.
    #[serde(default, deserialize_with = "switch")]
    #[schemars(with = "Option<Switch<First>>")]
    pub keep_first: Option<First>,
    /// Keeps events of which a field has a value.
    #[serde(default)]
    pub keep_when: Vec<When>,
    /// Rates of some services or names; of several that fit the first one counts.
    #[serde(default)]
    pub rates: Vec<ClassRate>,
    /// What the rows kept may cost; rates shrink as far as that takes.
    pub budget: Option<BudgetConfig>,
    /// Logs and spans without a trace id.
    #[serde(default)]
    pub without_trace: WithoutTrace,
    /// The fields that `without_trace = "hash"` chooses by.
    #[serde(default = "hash_by")]
    pub hash_by: Vec<String>,
    /// What happens to the trace state of spans that were kept by chance.
    #[serde(default)]
    pub trace_state: TraceState,
}

/// What happens to events that belong to no trace. Metrics are never sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(rename_all = "lowercase")]
pub enum WithoutTrace {
    /// All of them stay.
    #[default]
    Keep,
    /// The rate holds for them; what is kept depends on the fields of `hash_by`, so all nodes keep the same events.
    Hash,
    /// The rate holds for them; each event by itself.
    Random,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(rename_all = "lowercase")]
pub enum TraceState {
    /// `th` says what they were kept by, as OpenTelemetry has it.
    #[default]
    Update,
    Keep,
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// A time such as `500ms`: spans that took as long are kept.
    pub above: Option<String>,
    /// Keeps the slowest of each service and name, such as 0.99 for the slowest hundredth. Needs the capability `state`.
    #[schemars(range(min = 0.5, max = 0.9999))]
    pub quantile: Option<f64>,
}

#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// Names of events, `*` stands for any text, upper and lower case are the same; instead of those that come with the plugin.
    pub names: Option<Vec<String>>,
    /// Texts in the body, upper and lower case are the same; instead of those that come with the plugin.
    pub keywords: Option<Vec<String>>,
    /// Rules as in `keep_when`; instead of those that come with the plugin.
    pub when: Option<Vec<When>>,
    #[serde(default)]
    pub search: Search,
}

/// Who looks for the keywords.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// The plugin itself.
    #[default]
    Own,
    /// The host, by its capability `match`.
    Match,
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct First {
    /// How long a pattern counts as seen.
    #[serde(default = "first_ttl")]
    pub ttl: String,
    /// Patterns an hour that count as new; more than that are sampled as everything else, so that texts without any
    /// pattern cannot fill the link.
    #[serde(default = "first_per_hour")]
    pub per_hour: u32,
}

impl Default for First {
    fn default() -> Self {
        First {
            ttl: first_ttl(),
            per_hour: first_per_hour(),
        }
    }
}

/// A field and what it has to be; without more, that it is there.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct When {
    /// `attrs.<key>`, `resource.<key>`, `service`, `name`, `body`, `status`, `severity` or `duration_ns`.
    pub field: String,
    pub equals: Option<Scalar>,
    pub any_of: Option<Vec<Scalar>>,
    pub starts_with: Option<String>,
    pub contains: Option<String>,
    pub at_least: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Number(f64),
    Text(String),
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct ClassRate {
    /// `*` stands for any text.
    #[serde(default = "anything")]
    pub service: String,
    /// Name of the span or event; `*` stands for any text, also for none.
    #[serde(default = "anything")]
    pub name: String,
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rate: f64,
    /// The budget does not shrink this rate.
    #[serde(default)]
    pub fixed: bool,
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Rows a second, of all that is kept.
    pub rows_per_second: Option<f64>,
    /// Bytes a day on the link, such as `20 GiB`; the day begins at midnight UTC.
    pub bytes_per_day: Option<String>,
    /// The rate does not shrink below this, even if the budget is exceeded.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_rate: f64,
    /// Bytes of a row on the link, until the node has measured them.
    #[serde(default = "row_bytes")]
    pub row_bytes: f64,
}

fn yes() -> bool {
    true
}

fn anything() -> String {
    "*".to_owned()
}

fn hash_by() -> Vec<String> {
    ["time", "service", "body"].map(str::to_owned).to_vec()
}

fn first_ttl() -> String {
    "24h".to_owned()
}

/// Enough for a node that learns all it hears in its first hour; three a second if nothing has a pattern.
fn first_per_hour() -> u32 {
    10_000
}

/// A sealed row of the corpus that the project measures with takes 103 bytes.
fn row_bytes() -> f64 {
    110.0
}

/// `true`, `false`, or a table.
#[derive(JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars", untagged)]
#[expect(dead_code, reason = "it is only the shape in the schema")]
enum Switch<T> {
    Simple(bool),
    With(T),
}

/// Reads [`Switch`]; unlike an untagged enum it tells what is wrong inside of the table.
fn switch<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<Option<T>, D::Error> {
    struct Either<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Either<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`true`, `false` or a table")
        }

        fn visit_bool<E: Error>(self, on: bool) -> Result<Option<T>, E> {
            Ok(on.then(T::default))
        }

        fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    from.deserialize_any(Either(PhantomData))
}
