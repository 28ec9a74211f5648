//! Telephone numbers. Those with a country code or a shape that nothing else has are found anywhere; others only behind a
//! word such as `phone` or `Telefon`. Behind a word such as `order` only those with a `+`.

use super::edge;
use super::run::{Group, Separator};
use super::words::Hint;

/// Of E.164.
const MAX_DIGITS: usize = 15;
const MAX_GROUPS: usize = 8;

pub(crate) struct Phone {
    pub start: usize,
    pub groups: usize,
}

/// The telephone number that begins with the first of these groups.
pub(crate) fn of_groups(bytes: &[u8], groups: &[Group], hint: impl FnOnce() -> Hint) -> Option<Phone> {
    let first = groups[0];
    let closes = groups
        .get(1)
        .is_some_and(|next| matches!(next.before, Separator::Closes | Separator::Both));
    let opened = closes && first.start > 0 && bytes[first.start - 1] == b'(';
    let sign = first.start - usize::from(opened);
    let plus = sign > 0 && bytes[sign - 1] == b'+';
    // `+` in a form is written `%2B`.
    let coded = sign >= 3 && bytes[sign - 3..sign].eq_ignore_ascii_case(b"%2B");
    let start = match (plus, coded) {
        (true, _) => sign - 1,
        (_, true) => sign - 3,
        _ => sign,
    };
    if !free_before(bytes, start) {
        return None;
    }
    let length = |count: usize| -> usize { groups[..count].iter().map(Group::len).sum() };
    let mut most = 1;
    while most < groups.len().min(MAX_GROUPS) && joins(groups[most].before) && length(most + 1) <= MAX_DIGITS {
        most += 1;
    }
    if plus || coded {
        let found = (1..=most)
            .rev()
            .find(|count| international(bytes, &groups[..*count]) && ends(bytes, groups, *count));
        return found.map(|groups| Phone { start, groups });
    }
    if length(most) < 7 {
        return None;
    }
    let hint = hint();
    if hint.doubtful() {
        return None;
    }
    let shape = |count: usize| {
        let groups = &groups[..count];
        trunk(bytes, groups, opened) || american(bytes, groups, opened) || other(bytes, groups) || exit(bytes, groups)
    };
    let fits = |count: &usize| {
        ends(bytes, groups, *count)
            && !is_date(bytes, groups)
            && (shape(*count) || plain(bytes, &groups[..*count], hint))
    };
    (1..=most).rev().find(fits).map(|groups| Phone { start, groups })
}

fn joins(separator: Separator) -> bool {
    separator != Separator::Far
}

fn free_before(bytes: &[u8], start: usize) -> bool {
    if !edge::begins(bytes, start) {
        return false;
    }
    match start.checked_sub(1).map(|at| bytes[at]) {
        Some(b'+' | b'#' | b'$') => false,
        // The rest of a longer thing: `a-0123`, `1.0123`, `x/0123`.
        Some(b'-' | b'.') => start < 2 || !bytes[start - 2].is_ascii_alphanumeric(),
        Some(b'/') => start < 2 || !bytes[start - 2].is_ascii_digit(),
        Some(b':') => start < 2 || !bytes[start - 2].is_ascii_digit(),
        _ => true,
    }
}

/// Whether the number ends with this group: what follows is no part of it.
fn ends(bytes: &[u8], groups: &[Group], count: usize) -> bool {
    let end = groups[count - 1].end;
    if !edge::ends(bytes, end) {
        return false;
    }
    let glued = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    match bytes.get(end) {
        Some(b'-' | b'/' | b'.' | b':') if glued(bytes.get(end + 1)) => false,
        // Another group of digits right behind: a table or a dump, unless it is a number of its own.
        Some(b' ') if bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => groups
            .get(count)
            .is_none_or(|next| next.len() > 4 || next.before != Separator::Space),
        _ => true,
    }
}

fn digits<'a>(bytes: &'a [u8], groups: &'a [Group]) -> impl Iterator<Item = u8> + 'a {
    groups
        .iter()
        .flat_map(|group| bytes[group.start..group.end].iter().copied())
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(Group::len).sum()
}

/// Country code and number, as it stands behind `+`.
fn international(bytes: &[u8], groups: &[Group]) -> bool {
    let total = count(groups);
    let mut all = [0u8; MAX_DIGITS];
    for (place, digit) in all.iter_mut().zip(digits(bytes, groups)) {
        *place = digit;
    }
    let Some(code) = country_code(&all[..total.min(MAX_DIGITS)]) else {
        return false;
    };
    if &all[..code] == b"1" {
        return total == 11 && area(&all[1..4]) && all[4] >= b'2';
    }
    // Small countries have seven digits and more behind the code of three.
    (9..=MAX_DIGITS).contains(&total) && groups.last().is_some_and(|group| group.len() >= 2)
        || total == 8 && groups.len() > 1
}

