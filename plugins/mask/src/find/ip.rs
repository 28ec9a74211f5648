//! IP addresses. Versions such as `1.2.3.4` are told apart by the word before and by what stands beside them; networks
//! (`10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.0.0.0-10.0.0.255`), broadcast, the unspecified and the loopback addresses name nobody and stay.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::classes::Classes;
use super::edge;
use super::run::{Group, Separator};
use super::words::Hint;
use crate::kind::{Found, Kind};

/// Four groups with dots between them.
pub(crate) fn v4_shaped(bytes: &[u8], groups: &[Group]) -> bool {
    groups.len() >= 4
        && groups[..4].iter().all(|group| group.len() <= 3)
        && groups[1..4].iter().all(|group| group.before == Separator::Dot)
        && bytes[groups[0].start].is_ascii_digit()
}

/// Whether these four groups are an address that stands alone and is no version.
pub(crate) fn is_v4(bytes: &[u8], groups: &[Group], previous: Option<Group>, hint: &impl Fn() -> Hint) -> bool {
    let (start, end) = (groups[0].start, groups[3].end);
    let joined = previous.is_some() && matches!(groups[0].before, Separator::Dot)
        || groups.get(4).is_some_and(|next| next.before == Separator::Dot);
    if joined || !edge::begins(bytes, start) || !edge::ends(bytes, end) {
        return false;
    }
    let mut octets = [0u8; 4];
    for (octet, group) in octets.iter_mut().zip(groups) {
        let digits = &bytes[group.start..group.end];
        let value = digits
            .iter()
            .fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        let Ok(value) = u8::try_from(value) else { return false };
        if digits.len() > 1 && digits[0] == b'0' {
            return false;
        }
        *octet = value;
    }
    let address = Ipv4Addr::from(octets);
    if names_nobody(address) {
        return false;
    }
    let next = |at: usize| bytes.get(end + at).copied();
    if is_image(bytes, start) || is_range(bytes, start, end, u32::from(address)) {
        return false;
    }
    let file = next(0) == Some(b'.') && next(1).is_some_and(|byte| byte.is_ascii_alphabetic())
        || next(0) == Some(b'-') && next(1).is_some_and(|byte| byte.is_ascii_alphabetic());
    if file
        || released(&bytes[end..])
        || beside_name(bytes, start, next(0) == Some(b':'))
        || is_network(bytes, end, u32::from(address), 32)
    {
        return false;
    }
    goes_with(hint())
}

/// The unspecified and the loopback addresses, masks, and what identifiers begin with.
fn names_nobody(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    address.is_loopback() || octets[0] == 0 || is_mask(u32::from(address)) || octets == OID_ROOT
}

/// Whether the words before may be said of an address.
fn goes_with(hint: Hint) -> bool {
    !(hint.version() || hint.broadcast()) || hint.network()
}

/// The address that a text is, if it is nothing else: what values of attributes mostly are. `key` is what their key says.
pub(crate) fn whole_v4(text: &str, classes: &Classes, key: Hint) -> Option<Found> {
    // Most texts are none: those of other lengths, or of more than digits and three other signs.
    if !(7..=15).contains(&text.len()) || classes.digits() + 3 != text.len() || !goes_with(key) {
        return None;
    }
    let address: Ipv4Addr = text.parse().ok()?;
    (!names_nobody(address)).then_some(Found {
        start: 0,
        end: text.len(),
        kind: Kind::Ip,
    })
}

/// `1.3.6.1`, with which the identifiers of SNMP and of certificates begin.
const OID_ROOT: [u8; 4] = [1, 3, 6, 1];
/// The longest name of an image that is looked at, before its tag.
const MAX_IMAGE: usize = 128;

