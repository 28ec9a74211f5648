//! The columns of an answer as bytes. They are walked before Arrow's reader sees them: it slices where it is told to and panics over
//! schemas that it does not know, and a guest writes both.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{Endianness, Field, FieldNode, Message, MessageHeader, Precision, Type, root_as_message};

use super::invalid;
use crate::fault::Fault;
use crate::limits::MAX_ANSWER_COLUMNS;

/// The rest of the attributes is a list of structures of texts.
const MAX_DEPTH: usize = 3;
const MAX_MEMBERS: usize = 8;
/// Bytes of one offset into texts and lists.
const OFFSET_BYTES: i64 = 4;
/// Bytes of a value of fixed size; an id of a trace has 16.
const MAX_FIXED_BYTES: i32 = 256;

/// One record batch from an Arrow IPC stream, fully validated.
pub(super) fn decode(bytes: Vec<u8>) -> Result<RecordBatch, Fault> {
    scan(&bytes)?;
    // The reader validates every array. What makes it panic all the same is the guest's fault and not the end of a thread.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut rest = Buffer::from_vec(bytes);
        let mut decoder = StreamDecoder::new();
        let batch = decoder.decode(&mut rest)?;
        Ok::<_, arrow_schema::ArrowError>(batch)
    }));
    match decoded {
        Ok(Ok(Some(batch))) => Ok(batch),
        Ok(Ok(None)) => invalid("columns without a record batch"),
        Ok(Err(e)) => invalid(format!("columns: {e}")),
        Err(_) => invalid("columns that cannot be decoded"),
    }
}

/// What the messages of a stream hold.
#[derive(Default)]
struct Parts {
    schemas: usize,
    fields: Vec<Shape>,
    /// The values of dictionaries, by the number that the schema gives them.
    values: Vec<(i64, Shape)>,
    dictionaries: usize,
    batches: usize,
}

/// Walks the messages without decoding any array: one schema of types that columns have, then dictionaries, then one record batch,
/// nothing compressed (a few bytes could claim to be gigabytes), every length inside of what it is a length of.
fn scan(bytes: &[u8]) -> Result<(), Fault> {
    const CONTINUATION: [u8; 4] = [0xff; 4];
    let mut at = 0usize;
    let mut parts = Parts::default();
    while let Some(head) = bytes.get(at..at + 8) {
        if head[..4] != CONTINUATION {
            return invalid("columns: not an Arrow IPC stream");
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length == 0 {
            break;
        }
        at += 8;
        let Some(meta) = at.checked_add(length).and_then(|end| bytes.get(at..end)) else {
            return invalid("columns: a message is cut off");
        };
        let Ok(message) = root_as_message(meta) else {
            return invalid("columns: a message is malformed");
        };
        at += length;
        let body = usize::try_from(message.bodyLength()).unwrap_or(usize::MAX);
        if body > bytes.len() - at {
            return invalid("columns: a message is cut off");
        }
        at += body;
        parts.add(&message, body)?;
    }
    let Parts {
        schemas,
        fields,
        dictionaries,
        batches,
        ..
    } = parts;
    let fields = fields.len();
    if schemas != 1 || batches != 1 || fields > MAX_ANSWER_COLUMNS || dictionaries > fields {
        return invalid(format!(
            "columns: {schemas} schemas with {fields} fields, {dictionaries} dictionaries, {batches} batches"
        ));
    }
    Ok(())
}

impl Parts {
    fn add(&mut self, message: &Message<'_>, body: usize) -> Result<(), Fault> {
        let records = match message.header_type() {
            MessageHeader::Schema => {
                self.schemas += 1;
                let schema = message.header_as_schema();
                let little = schema.filter(|schema| schema.endianness() == Endianness::Little);
                let Some(fields) = little.and_then(|schema| schema.fields()) else {
                    return invalid("columns: a schema without fields, or of another byte order");
                };
                for field in fields {
                    let Some(shape) = Shape::of(&field, 0, &mut self.values) else {
                        return invalid("columns: a type that no column has");
                    };
                    self.fields.push(shape);
                }
                return Ok(());
            }
            MessageHeader::DictionaryBatch => {
                self.dictionaries += 1;
                let dictionary = message.header_as_dictionary_batch();
                dictionary.and_then(|dictionary| {
                    let (_, values) = self.values.iter().find(|(id, _)| *id == dictionary.id())?;
                    Some((dictionary.data()?, std::slice::from_ref(values)))
                })
            }
            MessageHeader::RecordBatch => {
                self.batches += 1;
                let records = message.header_as_record_batch();
                records.map(|records| (records, &self.fields[..]))
            }
            _ => return invalid("columns: a message of another kind"),
        };
        match records {
            None => invalid("columns: a message is empty, or a dictionary of no column"),
            Some((records, _)) if records.compression().is_some() => invalid("columns are compressed"),
            Some((records, shapes)) if !fits(&records, shapes, body) => invalid("columns: a length is wrong"),
            Some(_) => Ok(()),
        }
    }
}

/// Whether all buffers lie within the body and hold whole values, and every array has as many bits for its nulls as it has values:
/// the reader takes that on trust. All else it looks at itself.
fn fits(records: &arrow_ipc::RecordBatch<'_>, shapes: &[Shape], body: usize) -> bool {
    let mut nodes = records.nodes().into_iter().flatten();
    let buffers = records.buffers().into_iter().flatten();
    let lies_within = |buffer: &arrow_ipc::Buffer| {
        let place = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok());
        place.is_some_and(|(offset, length)| offset.checked_add(length).is_some_and(|end| end <= body))
    };
    let mut lengths = buffers.map(|buffer| lies_within(buffer).then(|| buffer.length()));
    records.length() >= 0
        && shapes
            .iter()
            .all(|shape| shape.fits(&mut nodes, &mut lengths).is_some())
        && lengths.all(|length| length.is_some())
}

