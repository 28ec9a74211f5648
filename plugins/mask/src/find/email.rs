//! E-mail addresses. Names of systemd units, of images and packages, and accounts on hosts (`ssh deploy@web-1.example.com`,
//! `git@example.com:a.git`, `backup@nas.example.com:/data`) are left alone.

use std::ops::Range;

use memchr::memchr2_iter;

use super::edge;

/// Endings that are no top-level domains but stand behind an `@` in every system log (`getty@tty1.service`), in names of
/// images (`icon@2x.png`) and of other files.
const NOT_DOMAINS: [&str; 51] = [
    "automount",
    "bak",
    "beta",
    "alpha",
    "cfg",
    "class",
    "conf",
    "cpp",
    "css",
    "deb",
    "device",
    "dll",
    "exe",
    "final",
    "gif",
    "gz",
    "htm",
    "html",
    "ini",
    "jar",
    "java",
    "jpeg",
    "jpg",
    "js",
    "json",
    "lock",
    "log",
    "mount",
    "path",
    "pdf",
    "png",
    "rc",
    "rpm",
    "scope",
    "service",
    "slice",
    "snapshot",
    "socket",
    "svg",
    "swap",
    "tar",
    "target",
    "tgz",
    "timer",
    "tmp",
    "toml",
    "txt",
    "webp",
    "xml",
    "yaml",
    "yml",
];

/// Programs that are told an account and a host.
const REMOTE: [&str; 7] = ["ssh", "scp", "sftp", "rsync", "mosh", "autossh", "ssh-copy-id"];

/// The longest name among these, and one more.
const MAX_PROGRAM: usize = 12;

/// Where the next `@` (or its form in a URL, `%40`) stands.
pub(crate) fn next_at(bytes: &[u8], from: usize) -> Option<usize> {
    memchr2_iter(b'@', b'%', bytes.get(from..)?)
        .map(|at| at + from)
        .find(|at| sign_length(bytes, *at) > 0)
}

/// Hands over the addresses in `text`, in order and not overlapping; `is_account` tells of a sign that it ends the account
/// of a URL.
pub(crate) fn find(text: &str, is_account: impl Fn(usize) -> bool, mut found: impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut from = 0;
    let mut search = 0;
    while let Some(at) = next_at(bytes, search) {
        let domain_start = at + sign_length(bytes, at);
        search = domain_start;
        let Some(end) = domain_end(text, domain_start).filter(|_| !is_account(at)) else {
            continue;
        };
        let start = local_start(text, from, at);
        if start < at && !on_host(text, start, at, end) {
            found(start..end);
            from = end;
            search = end;
        }
    }
}

/// An account on a host: behind `ssh`, before a path, or that of a version control.
fn on_host(text: &str, start: usize, at: usize, end: usize) -> bool {
    let (bytes, before) = (text.as_bytes(), &text[..start]);
    let scheme = || before.ends_with("ssh://") || before.ends_with("sftp://") || before.ends_with("rsync://");
    let path = bytes.get(end) == Some(&b':') && matches!(bytes.get(end + 1), Some(b'/' | b'~'));
    let program = || {
        let tail = before.trim_end_matches(' ').len();
        let word = before.as_bytes()[..tail].iter().rev().take(MAX_PROGRAM);
        let length = word
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-')
            .count();
        &before[tail - length..tail]
    };
    path && bytes.get(end + 2) != Some(&b'/')
        || matches!(&text[start..at], "git" | "hg" | "svn")
        || before.ends_with(' ') && REMOTE.contains(&program())
        || before.ends_with('/') && scheme()
}

/// Bytes of the sign at this place; 0 if it is none.
fn sign_length(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'@') => 1,
        Some(b'%') if bytes.get(at + 1..at + 3) == Some(b"40") => 3,
        _ => 0,
    }
}

/// ASCII that may stand in the part before the sign.
const IN_LOCAL: [bool; 256] = table(b"._+-%");
/// The same of a label of the domain.
const IN_LABEL: [bool; 256] = table(b"-");

