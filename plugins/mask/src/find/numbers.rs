//! Decides what a run of digits is: an address, a card, a national number, a telephone number, or nothing.

use std::cell::Cell;
use std::ops::Range;

use super::classes::Classes;
use super::ids::{self, Scheme};
use super::run::{Digits, Group, Separator, Splitter};
use super::words::Hint;
use super::{card, edge, ip, phone};
use crate::kind::{Found, Kind};
use crate::number;

/// Which national numbers are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schemes(pub u64);

impl Schemes {
    pub(crate) fn has(self, scheme: Scheme) -> bool {
        self.0 & scheme.bit() != 0
    }
}

/// Groups that a number may have and what stands behind it: the longest has 19 digits, each perhaps a group.
const AHEAD: usize = 24;

#[derive(Debug, Default)]
pub(crate) struct Numbers {
    groups: Vec<Group>,
}

impl Numbers {
    /// Hands over what stands in one run, in order; `found` answers false to end it.
    pub(crate) fn find(
        &mut self,
        classes: &Classes,
        text: &str,
        run: Range<usize>,
        key: Hint,
        schemes: Schemes,
        mut found: impl FnMut(Found) -> bool,
    ) {
        let bytes = text.as_bytes();
        let mut splitter = Splitter::new(run);
        self.groups.clear();
        let mut first = 0;
        loop {
            // A few groups ahead and one behind are enough, so a long list of numbers takes no memory.
            if self.groups.len() < first + AHEAD {
                let passed = first.saturating_sub(1);
                self.groups.drain(..passed);
                first -= passed;
                splitter.split(classes, bytes, 4 * AHEAD, &mut self.groups);
            }
            if first >= self.groups.len() {
                return;
            }
            let groups = &self.groups[first..];
            match identify(
                text,
                groups,
                first.checked_sub(1).map(|at| self.groups[at]),
                key,
                schemes,
            ) {
                Some((found_here, count)) => {
                    if !found(found_here) {
                        return;
                    }
                    first += count;
                }
                None => first += 1,
            }
        }
    }
}

/// The card that some programs write as `4.111111111111111e+15`; the run ends with the digits before the `e`.
pub(crate) fn scientific(text: &str, run: Range<usize>) -> Option<Found> {
    let bytes = text.as_bytes();
    if !matches!(bytes.get(run.end), Some(b'e' | b'E')) {
        return None;
    }
    let before = bytes[run.clone()].iter().rev();
    let fraction = before.take_while(|byte| byte.is_ascii_digit()).count();
    let start = run.end.checked_sub(fraction + 2).filter(|start| *start >= run.start)?;
    let sign = run.end + 1 + usize::from(matches!(bytes.get(run.end + 1), Some(b'+')));
    let end = sign
        + bytes
            .get(sign..)?
            .iter()
            .take(3)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
    let shaped = bytes[start].is_ascii_digit() && bytes[start + 1] == b'.';
    if !shaped || end == sign || !edge::begins(bytes, start) || !edge::ends(bytes, end) {
        return None;
    }
    let digits: Vec<u8> = number::whole(&text[start..end])?
        .bytes()
        .map(|digit| digit - b'0')
        .collect();
    card::is_card(&digits).then_some(Found {
        start,
        end,
        kind: Kind::Card,
    })
}

