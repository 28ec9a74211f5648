//! Words of letters, digits, `_` and `-` that are long enough to be a key: JSON web tokens, access keys by their prefix, and
//! the national numbers that consist of such a word.

use std::ops::Range;

use super::classes::Classes;
use super::ids::{self, Scheme};
use super::numbers::Schemes;
use super::{edge, iban};
use crate::json::{Reader, Token};
use crate::kind::{Found, Kind};

/// The shortest of what is looked for here: a contiguous IBAN of Norway.
const MIN_WORD: usize = 15;

const IN_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte == b'_' as usize || byte == b'-' as usize;
        byte += 1;
    }
    table
};

fn in_word(byte: u8) -> bool {
    IN_WORD[usize::from(byte)]
}

/// The next word of at least 15 bytes.
pub(crate) fn next_word(classes: &Classes, from: usize) -> Option<Range<usize>> {
    classes.next_word(from, MIN_WORD)
}

/// What a word is. The finding may go on behind it: tokens have dots.
pub(crate) fn identify(bytes: &[u8], word: Range<usize>, schemes: Schemes) -> Option<Found> {
    let word = word.start + edge::escape_rest(bytes, word.start)..word.end;
    let text = bytes.get(word.clone())?;
    let found = |range: Range<usize>, kind| {
        Some(Found {
            start: range.start,
            end: range.end,
            kind,
        })
    };
    if let Some(range) = jwt(bytes, &word) {
        return found(range, Kind::Jwt);
    }
    if let Some(range) = key(bytes, &word) {
        return found(range, Kind::Key);
    }
    if let Some(end) = iban::at_word(bytes, word.start) {
        return found(word.start..end, Kind::Iban);
    }
    let national = match text.len() {
        16 => ids::it_codice_fiscale(text).then_some(Scheme::ItCodiceFiscale),
        18 => ids::mx_curp(text).then_some(Scheme::MxCurp),
        _ => None,
    };
    if national.is_some_and(|scheme| schemes.has(scheme)) {
        return found(word, Kind::NationalId);
    }
    None
}

/// Three parts (five if encrypted) of which the first is JSON with the member `alg`.
fn jwt(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let text = &bytes[word.clone()];
    // Few words have a `J`, and of those that do not begin so, fewer still go on to `eyJ`: only these are worth a search.
    let first = memchr::memchr(b'J', text)?;
    let start = match text[..first].ends_with(b"ey") {
        true => first - 2,
        false => first + 1 + memchr::memmem::find(&text[first + 1..], b"eyJ")?,
    };
    let start = word.start + start;
    has_algorithm(&decode(&bytes[start..word.end])?).then_some(())?;
    let mut end = word.end;
    let mut parts = 1;
    while parts < 5 && bytes.get(end) == Some(&b'.') {
        let length = bytes[end + 1..].iter().take_while(|byte| in_word(**byte)).count();
        // Without a signature the last part is empty; the dot behind a sentence looks the same.
        if length == 0 && parts != 2 {
            break;
        }
        end += 1 + length;
        parts += 1;
    }
    (parts >= 3).then_some(start..end)
}

/// Whether this is JSON with the member `alg` in its outermost object.
fn has_algorithm(header: &[u8]) -> bool {
    let mut reader = Reader::lenient(header, 0);
    let (mut depth, mut named, mut found) = (0, false, false);
    while let Some(token) = reader.next() {
        match token {
            Token::OpenObject(_) | Token::OpenArray(_) => depth += 1,
            Token::Close => depth -= 1,
            Token::Key(span) => named = depth == 1 && &header[span.start..span.end] == b"alg",
            Token::String(_) => found |= named,
            _ => {}
        }
        named &= matches!(token, Token::Key(_));
    }
    found && reader.end() == (header.len(), false)
}

/// Base64 with the alphabet of URLs, without padding.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[derive(Clone, Copy)]
enum Alphabet {
    Hex,
    Upper,
    Letters,
    Word,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Alphabet::Hex => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            Alphabet::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Alphabet::Letters => byte.is_ascii_alphanumeric(),
            Alphabet::Word => in_word(byte),
        }
    }
}

