//! From the bytes of a stream to a record batch that points into them.

use std::sync::Arc;

use arrow_array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, ListArray, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::{FieldNode, MessageHeader, root_as_message};
use arrow_schema::{DataType, Schema};

use super::{ALIGNMENT, CONTINUATION, invalid};

/// The first record batch of a stream.
pub fn read(bytes: Vec<u8>) -> Result<RecordBatch, String> {
    let stream = if bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
        Buffer::from_vec(bytes)
    } else {
        Buffer::from_slice_ref(&bytes)
    };
    let mut schema: Option<Arc<Schema>> = None;
    let mut dictionary_ids: Vec<Option<i64>> = Vec::new();
    let mut dictionaries: Vec<(i64, ArrayRef)> = Vec::new();
    let mut at = 0;
    while let Some(meta) = metadata(&stream, at)? {
        let message = root_as_message(meta.as_slice()).map_err(|e| e.to_string())?;
        let body_length = usize::try_from(message.bodyLength()).map_err(|e| e.to_string())?;
        let body = slice(&stream, at + 8 + meta.len(), body_length)?;
        at += 8 + meta.len() + body_length;
        match message.header_type() {
            MessageHeader::Schema => {
                let Some(header) = message.header_as_schema() else {
                    return invalid("no schema");
                };
                dictionary_ids = header
                    .fields()
                    .iter()
                    .flatten()
                    .map(|field| field.dictionary().map(|dictionary| dictionary.id()))
                    .collect();
                schema = Some(Arc::new(arrow_ipc::convert::fb_to_schema(header)));
            }
            MessageHeader::DictionaryBatch => {
                let header = message.header_as_dictionary_batch();
                let Some((id, data)) = header.and_then(|h| Some((h.id(), h.data()?))) else {
                    return invalid("no dictionary");
                };
                let values = Columns::new(data, body)?.column(&DataType::Utf8, None)?;
                dictionaries.push((id, values));
            }
            MessageHeader::RecordBatch => {
                let (Some(schema), Some(header)) = (schema, message.header_as_record_batch()) else {
                    return invalid("no schema before the rows");
                };
                let rows = usize::try_from(header.length()).map_err(|e| e.to_string())?;
                let mut columns = Columns::new(header, body)?;
                let mut arrays = Vec::with_capacity(schema.fields().len());
                for (field, id) in schema.fields().iter().zip(&dictionary_ids) {
                    let dictionary = dictionaries
                        .iter()
                        .find(|(other, _)| Some(*other) == *id)
                        .map(|(_, values)| values);
                    arrays.push(columns.column(field.data_type(), dictionary)?);
                }
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                return RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|e| e.to_string());
            }
            _ => return invalid("a message of another kind"),
        }
    }
    invalid("no rows")
}

/// Metadata of the message at this place.
fn metadata(stream: &Buffer, at: usize) -> Result<Option<Buffer>, String> {
    let Some(head) = stream.get(at..at + 8) else {
        return Ok(None);
    };
    if head[..4] != CONTINUATION {
        return invalid("not an Arrow IPC stream");
    }
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if length == 0 {
        return Ok(None);
    }
    slice(stream, at + 8, length).map(Some)
}

fn slice(buffer: &Buffer, start: usize, length: usize) -> Result<Buffer, String> {
    match start.checked_add(length) {
        Some(end) if end <= buffer.len() => Ok(buffer.slice_with_length(start, length)),
        _ => invalid("cut off"),
    }
}

/// The columns of one message, taken one after another.
struct Columns<'a> {
    nodes: Vec<&'a FieldNode>,
    buffers: Vec<&'a arrow_ipc::Buffer>,
    body: Buffer,
    next_node: usize,
    next_buffer: usize,
}

impl<'a> Columns<'a> {
    fn new(header: arrow_ipc::RecordBatch<'a>, body: Buffer) -> Result<Self, String> {
        if header.compression().is_some() {
            return invalid("compressed");
        }
        Ok(Columns {
            nodes: header.nodes().iter().flatten().collect(),
            buffers: header.buffers().iter().flatten().collect(),
            body,
            next_node: 0,
            next_buffer: 0,
        })
    }

    fn buffer(&mut self) -> Result<Buffer, String> {
        let Some(place) = self.buffers.get(self.next_buffer) else {
            return invalid("a buffer is missing");
        };
        self.next_buffer += 1;
        let number = |n: i64| usize::try_from(n).map_err(|e| e.to_string());
        slice(&self.body, number(place.offset())?, number(place.length())?)
    }