/// What begins with the first of these groups, and how many groups it takes.
fn identify(
    text: &str,
    groups: &[Group],
    previous: Option<Group>,
    key: Hint,
    schemes: Schemes,
) -> Option<(Found, usize)> {
    let bytes = text.as_bytes();
    let start = groups[0].start;
    if deep_in_word(bytes, start) {
        return None;
    }
    if alone(bytes, groups) {
        return None;
    }
    let whole = |kind: Kind, count: usize| {
        (
            Found {
                start,
                end: groups[count - 1].end,
                kind,
            },
            count,
        )
    };
    let known = Cell::new(None);
    let hint = || {
        let hint = known.get().unwrap_or_else(|| Hint::before(text, start, key));
        known.set(Some(hint));
        hint
    };

    if ip::v4_shaped(bytes, groups) {
        let is_address = ip::is_v4(bytes, groups, previous, &hint);
        return is_address.then(|| whole(Kind::Ip, 4));
    }
    if let Some(found) = word_around(text, groups, &hint, schemes) {
        return Some(found);
    }
    if let Some(count) = card::of_groups(bytes, groups)
        && !hint().counter()
    {
        return Some(whole(Kind::Card, count));
    }
    if let Some((range, count)) = national(text, groups, &hint, schemes) {
        return Some((
            Found {
                start: range.start,
                end: range.end,
                kind: Kind::NationalId,
            },
            count,
        ));
    }
    let glued = previous.is_some_and(|previous| glued(previous, groups, bytes));
    if glued {
        return None;
    }
    let phone = phone::of_groups(bytes, groups, hint)?;
    let end = groups[phone.groups - 1].end;
    Some((
        Found {
            start: phone.start,
            end,
            kind: Kind::Phone,
        },
        phone.groups,
    ))
}

/// Whether these are fewer digits than any number has, with no letter beside them.
fn alone(bytes: &[u8], groups: &[Group]) -> bool {
    /// Those of a NINO; of an address there are four groups.
    const LEAST: usize = 6;
    let mut digits = groups[0].len();
    for (place, group) in groups.iter().enumerate().skip(1) {
        if digits >= LEAST || place >= 3 {
            return false;
        }
        if group.before == Separator::Far {
            break;
        }
        digits += group.len();
    }
    let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let before = groups[0].start.checked_sub(1).map(|at| &bytes[at]);
    digits < LEAST && !word(before) && !word(bytes.get(groups[0].end))
}

/// Whether so much of a word stands right before that no number begins here, nor a letter or four earlier.
fn deep_in_word(bytes: &[u8], start: usize) -> bool {
    /// The letters of a NIR of Corsica and the like, and one more.
    const LETTERS: usize = 5;
    /// Of an escape that may end within these letters.
    const ESCAPE: usize = 6;
    let Some(letters) = start.checked_sub(LETTERS) else {
        return false;
    };
    bytes[letters..start].iter().all(u8::is_ascii_alphanumeric)
        && !bytes[letters.saturating_sub(ESCAPE)..letters].contains(&b'\\')
}

/// Whether the number goes on from the group before, so that it does not begin here.
fn glued(previous: Group, groups: &[Group], bytes: &[u8]) -> bool {
    match groups[0].before {
        Separator::Dash | Separator::Dot | Separator::Slash => true,
        // Pairs in a row are a dump or a table.
        Separator::Space => previous.len() == groups[0].len() && previous.len() <= 4 && bytes[groups[0].start] != b'+',
        _ => false,
    }
}

/// Numbers with letters right beside the digits: `AB123456C`, `12345678Z`, `X1234567L`, `131052-308T`, `1101051949123100 2X`.
fn word_around(text: &str, groups: &[Group], hint: &impl Fn() -> Hint, schemes: Schemes) -> Option<(Found, usize)> {
    let bytes = text.as_bytes();
    let first = groups[0];
    let before = bytes[..first.start]
        .iter()
        .rev()
        .take(4)
        .take_while(|byte| byte.is_ascii_alphanumeric())
        .count();
    let behind = bytes[first.end..]
        .iter()
        .take(9)
        .take_while(|byte| byte.is_ascii_alphanumeric())
        .count();
    let dashed_end = bytes.get(first.end).is_some_and(|byte| matches!(byte, b'-' | b'+'));
    if before == 0 && behind == 0 && !dashed_end {
        return None;
    }
    let (start, end) = (first.start - before, first.end + behind);
    let national = |start, end, count| {
        Some((
            Found {
                start,
                end,
                kind: Kind::NationalId,
            },
            count,
        ))
    };
    if edge::begins(bytes, start) && edge::ends(bytes, end) {
        let word = &bytes[start..end];
        let scheme = word_scheme(word);
        if scheme.is_some_and(|scheme| schemes.has(scheme)) && !hint().against() {
            return national(start, end, 1);
        }
        // Passports have no check digit.
        if schemes.has(Scheme::Passport)
            && (7..=9).contains(&word.len())
            && word[0].is_ascii_uppercase()
            && word[1..]
                .iter()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            && Hint::before(text, start, hint()).exactly(Scheme::Passport)
        {
            return national(start, end, 1);
        }
    }
    if before == 0 && first.len() == 6 && edge::begins(bytes, first.start) && schemes.has(Scheme::FiHetu) {
        let end = first.start + 11;
        if bytes.get(first.start..end).is_some_and(ids::fi_hetu) && edge::ends(bytes, end) && !hint().against() {
            let count = if bytes[first.end].is_ascii_alphabetic() || groups.len() < 2 {
                1
            } else {
                2
            };
            return national(first.start, end, count);
        }
    }
    None
}

