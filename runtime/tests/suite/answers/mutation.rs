//! What a guest answers, and what can be wrong with it.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder, StringDictionaryBuilder, StructBuilder, UInt64Builder};
use arrow_array::types::UInt16Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use sluice_wire::layout;

use super::ROWS;

#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    selection: Option<Vec<u8>>,
    columns: Option<Vec<u8>>,
    weight: Option<f64>,
    drops: Vec<(String, u64)>,
    quarantine: Option<(Vec<u8>, String)>,
}

impl Answer {
    pub(super) fn said(&self) -> String {
        let hex = |bytes: &Vec<u8>| {
            bytes
                .iter()
                .fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })
        };
        json!({
            "selection": self.selection.as_ref().map(hex),
            "columns": self.columns.as_ref().map(hex),
            "weight": self.weight.map(f64::to_bits),
            "drops": self.drops,
            "quarantine": self.quarantine.as_ref().map(|(rows, reason)| (hex(rows), reason)),
        })
        .to_string()
    }
}

/// Answers of every kind and with every type of column, each of them right.
pub(super) fn valid_answers() -> Vec<Answer> {
    let plain: ArrayRef = Arc::new(StringArray::from_iter(
        (0..ROWS).map(|row| (row != 4).then(|| format!("body {row}"))),
    ));
    let mut repeated = StringDictionaryBuilder::<UInt16Type>::new();
    (0..ROWS).for_each(|row| repeated.append_option((row != 2).then_some(["x", "some longer text"][row % 2])));
    let repeated: ArrayRef = Arc::new(repeated.finish());
    let severity: ArrayRef = Arc::new(Int32Array::from_iter(
        (0..ROWS as i32).map(|row| (row > 0).then_some(row)),
    ));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let doubles: ArrayRef = Arc::new(Float64Array::from_iter(
        (0..ROWS).map(|row| (row != 7).then_some(row as f64 / 3.0)),
    ));
    let truths: ArrayRef = Arc::new(BooleanArray::from_iter(
        (0..ROWS).map(|row| (row != 1).then_some(row % 2 == 0)),
    ));
    let blobs: ArrayRef = Arc::new(BinaryArray::from_iter(
        (0..ROWS).map(|row| (row != 3).then(|| vec![row as u8; row])),
    ));
    let mut buckets = ListBuilder::new(UInt64Builder::new());
    (0..ROWS).for_each(|row| buckets.append_value((0..row as u64 % 3).map(Some)));
    let buckets: ArrayRef = Arc::new(buckets.finish());
    let rest = rest("changed");
    let columns = |columns: &[(&str, &ArrayRef)]| Answer {
        columns: Some(encoded(columns)),
        ..Answer::default()
    };
    // Every third row goes.
    let keep = vec![0b1011_0110, 0b1];
    vec![
        columns(&[("body", &plain)]),
        columns(&[("body", &repeated), ("attrs:s:added", &repeated)]),
        columns(&[("severity", &severity), ("attrs:i:added", &numbers)]),
        columns(&[
            ("attrs:d:added", &doubles),
            ("attrs:b:added", &truths),
            ("attrs:y:added", &blobs),
        ]),
        columns(&[("buckets", &buckets), ("attrs:s:added2", &plain)]),
        columns(&[("scope:*", &rest)]),
        Answer {
            selection: Some(keep.clone()),
            drops: vec![("third".to_owned(), 2), ("other".to_owned(), 1)],
            weight: Some(2.5),
            ..columns(&[("attrs:i:added", &numbers), ("attrs:s:added", &repeated)])
        },
        Answer {
            quarantine: Some((vec![0b1000_0010, 0], "odd".to_owned())),
            selection: Some(keep),
            drops: vec![("third".to_owned(), 3)],
            ..Answer::default()
        },
    ]
}

/// Attributes without a column of their own, some on every second row.
pub(super) fn rest(text: &str) -> ArrayRef {
    let entries = StructBuilder::from_fields(layout::rest_fields(), ROWS);
    let item = Field::new_list_field(DataType::Struct(layout::rest_fields()), false);
    let mut rest = ListBuilder::new(entries).with_field(item);
    for row in 0..ROWS {
        for entry in 0..row % 2 * 2 {
            let members = [format!("key {entry}"), "string".to_owned(), text.to_owned()];
            for (member, value) in members.iter().enumerate() {
                let member: Option<&mut StringBuilder> = rest.values().field_builder(member);
                member.unwrap().append_value(value);
            }
            rest.values().append(true);
        }
        rest.append(row != 6);
    }
    Arc::new(rest.finish())
}

