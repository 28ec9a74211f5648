//! National identification numbers: which there are, and their check digits.

macro_rules! schemes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A national identification number, as it is named in the configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, sluice_plugin::schemars::JsonSchema)]
        #[schemars(crate = "sluice_plugin::schemars")]
        pub enum Scheme { $($(#[doc = $doc])* #[serde(rename = $text)] $name,)* }

        impl Scheme {
            pub const ALL: &[Scheme] = &[$(Scheme::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Scheme::$name => $text,)* }
            }
        }
    };
}

schemes! {
    /// Social security number and ITIN of the United States
    UsSsn = "us_ssn",
    UkNino = "uk_nino",
    DeSteuerId = "de_steuer_id",
    DeAusweis = "de_ausweis",
    FrNir = "fr_nir",
    /// DNI and NIE
    EsDni = "es_dni",
    ItCodiceFiscale = "it_codice_fiscale",
    PlPesel = "pl_pesel",
    NlBsn = "nl_bsn",
    SePersonnummer = "se_personnummer",
    InAadhaar = "in_aadhaar",
    BrCpf = "br_cpf",
    CnResidentId = "cn_resident_id",
    FiHetu = "fi_hetu",
    ChAhv = "ch_ahv",
    ClRut = "cl_rut",
    SgNric = "sg_nric",
    BeNationalNumber = "be_national_number",
    TrTckn = "tr_tckn",
    CaSin = "ca_sin",
    NoFodselsnummer = "no_fodselsnummer",
    DkCpr = "dk_cpr",
    KrRrn = "kr_rrn",
    CzRodneCislo = "cz_rodne_cislo",
    MxCurp = "mx_curp",
    Passport = "passport",
}

impl Scheme {
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u64
    }
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(*digit))
}

fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits
        .iter()
        .zip(weights)
        .map(|(digit, weight)| u32::from(*digit) * weight)
        .sum()
}

fn same(digits: &[u8]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, doubled) => doubled / 2,
            (_, doubled @ 0..=9) => doubled,
            (_, doubled) => doubled - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_day(month: u64, day: u64) -> bool {
    (1..=12).contains(&month) && (1..=31).contains(&day)
}

/// Areas 000 and 666, group 00 and serial 0000 were never given out; 9xx are ITINs.
pub(crate) fn us_ssn(d: &[u8], itin: bool) -> bool {
    let (area, group, serial) = (number(&d[..3]), number(&d[3..5]), number(&d[5..]));
    area != 0 && area != 666 && (area < 900 || itin) && group != 0 && serial != 0
}

