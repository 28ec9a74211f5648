//! The configuration, and what it comes to.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_plugin::schemars;

use crate::action::{Action, MAX_NAME};
use crate::find::{Scheme, Schemes};
use crate::keys;
use crate::kind::Kind;

/// The fewest bytes of a key for hashes and tokens: below, trying all keys is cheaper than trying all values.
const MIN_KEY: usize = 16;
/// Custom patterns; the host has its own limit for what they compile to.
const MAX_CUSTOM: usize = 64;

/// Each kind has an action: `off`, `redact` (`[email]`), `hash`, `tokenise` or `partial`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// E-mail addresses.
    pub email: Action,
    /// Telephone numbers.
    pub phone: Action,
    /// Payment cards.
    pub card: Action,
    /// International bank account numbers.
    pub iban: Action,
    /// National identification numbers, those of `national_ids`.
    pub national_id: Action,
    /// IP addresses, version 4 and 6.
    pub ip: Action,
    /// JSON web tokens.
    pub jwt: Action,
    /// Access keys of known shapes, and private keys.
    pub key: Action,
    /// Passwords and credentials that a name announces, and values of the keys in `always`.
    pub secret: Action,
    /// Which national identification numbers are looked for.
    pub national_ids: Vec<Scheme>,
    /// Patterns of your own.
    pub custom: Vec<Custom>,
    /// Attributes and JSON members that are masked whatever they hold, by key.
    pub always: Vec<String>,
    /// Attributes and JSON members that are left alone, by key.
    pub never: Vec<String>,
    /// Whether names of spans, metrics and events, units, descriptions and scopes are looked at.
    pub names: bool,
    /// Whether keys within JSON are looked at.
    pub json_keys: bool,
    /// Secret for `hash` and `tokenise`, at least 16 bytes: best `{ env = "NAME" }` or `{ file = "PATH" }`, which the node
    /// resolves.
    pub secret_key: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            email: Action::Redact,
            phone: Action::Redact,
            card: Action::Redact,
            iban: Action::Redact,
            national_id: Action::Redact,
            ip: Action::Redact,
            jwt: Action::Redact,
            key: Action::Redact,
            secret: Action::Redact,
            national_ids: Scheme::ALL.to_vec(),
            custom: Vec::new(),
            always: keys::ALWAYS.map(str::to_owned).to_vec(),
            never: Vec::new(),
            names: true,
            json_keys: true,
            secret_key: None,
        }
    }
}

/// A pattern of your own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// Stands in place of what was found; small letters and `_`.
    pub name: String,
    /// A regular expression as the Rust crate `regex` has them.
    pub pattern: String,
    /// What is done with what was found.
    #[serde(default)]
    pub action: Action,
}

impl Config {
    pub(crate) fn action(&self, kind: Kind) -> Action {
        match kind {
            Kind::Email => self.email,
            Kind::Phone => self.phone,
            Kind::Card => self.card,
            Kind::Iban => self.iban,
            Kind::NationalId => self.national_id,
            Kind::Ip => self.ip,
            Kind::Jwt => self.jwt,
            Kind::Key => self.key,
            Kind::Secret => self.secret,
            Kind::Custom(place) => self
                .custom
                .get(usize::from(place))
                .map_or(Action::Redact, |custom| custom.action),
        }
    }

    /// The names of all kinds, as they stand in masked text.
    pub(crate) fn names_of_kinds(&self) -> Vec<String> {
        let own = self.custom.iter().map(|custom| custom.name.clone());
        Kind::BUILT_IN
            .iter()
            .map(|kind| kind.name().to_owned())
            .chain(own)
            .collect()
    }

    /// Whether any kind has this action.
    pub(crate) fn uses(&self, action: Action) -> bool {
        Kind::BUILT_IN.iter().any(|kind| self.action(*kind) == action)
            || self.custom.iter().any(|custom| custom.action == action)
    }

    /// Kinds that are looked for.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::BUILT_IN
            .into_iter()
            .filter(|kind| self.action(*kind) != Action::Off)
    }

    pub(crate) fn schemes(&self) -> Schemes {
        if self.national_id == Action::Off {
            return Schemes::default();
        }
        Schemes(self.national_ids.iter().fold(0, |bits, scheme| bits | scheme.bit()))
    }

    /// What serde cannot say; the error names the key.
    pub(crate) fn check(&self) -> Result<(), String> {
        let actions = Kind::BUILT_IN
            .into_iter()
            .map(|kind| (kind.name(), self.action(kind)))
            .chain(self.custom.iter().map(|custom| (custom.name.as_str(), custom.action)));
        for (name, action) in actions {
            if matches!(action, Action::Hash | Action::Tokenise) && self.secret_key.is_none() {
                return Err(format!(
                    "{name}: this action needs `secret_key`, for instance secret_key = {{ env = \"SLUICE_MASK_KEY\" }}"
                ));
            }
        }
        if let Some(key) = &self.secret_key
            && key.len() < MIN_KEY
        {
            return Err(format!(
                "secret_key: {} bytes are too few; give at least {MIN_KEY}",
                key.len()
            ));
        }
        if self.custom.len() > MAX_CUSTOM {
            return Err(format!("custom: {} patterns; at most {MAX_CUSTOM}", self.custom.len()));
        }
        for (place, custom) in self.custom.iter().enumerate() {
            let name = &custom.name;
            let fits = !name.is_empty()
                && name.len() <= MAX_NAME
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !fits || name.starts_with('_') {
                return Err(format!(
                    "custom[{place}].name: `{name}` should be 1 to {MAX_NAME} small letters and underscores"
                ));
            }
            let taken = Kind::BUILT_IN.iter().any(|kind| kind.name() == name)
                || self.custom[..place].iter().any(|other| other.name == *name);
            if taken {
                return Err(format!("custom[{place}].name: `{name}` is taken"));
            }
        }
        Ok(())
    }
}
