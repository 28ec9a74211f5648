//! Finds e-mail addresses.

use std::ops::Range;

use memchr::memchr2_iter;

/// Endings that are no top-level domains but stand behind an `@` in every system log (`getty@tty1.service`) or in names
/// of images (`icon@2x.png`).
const NOT_DOMAINS: [&str; 17] = [
    "automount",
    "device",
    "mount",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "swap",
    "target",
    "timer",
    "gif",
    "jpeg",
    "jpg",
    "png",
    "svg",
    "webp",
];

/// Whether there can be an address in here at all.
pub(crate) fn possible(bytes: &[u8]) -> bool {
    next_at(bytes, 0).is_some()
}

/// Where the next `@` (or its form in a URL, `%40`) stands.
pub(crate) fn next_at(bytes: &[u8], from: usize) -> Option<usize> {
    memchr2_iter(b'@', b'%', bytes.get(from..)?)
        .map(|at| at + from)
        .find(|at| sign_length(bytes, *at) > 0)
}

/// Appends the addresses in `text`, in order and not overlapping.
pub(crate) fn find(text: &str, spans: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut from = 0;
    let mut search = 0;
    while let Some(at) = next_at(bytes, search) {
        let domain_start = at + sign_length(bytes, at);
        search = domain_start;
        let Some(end) = domain_end(text, domain_start) else {
            continue;
        };
        let start = local_start(text, from, at);
        if start < at {
            spans.push(start..end);
            from = end;
            search = end;
        }
    }
}

/// Bytes of the sign at this place; 0 if it is none.
fn sign_length(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'@') => 1,
        Some(b'%') if bytes.get(at + 1..at + 3) == Some(b"40") => 3,
        _ => 0,
    }
}

/// First byte of the part before the sign; `at` if there is none.
fn local_start(text: &str, from: usize, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut start = at;
    for (index, c) in text[from..at].char_indices().rev() {
        let index = from + index;
        let part = match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '+' | '-' | '%' => true,
            // O'Brien@…, but not 'bob@…'
            '\'' => index > from && bytes[index - 1].is_ascii_alphanumeric() && start < at,
            c => !c.is_ascii() && c.is_alphanumeric(),
        };
        if !part {
            break;
        }
        start = index;
    }
    start = after_escape(bytes, from, start, at);
    while start < at && matches!(bytes[start], b'.' | b'-' | b'%') {
        start += 1;
    }
    start
}

/// The letter behind a backslash belongs to an escape (`\n`, `\u00e9`), which must stay whole.
fn after_escape(bytes: &[u8], from: usize, start: usize, at: usize) -> usize {
    let backslashes = bytes[from..start]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count();
    if backslashes % 2 == 0 || start >= at {
        return start;
    }
    let length = match bytes[start] {
        b'u' => 5,
        b'n' | b'r' | b't' | b'b' | b'f' => 1,
        _ => 0,
    };
    (start + length).min(at)
}

/// End of the domain that begins here; `None` if there is none with a plausible last label.
fn domain_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut end = None;
    let mut label = start;
    let mut labels = 0;
    loop {
        let label_end = label_end(text, label);
        if label_end == label {
            return end;
        }
        labels += 1;
        if labels >= 2 && is_top_level(&text[label..label_end]) {
            end = Some(label_end);
        }
        if bytes.get(label_end) != Some(&b'.') {
            return end;
        }
        label = label_end + 1;
    }
}

fn label_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut end = start;
    while let Some(byte) = bytes.get(end) {
        if byte.is_ascii_alphanumeric() || *byte == b'-' {
            end += 1;
        } else if !byte.is_ascii() {
            match text[end..].chars().next() {
                Some(c) if c.is_alphanumeric() => end += c.len_utf8(),
                _ => break,
            }
        } else {
            break;
        }
    }
    while end > start && bytes[end - 1] == b'-' {
        end -= 1;
    }
    end
}

fn is_top_level(label: &str) -> bool {
    let letters = label.chars().all(char::is_alphabetic) || label.starts_with("xn--");
    let known = |no: &str| label.eq_ignore_ascii_case(no);
    letters && label.chars().nth(1).is_some() && !NOT_DOMAINS.iter().any(|no| known(no))
}
