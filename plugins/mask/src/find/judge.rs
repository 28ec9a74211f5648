//! Tells secrets from words about them, and from what stands in their place.

/// What is looked at of a credential to see that it is random.
const MAX_SAMPLE: usize = 256;

/// What stands for a value and is none: `***`, `<password>`, `${X}`, `[FILTERED]`. Brackets count only around words, not around
/// anything.
pub(crate) fn is_placeholder(value: &str) -> bool {
    const FILLERS: &[u8] = b"*xX.-_#?=";
    let bytes = value.as_bytes();
    value
        .chars()
        .all(|c| matches!(c, '•' | '●' | '…') || c.is_ascii() && FILLERS.contains(&(c as u8)))
        || in_brackets(value)
        || matches!(bytes, [b'$', b'(' | b'{', ..] | [b'%', b'(', ..] | [b'{', b'{', ..])
        || matches!(bytes, [b'%', b's' | b'v' | b'd' | b'r'])
        || value
            .strip_suffix("***")
            .is_some_and(|kept| kept.len() <= 4 && kept.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Words in brackets, perhaps with their closing bracket cut off by what ends a value.
fn in_brackets(value: &str) -> bool {
    let mut chars = value.chars();
    let closing = match chars.next() {
        Some('[') => ']',
        Some('<') => '>',
        Some('{') => '}',
        Some('(') => ')',
        _ => return false,
    };
    let inner = chars.as_str().trim_start_matches(['[', '<', '{', '(']);
    let inner = inner.trim_end_matches(closing);
    let hidden = inner.contains("***") || inner.contains('…');
    inner.len() <= 48
        && inner.chars().all(|c| {
            c.is_alphabetic() || matches!(c, '_' | '-' | ' ' | '.' | ':' | '/') || hidden && matches!(c, '*' | '…')
        })
}

/// Words that say something about a password, in logs.
const ABOUT: [&str; 44] = [
    "null",
    "none",
    "nil",
    "true",
    "false",
    "empty",
    "required",
    "missing",
    "invalid",
    "incorrect",
    "expired",
    "changed",
    "reset",
    "ok",
    "failed",
    "wrong",
    "mismatch",
    "unset",
    "redacted",
    "masked",
    "hidden",
    "undefined",
    "yes",
    "no",
    "must",
    "is",
    "not",
    "too",
    "cannot",
    "should",
    "the",
    "a",
    "please",
    "for",
    "string",
    "sent",
    "filtered",
    "updated",
    "denied",
    "removed",
    "optional",
    "omitted",
    "set",
    "n/a",
];

pub(crate) fn is_password(value: &str, prose: bool) -> bool {
    let word = value.trim();
    let about = ABOUT.iter().any(|about| word.eq_ignore_ascii_case(about));
    let path = word.starts_with('/') && word[1..].contains('/');
    // `password: account locked` and `pass: 12 fail: 3` tell something, `password: hunter2 …` is one.
    let told = prose
        && (word.chars().all(char::is_alphabetic) || word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit()));
    !(word.is_empty() || is_placeholder(word) || about || path || told)
}

/// Of several kinds of characters, or long: no word of a language.
pub(super) fn is_credential(value: &str, least: usize) -> bool {
    if value.len() < least || value.as_bytes()[..value.len().min(MAX_SAMPLE)].contains(&b' ') || is_placeholder(value) {
        return false;
    }
    let sample = &value.as_bytes()[..value.len().min(MAX_SAMPLE)];
    let count = |is: fn(&u8) -> bool| sample.iter().filter(|byte| is(byte)).count();
    let (digits, upper, lower) = (
        count(u8::is_ascii_digit),
        count(u8::is_ascii_uppercase),
        count(u8::is_ascii_lowercase),
    );
    let sentence = upper == 1 && value.starts_with(|c: char| c.is_ascii_uppercase()) && digits == 0;
    let joined = |byte: &u8| matches!(byte, b'-' | b'_' | b'.' | b'/');
    let words = digits == 0 && upper == 0 && sample.iter().any(joined);
    !sentence
        && !words
        && (digits >= 2 && upper + lower > 0
            || upper > 0 && lower > 0 && value.len() >= 10
            || value.len() >= 20 && digits + upper > 0)
}