/// Prefix, the characters that follow, how many at least and at most.
const KEYS: &[(&[u8], Alphabet, usize, usize)] = &[
    // Amazon
    (b"AKIA", Alphabet::Upper, 16, 16),
    (b"ASIA", Alphabet::Upper, 16, 16),
    // GitHub, GitLab
    (b"ghp_", Alphabet::Letters, 36, 255),
    (b"gho_", Alphabet::Letters, 36, 255),
    (b"ghu_", Alphabet::Letters, 36, 255),
    (b"ghs_", Alphabet::Letters, 36, 255),
    (b"ghr_", Alphabet::Letters, 36, 255),
    (b"github_pat_", Alphabet::Word, 22, 255),
    (b"glpat-", Alphabet::Word, 20, 64),
    (b"gldt-", Alphabet::Word, 20, 64),
    (b"glrt-", Alphabet::Word, 20, 64),
    // Slack
    (b"xoxb-", Alphabet::Word, 20, 255),
    (b"xoxa-", Alphabet::Word, 20, 255),
    (b"xoxe-", Alphabet::Word, 20, 255),
    (b"xoxp-", Alphabet::Word, 20, 255),
    (b"xoxr-", Alphabet::Word, 20, 255),
    (b"xoxs-", Alphabet::Word, 20, 255),
    (b"xapp-", Alphabet::Word, 20, 255),
    // Stripe
    (b"sk_live_", Alphabet::Letters, 16, 255),
    (b"sk_test_", Alphabet::Letters, 16, 255),
    (b"rk_live_", Alphabet::Letters, 16, 255),
    (b"rk_test_", Alphabet::Letters, 16, 255),
    (b"whsec_", Alphabet::Letters, 16, 255),
    // Google
    (b"AIza", Alphabet::Word, 35, 35),
    (b"GOCSPX-", Alphabet::Word, 28, 28),
    // Package registries
    (b"npm_", Alphabet::Letters, 36, 36),
    (b"pypi-AgEI", Alphabet::Word, 40, 255),
    (b"dckr_pat_", Alphabet::Word, 20, 64),
    // Models
    (b"hf_", Alphabet::Letters, 30, 64),
    (b"gsk_", Alphabet::Letters, 40, 64),
    (b"r8_", Alphabet::Letters, 37, 37),
    (b"pplx-", Alphabet::Letters, 40, 64),
    // Clouds and shops
    (b"dop_v1_", Alphabet::Hex, 64, 64),
    (b"shpat_", Alphabet::Hex, 32, 32),
    (b"shpca_", Alphabet::Hex, 32, 32),
    (b"shppa_", Alphabet::Hex, 32, 32),
    (b"shpss_", Alphabet::Hex, 32, 32),
    (b"dapi", Alphabet::Hex, 32, 32),
    (b"key-", Alphabet::Hex, 32, 32),
    (b"SK", Alphabet::Hex, 32, 32),
    (b"glsa_", Alphabet::Word, 32, 64),
    (b"NRAK-", Alphabet::Upper, 27, 27),
    (b"ATATT3x", Alphabet::Word, 100, 255),
    (b"AGE-SECRET-KEY-1", Alphabet::Upper, 58, 58),
    (b"sq0atp-", Alphabet::Word, 22, 22),
    (b"sq0csp-", Alphabet::Word, 43, 43),
];

fn key(bytes: &[u8], word: &Range<usize>) -> Option<Range<usize>> {
    let text = &bytes[word.clone()];
    let known = |(prefix, alphabet, least, most): &&(&[u8], Alphabet, usize, usize)| {
        // Two bytes are compared here and the others by a call, which few words are worth.
        text.first_chunk::<2>() == prefix.first_chunk()
            && text.strip_prefix(*prefix).is_some_and(|rest| {
                (*least..=*most).contains(&rest.len()) && rest.iter().all(|byte| alphabet.has(*byte))
            })
    };
    if matches!(
        text[0],
        b'A' | b'g' | b'x' | b's' | b'r' | b'w' | b'G' | b'n' | b'p' | b'd' | b'h' | b'k' | b'S' | b'N'
    ) && KEYS.iter().find(known).is_some()
    {
        return Some(word.clone());
    }
    if text.starts_with(b"sk-") && random_part(&text[3..]) {
        return Some(word.clone());
    }
    let dotted = |prefix: &[u8], least: usize| {
        let start = word.start.checked_sub(prefix.len())?;
        let fits = bytes[start..word.start] == *prefix && text.len() >= least && edge::begins(bytes, start);
        fits.then_some(start)
    };
    if let Some(start) = dotted(b"hvs.", 24)
        .or_else(|| dotted(b"hvb.", 24))
        .or_else(|| dotted(b"ya29.", 30))
    {
        return Some(start..word.end);
    }
    if let Some(start) = dotted(b"SG.", 22) {
        let rest = bytes[word.end..].strip_prefix(b".")?;
        let length = rest.iter().take_while(|byte| in_word(**byte)).count();
        return (length >= 40).then_some(start..word.end + 1 + length);
    }
    // A Telegram bot: its number, a colon and 35 characters.
    if text.len() == 35 && text.starts_with(b"AA") && word.start > 8 && bytes[word.start - 1] == b':' {
        let digits = bytes[..word.start - 1]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        return (8..=10).contains(&digits).then_some(word.start - 1 - digits..word.end);
    }
    None
}

/// At least 16 letters and digits in a row, of both: no word of a language.
fn random_part(text: &[u8]) -> bool {
    text.split(|byte| !byte.is_ascii_alphanumeric())
        .any(|part| part.len() >= 16 && part.iter().any(u8::is_ascii_digit) && part.iter().any(u8::is_ascii_alphabetic))
}

/// The secret path of a Slack hook, if the colon is that of its URL.
pub(crate) fn slack_hook(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    const HOST: &[u8] = b"://hooks.slack.com/";
    let scheme = bytes[..colon]
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let rest = bytes.get(colon..)?.strip_prefix(HOST)?;
    let path = rest.iter().take_while(|byte| in_word(**byte) || **byte == b'/').count();
    (path >= 24).then_some(colon - scheme..colon + HOST.len() + path)
}

/// The private key in PEM that begins here, from its first line to its last; to the end of the text if that was cut off.
pub(crate) fn private_key(text: &str, from: usize) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN ";
    const KEY: &[u8] = b"PRIVATE KEY";
    const MAX_HEAD: usize = 40;
    let start = from;
    let head = text.as_bytes()[start..].strip_prefix(BEGIN.as_bytes())?;
    let head = &head[..head.len().min(MAX_HEAD + 5)];
    let close = memchr::memmem::find(head, b"-----")?;
    memchr::memmem::find(&head[..close], KEY)?;
    let body = start + BEGIN.len() + close + 5;
    let end = text[body..].find("-----END ").and_then(|end| {
        let end = body + end + 9;
        text[end..].find("-----").map(|dashes| end + dashes + 5)
    });
    Some(start..end.unwrap_or(text.len()))
}