fn word_scheme(word: &[u8]) -> Option<Scheme> {
    match word.len() {
        9 if ids::es_dni(word) => Some(Scheme::EsDni),
        9 if ids::uk_nino(word) => Some(Scheme::UkNino),
        9 if ids::sg_nric(word) => Some(Scheme::SgNric),
        10 if word[0] == b'T' && ids::de_ausweis(word) => Some(Scheme::DeAusweis),
        15 if ids::corsican_nir(word) => Some(Scheme::FrNir),
        18 if matches!(word[17], b'X' | b'x') => {
            let mut digits = [0; 17];
            for (digit, byte) in digits.iter_mut().zip(word) {
                if !byte.is_ascii_digit() {
                    return None;
                }
                *digit = byte - b'0';
            }
            ids::cn_resident_id(&digits, 10).then_some(Scheme::CnResidentId)
        }
        _ => None,
    }
}

/// National numbers of digits only, but for letters at their ends. Longest first.
fn national(text: &str, groups: &[Group], hint: &impl Fn() -> Hint, schemes: Schemes) -> Option<(Range<usize>, usize)> {
    let bytes = text.as_bytes();
    let start = groups[0].start;
    if let Some(found) = with_letters(bytes, groups, hint, schemes) {
        return Some(found);
    }
    if !starts_free(bytes, start) {
        return None;
    }
    let mut total = 0;
    let mut best = None;
    for (place, group) in groups.iter().enumerate().take(7) {
        if place > 0 && group.before == Separator::Far {
            break;
        }
        total += group.len();
        if total > 18 {
            break;
        }
        let here = &groups[..=place];
        if total >= 9
            && ends_free(bytes, group.end)
            && let Some(digits) = Digits::of(bytes, here)
            && plausible(digits.get(), here, hint, schemes)
        {
            best = Some((start..group.end, place + 1));
        }
    }
    best
}

fn starts_free(bytes: &[u8], start: usize) -> bool {
    edge::begins(bytes, start)
        && match start.checked_sub(1).map(|at| bytes[at]) {
            Some(b'-' | b'.' | b'/') => start < 2 || !bytes[start - 2].is_ascii_alphanumeric(),
            Some(b'+') => false,
            _ => true,
        }
}

fn ends_free(bytes: &[u8], end: usize) -> bool {
    edge::ends(bytes, end)
        && match bytes.get(end) {
            Some(b'-' | b'.' | b'/') => {
                !bytes.get(end + 1).is_some_and(u8::is_ascii_alphanumeric) || edge::zero_fraction(bytes, end)
            }
            _ => true,
        }
}