fn area(digits: &[u8]) -> bool {
    digits[0] >= b'2' && &digits[1..3] != b"11" && digits[1] != b'9'
}

/// Digits of the country code with which a number begins.
pub(crate) fn country_code(digits: &[u8]) -> Option<usize> {
    let two = |list: &[&[u8; 2]]| list.iter().any(|code| digits.starts_with(*code));
    match digits.first()? {
        b'1' | b'7' => Some(1),
        b'0' => None,
        _ if two(&[
            b"20", b"27", b"30", b"31", b"32", b"33", b"34", b"36", b"39", b"40", b"41", b"43", b"44", b"45", b"46",
            b"47", b"48", b"49", b"51", b"52", b"53", b"54", b"55", b"56", b"57", b"58", b"60", b"61", b"62", b"63",
            b"64", b"65", b"66", b"81", b"82", b"84", b"86", b"90", b"91", b"92", b"93", b"94", b"95", b"98",
        ]) =>
        {
            Some(2)
        }
        // 21x-29x, 35x-38x, 42x, 50x, 59x, 67x-69x, 80x, 85x-88x, 96x-99x.
        _ if two(&[
            b"21", b"22", b"23", b"24", b"25", b"26", b"29", b"35", b"37", b"38", b"42", b"50", b"59", b"67", b"68",
            b"69", b"80", b"85", b"87", b"88", b"96", b"97", b"99",
        ]) =>
        {
            Some(3)
        }
        _ => None,
    }
}

fn lengths(groups: &[Group], shape: &[usize]) -> bool {
    groups.len() == shape.len() && groups.iter().zip(shape).all(|(group, length)| group.len() == *length)
}

fn uniform(groups: &[Group], separator: Separator) -> bool {
    groups[1..].iter().all(|group| group.before == separator)
}

/// `00` and a country code, in groups.
fn exit(bytes: &[u8], groups: &[Group]) -> bool {
    let mut all = digits(bytes, groups);
    let zeros = all.next() == Some(b'0') && all.next() == Some(b'0');
    let rest: Vec<u8> = if zeros { all.collect() } else { return false };
    groups.len() > 1 && (9..=13).contains(&rest.len()) && groups[0].len() <= 5 && country_code(&rest).is_some()
}

/// `(415) 555-0132`, `415-555-0132`, `415.555.0132`, with or without a `1` before.
fn american(bytes: &[u8], groups: &[Group], opened: bool) -> bool {
    let (one, rest) = match groups.split_first() {
        Some((first, rest)) if first.len() == 1 && bytes[first.start] == b'1' && !opened => (true, rest),
        _ => (false, groups),
    };
    if !lengths(rest, &[3, 3, 4]) || !area(&bytes[rest[0].start..rest[0].end]) || bytes[rest[1].start] < b'2' {
        return false;
    }
    let open = opened && !one || one && rest[0].before == Separator::Opens;
    match (rest[1].before, rest[2].before) {
        (Separator::Closes, Separator::Dash | Separator::Space | Separator::Dot) => open,
        (Separator::Dash, Separator::Dash) | (Separator::Dot, Separator::Dot) => {
            !open && (!one || matches!(rest[0].before, Separator::Dash | Separator::Dot | Separator::Space))
        }
        (Separator::Space, Separator::Dash) => !open,
        _ => false,
    }
}

