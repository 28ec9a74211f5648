//! Metric data points.

use super::any::{Depth, item_separator, member_name};
use super::attributes::utf8;
use super::proto::Reader;
use super::spans::{put_enum, write_number_member, write_pairs, write_pairs_member};
use super::table::{Table, put_text_run};
use super::{DecodeError, write_id_member};
use crate::value::{write_int, write_json_double};

/// Texts of `temporality` by number, from 1 on.
pub(super) const TEMPORALITIES: [&str; 2] = ["delta", "cumulative"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Gauge,
        Self::Sum,
        Self::Histogram,
        Self::Exponential,
        Self::Summary,
    ];

    /// Number of the field of `Metric` that holds the points.
    pub(super) fn field(self) -> u32 {
        match self {
            Self::Gauge => 5,
            Self::Sum => 7,
            Self::Histogram => 9,
            Self::Exponential => 10,
            Self::Summary => 11,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::Exponential => "exponential_histogram",
            Self::Summary => "summary",
        }
    }

    fn has_temporality(self) -> bool {
        matches!(self, Self::Sum | Self::Histogram | Self::Exponential)
    }
}

pub(super) fn read<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let (mut name, mut description, mut unit) = ("", "", "");
    let mut metadata = Vec::new();
    let mut data = None;
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => name = message.text(wire)?,
            2 => description = message.text(wire)?,
            3 => unit = message.text(wire)?,
            12 => metadata.push(message.message(wire)?),
            _ => match Kind::ALL.into_iter().find(|kind| kind.field() == number) {
                Some(kind) => data = Some((kind, message.message(wire)?)),
                None => message.skip(number, wire)?,
            },
        }
    }
    let Some((kind, data)) = data else {
        return Ok(());
    };
    let start = table.rows;
    let (temporality, monotonic) = read_points(table, kind, data, pairs)?;
    let n = table.rows - start;
    let mut metadata_json = Vec::new();
    if !metadata.is_empty() {
        write_pairs(&mut metadata_json, &metadata, table.attributes.depth)?;
    }
    table
        .attributes
        .charge(n, name.len() + description.len() + unit.len() + metadata_json.len())?;
    let core = &mut table.core;
    put_text_run(&mut core.name, start, n, name);
    put_text_run(&mut core.description, start, n, description);
    put_text_run(&mut core.unit, start, n, unit);
    put_text_run(&mut core.metadata, start, n, utf8(&metadata_json)?);
    put_text_run(&mut core.metric_type, start, n, kind.as_str());
    for row in start..table.rows {
        put_enum(&mut core.temporality, row, temporality, &TEMPORALITIES);
    }
    if kind == Kind::Sum {
        core.monotonic.put_run(start, n, monotonic);
    }
    Ok(())
}

/// Reads the points of a metric; gives back its temporality and whether it is monotonic.
fn read_points<'a>(
    table: &mut Table<'a>,
    kind: Kind,
    mut data: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(i32, bool), DecodeError> {
    let (mut temporality, mut monotonic) = (0, false);
    while let Some((number, wire)) = data.field()? {
        match number {
            1 => {
                pairs.clear();
                let point = data.message(wire)?;
                match kind {
                    Kind::Gauge | Kind::Sum => read_number(table, point, pairs)?,
                    Kind::Histogram => read_histogram(table, point, pairs)?,
                    Kind::Exponential => read_exponential(table, point, pairs)?,
                    Kind::Summary => read_summary(table, point, pairs)?,
                }
            }
            2 if kind.has_temporality() => temporality = data.int32(wire)?,
            3 if kind == Kind::Sum => monotonic = data.uint(wire)? != 0,
            _ => data.skip(number, wire)?,
        }
    }
    Ok((temporality, monotonic))
}

/// What points of all kinds have.
#[derive(Default)]
struct Point {
    start: u64,
    time: u64,
    flags: u32,
    exemplars: Vec<u8>,
}

