//! Passwords and credentials by what stands before them: `password=…`, `Authorization: Bearer …`, `postgres://user:…@host`.

use std::ops::Range;

use super::judge::{is_credential, is_password, is_placeholder};
use super::value::{Ahead, Ends, value_at};

/// What the name of a value says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Any value is secret, but for words that say something about a password.
    Password,
    /// A value that looks random is secret.
    Credential,
    /// A scheme and a credential.
    Authorization,
    /// Names and values.
    Cookie,
}

/// The fewest characters of a credential that no name announces but `Bearer`.
const MIN_BEARER: usize = 16;
const MIN_CREDENTIAL: usize = 8;
/// Quotes, and backslashes before them, between a key and its sign: of JSON five levels deep.
pub(crate) const MAX_QUOTES: usize = 40;
/// The longest name of an option.
const MAX_OPTION: usize = 64;

/// What a key says. Cheap for most: few keys end in these letters.
pub(crate) fn class_of(key: &str) -> Option<Class> {
    let mut small = [0u8; 32];
    let mut length = 0;
    let tail = key.len().saturating_sub(40);
    let key = key.get(tail..).unwrap_or(key);
    if !key.is_ascii() {
        let key = key.to_lowercase();
        let is = |word: &str| key.ends_with(word);
        return (is("пароль")
            || is("密码")
            || is("密碼")
            || is("パスワード")
            || is("contraseña")
            || is("lösenord")
            || is("hasło")
            || is("şifre")
            || is("비밀번호")
            || is("口令"))
        .then_some(Class::Password);
    }
    for byte in key.bytes().rev().filter(u8::is_ascii_alphanumeric).take(small.len()) {
        length += 1;
        small[32 - length] = byte.to_ascii_lowercase();
    }
    let word = std::str::from_utf8(&small[32 - length..]).unwrap_or_default();
    let ends = |list: &[&str]| list.iter().any(|end| word.ends_with(end));
    // The last letters decide before anything is compared.
    match word.as_bytes().last()? {
        b'd' | b'e' | b't' | b'n' | b'y' | b's' | b'w' | b'a' | b'p' | b'o' => {}
        _ => return None,
    }
    let separated = |name: &str| {
        word == name || {
            let rest = key.len().checked_sub(name.len() + 1).map(|at| key.as_bytes()[at]);
            word.ends_with(name) && rest.is_some_and(|byte| !byte.is_ascii_alphanumeric())
        }
    };
    if ends(&[
        "password",
        "passwd",
        "passphrase",
        "passwort",
        "kennwort",
        "passcode",
        "wachtwoord",
        "salasana",
        "motdepasse",
    ]) || separated("pwd")
        || separated("pass")
        || separated("passw")
        || matches!(
            word,
            "pw" | "otp" | "senha" | "parola" | "contrasena" | "haslo" | "passe" | "mdp"
        )
    {
        return Some(Class::Password);
    }
    if ends(&["authorization"]) {
        return Some(Class::Authorization);
    }
    if separated("cookie") {
        return Some(Class::Cookie);
    }
    let credential = ends(&[
        "token",
        "secret",
        "apikey",
        "accesskey",
        "secretkey",
        "privatekey",
        "authkey",
        "accountkey",
        "signingkey",
        "encryptionkey",
        "credential",
        "credentials",
        "sessionid",
        "sessid",
        "masterkey",
        "sharedkey",
        "licensekey",
    ]);
    credential.then_some(Class::Credential)
}

/// The secret that follows the `=`, `:` or `>` at this place, if the word before calls it one.
pub(crate) fn assigned(text: &str, sign: usize, ahead: &mut Ahead, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let Some((key, class)) = suspicious_key(text, sign) else {
        return;
    };
    if bytes[sign] == b'>' {
        // `<password>…</password>`, with or without a name space.
        let opens = sign.checked_sub(key.len() + 1).map(|at| bytes[at]);
        if matches!(opens, Some(b'<' | b':')) {
            let end = ahead.next(text, sign, Ends::Tag);
            if end < text.len() && end > sign + 1 {
                within(text, sign + 1..end, class, false, ahead, found);
            }
        }
        return;
    }
    let mut at = sign + sign_length(bytes, sign);
    if bytes.get(at) == Some(&b'>') || bytes[sign] == b':' && bytes.get(at) == Some(&b'=') {
        at += 1;
    }
    at += bytes[at..].iter().take(3).take_while(|byte| **byte == b' ').count();
    let quoted = at < bytes.len() && matches!(bytes[at], b'"' | b'\'' | b'`' | b'\\');
    let value = value_at(text, at, class, ahead);
    let prose = !quoted && bytes[sign] == b':' && text[value.end..].starts_with(' ');
    within(text, value, class, prose, ahead, &mut found);
}

