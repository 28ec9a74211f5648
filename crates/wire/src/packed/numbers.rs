//! Whole numbers and doubles in as few bytes as their range or their steps need, byte planes apart so that zstd sees what repeats.

use super::bytes::{ENDS_EARLY, Malformed, Reader, put_zigzag, unzigzag, zigzag};

const SAME: u8 = 0;
const OFFSETS: u8 = 1;
const STEPS: u8 = 2;
const DECIMALS: u8 = 0;
const BITS: u8 = 1;
/// Decimal digits behind the point up to which a double is looked at as a decimal. A power of ten up to 10^15 and every number below
/// 2^53 are doubles exactly, so the division gives back what was divided.
const MAX_DIGITS: usize = 15;
/// More are not tried when packing: beyond it doubles are rarely decimals.
const TRIED_DIGITS: usize = 6;
const EXACT: f64 = 9_007_199_254_740_992.0;
const POWERS: [f64; MAX_DIGITS + 1] = [
    1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: &[i64]) {
    let Some(&first) = numbers.first() else { return };
    let (mut least, mut offset_cost, mut step_cost, mut widest_step) = (first, 0u64, 0u64, 0u64);
    let mut before = first;
    for &number in numbers {
        let step = zigzag(number.wrapping_sub(before));
        widest_step |= step;
        step_cost += u64::from(64 - step.leading_zeros());
        least = least.min(number);
        before = number;
    }
    if widest_step == 0 {
        out.push(SAME);
        return put_zigzag(out, first);
    }
    let mut widest_offset = 0u64;
    for &number in numbers {
        let offset = number.wrapping_sub(least) as u64;
        widest_offset |= offset;
        offset_cost += u64::from(64 - offset.leading_zeros());
    }
    let (offset_width, step_width) = (width(widest_offset), width(widest_step));
    // Planes of high bytes that are mostly zero cost next to nothing, so the bits count, not the planes.
    if step_cost + 2 * step_cost / 16 < offset_cost && step_width <= offset_width {
        out.push(STEPS);
        put_zigzag(out, first);
        let steps = numbers.windows(2).map(|pair| zigzag(pair[1].wrapping_sub(pair[0])));
        put_planes(out, steps, numbers.len() - 1, step_width);
    } else {
        out.push(OFFSETS);
        put_zigzag(out, least);
        let offsets = numbers.iter().map(|number| number.wrapping_sub(least) as u64);
        put_planes(out, offsets, numbers.len(), offset_width);
    }
}

fn width(bits: u64) -> usize {
    ((64 - bits.leading_zeros()) as usize).div_ceil(8).max(1)
}

fn put_planes(out: &mut Vec<u8>, values: impl Iterator<Item = u64>, n: usize, width: usize) {
    out.push(width as u8);
    let start = out.len();
    out.resize(start + n * width, 0);
    let planes = &mut out[start..];
    for (i, value) in values.enumerate() {
        for (plane, byte) in value.to_le_bytes().iter().take(width).enumerate() {
            planes[plane * n + i] = *byte;
        }
    }
}

/// Numbers as they lie in the packed bytes, one after the other; nothing is allocated for them.
#[derive(Clone, Debug)]
pub(super) struct Numbers<'a> {
    form: Form<'a>,
    at: usize,
    n: usize,
    last: i64,
}

#[derive(Clone, Debug)]
enum Form<'a> {
    Same,
    Offsets { width: usize, planes: &'a [u8] },
    Steps { width: usize, planes: &'a [u8] },
}

impl<'a> Numbers<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, n: usize) -> Result<Self, Malformed> {
        let all = |form, last| Self { form, at: 0, n, last };
        if n == 0 {
            return Ok(all(Form::Same, 0));
        }
        let form = reader.byte()?;
        let base = reader.zigzag()?;
        match form {
            SAME => Ok(all(Form::Same, base)),
            OFFSETS => {
                let (width, planes) = read_planes(reader, n)?;
                Ok(all(Form::Offsets { width, planes }, base))
            }
            STEPS => {
                let (width, planes) = read_planes(reader, n - 1)?;
                Ok(all(Form::Steps { width, planes }, base))
            }
            _ => Err(Malformed("numbers are packed in an unknown way")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.n
    }
}

fn read_planes<'a>(reader: &mut Reader<'a>, n: usize) -> Result<(usize, &'a [u8]), Malformed> {
    let width = usize::from(reader.byte()?);
    if !(1..=8).contains(&width) {
        return Err(Malformed("numbers have a width that is none"));
    }
    Ok((width, reader.take(n.checked_mul(width).ok_or(ENDS_EARLY)?)?))
}

#[inline]
fn gather(planes: &[u8], width: usize, n: usize, i: usize) -> u64 {
    let mut value = 0;
    for plane in 0..width {
        value |= u64::from(planes[plane * n + i]) << (8 * plane);
    }
    value
}

impl Iterator for Numbers<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let at = self.at;
        if at == self.n {
            return None;
        }
        self.at += 1;
        match &self.form {
            Form::Same => Some(self.last),
            Form::Offsets { width, planes } => Some(self.last.wrapping_add(gather(planes, *width, self.n, at) as i64)),
            Form::Steps { width, planes } => {
                if at > 0 {
                    let step = unzigzag(gather(planes, *width, self.n - 1, at - 1));
                    self.last = self.last.wrapping_add(step);
                }
                Some(self.last)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.n - self.at, Some(self.n - self.at))
    }
}

pub(super) fn put_doubles(out: &mut Vec<u8>, doubles: &[f64]) {
    if doubles.is_empty() {
        return;
    }
    if let Some((digits, numbers)) = decimals(doubles) {
        out.push(DECIMALS);
        out.push(digits as u8);
        return put_numbers(out, &numbers);
    }
    out.push(BITS);
    let start = out.len();
    let n = doubles.len();
    out.resize(start + 8 * n, 0);
    for (i, double) in doubles.iter().enumerate() {
        for (plane, byte) in double.to_bits().to_le_bytes().iter().enumerate() {
            out[start + plane * n + i] = *byte;
        }
    }
}

/// The doubles as whole numbers of a power of ten, if all of them come back exactly.
fn decimals(doubles: &[f64]) -> Option<(usize, Vec<i64>)> {
    let as_number = |double: f64, digits: usize| {
        let number = (double * POWERS[digits]).round();
        let back = number.abs() < EXACT && (number as i64 as f64 / POWERS[digits]).to_bits() == double.to_bits();
        back.then_some(number as i64)
    };
    let mut digits = 0;
    for &double in doubles {
        while as_number(double, digits).is_none() {
            digits += 1;
            if digits > TRIED_DIGITS {
                return None;
            }
        }
    }
    let numbers = doubles
        .iter()
        .map(|double| as_number(*double, digits))
        .collect::<Option<_>>()?;
    Some((digits, numbers))
}

pub(super) fn read_doubles(reader: &mut Reader<'_>, n: usize) -> Result<Vec<f64>, Malformed> {
    if n == 0 {
        return Ok(Vec::new());
    }
    match reader.byte()? {
        DECIMALS => {
            let power = POWERS
                .get(usize::from(reader.byte()?))
                .ok_or(Malformed("doubles have too many digits"))?;
            let numbers = Numbers::read(reader, n)?;
            Ok(numbers.map(|number| number as f64 / power).collect())
        }
        BITS => {
            let planes = reader.take(n.checked_mul(8).ok_or(ENDS_EARLY)?)?;
            Ok((0..n).map(|i| f64::from_bits(gather(planes, 8, n, i))).collect())
        }
        _ => Err(Malformed("doubles are packed in an unknown way")),
    }
}
