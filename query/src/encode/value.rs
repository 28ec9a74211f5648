//! One value of a column as JSON text: integers keep every digit, times are RFC 3339, maps are objects, what JSON lacks is null.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, MapArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::time::{write_date, write_utc};

/// A type's name as people who write SQL know it.
pub(crate) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes".into()
        }
        DataType::Boolean => "bool".into(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Timestamp(unit, _) => format!("timestamp({})", unit_name(*unit)),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("list<{}>", type_name(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => format!(
                "map<{}, {}>",
                type_name(fields[0].data_type()),
                type_name(fields[1].data_type())
            ),
            _ => "map".into(),
        },
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|f| format!("{}: {}", f.name(), type_name(f.data_type())))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p}, {s})"),
        DataType::Interval(IntervalUnit::YearMonth) => "interval".into(),
        other => other.to_string().to_lowercase(),
    }
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Appends the value at `row` as JSON.
pub(crate) fn write(array: &dyn Array, row: usize, out: &mut String) -> Result<(), ArrowError> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::Boolean => {
            let value = array.as_boolean().value(row);
            out.push_str(if value { "true" } else { "false" });
        }
        DataType::Utf8 => write_text(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => write_text(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => write_text(array.as_string_view().value(row), out),
        DataType::Binary => write_hex(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => write_hex(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => write_hex(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => write_hex(array.as_fixed_size_binary().value(row), out),
        DataType::Timestamp(unit, _) => write_timestamp(array, row, *unit, out),
        DataType::Date32 => {
            quoted(out, |out| {
                write_date(array.as_primitive::<Date32Type>().value(row).into(), out)
            });
        }
        DataType::Date64 => {
            let days = array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000);
            quoted(out, |out| write_date(days, out));
        }
        DataType::List(_) => write_list(&array.as_list::<i32>().value(row), out)?,
        DataType::LargeList(_) => write_list(&array.as_list::<i64>().value(row), out)?,
        DataType::FixedSizeList(_, _) => write_list(&array.as_fixed_size_list().value(row), out)?,
        DataType::Struct(_) => write_struct(array.as_struct(), row, out)?,
        DataType::Map(_, _) => write_map(array.as_map(), row, out)?,
        DataType::Dictionary(_, _) => {
            let (values, key) = entry(array, row);
            write(values.as_ref(), key, out)?;
        }
        kind if kind.is_numeric() => write_number(array, row, out)?,
        _ => write_text(&display(array, row)?, out),
    }
    Ok(())
}

/// Appends the value as a cell of text: like JSON, but scalars stand without quotes. `false`: it is null.
pub(crate) fn write_cell(array: &dyn Array, row: usize, out: &mut String) -> Result<bool, ArrowError> {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        return Ok(false);
    }
    match array.data_type() {
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Dictionary(_, _) => {
            let (values, key) = entry(array, row);
            return write_cell(values.as_ref(), key, out);
        }
        DataType::Float32 | DataType::Float64 if !finite(array, row) => {
            out.push_str(&display(array, row)?);
        }
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(_, _)
        | DataType::Struct(_)
        | DataType::Map(_, _) => write(array, row, out)?,
        _ => {
            let mut text = String::new();
            write(array, row, &mut text)?;
            out.push_str(text.trim_matches('"'));
        }
    }
    Ok(true)
}

/// The values of a dictionary and which of them stands at `row`. Keys are normalised for one row, not for all of them each time.
fn entry(array: &dyn Array, row: usize) -> (ArrayRef, usize) {
    let one = array.slice(row, 1);
    let dictionary = one.as_any_dictionary();
    (Arc::clone(dictionary.values()), dictionary.normalized_keys()[0])
}

fn finite(array: &dyn Array, row: usize) -> bool {
    match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).is_finite(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).is_finite(),
        _ => true,
    }
}

fn write_number(array: &dyn Array, row: usize, out: &mut String) -> Result<(), ArrowError> {
    macro_rules! integer {
        ($kind:ty) => {
            drop(write!(out, "{}", array.as_primitive::<$kind>().value(row)))
        };
    }
    match array.data_type() {
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float32 => write_float(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write_float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(_, _) => {
            out.push_str(&array.as_primitive::<Decimal128Type>().value_as_string(row));
        }
        DataType::Decimal256(_, _) => {
            out.push_str(&array.as_primitive::<Decimal256Type>().value_as_string(row));
        }
        _ => out.push_str(&display(array, row)?),
    }
    Ok(())
}

/// The shortest text that reads back the same; whole values keep their point, so that a reader sees a double.
fn write_float<F>(value: F, out: &mut String)
where
    F: serde::Serialize,
{
    // what JSON lacks (NaN, the infinities) is written as null by serde_json
    out.push_str(&serde_json::to_string(&value).unwrap_or_else(|_| "null".into()));
}

fn write_timestamp(array: &dyn Array, row: usize, unit: TimeUnit, out: &mut String) {
    let (ticks, per_second) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 1),
        TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
        TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
        TimeUnit::Nanosecond => (
            array.as_primitive::<TimestampNanosecondType>().value(row),
            1_000_000_000,
        ),
    };
    quoted(out, |out| write_utc(ticks, per_second, out));
}

fn write_list(items: &ArrayRef, out: &mut String) -> Result<(), ArrowError> {
    out.push('[');
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        write(items.as_ref(), row, out)?;
    }
    out.push(']');
    Ok(())
}

fn write_struct(array: &StructArray, row: usize, out: &mut String) -> Result<(), ArrowError> {
    out.push('{');
    for (at, (field, column)) in array.fields().iter().zip(array.columns()).enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_text(field.name(), out);
        out.push(':');
        write(column.as_ref(), row, out)?;
    }
    out.push('}');
    Ok(())
}

fn write_map(array: &MapArray, row: usize, out: &mut String) -> Result<(), ArrowError> {
    let entries = array.value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    out.push('{');
    for at in 0..entries.len() {
        if at > 0 {
            out.push(',');
        }
        let mut key = String::new();
        write_cell(keys.as_ref(), at, &mut key)?;
        write_text(&key, out);
        out.push(':');
        write(values.as_ref(), at, out)?;
    }
    out.push('}');
    Ok(())
}

/// Text as a JSON string.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => {
                out.push_str(&text[from..at]);
                let _ = write!(out, "\\u{byte:04x}");
                from = at + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[from..at]);
        out.push_str(escaped);
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

fn write_hex(bytes: &[u8], out: &mut String) {
    quoted(out, |out| {
        for byte in bytes {
            let _ = write!(out, "{byte:02x}");
        }
    });
}

fn quoted(out: &mut String, inner: impl FnOnce(&mut String)) {
    out.push('"');
    inner(out);
    out.push('"');
}

fn display(array: &dyn Array, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    Ok(ArrayFormatter::try_new(array, &options)?.value(row).to_string())
}
