//! How large the answer of a function can become, told from its arguments before it runs.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::scalar::ScalarValue;

/// Pairs that one step may compare: about a second of one thread.
const MAX_PAIRS: u64 = 1 << 28;
/// A number, or the place of a text, in an array.
const ITEM: u64 = 8;
/// Bytes of the longest character.
const CHARACTER: u64 = 4;
/// Digits of the longest number, for each of its bytes.
const DIGITS: u64 = 3;
/// The engine of patterns refuses groups that lie deeper in each other.
const MAX_NESTED: u64 = 250;
const DAY_NS: i128 = 86_400_000_000_000;
/// Of the shortest month.
const MONTH_NS: i128 = 28 * DAY_NS;

/// By what a function makes more of what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// A text so many times.
    Repeat,
    /// A text to a length.
    Pad,
    /// All numbers or times between two.
    Series,
    /// A value so many times, as a list.
    RepeatList,
    /// A list to a length.
    ResizeList,
    /// Each place where a text is found becomes another.
    Replace,
    /// Each place where a pattern is found becomes a text, which may repeat what was found.
    ReplacePattern,
    /// Each item of a list that equals a value becomes another.
    ReplaceItem,
    /// The items of a list with a text between them.
    ListText,
    /// The parts of a text that the groups of a pattern found.
    Captures,
    /// All arguments side by side, so many times.
    Join(u64),
    /// The same with the first one between them.
    Separated,
    /// Not its value but its type: one of a fixed length takes all of it for each row.
    Type,
    /// Every part of one with every part of the other: texts by their characters.
    TextPairs,
    /// Lists by their items.
    ListPairs,
}

/// Bytes of an answer.
pub(super) enum Estimate {
    Exact(u64),
    /// For each row.
    AtMost(Vec<u64>),
}