/// Whether these digits in these groups are a number that somebody has. What has no check digit needs the word before.
fn plausible(d: &[u8], groups: &[Group], hint: &impl Fn() -> Hint, schemes: Schemes) -> bool {
    use Separator::{Dash, Dot, Slash, Space};
    let bare = groups.len() == 1;
    let shape = |lengths: &[usize], separators: &[&[Separator]]| {
        groups.iter().map(Group::len).eq(lengths.iter().copied())
            && groups[1..]
                .iter()
                .zip(separators)
                .all(|(group, allowed)| allowed.contains(&group.before))
    };
    let any: &[Separator] = &[Space, Dash];
    let on = |scheme: Scheme| schemes.has(scheme);
    // Found without a word; a word against it counts.
    let free = |scheme: Scheme, passes: bool| on(scheme) && passes && !hint().against();
    match d.len() {
        9 => {
            let ssn = shape(&[3, 2, 4], &[any, any]);
            let dashed = shape(&[3, 2, 4], &[&[Dash], &[Dash]]);
            free(Scheme::UsSsn, dashed && ids::us_ssn(d, false) && !hint().doubtful())
                || on(Scheme::UsSsn) && (bare || ssn) && hint().exactly(Scheme::UsSsn) && ids::us_ssn(d, true)
                || on(Scheme::NlBsn)
                    && (bare || shape(&[4, 2, 3], &[&[Dot, Space], &[Dot, Space]]) || shape(&[3, 3, 3], &[any, any]))
                    && hint().id(Scheme::NlBsn)
                    && ids::nl_bsn(d)
                || on(Scheme::CaSin)
                    && (bare || shape(&[3, 3, 3], &[any, any]))
                    && hint().id(Scheme::CaSin)
                    && ids::luhn(d)
                || on(Scheme::Passport) && bare && hint().exactly(Scheme::Passport)
        }
        10 => {
            let dashed = shape(&[6, 4], &[&[Dash]]);
            free(Scheme::SePersonnummer, dashed && ids::se_personnummer(d))
                || on(Scheme::SePersonnummer) && bare && hint().id(Scheme::SePersonnummer) && ids::se_personnummer(d)
                || free(
                    Scheme::CzRodneCislo,
                    shape(&[6, 4], &[&[Slash]]) && ids::cz_rodne_cislo(d),
                )
                || on(Scheme::CzRodneCislo) && bare && hint().exactly(Scheme::CzRodneCislo) && ids::cz_rodne_cislo(d)
                || on(Scheme::DkCpr) && (bare || dashed) && hint().exactly(Scheme::DkCpr) && ids::dk_cpr(d)
        }
        11 => {
            let thirds = shape(&[2, 3, 3, 3], &[&[Space], &[Space], &[Space]]);
            free(Scheme::DeSteuerId, (bare || thirds) && ids::de_steuer_id(d))
                // By its name also one that was mistyped.
                || on(Scheme::DeSteuerId) && (bare || thirds) && d[0] != 0 && hint().exactly(Scheme::DeSteuerId)
                || free(Scheme::PlPesel, bare && ids::pl_pesel(d))
                || free(
                    Scheme::BrCpf,
                    (bare || shape(&[3, 3, 3, 2], &[&[Dot], &[Dot], &[Dash, Slash]])) && ids::br_cpf(d),
                )
                || free(Scheme::TrTckn, bare && ids::tr_tckn(d))
                || free(
                    Scheme::NoFodselsnummer,
                    (bare || shape(&[6, 5], &[any])) && ids::no_fodselsnummer(d),
                )
                || free(
                    Scheme::BeNationalNumber,
                    (bare || shape(&[2, 2, 2, 3, 2], &[&[Dot], &[Dot], &[Dash, Dot], &[Dot]]))
                        && ids::be_national_number(d),
                )
        }
        12 => {
            let dated = matches!(d[0] * 10 + d[1], 18..=20) && ids::se_personnummer(&d[2..]);
            free(Scheme::SePersonnummer, shape(&[8, 4], &[&[Dash]]) && dated)
                || on(Scheme::SePersonnummer) && bare && hint().exactly(Scheme::SePersonnummer) && dated
                || free(Scheme::InAadhaar, shape(&[4, 4, 4], &[any, any]) && ids::in_aadhaar(d))
                || on(Scheme::InAadhaar) && bare && hint().id(Scheme::InAadhaar) && ids::in_aadhaar(d)
        }
        13 => {
            free(
                Scheme::ChAhv,
                (bare || shape(&[3, 4, 4, 2], &[&[Dot], &[Dot], &[Dot]])) && ids::ch_ahv(d),
            ) || on(Scheme::KrRrn)
                && (bare || shape(&[6, 7], &[&[Dash]]))
                && ids::kr_rrn(d)
                && (hint().exactly(Scheme::KrRrn) || !bare && ids::kr_check(d) && !hint().against())
        }
        15 => {
            let spaced = groups[1..].iter().all(|group| group.before == Space)
                && [&[1, 2, 2, 2, 3, 3, 2][..], &[13, 2], &[1, 2, 2, 5, 3, 2], &[1, 4, 8, 2]]
                    .iter()
                    .any(|shape| groups.iter().map(Group::len).eq(shape.iter().copied()));
            free(Scheme::FrNir, (bare || spaced) && ids::fr_nir(d))
        }
        18 => free(Scheme::CnResidentId, bare && ids::cn_resident_id(&d[..17], d[17])),
        _ => false,
    }
}