/// The secrets in a value whose key is of this class. `prose` means that more words follow.
pub(crate) fn within(
    text: &str,
    value: Range<usize>,
    class: Class,
    prose: bool,
    ahead: &mut Ahead,
    mut found: impl FnMut(Range<usize>),
) {
    let content = &text[value.clone()];
    match class {
        Class::Password if is_password(content, prose) => found(value),
        Class::Credential if is_credential(content, MIN_CREDENTIAL) => found(value),
        Class::Authorization => {
            let scheme = ahead.next(text, value.start, Ends::Scheme);
            let start = match text.as_bytes().get(scheme) {
                Some(b' ') if scheme < value.end && is_scheme(&text[value.start..scheme]) => scheme + 1,
                Some(b' ') if scheme < value.end => return,
                _ => value.start,
            };
            let start = value.end - text[start..value.end].trim_start().len();
            let end = ahead.next(text, start, Ends::Scheme).min(value.end);
            if is_credential(&text[start..end], if start > value.start { 6 } else { MIN_CREDENTIAL }) {
                found(start..end);
            }
        }
        // A cookie within the last one was one of its pairs.
        Class::Cookie if value.start >= ahead.cookies => {
            ahead.cookies = value.end;
            let mut at = value.start;
            for pair in content.split(';') {
                if let Some((name, cookie)) = pair.split_once('=')
                    && is_credential(cookie.trim(), MIN_CREDENTIAL)
                {
                    found(at + name.len() + 1..at + pair.len());
                }
                at += pair.len() + 1;
            }
        }
        _ => {}
    }
}

/// `Bearer` and a token without a header's name before it.
pub(crate) fn bearer(text: &str, at: usize) -> Option<Range<usize>> {
    let start = at + "earer ".len();
    let before = at.checked_sub(1)?;
    if !matches!(text.as_bytes()[before], b'B' | b'b') || !super::edge::begins(text.as_bytes(), before) {
        return None;
    }
    let rest = text.get(start..)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let length = rest.bytes().take_while(|byte| token(*byte)).count();
    let length = rest[..length].trim_end_matches('.').len();
    is_credential(&rest[..length], MIN_BEARER).then_some(start..start + length)
}

/// `password is hunter2`, at the end of `password`. A word of letters only tells something about a password.
pub(crate) fn told(text: &str, at: usize) -> Option<Range<usize>> {
    let start = at + " is ".len();
    class_of(key_before(text, at)?).filter(|class| *class == Class::Password)?;
    let value = value_at(text, start, Class::Password, &mut Ahead::default());
    let word = &text[value.clone()];
    let random = word.bytes().any(|byte| byte.is_ascii_digit()) && is_password(word, false);
    random.then_some(value)
}

/// `WITH PASSWORD 'hunter2'`, `IDENTIFIED BY 'hunter2'`: what stands in quotes behind a word, at the space before the quote.
pub(crate) fn literal(text: &str, space: usize) -> Option<Range<usize>> {
    let key = key_before(text, space)?;
    let identified = || {
        let before = text[..space].strip_suffix(key).map(str::trim_end);
        before.is_some_and(|before| {
            before.len() >= 10
                && before.is_char_boundary(before.len() - 10)
                && before[before.len() - 10..].eq_ignore_ascii_case("identified")
        })
    };
    let named = class_of(key) == Some(Class::Password) || key.eq_ignore_ascii_case("by") && identified();
    if !named {
        return None;
    }
    let value = value_at(text, space + 1, Class::Password, &mut Ahead::default());
    let content = &text[value.clone()];
    (is_password(content, false) && !content.contains(' ')).then_some(value)
}