/// `registry.example.com/shop/api:1.14.0.7`: a tag, behind a name with a slash.
fn is_image(bytes: &[u8], start: usize) -> bool {
    let Some(before) = bytes[..start].strip_suffix(b":") else {
        return false;
    };
    let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
    let length = before.iter().rev().take(MAX_IMAGE).take_while(inside).count();
    let name = &before[before.len() - length..];
    let slash = memchr::memchr(b'/', name);
    let address = || {
        name[..slash.unwrap_or(0)]
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    slash.is_some_and(|slash| slash > 0) && name.last().is_some_and(u8::is_ascii_alphanumeric) && !address()
}

/// The address that begins or ends at a place, if there is one.
fn address_from(bytes: &[u8], start: usize) -> Option<u32> {
    let inside = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
    let length = bytes.get(start..)?.iter().take(15).take_while(inside).count();
    let text = std::str::from_utf8(&bytes[start..start + length]).ok()?;
    text.parse::<Ipv4Addr>().ok().map(u32::from)
}

fn address_before(bytes: &[u8], end: usize) -> Option<u32> {
    let inside = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
    let length = bytes[..end].iter().rev().take(15).take_while(inside).count();
    address_from(&bytes[..end], end - length)
}

/// `10.0.0.0-10.0.0.255`: the first and the last address of a network, seen from either of them.
fn is_range(bytes: &[u8], start: usize, end: usize, address: u32) -> bool {
    let network = |first: u32, last: u32| {
        let differing = first ^ last;
        first < last && differing & (differing + 1) == 0 && first & differing == 0
    };
    let dash = |at: Option<&u8>| at == Some(&b'-');
    let last = || address_from(bytes, end + 1).is_some_and(|last| network(address, last));
    let first = || address_before(bytes, start - 1).is_some_and(|first| network(first, address));
    dash(bytes.get(end)) && last() || start > 0 && dash(bytes.get(start - 1)) && first()
}

/// `255.255.255.0` and the like, and the broadcast address.
fn is_mask(address: u32) -> bool {
    address >> 24 == 255 && address.leading_ones() + address.trailing_zeros() >= 32
}

/// `1.2.3.4 installed`
fn released(behind: &[u8]) -> bool {
    if behind.first() != Some(&b' ') {
        return false;
    }
    let words: [&[u8]; 12] = [
        b" installed",
        b" released",
        b" is available",
        b" or later",
        b" or newer",
        b" or higher",
        b" or above",
        b" and above",
        b" (LTS)",
        b" installiert",
        b" instalad",
        b" install\xc3\xa9",
    ];
    words.iter().any(|word| behind.starts_with(word))
}

/// `Chrome/120.0.0.0`, `pkg-1.2.3.4`, `==1.2.3.4`; but `host/10.0.0.1:9092` has a port.
fn beside_name(bytes: &[u8], start: usize, port: bool) -> bool {
    let before = |back: usize| start.checked_sub(back).map(|at| bytes[at]);
    let name = before(2).is_some_and(|byte| byte.is_ascii_alphanumeric());
    match before(1) {
        Some(b'/') => name && !port,
        Some(b'-') => before(2).is_some_and(|byte| byte.is_ascii_alphabetic()),
        Some(b'=') => before(2) == Some(b'=') || matches!(before(2), Some(b'~' | b'>' | b'<' | b'^')),
        Some(b'~' | b'^') => true,
        Some(b'.') => name,
        _ => false,
    }
}

/// A prefix length behind and no bits beyond it.
fn is_network(bytes: &[u8], end: usize, address: impl Into<u128>, width: u32) -> bool {
    let address = address.into();
    // A mask may stand in place of the length: behind the slash, or as the next word.
    if width == 32
        && matches!(bytes.get(end), Some(b'/' | b' '))
        && let Some(mask) = address_from(bytes, end + 1)
    {
        return is_mask(mask) && address & u128::from(!mask) == 0;
    }
    if bytes.get(end) != Some(&b'/') {
        return false;
    }
    let digits = bytes[end + 1..].iter().take(3).take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    let length = digits.fold(0u32, |sum, digit| {
        any = true;
        sum * 10 + u32::from(digit - b'0')
    });
    let rest = width.saturating_sub(length);
    any && length <= width && rest > 0 && address & ((1u128 << rest.min(127)) - 1) == 0
}

/// Where the next colon stands that may be one of an address.
pub(crate) fn next_v6(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b':', bytes.get(from..)?)
        .map(|at| at + from)
        .find(|at| may_be_v6(bytes, *at))
}

/// Whether a colon may be the first one of an address: hexadecimal digits or colons on both sides, and none before these.
pub(crate) fn may_be_v6(bytes: &[u8], at: usize) -> bool {
    let side = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit() || *byte == b':');
    let next = bytes.get(at + 1);
    if bytes.get(at) != Some(&b':') || !side(next) {
        return false;
    }
    let digits = bytes[..at]
        .iter()
        .rev()
        .take(5)
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let goes_on = bytes[..at - digits].last() == Some(&b':');
    !goes_on && (at == 0 || digits > 0 || next == Some(&b':'))
}

/// The address around a colon, and where the search goes on.
pub(crate) fn v6_around(bytes: &[u8], colon: usize) -> (Option<Found>, usize) {
    let part = |byte: &&u8| byte.is_ascii_hexdigit() || **byte == b':';
    // The longest address has 39 characters, a mapped one 45.
    let start = colon - bytes[..colon].iter().rev().take(48).take_while(part).count();
    let mut end = colon + bytes[colon..].iter().take(48).take_while(part).count();
    let mapped = bytes.get(end) == Some(&b'.');
    if mapped {
        end += bytes[end..]
            .iter()
            .take(12)
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .count();
        while bytes[end - 1] == b'.' {
            end -= 1;
        }
    } else if bytes[end - 1] == b':' && (end < 2 || bytes[end - 2] != b':') {
        // `2001:db8::1: connected`
        end -= 1;
    }
    if end <= colon {
        return (None, colon + 1);
    }
    let found = Found {
        start,
        end,
        kind: Kind::Ip,
    };
    (is_v6(bytes, start, end).then_some(found), end)
}

fn is_v6(bytes: &[u8], start: usize, end: usize) -> bool {
    let word = &bytes[start..end];
    let colons = word.iter().filter(|byte| **byte == b':').count();
    let short = word.windows(2).any(|pair| pair == b"::");
    if colons < 2 || !short && colons < 6 || end - start < 4 {
        return false;
    }
    if start > 0 && (!edge::begins(bytes, start) || bytes[start - 1] == b':') {
        return false;
    }
    if !edge::ends(bytes, end)
        || bytes.get(end) == Some(&b':') && bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric)
    {
        return false;
    }
    // Six or eight pairs are a hardware address; `a::b` is a path in a program.
    let groups = || word.split(|byte| *byte == b':').filter(|group| !group.is_empty());
    let pairs = !short && groups().all(|group| group.len() == 2);
    let telling =
        word.iter().any(u8::is_ascii_digit) && groups().any(|group| group.len() >= 3 || group.contains(&b'.'));
    if pairs || !telling {
        return false;
    }
    let Some(address) = std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse::<Ipv6Addr>().ok())
    else {
        return false;
    };
    let nobody = address.is_loopback() || address.is_unspecified();
    !(nobody || is_network(bytes, end, u128::from(address), 128))
}