/// Numbers that begin with the 0 of national calls: `020 7946 0958`, `06 39 98 12 34`, `(030) 901820`, `0171/2345678`.
fn trunk(bytes: &[u8], groups: &[Group], opened: bool) -> bool {
    let first = &bytes[groups[0].start..groups[0].end];
    if first[0] != b'0' || first.get(1).is_none_or(|second| *second == b'0') || groups.len() < 2 {
        return false;
    }
    let total = count(groups);
    let rest = &groups[1..];
    let closes = rest[0].before == Separator::Closes;
    if opened != closes {
        return false;
    }
    let small = rest.iter().any(|group| group.len() < 2);
    // `030/90182`: the oldest numbers of large cities.
    let short = total == 8 && rest.len() == 1 && rest[0].before == Separator::Slash && known_area(first);
    if !(short || (9..=12).contains(&total)) || small || !(2..=5).contains(&first.len()) {
        return false;
    }
    let tail = rest.iter().skip(1).map(|group| group.before).collect::<Vec<_>>();
    let steady = tail.windows(2).all(|pair| pair[0] == pair[1])
        && tail
            .iter()
            .all(|separator| matches!(separator, Separator::Space | Separator::Dash | Separator::Dot));
    if !steady {
        return false;
    }
    match rest[0].before {
        Separator::Closes | Separator::Slash => true,
        // Five pairs, as in France; more pairs are a dump.
        Separator::Space | Separator::Dash | Separator::Dot if first.len() == 2 && rest[0].len() == 2 => {
            lengths(groups, &[2, 2, 2, 2, 2]) && uniform(groups, rest[0].before)
        }
        Separator::Dash => true,
        Separator::Dot => rest.len() >= 2 && total >= 10,
        Separator::Space if rest.len() == 1 => rest[0].len() >= 5 && known_area(first),
        Separator::Space => total >= 10 && rest.iter().all(|group| group.len() <= 6) || known_area(first),
        _ => false,
    }
}

/// Areas and mobile networks of numbers that are written in two groups without anything that tells them apart from others.
fn known_area(area: &[u8]) -> bool {
    const AREAS: [&[u8]; 16] = [
        b"030", b"040", b"069", b"089", b"0221", b"0211", b"0711", b"0511", b"0351", b"0341", b"0228", b"0201",
        b"0231", b"0911", b"020", b"06",
    ];
    AREAS.contains(&area)
        || area.len() == 4 && (area.starts_with(b"015") || area.starts_with(b"016") || area.starts_with(b"017"))
        || area.len() == 5 && area.starts_with(b"07")
}

/// Shapes of other countries that nothing else has.
fn other(bytes: &[u8], groups: &[Group]) -> bool {
    let first = bytes[groups[0].start];
    let is = |shape: &[usize], separators: &[Separator]| {
        lengths(groups, shape)
            && groups[1..]
                .iter()
                .map(|group| group.before)
                .eq(separators.iter().copied())
    };
    use Separator::{Closes, Dash, Opens, Space};
    let russian = first == b'8'
        && (is(&[1, 3, 3, 2, 2], &[Opens, Closes, Dash, Dash])
            || is(&[1, 3, 3, 2, 2], &[Dash; 4])
            || is(&[1, 3, 3, 2, 2], &[Space, Space, Dash, Dash])
            || is(&[1, 3, 3, 2, 2], &[Space; 4]));
    let brazilian = (is(&[2, 5, 4], &[Closes, Dash]) || is(&[2, 5, 4], &[Space, Dash]))
        && bytes[groups[1].start] == b'9'
        || is(&[2, 4, 4], &[Closes, Dash]);
    let chinese = first == b'1'
        && bytes[groups[0].start + 1..groups[0].end]
            .first()
            .is_some_and(|second| *second >= b'3')
        && (is(&[3, 4, 4], &[Dash; 2]) || is(&[3, 4, 4], &[Space; 2]));
    let spanish = matches!(first, b'6' | b'7' | b'9') && is(&[3, 2, 2, 2], &[Space; 3]);
    russian || brazilian || chinese || spanish
}

/// Whatever a word before calls a telephone number.
fn plain(bytes: &[u8], groups: &[Group], hint: Hint) -> bool {
    let total = count(groups);
    let named = hint.phone() || hint.call() && (10..=12).contains(&total);
    let all_same = |first: u8| digits(bytes, groups).all(|digit| digit == first);
    named
        && (7..=MAX_DIGITS).contains(&total)
        && groups.iter().skip(1).all(|group| group.before != Separator::Both)
        && !all_same(bytes[groups[0].start])
}

/// `2024-01-02`, `01.02.2024`: with or without a time behind.
fn is_date(bytes: &[u8], groups: &[Group]) -> bool {
    let value =
        |group: &Group| digits(bytes, std::slice::from_ref(group)).fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    let [a, b, c, ..] = groups else { return false };
    let same = b.before == c.before && matches!(b.before, Separator::Dash | Separator::Dot | Separator::Slash);
    let year = |group: &Group| group.len() == 4 && (1900..2100).contains(&value(group));
    let part = |group: &Group, most: u32| group.len() <= 2 && (1..=most).contains(&value(group));
    same && (year(a) && part(b, 12) && part(c, 31) || part(a, 31) && part(b, 31) && year(c))
}
