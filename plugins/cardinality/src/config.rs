//! The configuration, and what it resolves to.

use sluice_plugin::Field;
use sluice_plugin::prelude::*;

/// Shortest and longest window, seconds. The longest is what the host's state can keep a key for, less than 2^32 seconds.
const WINDOWS: std::ops::RangeInclusive<u64> = 1..=31 * 24 * 3600;
/// Most different values of one limit. At some 240 bytes of state each, the default of 1 MiB has room for 4,300; more need more.
const MAX_VALUES: u64 = 1_000_000;
/// Bytes of a replacement.
const MAX_REPLACEMENT: usize = 256;

#[plugin_config]
pub struct Config {
    /// Seconds after which counting begins anew.
    #[serde(default = "hour")]
    window_seconds: u64,
    /// What is limited; at least one.
    limits: Vec<LimitConfig>,
}

fn hour() -> u64 {
    3600
}

#[plugin_config]
struct LimitConfig {
    /// A field: `attrs.user.id`, `resource.k8s.pod.name`, `name`, `service`; `attrs.http.*` for every attribute whose key begins so,
    /// each by itself.
    key: String,
    /// Different values that are let through in a window.
    max: u64,
    /// Whether every service has this number of its own.
    #[serde(default)]
    per_service: bool,
    /// What becomes of further values.
    #[serde(default)]
    action: Action,
    /// Text that takes the place of further values.
    #[serde(default = "other")]
    replacement: String,
}

fn other() -> String {
    "[other]".to_owned()
}

/// What becomes of values over the limit.
#[plugin_config]
#[derive(Copy, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// The value becomes the replacement.
    #[default]
    Replace,
    /// The attribute is taken away.
    Remove,
    /// The event is dropped, with the reason `cardinality`.
    Drop,
}

/// One limit.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) target: Target,
    pub(crate) max: u64,
    pub(crate) per_service: bool,
    pub(crate) action: Action,
    pub(crate) replacement: String,
}

/// Which fields a limit is about.
#[derive(Debug)]
pub(crate) enum Target {
    One(Field),
    /// All attributes of a group whose key begins so.
    Prefix {
        group: String,
        prefix: String,
    },
}

impl Target {
    /// The columns in which its fields may be.
    pub(crate) fn columns(&self) -> Vec<String> {
        match self {
            Target::One(field) => field.columns(),
            Target::Prefix { group, prefix } => vec![format!("{group}:*:{prefix}*"), format!("{group}:*")],
        }
    }
}

impl Config {
    /// The limits and the window in seconds.
    pub(crate) fn resolve(&self) -> Result<(Vec<Limit>, u64), String> {
        if !WINDOWS.contains(&self.window_seconds) {
            return Err(format!(
                "window_seconds: {} is not between {} and {}",
                self.window_seconds,
                WINDOWS.start(),
                WINDOWS.end()
            ));
        }
        if self.limits.is_empty() {
            return Err("limits: give at least one".to_owned());
        }
        let limits = self
            .limits
            .iter()
            .enumerate()
            .map(|(place, limit)| limit.resolve().map_err(|what| format!("limits[{place}].{what}")))
            .collect::<Result<_, _>>()?;
        Ok((limits, self.window_seconds))
    }
}

impl LimitConfig {
    fn resolve(&self) -> Result<Limit, String> {
        if self.max > MAX_VALUES {
            return Err(format!("max: {} is above {MAX_VALUES}", self.max));
        }
        if self.replacement.len() > MAX_REPLACEMENT {
            return Err(format!("replacement: longer than {MAX_REPLACEMENT} bytes"));
        }
        let target = target(&self.key).map_err(|what| format!("key: {what}"))?;
        if self.action == Action::Remove && self.key == "name" {
            return Err("action: the name of an event cannot be removed; replace it or drop the event".to_owned());
        }
        Ok(Limit {
            target,
            max: self.max,
            per_service: self.per_service,
            action: self.action,
            replacement: self.replacement.clone(),
        })
    }
}

fn target(key: &str) -> Result<Target, String> {
    if let Some(prefix) = key.strip_suffix('*') {
        return match prefix.split_once('.') {
            Some((group @ ("attrs" | "resource" | "scope"), prefix)) if !prefix.contains('*') => Ok(Target::Prefix {
                group: group.to_owned(),
                prefix: prefix.to_owned(),
            }),
            _ => Err(format!(
                "`{key}`: a `*` stands at the end of attrs.KEY, resource.KEY or scope.KEY"
            )),
        };
    }
    let field = Field::parse(key)?;
    if !field.is_attribute() && key != "name" {
        return Err(format!(
            "`{key}` cannot be limited; attributes, service, host and name can"
        ));
    }
    Ok(Target::One(field))
}
