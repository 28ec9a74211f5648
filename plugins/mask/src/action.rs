//! What becomes of a finding: `[email]`, a keyed hash, a token, or a part of it.

use std::borrow::Cow;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::find::phone_country;
use crate::kind::{Found, Kind};

/// What is done with findings of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, sluice_plugin::schemars::JsonSchema)]
#[schemars(crate = "sluice_plugin::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Not looked for.
    Off,
    /// `[email]`
    #[default]
    Redact,
    /// `[email:9f86d081884c7d659a2feaa0c55ad0151b2c3d4e]`: HMAC-SHA256 with the key, so the same value has the same hash.
    Hash,
    /// `tok_email_k5tq2bvdmpxw4a7eq2mz`: as stable as the hash, and of letters and digits only.
    #[serde(alias = "tokenize")]
    Tokenise,
    /// `j***@example.com`, `**** **** **** 1111`
    Partial,
}

/// Bytes of a hash that are kept: enough that no two of 2^40 values meet by chance.
const HASH: usize = 16;
/// Bytes behind a hash by which the mask knows it as its own: nobody without the key can write one.
const HASH_CHECK: usize = 4;
/// Characters of a token, five bits each.
const TOKEN: usize = 16;
/// Characters behind a token by which the mask knows it as its own.
const TOKEN_CHECK: usize = 4;
/// Characters of an access key that `partial` keeps.
const KEPT_OF_KEYS: usize = 4;
/// The longest name of a kind, in masked text.
pub(crate) const MAX_NAME: usize = 32;

/// Writes what stands in place of findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renderer {
    mac: Option<Hmac<Sha256>>,
}

impl Renderer {
    pub(crate) fn new(key: Option<&str>) -> Result<Self, String> {
        let mac = key
            .map(|key| Hmac::new_from_slice(key.as_bytes()).map_err(|e| e.to_string()))
            .transpose()?;
        Ok(Renderer { mac })
    }

    /// What it writes, to be known again. `names` are those of all kinds; `partial` whether parts of values may stay.
    pub(crate) fn marks(&self, names: Vec<String>, partial: bool) -> Marks {
        Marks {
            mac: self.mac.clone(),
            names,
            partial,
        }
    }

    /// What stands for `value`. `name` is the name of the kind.
    pub(crate) fn render(&self, action: Action, kind: Kind, name: &str, value: &str) -> Cow<'static, str> {
        let mut text = String::new();
        let out = &mut text;
        match (action, &self.mac) {
            (Action::Partial, _) => partial(kind, value, out),
            (Action::Hash, Some(mac)) => {
                out.extend(["[", name, ":"]);
                let start = out.len();
                hex(&digest(mac, "", kind, name, value)[..HASH], out);
                let check = checked(mac, name, &out[start..]);
                hex(&check[..HASH_CHECK], out);
                out.push(']');
            }
            (Action::Tokenise, Some(mac)) => {
                out.extend(["tok_", name, "_"]);
                let start = out.len();
                base32(&digest(mac, "token:", kind, name, value), TOKEN, out);
                let check = checked(mac, name, &out[start..]);
                base32(&check, TOKEN_CHECK, out);
            }
            _ => return redacted(kind, name),
        }
        text.into()
    }
}

/// The name of a kind in brackets; only that of a custom pattern must be made.
pub(crate) fn redacted(kind: Kind, name: &str) -> Cow<'static, str> {
    kind.redacted()
        .map_or_else(|| format!("[{name}]").into(), Cow::Borrowed)
}

fn hex(bytes: &[u8], out: &mut String) {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// So many characters of five bits each.
fn base32(bytes: &[u8], count: usize, out: &mut String) {
    let bits = bytes
        .iter()
        .take(16)
        .fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let letter = |place: usize| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(bits >> (5 * place) & 31) as usize]);
    out.extend((0..count).map(letter));
}

/// What proves that a hash or token of this name was made with the key.
fn checked(mac: &Hmac<Sha256>, name: &str, value: &str) -> [u8; 32] {
    let mut mac = mac.clone();
    for part in ["check:", name, ":", value] {
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

fn digest(mac: &Hmac<Sha256>, purpose: &str, kind: Kind, name: &str, value: &str) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(purpose.as_bytes());
    mac.update(name.as_bytes());
    mac.update(b":");
    mac.update(normal(kind, value).as_bytes());
    mac.finalize().into_bytes().into()
}

/// One form for all ways to write a value, so that joins work.
fn normal(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Email => value.replace("%40", "@").to_lowercase(),
        Kind::Phone | Kind::Card => value.chars().filter(char::is_ascii_digit).collect(),
        Kind::Iban | Kind::NationalId => value
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect(),
        Kind::Ip => value
            .parse::<IpAddr>()
            .map_or_else(|_| value.to_owned(), |address| address.to_string()),
        _ => value.to_owned(),
    }
}