/// ISO 7064 mod 11,10; among the first ten digits exactly one occurs twice or three times.
pub(crate) fn de_steuer_id(d: &[u8]) -> bool {
    let mut counts = [0u8; 10];
    for digit in &d[..10] {
        counts[usize::from(*digit)] += 1;
    }
    let more = counts.iter().filter(|count| **count > 1).count();
    if d[0] == 0 || more != 1 || counts.iter().any(|count| *count > 3) {
        return false;
    }
    let product = d[..10].iter().fold(10u32, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(d[10])
}

/// The month carries the century: +80 for 18xx, +20 for 20xx and so on.
pub(crate) fn pl_pesel(d: &[u8]) -> bool {
    let sum = weighted(&d[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    is_day(number(&d[2..4]) % 20, number(&d[4..6])) && (10 - sum % 10) % 10 == u32::from(d[10])
}

pub(crate) fn br_cpf(d: &[u8]) -> bool {
    let check = |count: usize| {
        let sum: u32 = (0..count)
            .map(|place| u32::from(d[place]) * (count + 1 - place) as u32)
            .sum();
        sum * 10 % 11 % 10 == u32::from(d[count])
    };
    !same(d) && check(9) && check(10)
}

pub(crate) fn tr_tckn(d: &[u8]) -> bool {
    let odd: u32 = [0, 2, 4, 6, 8].iter().map(|place| u32::from(d[*place])).sum();
    let even: u32 = [1, 3, 5, 7].iter().map(|place| u32::from(d[*place])).sum();
    let first = (odd * 7 + 100 - even) % 10;
    d[0] != 0 && first == u32::from(d[9]) && (odd + even + first) % 10 == u32::from(d[10])
}

pub(crate) fn no_fodselsnummer(d: &[u8]) -> bool {
    let check = |weights: &[u32]| weighted(d, weights).is_multiple_of(11);
    is_day(number(&d[2..4]) % 40, number(&d[..2]) % 40)
        && check(&[3, 7, 6, 1, 8, 9, 4, 5, 2, 1])
        && check(&[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1])
}

pub(crate) fn be_national_number(d: &[u8]) -> bool {
    let (base, key) = (number(&d[..9]), number(&d[9..]));
    is_day(number(&d[2..4]), number(&d[4..6])) && (97 - base % 97 == key || 97 - (2_000_000_000 + base) % 97 == key)
}

pub(crate) fn nl_bsn(d: &[u8]) -> bool {
    let sum = weighted(&d[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum > 0 && sum % 11 == u32::from(d[8])
}

/// YYMMDDNNNC, the day plus 60 for coordination numbers.
pub(crate) fn se_personnummer(d: &[u8]) -> bool {
    is_day(number(&d[2..4]), number(&d[4..6]) % 60) && luhn(d)
}

pub(crate) fn dk_cpr(d: &[u8]) -> bool {
    is_day(number(&d[2..4]), number(&d[..2]))
}

/// YYMMDDXXXX; women have 50 more in the month.
pub(crate) fn cz_rodne_cislo(d: &[u8]) -> bool {
    is_day(number(&d[2..4]) % 50 % 20, number(&d[4..6])) && number(d).is_multiple_of(11)
}

pub(crate) fn kr_rrn(d: &[u8]) -> bool {
    is_day(number(&d[2..4]), number(&d[4..6])) && (1..=8).contains(&d[6])
}

pub(crate) fn kr_check(d: &[u8]) -> bool {
    let sum = weighted(&d[..12], &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]);
    (11 - sum % 11) % 10 == u32::from(d[12])
}

pub(crate) fn in_aadhaar(d: &[u8]) -> bool {
    d[0] >= 2 && !same(d) && verhoeff(d)
}

/// The dihedral group of order ten and its permutation.
fn verhoeff(digits: &[u8]) -> bool {
    const PERMUTATION: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    let multiply = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let check = |sum, (place, digit): (usize, &u8)| multiply(sum, PERMUTATION[place % 8][usize::from(*digit)]);
    digits.iter().rev().enumerate().fold(0, check) == 0
}

/// EAN-13 of the country 756.
pub(crate) fn ch_ahv(d: &[u8]) -> bool {
    d[..3] == [7, 5, 6] && weighted(d, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10)
}

/// Sex, year, month (20 and more where unknown), place, order and key.
pub(crate) fn fr_nir(d: &[u8]) -> bool {
    let month = number(&d[3..5]);
    matches!(d[0], 1 | 2)
        && ((1..=12).contains(&month) || (20..=42).contains(&month) || month >= 50)
        && 97 - number(&d[..13]) % 97 == number(&d[13..])
}

/// 17 digits with a date of birth; the check is a digit or `X`, here 10.
pub(crate) fn cn_resident_id(d: &[u8], check: u8) -> bool {
    let sum = weighted(&d[..17], &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    (1900..2100).contains(&number(&d[6..10]))
        && is_day(number(&d[10..12]), number(&d[12..14]))
        && (12 - sum % 11) % 11 == u32::from(check)
}

pub(crate) fn cl_rut(d: &[u8], check: u8) -> bool {
    let sum: u32 = d
        .iter()
        .rev()
        .zip((2..=7).cycle())
        .map(|(digit, weight)| u32::from(*digit) * weight)
        .sum();
    let expected = match 11 - sum % 11 {
        11 => b'0',
        10 => b'K',
        rest => b'0' + rest as u8,
    };
    check.to_ascii_uppercase() == expected
}

fn value(byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        b'a'..=b'z' => u32::from(byte - b'a') + 10,
        _ => 0,
    }
}

fn digits_of(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// Two letters, six digits and a letter without spaces. `QQ` is the example of the forms, and no valid prefix.
pub(crate) fn uk_nino(w: &[u8]) -> bool {
    let first = |byte: u8| byte.is_ascii_uppercase() && !b"DFIQUV".contains(&byte);
    let second = |byte: u8| byte.is_ascii_uppercase() && !b"DFIOQUV".contains(&byte);
    let refused = [*b"BG", *b"GB", *b"KN", *b"NK", *b"NT", *b"TN", *b"ZZ"];
    w.len() == 9
        && (first(w[0]) && second(w[1]) && !refused.iter().any(|no| no == &w[..2]) || &w[..2] == b"QQ")
        && digits_of(&w[2..8]).is_some()
        && (b'A'..=b'D').contains(&w[8])
}

/// Eight digits and a letter, or X, Y or Z, seven digits and a letter, without dots and dashes.
pub(crate) fn es_dni(w: &[u8]) -> bool {
    if w.len() != 9 {
        return false;
    }
    let base = match w[0] {
        b'X' | b'Y' | b'Z' => digits_of(&w[1..8]).map(|rest| u64::from(w[0] - b'X') * 10_000_000 + rest),
        _ => digits_of(&w[..8]),
    };
    base.is_some_and(|base| b"TRWAGMYFPDXBNJZSQVHLCKE"[(base % 23) as usize] == w[8])
}

/// Of the kinds S, T (citizens), F, G and M (foreigners).
pub(crate) fn sg_nric(w: &[u8]) -> bool {
    if w.len() != 9 || digits_of(&w[1..8]).is_none() {
        return false;
    }
    let sum: u32 = w[1..8]
        .iter()
        .zip([2, 7, 6, 5, 4, 3, 2])
        .map(|(byte, weight)| value(*byte) * weight)
        .sum();
    let (offset, letters) = match w[0] {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        b'G' => (4, b"XWUTRQPNMLK"),
        b'M' => (3, b"XWUTRQPNJLK"),
        _ => return false,
    };
    letters[((sum + offset) % 11) as usize] == w[8]
}

/// Six letters, year, month, day, place and a check letter; digits may be written as letters where two people would
/// have the same code.
pub(crate) fn it_codice_fiscale(w: &[u8]) -> bool {
    const SHAPE: &[u8; 16] = b"LLLLLLDDMDDLDDDL";
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23,
    ];
    if w.len() != 16 {
        return false;
    }
    let mut sum = 0;
    for (place, (byte, shape)) in w.iter().zip(SHAPE).enumerate() {
        let byte = byte.to_ascii_uppercase();
        let fits = match shape {
            b'L' => byte.is_ascii_uppercase(),
            b'M' => b"ABCDEHLMPRST".contains(&byte),
            _ => byte.is_ascii_digit() || b"LMNPQRSTUV".contains(&byte),
        };
        if !fits {
            return false;
        }
        let order = if byte.is_ascii_digit() {
            byte - b'0'
        } else {
            byte - b'A'
        };
        sum += match place {
            15 => return sum % 26 == u32::from(order),
            place if place % 2 == 0 => ODD[usize::from(order)],
            _ => u32::from(order),
        };
    }
    false
}

pub(crate) fn mx_curp(w: &[u8]) -> bool {
    if w.len() != 18
        || !w[..4].iter().all(u8::is_ascii_uppercase)
        || !matches!(w[10], b'H' | b'M' | b'X')
        || !w[11..16].iter().all(u8::is_ascii_uppercase)
    {
        return false;
    }
    let Some(date) = digits_of(&w[4..10]) else { return false };
    // The alphabet has Ñ between N and O.
    let value = |byte: u8| value(byte) + u32::from(byte > b'N' && byte.is_ascii_uppercase());
    let sum: u32 = w[..17]
        .iter()
        .zip((2..=18).rev())
        .map(|(byte, weight)| value(*byte) * weight)
        .sum();
    is_day(date / 100 % 100, date % 100) && (10 - sum % 10) % 10 == value(w[17])
}

/// Six digits, a sign of the century, three digits and a check character.
pub(crate) fn fi_hetu(w: &[u8]) -> bool {
    if w.len() != 11 || !matches!(w[6], b'-' | b'+' | b'A'..=b'F' | b'U'..=b'Y') {
        return false;
    }
    let (Some(date), Some(rest)) = (digits_of(&w[..6]), digits_of(&w[7..10])) else {
        return false;
    };
    is_day(date / 100 % 100, date / 10_000)
        && b"0123456789ABCDEFHJKLMNPRSTUVWXY"[((date * 1000 + rest) % 31) as usize] == w[10]
}

/// Nine characters without vowels and a check digit.
pub(crate) fn de_ausweis(w: &[u8]) -> bool {
    let sum: u32 = w
        .iter()
        .take(9)
        .zip([7, 3, 1].iter().cycle())
        .map(|(byte, weight)| value(*byte) * weight)
        .sum();
    w.len() == 10
        && w[..9]
            .iter()
            .all(|byte| byte.is_ascii_digit() || b"CFGHJKLMNPRTVWXYZ".contains(byte))
        && w[0].is_ascii_uppercase()
        && sum % 10 == value(w[9])
        && w[9].is_ascii_digit()
}

/// 13 characters with 2A or 2B as the place, and the key.
pub(crate) fn corsican_nir(w: &[u8]) -> bool {
    if w.len() != 15 || w[5] != b'2' || !matches!(w[6], b'A' | b'B') {
        return false;
    }
    let mut digits = [0u8; 15];
    for (digit, byte) in digits.iter_mut().zip(w) {
        *digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => 0,
        };
    }
    (digits[5], digits[6]) = if w[6] == b'A' { (1, 9) } else { (1, 8) };
    w.iter()
        .enumerate()
        .all(|(place, byte)| place == 6 || byte.is_ascii_digit())
        && fr_nir(&digits)
}