/// `AB 12 34 56 C`, `12.345.678-Z`, `12.345.678-5`, `12345678-Z`, `Z-1234567-R`.
fn with_letters(
    bytes: &[u8],
    groups: &[Group],
    hint: &impl Fn() -> Hint,
    schemes: Schemes,
) -> Option<(Range<usize>, usize)> {
    let start = groups[0].start;
    let lengths = |shape: &[usize], separator: Separator| {
        groups.len() >= shape.len()
            && groups.iter().zip(shape).all(|(group, length)| group.len() == *length)
            && groups[1..shape.len()].iter().all(|group| group.before == separator)
    };
    if schemes.has(Scheme::UkNino)
        && let Some((range, count)) = spaced_nino(bytes, groups, lengths(&[2, 2, 2], Separator::Space))
        && !hint().against()
    {
        return Some((range, count));
    }
    let dotted = lengths(&[2, 3, 3], Separator::Dot) || lengths(&[1, 3, 3], Separator::Dot);
    let (count, end) = match dotted {
        true => (3, groups[2].end),
        false => (1, groups[0].end),
    };
    if bytes.get(end) != Some(&b'-') || !edge::ends(bytes, end + 2) {
        return None;
    }
    let check = *bytes.get(end + 1)?;
    let digits = Digits::of(bytes, &groups[..count])?;
    let d = digits.get();
    if schemes.has(Scheme::EsDni) && check.is_ascii_uppercase() {
        let mut word = [b'0'; 9];
        word[8] = check;
        let foreign = d.len() == 7 && start >= 2 && bytes[start - 1] == b'-' && edge::begins(bytes, start - 2);
        let place = usize::from(foreign);
        if foreign {
            word[0] = bytes[start - 2];
        }
        if d.len() + place == 8 {
            for (to, digit) in word[place..8].iter_mut().zip(d) {
                *to = digit + b'0';
            }
            if (foreign || starts_free(bytes, start)) && ids::es_dni(&word) && !hint().against() {
                return Some((start - 2 * place..end + 2, count));
            }
        }
    }
    let rut = schemes.has(Scheme::ClRut)
        && (7..=8).contains(&d.len())
        && starts_free(bytes, start)
        && (dotted || hint().exactly(Scheme::ClRut))
        && ids::cl_rut(d, check)
        && !hint().against();
    // The check digit is a group of the run, the letter K is not.
    rut.then(|| (start..end + 2, count + usize::from(check.is_ascii_digit())))
}

/// `AB 12 34 56 C` and `AB 123456 C`.
fn spaced_nino(bytes: &[u8], groups: &[Group], pairs: bool) -> Option<(Range<usize>, usize)> {
    let count = if pairs { 3 } else { 1 };
    let (start, end) = (groups[0].start.checked_sub(3)?, groups[count - 1].end);
    let last = end + usize::from(bytes.get(end) == Some(&b' '));
    let digits = Digits::of(bytes, &groups[..count])?;
    if bytes[start + 2] != b' '
        || digits.get().len() != 6
        || !edge::begins(bytes, start)
        || !edge::ends(bytes, last + 1)
    {
        return None;
    }
    let mut word = [0; 9];
    word[..2].copy_from_slice(&bytes[start..start + 2]);
    for (to, digit) in word[2..8].iter_mut().zip(digits.get()) {
        *to = digit + b'0';
    }
    word[8] = *bytes.get(last)?;
    ids::uk_nino(&word).then_some((start..last + 1, count))
}
