//! Where words begin and end, in text that may be written with escapes (`\n`, `\u00e9`).

/// Letters, digits, the underscore and every byte of a character beyond ASCII.
pub(crate) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Whether a number or name may begin here: not within an ASCII word.
pub(crate) fn begins(bytes: &[u8], at: usize) -> bool {
    match at.checked_sub(1).map(|before| bytes[before]) {
        None => true,
        Some(b'_') => false,
        Some(byte) if byte.is_ascii_alphanumeric() => after_escape(bytes, at),
        Some(_) => true,
    }
}

/// Whether a number or name may end here.
pub(crate) fn ends(bytes: &[u8], at: usize) -> bool {
    !bytes
        .get(at)
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Whether `.0` ends a whole number here that somebody kept as a double.
pub(crate) fn zero_fraction(bytes: &[u8], at: usize) -> bool {
    let Some(rest) = bytes.get(at..).and_then(|rest| rest.strip_prefix(b".0")) else {
        return false;
    };
    let zeros = rest.iter().take_while(|byte| **byte == b'0').count();
    let behind = &rest[zeros..];
    let version = behind.first() == Some(&b'.') && behind.get(1).is_some_and(u8::is_ascii_alphanumeric);
    !version && ends(behind, 0)
}

/// Whether an escape ends right before this place.
pub(crate) fn after_escape(bytes: &[u8], at: usize) -> bool {
    let simple = at >= 2
        && matches!(bytes[at - 1], b'n' | b'r' | b't' | b'b' | b'f')
        && backslashes_before(bytes, at - 1) % 2 == 1;
    simple
        || at >= 6
            && bytes[at - 5] == b'u'
            && bytes[at - 4..at].iter().all(u8::is_ascii_hexdigit)
            && backslashes_before(bytes, at - 5) % 2 == 1
}

/// How many bytes from here on are the rest of an escape whose backslash stands right before.
pub(crate) fn escape_rest(bytes: &[u8], at: usize) -> usize {
    if backslashes_before(bytes, at).is_multiple_of(2) {
        return 0;
    }
    match bytes.get(at) {
        // One that was cut off has fewer digits, and what follows is no part of it.
        Some(b'u') => {
            1 + bytes[at + 1..]
                .iter()
                .take(4)
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count()
        }
        Some(b'n' | b'r' | b't' | b'b' | b'f') => 1,
        _ => 0,
    }
}

fn backslashes_before(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count()
}