impl Growth {
    pub(super) fn estimate(self, name: &str, args: &[ColumnarValue], rows: usize) -> Result<Estimate> {
        let length = |at: usize| lengths(args.get(at), rows);
        let number = |at: usize| numbers(args.get(at), rows);
        let sum = |each: Vec<u64>| Estimate::Exact(each.into_iter().fold(0, u64::saturating_add));
        let each = |f: &dyn Fn(usize) -> u64| (0..rows).map(f).collect::<Vec<u64>>();
        Ok(match self {
            Growth::Repeat => {
                let (text, times) = (length(0)?, number(1)?);
                sum(each(&|row| text[row].saturating_mul(positive(times[row]))))
            }
            Growth::Pad => {
                let to = number(1)?;
                sum(each(&|row| CHARACTER.saturating_mul(positive(to[row]))))
            }
            Growth::Series => {
                let (first, last, step) = match args.len() {
                    0 | 1 => (vec![Some(0); rows], number(0)?, vec![Some(1); rows]),
                    2 => (number(0)?, number(1)?, vec![Some(1); rows]),
                    _ => (number(0)?, number(1)?, number(2)?),
                };
                sum(each(&|row| match (first[row], last[row], step[row]) {
                    (Some(first), Some(last), Some(step)) => {
                        let items = last.abs_diff(first) / step.unsigned_abs().max(1) + 1;
                        ITEM.saturating_mul(u64::try_from(items).unwrap_or(u64::MAX))
                    }
                    _ => ITEM,
                }))
            }
            Growth::RepeatList => {
                let (value, times) = (sizes(args.first(), rows)?, number(1)?);
                sum(each(&|row| value[row].saturating_mul(positive(times[row]))))
            }
            Growth::ResizeList => {
                let (to, value) = (number(1)?, sizes(args.get(2), rows)?);
                let list = Growth::Join(1).joined(args, rows);
                let more = each(&|row| value[row].max(ITEM).saturating_mul(positive(to[row])));
                Estimate::Exact(more.into_iter().fold(list, u64::saturating_add))
            }
            Growth::Replace => {
                let (text, from, to) = (length(0)?, length(1)?, length(2)?);
                Estimate::AtMost(each(&|row| {
                    // An empty text is found around each character.
                    let places = text[row].checked_div(from[row]).unwrap_or(text[row] + 1);
                    text[row].saturating_add(places.saturating_mul(to[row]))
                }))
            }
            Growth::ReplacePattern => {
                let (text, to) = (length(0)?, length(2)?);
                // Every two signs may stand for all that was found, and what was found at all places is at most the text.
                Estimate::AtMost(each(&|row| (text[row] + 1).saturating_mul(2 * to[row] + 1)))
            }
            Growth::ReplaceItem => {
                let (count, to) = (items(args.first(), rows)?, sizes(args.get(2), rows)?);
                let list = Growth::Join(1).joined(args, rows);
                let more = each(&|row| count[row].saturating_mul(to[row]));
                Estimate::Exact(more.into_iter().fold(list, u64::saturating_add))
            }
            Growth::ListText => {
                let (count, between) = (items(args.first(), rows)?, length(1)?);
                let null = if args.len() > 2 { length(2)? } else { vec![0; rows] };
                let list = DIGITS.saturating_mul(args.first().map_or(0, |list| written_out(list, rows)));
                let more = each(&|row| count[row].saturating_mul(between[row] + null[row]));
                Estimate::Exact(more.into_iter().fold(list, u64::saturating_add))
            }
            Growth::Captures => {
                let (text, pattern) = (length(0)?, length(1)?);
                // Groups lie in each other, and each gives all of it again.
                Estimate::AtMost(each(&|row| {
                    (text[row] + ITEM).saturating_mul(MAX_NESTED.min(pattern[row] / 2 + 1))
                }))
            }
            Growth::Join(_) => Estimate::Exact(self.joined(args, rows)),
            Growth::Separated => {
                let between = args.first().map_or(0, |first| written_out(first, rows));
                let more = between.saturating_mul(args.len().saturating_sub(2) as u64);
                Estimate::Exact(Growth::Join(1).joined(args, rows).saturating_add(more))
            }
            Growth::Type => Estimate::Exact(0),
            Growth::TextPairs => compared(name, "characters", &length(0)?, &length(1)?)?,
            Growth::ListPairs => compared(name, "items", &items(args.first(), rows)?, &items(args.get(1), rows)?)?,
        })
    }

    fn joined(self, args: &[ColumnarValue], rows: usize) -> u64 {
        let times = if let Growth::Join(times) = self { times } else { 1 };
        let all = args.iter().map(|arg| written_out(arg, rows));
        all.fold(0, u64::saturating_add).saturating_mul(times)
    }
}

fn compared(name: &str, what: &str, left: &[u64], right: &[u64]) -> Result<Estimate> {
    let pairs = left.iter().zip(right).map(|(left, right)| left.saturating_mul(*right));
    match pairs.fold(0, u64::saturating_add) > MAX_PAIRS {
        false => Ok(Estimate::Exact(0)),
        true => Err(DataFusionError::Execution(format!(
            "`{name}` would compare more than {MAX_PAIRS} pairs of {what} in one step of the query: compare shorter ones, such as \
             left(body, 200), or narrow what is asked for"
        ))),
    }
}

fn positive(number: Option<i128>) -> u64 {
    number.map_or(0, |number| u64::try_from(number.max(0)).unwrap_or(u64::MAX))
}

/// Bytes of an answer as it is.
pub(super) fn size_of_value(value: &ColumnarValue) -> u64 {
    match value {
        ColumnarValue::Array(array) => size_of_array(array.as_ref()),
        ColumnarValue::Scalar(scalar) => size_of_scalar(scalar),
    }
}

/// What a value says, without what it is kept in.
pub(super) fn size_of_scalar(scalar: &ScalarValue) -> u64 {
    match scalar {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len) as u64
        }
        ScalarValue::List(list) => size_of_array(list.values().as_ref()),
        other => other.size().saturating_sub(size_of::<ScalarValue>()) as u64 + ITEM,
    }
}