/// Letters, digits and these.
const fn table(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < more.len() {
        table[more[at] as usize] = true;
        at += 1;
    }
    table
}

/// First byte of the part before the sign; `at` if there is none.
fn local_start(text: &str, from: usize, at: usize) -> usize {
    let bytes = text.as_bytes();
    let plain = bytes[from..at].iter().rev();
    let plain = plain.take_while(|byte| IN_LOCAL[usize::from(**byte)]).count();
    let mut start = at - plain;
    while start > from {
        let byte = bytes[start - 1];
        start -= match byte {
            _ if IN_LOCAL[usize::from(byte)] => 1,
            // O'Brien@…, but not 'bob@…'
            b'\'' if start < at && start - 1 > from && bytes[start - 2].is_ascii_alphanumeric() => 1,
            _ if byte.is_ascii() => break,
            _ => match text[from..start].chars().next_back() {
                Some(c) if c.is_alphanumeric() => c.len_utf8(),
                _ => break,
            },
        };
    }
    start = after_escape(bytes, start, at);
    while start < at && matches!(bytes[start], b'.' | b'-' | b'%') {
        start += 1;
    }
    start
}

/// The letter behind a backslash belongs to an escape (`\n`, `\u00e9`), which must stay whole.
fn after_escape(bytes: &[u8], start: usize, at: usize) -> usize {
    (start + edge::escape_rest(bytes, start)).min(at)
}

/// End of the domain that begins here; `None` if there is none with a plausible last label.
fn domain_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut end = None;
    let mut label = start;
    let mut numeric = true;
    let mut labels = 0;
    loop {
        let label_end = label_end(text, label);
        if label_end == label {
            return end;
        }
        labels += 1;
        // `pkg@1.0.rc` is a version.
        if labels >= 2 && !numeric && is_top_level(&text[label..label_end]) {
            end = Some(label_end);
        }
        if bytes.get(label_end) != Some(&b'.') {
            return end;
        }
        numeric &= bytes[label..label_end].iter().all(u8::is_ascii_digit);
        label = label_end + 1;
    }
}

fn label_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let plain = bytes.get(start..).unwrap_or_default().iter();
    let mut end = start + plain.take_while(|byte| IN_LABEL[usize::from(**byte)]).count();
    while let Some(byte) = bytes.get(end) {
        if IN_LABEL[usize::from(*byte)] {
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
    let bytes = label.as_bytes();
    let letters = bytes.iter().all(u8::is_ascii_alphabetic);
    if letters && is_no_ending(bytes) || label.chars().nth(1).is_none() {
        return false;
    }
    // `Order@7a81197d.hashCode`
    let hump = bytes
        .windows(2)
        .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    !hump && (letters || label.chars().all(char::is_alphabetic) || label.starts_with("xn--"))
}

/// Whether these letters are one of `NOT_DOMAINS`, in capitals or not.
fn is_no_ending(letters: &[u8]) -> bool {
    letters.len() <= MAX_ENDING && NO_ENDINGS.contains(&number_of(letters))
}

/// The longest of `NOT_DOMAINS`; twelve letters fit into a number.
const MAX_ENDING: usize = 9;

/// `NOT_DOMAINS`, each as one number, so that all are compared at once.
const NO_ENDINGS: [u64; NOT_DOMAINS.len()] = {
    let mut endings = [0; NOT_DOMAINS.len()];
    let mut at = 0;
    while at < endings.len() {
        assert!(NOT_DOMAINS[at].len() <= MAX_ENDING);
        endings[at] = number_of(NOT_DOMAINS[at].as_bytes());
        at += 1;
    }
    endings
};

/// ASCII letters as one number, five bits each and none of them zero, without case.
const fn number_of(letters: &[u8]) -> u64 {
    let mut number = 0;
    let mut at = 0;
    while at < letters.len() {
        number = number << 5 | (letters[at] & 31) as u64;
        at += 1;
    }
    number
}
