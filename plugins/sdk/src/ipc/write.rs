//! From columns to the bytes of a stream. Buffers are copied once, into the stream.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, Buffer, OffsetBuffer};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_ipc::{
    DictionaryBatchBuilder, FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder,
};
use arrow_schema::{DataType, Schema};
use flatbuffers::FlatBufferBuilder;

use super::{ALIGNMENT, CONTINUATION, invalid};

/// A stream with one record batch of these columns, which are those of the schema and have `rows` rows.
pub fn write(schema: &Schema, columns: &[ArrayRef], rows: usize) -> Result<Vec<u8>, String> {
    let mut tracker = DictionaryTracker::new(false);
    let head = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    let mut ids = tracker.dict_id().to_vec().into_iter();
    let mut body = Body::default();
    let mut dictionaries: Vec<(i64, Body)> = Vec::new();
    for column in columns {
        if let Some(values) = body.column(column)? {
            let Some(id) = ids.next() else {
                return invalid("a dictionary without a number");
            };
            let mut dictionary = Body::default();
            dictionary.column(&values)?;
            dictionaries.push((id, dictionary));
        }
    }
    let bodies = dictionaries.iter().map(|(_, body)| body).chain([&body]);
    let bytes: usize = bodies.map(|body| body.length + 64 * body.buffers.len() + 512).sum();
    let mut out = Vec::with_capacity(head.ipc_message.len() + bytes);
    message(&mut out, &head.ipc_message);
    for (id, dictionary) in &dictionaries {
        let rows = dictionary.nodes.first().map_or(0, FieldNode::length);
        dictionary.write(&mut out, rows, Some(*id));
    }
    body.write(&mut out, rows as i64, None);
    out.extend_from_slice(&CONTINUATION);
    out.extend_from_slice(&[0; 4]);
    Ok(out)
}

fn message(out: &mut Vec<u8>, meta: &[u8]) {
    let length = meta.len().next_multiple_of(ALIGNMENT);
    out.extend_from_slice(&CONTINUATION);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(meta);
    out.resize(out.len() + length - meta.len(), 0);
}

/// The buffers of one message.
#[derive(Default)]
struct Body {
    nodes: Vec<FieldNode>,
    places: Vec<arrow_ipc::Buffer>,
    buffers: Vec<Buffer>,
    length: usize,
}

impl Body {
    fn write(&self, out: &mut Vec<u8>, rows: i64, dictionary: Option<i64>) {
        let mut fb = FlatBufferBuilder::new();
        let nodes = fb.create_vector(&self.nodes);
        let buffers = fb.create_vector(&self.places);
        let mut records = RecordBatchBuilder::new(&mut fb);
        records.add_length(rows);
        records.add_nodes(nodes);
        records.add_buffers(buffers);
        let records = records.finish();
        let (kind, header) = match dictionary {
            None => (MessageHeader::RecordBatch, records.as_union_value()),
            Some(id) => {
                let mut dictionary = DictionaryBatchBuilder::new(&mut fb);
                dictionary.add_id(id);
                dictionary.add_data(records);
                (MessageHeader::DictionaryBatch, dictionary.finish().as_union_value())
            }
        };
        let mut builder = MessageBuilder::new(&mut fb);
        builder.add_version(MetadataVersion::V5);
        builder.add_header_type(kind);
        builder.add_bodyLength(self.length as i64);
        builder.add_header(header);
        let root = builder.finish();
        fb.finish(root, None);
        message(out, fb.finished_data());
        for buffer in &self.buffers {
            out.extend_from_slice(buffer.as_slice());
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
    }

    fn buffer(&mut self, buffer: Buffer) {
        let place = arrow_ipc::Buffer::new(self.length as i64, buffer.len() as i64);
        self.places.push(place);
        self.length += buffer.len().next_multiple_of(ALIGNMENT);
        self.buffers.push(buffer);
    }

    fn bits(&mut self, bits: &BooleanBuffer) {
        self.buffer(bits.sliced());
    }

    fn node(&mut self, array: &dyn Array) {
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        let count = nulls.map_or(0, |nulls| nulls.null_count());
        self.nodes.push(FieldNode::new(array.len() as i64, count as i64));
        match nulls {
            Some(nulls) => self.bits(nulls.inner()),
            None => self.buffer(Buffer::from_vec(Vec::<u8>::new())),
        }
    }

    /// Offsets from 0 on; answers which part of the values they cover.
    fn offsets(&mut self, offsets: &OffsetBuffer<i32>) -> (usize, usize) {
        let first = offsets.first().copied().unwrap_or(0);
        let last = offsets.last().copied().unwrap_or(0);
        if first == 0 {
            self.buffer(offsets.inner().inner().clone());
        } else {
            let moved: Vec<i32> = offsets.iter().map(|offset| offset - first).collect();
            self.buffer(Buffer::from_vec(moved));
        }
        (first as usize, (last - first) as usize)
    }

    fn values<T: ArrowPrimitiveType>(&mut self, column: &dyn Array) {
        self.node(column);
        self.buffer(column.as_primitive::<T>().values().inner().clone());
    }

    fn dictionary<K: ArrowDictionaryKeyType>(&mut self, column: &dyn Array) -> ArrayRef {
        let dictionary = column.as_dictionary::<K>();
        self.values::<K>(dictionary.keys());
        dictionary.values().clone()
    }

    /// Takes one column; answers the values of its dictionary, which go into a message of their own.
    fn column(&mut self, column: &dyn Array) -> Result<Option<ArrayRef>, String> {
        match column.data_type() {
            DataType::Utf8 => {
                let array = column.as_string::<i32>();
                self.node(array);
                let (start, length) = self.offsets(array.offsets());
                self.buffer(array.values().slice_with_length(start, length));
            }
            DataType::Binary => {
                let array = column.as_binary::<i32>();
                self.node(array);
                let (start, length) = self.offsets(array.offsets());
                self.buffer(array.values().slice_with_length(start, length));
            }
            DataType::Int32 => self.values::<Int32Type>(column),
            DataType::Int64 => self.values::<Int64Type>(column),
            DataType::UInt32 => self.values::<UInt32Type>(column),
            DataType::UInt64 => self.values::<UInt64Type>(column),
            DataType::Float64 => self.values::<Float64Type>(column),
            DataType::Boolean => {
                self.node(column);
                self.bits(column.as_boolean().values());
            }
            DataType::FixedSizeBinary(_) => {
                let array = column.as_fixed_size_binary();
                self.node(array);
                self.buffer(Buffer::from_slice_ref(array.value_data()));
            }
            DataType::List(_) => {
                let array = column.as_list::<i32>();
                self.node(array);
                let (start, length) = self.offsets(array.offsets());
                self.column(&array.values().slice(start, length))?;
            }
            DataType::Struct(_) => {
                self.node(column);
                for child in column.as_struct().columns() {
                    self.column(child)?;
                }
            }
            DataType::Dictionary(keys, _) if **keys == DataType::UInt16 => {
                return Ok(Some(self.dictionary::<UInt16Type>(column)));
            }
            DataType::Dictionary(keys, _) if **keys == DataType::UInt32 => {
                return Ok(Some(self.dictionary::<UInt32Type>(column)));
            }
            _ => return invalid("a column of a type that batches do not have"),
        }
        Ok(None)
    }
}