pub(super) fn size_of_array(array: &dyn Array) -> u64 {
    match array.data_type() {
        DataType::Utf8View => array
            .as_string_view()
            .iter()
            .flatten()
            .map(|text| text.len() as u64)
            .sum(),
        DataType::BinaryView => array
            .as_binary_view()
            .iter()
            .flatten()
            .map(|bytes| bytes.len() as u64)
            .sum(),
        _ => {
            let size = array.to_data().get_slice_memory_size();
            size.unwrap_or_else(|_| array.get_buffer_memory_size()) as u64
        }
    }
}

/// Bytes once each row has its own.
fn written_out(value: &ColumnarValue, rows: usize) -> u64 {
    match value {
        ColumnarValue::Array(array) => size_of_array(array.as_ref()),
        ColumnarValue::Scalar(scalar) => size_of_scalar(scalar).saturating_mul(rows as u64),
    }
}

/// One array of a value: of one row where it is the same for all.
fn array_of(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(array.clone()),
        ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1),
    }
}

/// What `read` makes of each row of an argument; zeros where there is none.
fn of_each<T: Clone + Default>(
    value: Option<&ColumnarValue>,
    rows: usize,
    read: impl Fn(&ArrayRef) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let Some(value) = value else {
        return Ok(vec![T::default(); rows]);
    };
    let each = read(&array_of(value)?)?;
    Ok(match (value, each.as_slice()) {
        (ColumnarValue::Scalar(_), [one]) => vec![one.clone(); rows],
        _ if each.len() == rows => each,
        _ => vec![T::default(); rows],
    })
}

/// Bytes of texts.
fn lengths(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    of_each(value, rows, |array| {
        let array = match array.data_type() {
            DataType::Dictionary(_, value) => cast(array, value)?,
            _ => array.clone(),
        };
        let of = |length: Option<usize>| length.unwrap_or(0) as u64;
        Ok(match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().iter().map(|t| of(t.map(str::len))).collect(),
            DataType::LargeUtf8 => array.as_string::<i64>().iter().map(|t| of(t.map(str::len))).collect(),
            DataType::Utf8View => array.as_string_view().iter().map(|t| of(t.map(str::len))).collect(),
            _ => vec![ITEM; array.len()],
        })
    })
}

/// Bytes of values of any type.
fn sizes(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    of_each(value, rows, |array| {
        let size = |row: usize| size_of_array(array.slice(row, 1).as_ref()).max(ITEM);
        Ok((0..array.len()).map(size).collect())
    })
}

/// How many items lists have.
fn items(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    of_each(value, rows, |array| {
        let all = 0..array.len();
        Ok(match array.data_type() {
            DataType::List(_) => all.map(|row| array.as_list::<i32>().value_length(row) as u64).collect(),
            DataType::LargeList(_) => all.map(|row| array.as_list::<i64>().value_length(row) as u64).collect(),
            DataType::FixedSizeList(_, size) => vec![u64::from(size.unsigned_abs()); array.len()],
            _ => vec![0; array.len()],
        })
    })
}

/// Numbers; times and lengths of time in nanoseconds.
fn numbers(value: Option<&ColumnarValue>, rows: usize) -> Result<Vec<Option<i128>>> {
    of_each(value, rows, |array| {
        let scale = match array.data_type() {
            DataType::Interval(_) => {
                let intervals = cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?;
                let ns = |part: arrow::datatypes::IntervalMonthDayNano| {
                    i128::from(part.months) * MONTH_NS + i128::from(part.days) * DAY_NS + i128::from(part.nanoseconds)
                };
                let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
                return Ok(intervals.iter().map(|interval| interval.map(ns)).collect());
            }
            DataType::Date32 => DAY_NS,
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            kind if kind.is_nested() => return Ok(vec![None; array.len()]),
            _ => 1,
        };
        let whole = match array.data_type() {
            DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?,
            _ => cast(array, &DataType::Int64)?,
        };
        let whole = whole.as_primitive::<Int64Type>();
        Ok(whole.iter().map(|number| Some(i128::from(number?) * scale)).collect())
    })
}