/// A part that still helps and names nobody.
fn partial(kind: Kind, value: &str, out: &mut String) {
    match kind {
        Kind::Email => {
            let (local, sign, domain) = match value.split_once('@') {
                Some((local, domain)) => (local, "@", domain),
                None => value
                    .split_once("%40")
                    .map_or((value, "", ""), |(local, domain)| (local, "%40", domain)),
            };
            out.extend(local.chars().next().filter(|c| c.is_alphanumeric()));
            out.extend(["***", sign, domain]);
        }
        Kind::Card => keep_last(value, 0, 4, out),
        Kind::Iban => keep_last(value, 2, 2, out),
        Kind::NationalId => keep_last(value, 0, 2, out),
        Kind::Phone => {
            let digits: Vec<u8> = value.bytes().filter(u8::is_ascii_digit).collect();
            let plus = value.starts_with('+');
            keep_last(
                value,
                if plus { phone_country(&digits).unwrap_or(0) } else { 0 },
                2,
                out,
            );
        }
        Kind::Ip => match value.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                out.push_str(&format!("{a}.{b}.{c}.0/24"));
            }
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                out.push_str(&format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)));
            }
            Err(_) => out.push_str(&redacted(kind, kind.name())),
        },
        Kind::Jwt => out.push_str("eyJ***"),
        Kind::Key | Kind::Secret | Kind::Custom(_) => {
            let keep = if kind == Kind::Key { KEPT_OF_KEYS } else { 0 };
            let head = value
                .chars()
                .take(keep)
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_');
            out.extend(head);
            out.push_str("***");
        }
    }
}

/// Stars for letters and digits but the first and last few; what stands between them stays.
fn keep_last(value: &str, first: usize, last: usize, out: &mut String) {
    let total = value.chars().filter(|c| c.is_alphanumeric()).count();
    let mut place = 0;
    for c in value.chars() {
        if !c.is_alphanumeric() {
            out.push(c);
            continue;
        }
        let shown = place < first || place + last >= total && total > first + last;
        out.push(if shown { c } else { '*' });
        place += 1;
    }
}

/// Knows what this mask wrote itself, so that it is not masked again. What others wrote in the same shape is text like any other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    mac: Option<Hmac<Sha256>>,
    names: Vec<String>,
    /// Whether parts of values stay (`AKIA***`).
    partial: bool,
}

impl Marks {
    /// Whether a finding is what stands for another one, or an address whose account was masked before.
    pub(crate) fn cover(&self, text: &str, found: Found) -> bool {
        let account = || {
            text[found.start..found.end]
                .split(['@', '%'])
                .next()
                .is_some_and(|account| self.is_token(account))
        };
        self.around(text, found.start, found.end) || found.kind == Kind::Email && account()
    }

    /// Whether a finding lies within what stands for another one: within `[…]` or `tok_…`.
    pub(crate) fn around(&self, text: &str, start: usize, end: usize) -> bool {
        let bytes = text.as_bytes();
        let reach = start.saturating_sub(MAX_NAME + 2 * (HASH + HASH_CHECK) + 2);
        let opens = match bytes.get(start) {
            Some(b'[') => Some(start),
            _ => memchr::memrchr(b'[', &bytes[reach..start]).map(|at| at + reach),
        };
        if let Some(opens) = opens
            && let Some(closes) = bytes[opens..]
                .iter()
                .take(MAX_NAME + 2 * (HASH + HASH_CHECK) + 3)
                .position(|byte| *byte == b']')
            && end <= opens + closes + 1
        {
            return self.is_bracketed(&text[opens..=opens + closes]);
        }
        let in_token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        let before = bytes[reach..start]
            .iter()
            .rev()
            .take_while(|byte| in_token(byte))
            .count();
        let behind = bytes[start..]
            .iter()
            .take(MAX_NAME + TOKEN + TOKEN_CHECK + 5)
            .take_while(|byte| in_token(byte))
            .count();
        let from = |from: usize| self.is_token(&text[from..start + behind]);
        // Also where letters stand right before it: `-ptok_…`.
        end <= start + behind && (from(start - before) || from(start))
    }

    /// Whether a whole value was masked before.
    pub(crate) fn is_whole(&self, value: &str) -> bool {
        let part = || {
            value
                .strip_suffix("***")
                .is_some_and(|part| part.len() <= KEPT_OF_KEYS && is_word(part))
        };
        self.is_bracketed(value) || self.is_token(value) || self.partial && part()
    }

    fn is_name(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// `[email]`, or a hash with its right check digits.
    fn is_bracketed(&self, text: &str) -> bool {
        let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
            return false;
        };
        match (inner.split_once(':'), &self.mac) {
            (None, _) => self.is_name(inner),
            (Some((name, hash)), Some(mac)) if self.is_name(name) && hash.is_ascii() => {
                let (hash, given) = hash.split_at(hash.len().min(2 * HASH));
                let mut right = String::new();
                hex(&checked(mac, name, hash)[..HASH_CHECK], &mut right);
                given == right
            }
            _ => false,
        }
    }

    fn is_token(&self, text: &str) -> bool {
        let Some((name, token)) = text.strip_prefix("tok_").and_then(|text| text.rsplit_once('_')) else {
            return false;
        };
        match &self.mac {
            Some(mac) if self.is_name(name) && token.is_ascii() => {
                let (token, given) = token.split_at(token.len().min(TOKEN));
                let mut right = String::new();
                base32(&checked(mac, name, token), TOKEN_CHECK, &mut right);
                given == right
            }
            _ => false,
        }
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