impl Point {
    fn put<'a>(mut self, table: &mut Table<'a>, pairs: &[Reader<'a>]) -> Result<(), DecodeError> {
        let row = table.rows;
        table.put_time(self.time, 0);
        if self.start != 0 {
            table.core.start_time.put(row, self.start as i64);
        }
        if self.flags != 0 {
            table.core.flags.put(row, self.flags);
        }
        if !self.exemplars.is_empty() {
            self.exemplars.push(b']');
            table.core.exemplars.put(row, utf8(&self.exemplars)?);
        }
        table.end_row(pairs)
    }
}

#[derive(Clone, Copy)]
enum Number {
    Double(f64),
    Int(i64),
}

fn read_number<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let depth = table.attributes.depth;
    let mut point = Point::default();
    let mut value = None;
    while let Some((number, wire)) = message.field()? {
        match number {
            2 => point.start = message.fixed64(wire)?,
            3 => point.time = message.fixed64(wire)?,
            4 => value = Some(Number::Double(message.double(wire)?)),
            5 => write_exemplar(&mut point.exemplars, message.message(wire)?, depth)?,
            6 => value = Some(Number::Int(message.fixed64(wire)? as i64)),
            7 => pairs.push(message.message(wire)?),
            8 => point.flags = message.uint32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    match value {
        Some(Number::Double(value)) => table.core.value.put(table.rows, value),
        Some(Number::Int(value)) => table.core.value_int.put(table.rows, value),
        None => {}
    }
    point.put(table, pairs)
}

/// Sum, minimum and maximum: each may be absent.
type Statistics = [Option<f64>; 3];

fn put_statistics(table: &mut Table<'_>, count: u64, statistics: Statistics) {
    let row = table.rows;
    let core = &mut table.core;
    core.count.put(row, count);
    for (column, value) in [&mut core.sum, &mut core.min, &mut core.max]
        .into_iter()
        .zip(statistics)
    {
        if let Some(value) = value {
            column.put(row, value);
        }
    }
}

fn read_histogram<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let depth = table.attributes.depth;
    let mut point = Point::default();
    let mut count = 0;
    let mut statistics = Statistics::default();
    let (mut buckets, mut bounds) = (Vec::new(), Vec::new());
    while let Some((number, wire)) = message.field()? {
        match number {
            2 => point.start = message.fixed64(wire)?,
            3 => point.time = message.fixed64(wire)?,
            4 => count = message.fixed64(wire)?,
            5 => statistics[0] = Some(message.double(wire)?),
            6 => message.fixed64s(wire, &mut buckets, |n| n)?,
            7 => message.fixed64s(wire, &mut bounds, f64::from_bits)?,
            8 => write_exemplar(&mut point.exemplars, message.message(wire)?, depth)?,
            9 => pairs.push(message.message(wire)?),
            10 => point.flags = message.uint32(wire)?,
            11 => statistics[1] = Some(message.double(wire)?),
            12 => statistics[2] = Some(message.double(wire)?),
            _ => message.skip(number, wire)?,
        }
    }
    put_statistics(table, count, statistics);
    table.core.buckets.put(table.rows, &buckets);
    table.core.bounds.put(table.rows, &bounds);
    point.put(table, pairs)
}

fn read_exponential<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let depth = table.attributes.depth;
    let mut point = Point::default();
    let (mut count, mut scale, mut zero_count, mut zero_threshold) = (0, 0, 0, 0.0);
    let mut statistics = Statistics::default();
    let mut sides = [None, None];
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => pairs.push(message.message(wire)?),
            2 => point.start = message.fixed64(wire)?,
            3 => point.time = message.fixed64(wire)?,
            4 => count = message.fixed64(wire)?,
            5 => statistics[0] = Some(message.double(wire)?),
            6 => scale = message.sint32(wire)?,
            7 => zero_count = message.fixed64(wire)?,
            8 => sides[0] = Some(read_buckets(message.message(wire)?)?),
            9 => sides[1] = Some(read_buckets(message.message(wire)?)?),
            10 => point.flags = message.uint32(wire)?,
            11 => write_exemplar(&mut point.exemplars, message.message(wire)?, depth)?,
            12 => statistics[1] = Some(message.double(wire)?),
            13 => statistics[2] = Some(message.double(wire)?),
            14 => zero_threshold = message.double(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    put_statistics(table, count, statistics);
    let row = table.rows;
    let core = &mut table.core;
    core.scale.put(row, scale);
    core.zero_count.put(row, zero_count);
    core.zero_threshold.put(row, zero_threshold);
    let columns = [
        (&mut core.positive_offset, &mut core.positive_buckets),
        (&mut core.negative_offset, &mut core.negative_buckets),
    ];
    for ((offset, buckets), side) in columns.into_iter().zip(sides) {
        if let Some((first, counts)) = side {
            offset.put(row, first);
            buckets.put(row, &counts);
        }
    }
    point.put(table, pairs)
}