fn encoded(columns: &[(&str, &ArrayRef)]) -> Vec<u8> {
    let columns = columns.iter().map(|(name, values)| (*name, (*values).clone(), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// One change; places are parts of the whole, so that they fit every answer.
#[derive(Clone, Debug)]
pub(super) enum Mutation {
    Flip(Index, u8),
    Byte(Index, u8),
    /// A number of four or eight bytes at a place where one may stand.
    Number {
        at: Index,
        wide: bool,
        value: i64,
    },
    Cut {
        from: Index,
        bytes: usize,
    },
    Repeat {
        from: Index,
        bytes: usize,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    /// A piece of another answer, over what is there or in between.
    Splice {
        other: Index,
        from: Index,
        to: Index,
        bytes: usize,
        over: bool,
    },
    SelectionByte(Index, u8),
    SelectionBytes(usize),
    Count {
        which: Index,
        rows: u64,
    },
    Reason {
        which: Index,
        reason: String,
    },
    Reasons(usize),
    Weight(u64),
    Aside {
        rows: Vec<u8>,
        reason: String,
    },
}

pub(super) fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::*;
    let edges = prop::sample::select(vec![
        0,
        1,
        -1,
        2,
        7,
        8,
        9,
        10,
        64,
        255,
        65_535,
        65_536,
        1 << 24,
        1 << 31,
        i32::MAX as i64,
        i32::MIN as i64,
        i64::MAX,
        i64::MIN,
        1 << 40,
    ]);
    let piece = 1usize..200;
    let any_index = any::<Index>;
    prop_oneof![
        6 => (any_index(), 0u8..8).prop_map(|(at, bit)| Flip(at, bit)),
        3 => (any_index(), any::<u8>()).prop_map(|(at, byte)| Byte(at, byte)),
        8 => (any_index(), any::<bool>(), edges).prop_map(|(at, wide, value)| Number { at, wide, value }),
        2 => (any_index(), piece.clone()).prop_map(|(from, bytes)| Cut { from, bytes }),
        1 => (any_index(), piece.clone()).prop_map(|(from, bytes)| Repeat { from, bytes }),
        2 => (any_index(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Insert { at, bytes }),
        4 => (any_index(), any_index(), any_index(), piece, any::<bool>())
            .prop_map(|(other, from, to, bytes, over)| Splice { other, from, to, bytes, over }),
        2 => (any_index(), any::<u8>()).prop_map(|(at, byte)| SelectionByte(at, byte)),
        1 => (0usize..40).prop_map(SelectionBytes),
        2 => (any_index(), prop_oneof![0u64..10, Just(u64::MAX), any::<u64>()]).prop_map(|(which, rows)| Count { which, rows }),
        1 => (any_index(), ".{0,80}").prop_map(|(which, reason)| Reason { which, reason }),
        1 => (0usize..40).prop_map(Reasons),
        1 => prop_oneof![any::<u64>(), prop::sample::select(vec![0f64, -0.0, 1.0, 0.5, 1e300, f64::NAN, f64::INFINITY]).prop_map(f64::to_bits)].prop_map(Weight),
        1 => (prop::collection::vec(any::<u8>(), 0..4), "[a-z ]{0,70}").prop_map(|(rows, reason)| Aside { rows, reason }),
    ]
}

impl Mutation {
    pub(super) fn apply(&self, answer: &mut Answer, valid: &[Answer]) {
        if let (Some(bytes), true) = (&mut answer.columns, self.is_of_columns()) {
            if !bytes.is_empty() {
                self.change(bytes, valid);
            }
            return;
        }
        match self {
            Mutation::SelectionByte(at, byte) => {
                let selection = answer.selection.get_or_insert_with(|| vec![0xff, 1]);
                if !selection.is_empty() {
                    let at = at.index(selection.len());
                    selection[at] = *byte;
                }
            }
            Mutation::SelectionBytes(bytes) => answer.selection.get_or_insert_default().resize(*bytes, 0xff),
            Mutation::Count { which, rows } if !answer.drops.is_empty() => {
                let which = which.index(answer.drops.len());
                answer.drops[which].1 = *rows;
            }
            Mutation::Count { rows, .. } => answer.drops.push(("invented".to_owned(), *rows)),
            Mutation::Reason { which, reason } if !answer.drops.is_empty() => {
                let which = which.index(answer.drops.len());
                answer.drops[which].0.clone_from(reason);
            }
            Mutation::Reasons(count) => answer.drops = (0..*count).map(|n| (format!("reason {n}"), 1)).collect(),
            Mutation::Weight(bits) => answer.weight = Some(f64::from_bits(*bits)),
            Mutation::Aside { rows, reason } => answer.quarantine = Some((rows.clone(), reason.clone())),
            _ => {}
        }
    }

    fn is_of_columns(&self) -> bool {
        use Mutation::*;
        matches!(
            self,
            Flip(..) | Byte(..) | Number { .. } | Cut { .. } | Repeat { .. } | Insert { .. } | Splice { .. }
        )
    }

    fn change(&self, bytes: &mut Vec<u8>, valid: &[Answer]) {
        let length = bytes.len();
        let end = |from: usize, count: usize| (from + count).min(length);
        match self {
            Mutation::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Mutation::Byte(at, byte) => bytes[at.index(length)] = *byte,
            Mutation::Number { at, wide, value } => {
                let value = value.to_le_bytes();
                let width = if *wide { 8 } else { 4 };
                let at = at.index(length) / width * width;
                let end = end(at, width);
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            Mutation::Cut { from, bytes: count } => {
                let from = from.index(length);
                bytes.drain(from..end(from, *count));
            }
            Mutation::Repeat { from, bytes: count } => {
                let from = from.index(length);
                let piece = bytes[from..end(from, *count)].to_vec();
                bytes.splice(from..from, piece);
            }
            Mutation::Insert { at, bytes: more } => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Mutation::Splice {
                other,
                from,
                to,
                bytes: count,
                over,
            } => {
                let others: Vec<&Vec<u8>> = valid.iter().filter_map(|answer| answer.columns.as_ref()).collect();
                let other = others[other.index(others.len())];
                let from = from.index(other.len());
                let piece = &other[from..(from + count).min(other.len())];
                let to = to.index(length);
                let end = if *over { end(to, piece.len()) } else { to };
                bytes.splice(to..end, piece.iter().copied());
            }
            _ => {}
        }
    }
}