/// `--password hunter2`: an option whose value is the next word.
pub(crate) fn option(text: &str, dashes: usize) -> Option<Range<usize>> {
    let name = dashes + 2;
    let rest = text.get(name..)?;
    if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let length = rest.bytes().take(MAX_OPTION + 1).take_while(inside).count();
    let class = class_of(&rest[..length])?;
    let at = name + length;
    if text.as_bytes().get(at) != Some(&b' ') || matches!(text.as_bytes().get(at + 1), None | Some(b'-' | b' ')) {
        return None;
    }
    let mut result = None;
    let mut ahead = Ahead::default();
    let value = value_at(text, at + 1, class, &mut ahead);
    within(text, value, class, false, &mut ahead, |range| result = Some(range));
    result
}

/// Password of a URL with an account, and its `@`: `scheme://user:password@host`.
pub(crate) fn in_url(text: &str, colon: usize) -> Option<(Range<usize>, usize)> {
    let rest = text.get(colon..)?.strip_prefix("://")?;
    let start = colon + 3;
    let length = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>' | '`' | '|' | ','))
        .unwrap_or(rest.len());
    let authority = &rest[..length];
    let sign = authority.rfind('@')?;
    let password = authority[..sign].find(':')? + 1;
    let value = &authority[password..sign];
    (!value.is_empty() && !is_placeholder(value)).then_some((start + password..start + sign, start + sign))
}

fn sign_length(bytes: &[u8], sign: usize) -> usize {
    // The wide colon has three bytes.
    if bytes[sign].is_ascii() { 1 } else { 3 }
}

/// The name before a sign, without its quotes.
pub(crate) fn key_before(text: &str, sign: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut end = sign;
    let mut skipped = 0;
    while end > 0 && skipped < MAX_QUOTES && matches!(bytes[end - 1], b'"' | b'\'' | b' ' | b'\\' | b'`') {
        end -= 1;
        skipped += 1;
    }
    let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(**byte, b'_' | b'-' | b'.') || !byte.is_ascii();
    let mut start = end - bytes[..end].iter().rev().take(64).take_while(inside).count();
    while !text.is_char_boundary(start) {
        start += 1;
    }
    (start < end).then(|| &text[start..end])
}

/// The name before a sign if its last letters are those of some secret; it answers quickly for all others.
pub(crate) fn suspicious_key(text: &str, sign: usize) -> Option<(&str, Class)> {
    let mut last = [0u8; 3];
    let letters = text.as_bytes()[..sign]
        .iter()
        .rev()
        .skip_while(|byte| matches!(byte, b'"' | b'\'' | b' ' | b'\\' | b'`'));
    for (place, byte) in last
        .iter_mut()
        .rev()
        .zip(letters.filter(|byte| !matches!(byte, b'_' | b'-' | b'.')))
    {
        *place = byte.to_ascii_lowercase();
    }
    let known = matches!(
        &last,
        b"ord"
            | b"ort"
            | b"swd"
            | b"ase"
            | b"ode"
            | b"ana"
            | b"ena"
            | b"pwd"
            | b"ass"
            | b"ssw"
            | b"nha"
            | b"ola"
            | b"slo"
            | b"sse"
            | b"mdp"
            | b"otp"
            | b"ion"
            | b"kie"
            | b"ken"
            | b"ret"
            | b"key"
            | b"ial"
            | b"als"
            | b"nid"
            | b"sid"
    ) || last[1..] == *b"pw"
        || last == *b"fre"
        || !last.is_ascii();
    if !known {
        return None;
    }
    let key = key_before(text, sign)?;
    Some((key, class_of(key)?))
}

pub(crate) fn is_scheme(word: &str) -> bool {
    [
        "bearer",
        "basic",
        "token",
        "apikey",
        "digest",
        "negotiate",
        "aws4-hmac-sha256",
        "bot",
        "key",
        "jwt",
    ]
    .iter()
    .any(|scheme| word.eq_ignore_ascii_case(scheme))
}
