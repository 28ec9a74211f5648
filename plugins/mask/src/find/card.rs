//! Payment cards: 12 to 19 digits with a prefix and a length that issuers use and a right Luhn digit. A chance number
//! passes Luhn one time in ten; prefix and length spare most of the rest, and all time stamps, which begin with 1.

use super::edge;
use super::ids::luhn;
use super::run::{Digits, Group, MAX_DIGITS, Separator};

pub(crate) const MIN_DIGITS: usize = 13;

/// How many groups from the first on are a card.
pub(crate) fn of_groups(bytes: &[u8], groups: &[Group]) -> Option<usize> {
    let start = groups[0].start;
    if !free_before(bytes, start) {
        return None;
    }
    let mut count = 0;
    let mut best = None;
    for (last, group) in groups.iter().enumerate() {
        count += group.len();
        if count > MAX_DIGITS || last > 0 && (group.before == Separator::Far || group.before != groups[1].before) {
            break;
        }
        if count >= MIN_DIGITS
            && shaped(&groups[..=last])
            && bounded(bytes, &groups[..=last])
            && Digits::of(bytes, &groups[..=last]).is_some_and(|digits| is_card(digits.get()))
        {
            best = Some(last + 1);
        }
    }
    best
}

/// Groups as they are printed on cards, 4-4-4-4 or 4-6-5 and the like; a list of small numbers is none.
fn shaped(groups: &[Group]) -> bool {
    let Some((last, between)) = groups[1..].split_last() else {
        return true;
    };
    groups[0].len() == 4
        && between.iter().all(|group| (4..=7).contains(&group.len()))
        && last.len() <= 7
        && match last.before {
            Separator::Space | Separator::Dash => true,
            Separator::Dot => between.len() == 2 && last.len() == 4,
            _ => false,
        }
}

/// Whether the number ends here, and is no part of a longer one written with dashes, such as a UUID.
fn bounded(bytes: &[u8], groups: &[Group]) -> bool {
    let (start, end) = (groups[0].start, groups[groups.len() - 1].end);
    let dashed = groups.len() > 1 && groups[1].before == Separator::Dash;
    let glued = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if dashed
        && (bytes.get(end) == Some(&b'-') && glued(bytes.get(end + 1))
            || start >= 2 && bytes[start - 1] == b'-' && glued(bytes.get(start - 2)))
    {
        return false;
    }
    free_behind(bytes, end)
}

/// Not the rest of a word, a fraction or a telephone number.
fn free_before(bytes: &[u8], start: usize) -> bool {
    edge::begins(bytes, start)
        && match start.checked_sub(1).map(|at| bytes[at]) {
            Some(b'.') => start < 2 || !bytes[start - 2].is_ascii_digit(),
            Some(b'+') => false,
            _ => true,
        }
}

fn free_behind(bytes: &[u8], end: usize) -> bool {
    let fraction = bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
    edge::ends(bytes, end) && (!fraction || edge::zero_fraction(bytes, end))
}

pub(crate) fn is_card(digits: &[u8]) -> bool {
    digits.len() >= MIN_DIGITS && issued(digits) && luhn(digits) && !(digits.len() == 13 && is_article(digits))
}

/// The number of an article (EAN), with its own check digit. Cards of 13 digits are no longer issued.
fn is_article(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(place, digit)| u32::from(*digit) * [1, 3][place % 2])
        .sum();
    sum.is_multiple_of(10)
}

/// Prefixes and lengths that issuers use.
fn issued(digits: &[u8]) -> bool {
    let prefix = digits
        .iter()
        .take(4)
        .fold(0, |number, digit| number * 10 + u16::from(*digit));
    let count = digits.len();
    match prefix {
        // Mir, Mastercard.
        2200..=2204 => (16..=19).contains(&count),
        2221..=2720 => count == 16,
        // Diners Club, JCB, American Express.
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=19).contains(&count),
        3528..=3589 => (16..=19).contains(&count),
        3400..=3499 | 3700..=3799 => count == 15,
        // Visa.
        4000..=4999 => matches!(count, 13 | 16 | 19),
        5100..=5599 => count == 16,
        // Maestro, Discover, UnionPay, RuPay.
        5000..=5099 | 5600..=6999 => (13..=19).contains(&count),
        _ => false,
    }
}
