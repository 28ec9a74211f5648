//! Attributes and JSON members whose value is masked or left alone whatever it is, by their key.

use std::collections::HashSet;

use crate::find::{Facts, Hint, secret};

/// Masked whatever they hold, unless the configuration has its own list.
pub(crate) const ALWAYS: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "client_secret",
    "secret_key",
    "private_key",
    "api_key",
    "x_api_key",
    "access_token",
    "refresh_token",
    "id_token",
    "auth_token",
    "authorization",
    "proxy_authorization",
    "cookie",
    "set_cookie",
    "cvv",
    "cvc",
];

/// Compares keys without case, and `-`, `_`, spaces as the same; a name without a dot is also the last part of a dotted key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    always: HashSet<String>,
    never: HashSet<String>,
    /// Bits of the ASCII characters with which a key of `always` may end.
    ends: u128,
}

impl Keys {
    pub(crate) fn new(always: &[String], never: &[String]) -> Self {
        let set = |keys: &[String]| keys.iter().map(|key| normal(key)).collect::<HashSet<_>>();
        let always = set(always);
        let ends = always
            .iter()
            .filter_map(|key| key.bytes().next_back())
            .filter(u8::is_ascii)
            .fold(0, |ends, byte| ends | 1 << byte | 1 << byte.to_ascii_uppercase());
        Keys {
            always,
            never: set(never),
            ends,
        }
    }

    /// Whether a key that ends in this byte can be one of `always`.
    pub(crate) fn may_end(&self, byte: u8) -> bool {
        !byte.is_ascii() || self.ends & 1 << byte != 0
    }

    /// Whether the value of this key is masked whatever it is.
    pub(crate) fn is_always(&self, key: &str) -> bool {
        let name = normal(key);
        let last = name.rsplit('.').next().unwrap_or(&name);
        let listed = |set: &HashSet<String>| set.contains(&name) || set.contains(last);
        listed(&self.always) && !listed(&self.never)
    }

    /// What a key says about its value.
    pub(crate) fn facts(&self, key: &str) -> Facts {
        let name = normal(key);
        let last = name.rsplit('.').next().unwrap_or(&name);
        let listed = |set: &HashSet<String>| set.contains(&name) || set.contains(last);
        let never = listed(&self.never);
        Facts {
            hint: Hint::of_key(key),
            class: secret::class_of(key),
            always: !never && listed(&self.always),
            never,
        }
    }
}

fn normal(key: &str) -> String {
    key.chars()
        .map(|c| if matches!(c, '-' | ' ') { '_' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}