    /// Length and nulls of the next column.
    fn node(&mut self) -> Result<(usize, Option<NullBuffer>), String> {
        let Some(node) = self.nodes.get(self.next_node).copied() else {
            return invalid("a column is missing");
        };
        self.next_node += 1;
        let length = usize::try_from(node.length()).map_err(|e| e.to_string())?;
        let bits = self.buffer()?;
        if node.null_count() == 0 {
            return Ok((length, None));
        }
        Ok((length, Some(NullBuffer::new(self.bits(bits, length)?))))
    }

    fn bits(&self, bits: Buffer, length: usize) -> Result<BooleanBuffer, String> {
        if bits.len() < length.div_ceil(8) {
            return invalid("bits are missing");
        }
        Ok(BooleanBuffer::new(bits, 0, length))
    }

    fn values<T: ArrowPrimitiveType>(&mut self) -> Result<PrimitiveArray<T>, String> {
        let (length, nulls) = self.node()?;
        let values = self.buffer()?;
        if values.len() < length.saturating_mul(size_of::<T::Native>()) {
            return invalid("values are missing");
        }
        PrimitiveArray::try_new(ScalarBuffer::new(values, 0, length), nulls).map_err(|e| e.to_string())
    }

    fn offsets(&mut self, length: usize) -> Result<OffsetBuffer<i32>, String> {
        let offsets = self.buffer()?;
        if length == 0 {
            return Ok(OffsetBuffer::new_empty());
        }
        if offsets.len() / 4 <= length {
            return invalid("offsets are missing");
        }
        Ok(OffsetBuffer::new(ScalarBuffer::new(offsets, 0, length + 1)))
    }

    fn dictionary<K: ArrowDictionaryKeyType>(&mut self, values: Option<&ArrayRef>) -> Result<ArrayRef, String> {
        let keys = self.values::<K>()?;
        let values = match values {
            Some(values) => values.clone(),
            // A column of nothing but nulls needs no dictionary.
            None => Arc::new(StringArray::from(Vec::<&str>::new())),
        };
        shared(DictionaryArray::try_new(keys, values))
    }

    fn column(&mut self, data_type: &DataType, dictionary: Option<&ArrayRef>) -> Result<ArrayRef, String> {
        match data_type {
            DataType::Utf8 => {
                let (length, nulls) = self.node()?;
                let offsets = self.offsets(length)?;
                shared(StringArray::try_new(offsets, self.buffer()?, nulls))
            }
            DataType::Binary => {
                let (length, nulls) = self.node()?;
                let offsets = self.offsets(length)?;
                shared(BinaryArray::try_new(offsets, self.buffer()?, nulls))
            }
            DataType::Int32 => Ok(Arc::new(self.values::<Int32Type>()?)),
            DataType::Int64 => Ok(Arc::new(self.values::<Int64Type>()?)),
            DataType::UInt32 => Ok(Arc::new(self.values::<UInt32Type>()?)),
            DataType::UInt64 => Ok(Arc::new(self.values::<UInt64Type>()?)),
            DataType::Float64 => Ok(Arc::new(self.values::<Float64Type>()?)),
            DataType::Boolean => {
                let (length, nulls) = self.node()?;
                let bits = self.buffer()?;
                Ok(Arc::new(BooleanArray::new(self.bits(bits, length)?, nulls)))
            }
            DataType::FixedSizeBinary(size) => {
                let (_, nulls) = self.node()?;
                shared(FixedSizeBinaryArray::try_new(*size, self.buffer()?, nulls))
            }
            DataType::List(item) => {
                let (length, nulls) = self.node()?;
                let offsets = self.offsets(length)?;
                let values = self.column(item.data_type(), None)?;
                shared(ListArray::try_new(item.clone(), offsets, values, nulls))
            }
            DataType::Struct(fields) => {
                let (_, nulls) = self.node()?;
                let columns = fields
                    .iter()
                    .map(|field| self.column(field.data_type(), None))
                    .collect::<Result<Vec<_>, _>>()?;
                shared(StructArray::try_new(fields.clone(), columns, nulls))
            }
            DataType::Dictionary(keys, _) if **keys == DataType::UInt16 => self.dictionary::<UInt16Type>(dictionary),
            DataType::Dictionary(keys, _) if **keys == DataType::UInt32 => self.dictionary::<UInt32Type>(dictionary),
            _ => invalid("a column of a type that batches do not have"),
        }
    }
}

fn shared<A: Array + 'static>(array: Result<A, arrow_schema::ArrowError>) -> Result<ArrayRef, String> {
    array
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|e| e.to_string())
}