fn read_buckets(mut message: Reader<'_>) -> Result<(i32, Vec<u64>), DecodeError> {
    let (mut offset, mut counts) = (0, Vec::new());
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => offset = message.sint32(wire)?,
            2 => message.uints(wire, &mut counts)?,
            _ => message.skip(number, wire)?,
        }
    }
    Ok((offset, counts))
}

fn read_summary<'a>(
    table: &mut Table<'a>,
    mut message: Reader<'a>,
    pairs: &mut Vec<Reader<'a>>,
) -> Result<(), DecodeError> {
    let mut point = Point::default();
    let (mut count, mut sum) = (0, 0.0);
    let mut quantiles = Vec::new();
    while let Some((number, wire)) = message.field()? {
        match number {
            2 => point.start = message.fixed64(wire)?,
            3 => point.time = message.fixed64(wire)?,
            4 => count = message.fixed64(wire)?,
            5 => sum = message.double(wire)?,
            6 => write_quantile(&mut quantiles, message.message(wire)?)?,
            7 => pairs.push(message.message(wire)?),
            8 => point.flags = message.uint32(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    put_statistics(table, count, [Some(sum), None, None]);
    if !quantiles.is_empty() {
        quantiles.push(b']');
        table.core.quantiles.put(table.rows, utf8(&quantiles)?);
    }
    point.put(table, pairs)
}

fn write_quantile(out: &mut Vec<u8>, mut message: Reader<'_>) -> Result<(), DecodeError> {
    let mut pair = [0.0; 2];
    while let Some((number, wire)) = message.field()? {
        match number {
            1 => pair[0] = message.double(wire)?,
            2 => pair[1] = message.double(wire)?,
            _ => message.skip(number, wire)?,
        }
    }
    if out.is_empty() {
        out.push(b'[');
    }
    item_separator(out);
    out.push(b'[');
    write_json_double(out, pair[0]);
    out.push(b',');
    write_json_double(out, pair[1]);
    out.push(b']');
    Ok(())
}

fn write_exemplar(out: &mut Vec<u8>, mut message: Reader<'_>, depth: Depth) -> Result<(), DecodeError> {
    let (mut time, mut span_id, mut trace_id, mut value) = (0, &[][..], &[][..], None);
    let mut pairs = Vec::new();
    while let Some((number, wire)) = message.field()? {
        match number {
            2 => time = message.fixed64(wire)?,
            3 => value = Some(Number::Double(message.double(wire)?)),
            4 => span_id = message.bytes(wire)?,
            5 => trace_id = message.bytes(wire)?,
            6 => value = Some(Number::Int(message.fixed64(wire)? as i64)),
            7 => pairs.push(message.message(wire)?),
            _ => message.skip(number, wire)?,
        }
    }
    if out.is_empty() {
        out.push(b'[');
    }
    item_separator(out);
    out.push(b'{');
    write_number_member(out, "time", time);
    write_id_member(out, "trace_id", trace_id);
    write_id_member(out, "span_id", span_id);
    if let Some(value) = value {
        member_name(out, "value");
        match value {
            Number::Double(value) => write_json_double(out, value),
            Number::Int(value) => write_int(out, value),
        }
    }
    write_pairs_member(out, "filtered_attributes", &pairs, depth)?;
    out.push(b'}');
    Ok(())
}