/// The arrays that a column consists of.
enum Shape {
    /// Values of so many bits each.
    Values(i64),
    /// Offsets and bytes.
    Bytes,
    /// Offsets, and what they point into.
    List(Box<Shape>),
    Struct(Vec<Shape>),
}

impl Shape {
    /// Of a type that columns have; `None` for another. Whether this very column has it is looked at when it is read.
    fn of(field: &Field<'_>, depth: usize, dictionaries: &mut Vec<(i64, Shape)>) -> Option<Shape> {
        let bits = |bits: i32| matches!(bits, 8 | 16 | 32 | 64).then_some(i64::from(bits));
        field.name()?;
        let mut members = || {
            let children = field.children().into_iter().flatten().take(MAX_MEMBERS + 1);
            let shapes = children.map(|child| Shape::of(&child, depth + 1, dictionaries));
            let shapes: Vec<Shape> = shapes.collect::<Option<_>>()?;
            (depth < MAX_DEPTH && (1..=MAX_MEMBERS).contains(&shapes.len())).then_some(shapes)
        };
        let values = match field.type_type() {
            Type::Utf8 | Type::Binary => Shape::Bytes,
            Type::Bool => Shape::Values(1),
            Type::Int => Shape::Values(bits(field.type_as_int()?.bitWidth())?),
            Type::FloatingPoint if field.type_as_floating_point()?.precision() == Precision::DOUBLE => {
                Shape::Values(64)
            }
            Type::FixedSizeBinary => {
                let bytes = field.type_as_fixed_size_binary()?.byteWidth();
                Shape::Values((1..=MAX_FIXED_BYTES).contains(&bytes).then_some(8 * i64::from(bytes))?)
            }
            Type::Struct_ => Shape::Struct(members()?),
            Type::List => match <[Shape; 1]>::try_from(members()?) {
                Ok([items]) => Shape::List(Box::new(items)),
                Err(_) => return None,
            },
            _ => return None,
        };
        match field.dictionary() {
            None => Some(values),
            Some(dictionary) => {
                let keys = bits(dictionary.indexType()?.bitWidth())?;
                dictionaries.push((dictionary.id(), values));
                Some(Shape::Values(keys))
            }
        }
    }

    /// `None` if a length is wrong or something is missing.
    fn fits(
        &self,
        nodes: &mut dyn Iterator<Item = &FieldNode>,
        lengths: &mut dyn Iterator<Item = Option<i64>>,
    ) -> Option<()> {
        let node = nodes.next()?;
        let nulls = lengths.next()??.saturating_mul(8);
        let counts_are_right = (0..=node.length()).contains(&node.null_count());
        (counts_are_right && (node.null_count() == 0 || node.length() <= nulls)).then_some(())?;
        let mut whole = |bytes: i64| lengths.next()?.filter(|length| length % bytes == 0).map(drop);
        match self {
            Shape::Values(bits) => whole((bits / 8).max(1)),
            Shape::Bytes => whole(OFFSET_BYTES).and_then(|()| whole(1)),
            Shape::List(items) => {
                whole(OFFSET_BYTES)?;
                items.fits(nodes, lengths)
            }
            Shape::Struct(members) => members.iter().try_for_each(|member| member.fits(nodes, lengths)),
        }
    }
}
