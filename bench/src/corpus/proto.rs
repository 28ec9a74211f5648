//! A protobuf writer, just enough for OTLP: nested messages are written in place and their length put in front
//! afterwards, so no object tree is built.

/// One message under construction.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn with_capacity(bytes: usize) -> Message {
        Message {
            bytes: Vec::with_capacity(bytes),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends fields that were written elsewhere.
    pub(crate) fn append(&mut self, other: &Message) {
        self.bytes.extend_from_slice(&other.bytes);
    }

    pub(crate) fn uint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        varint(&mut self.bytes, value);
    }

    /// A `sint32` or `sint64`.
    pub(crate) fn zigzag(&mut self, field: u32, value: i64) {
        self.uint(field, ((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub(crate) fn data(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        varint(&mut self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, field: u32, value: &str) {
        self.data(field, value.as_bytes());
    }

    pub(crate) fn packed_fixed64(&mut self, field: u32, values: &[u64]) {
        self.message(field, |m| {
            for value in values {
                m.bytes.extend_from_slice(&value.to_le_bytes());
            }
        });
    }

    pub(crate) fn packed_double(&mut self, field: u32, values: &[f64]) {
        self.message(field, |m| {
            for value in values {
                m.bytes.extend_from_slice(&value.to_le_bytes());
            }
        });
    }

    pub(crate) fn packed_uint(&mut self, field: u32, values: &[u64]) {
        self.message(field, |m| {
            for value in values {
                varint(&mut m.bytes, *value);
            }
        });
    }

    pub(crate) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        self.key(field, 2);
        let start = self.bytes.len();
        fill(self);
        let mut length = Vec::with_capacity(5);
        varint(&mut length, (self.bytes.len() - start) as u64);
        self.bytes.splice(start..start, length);
    }

    /// A `KeyValue` with a string.
    pub(crate) fn attr_text(&mut self, field: u32, key: &str, value: &str) {
        self.attribute(field, key, |v| v.text(1, value));
    }

    pub(crate) fn attr_bool(&mut self, field: u32, key: &str, value: bool) {
        self.attribute(field, key, |v| v.uint(2, u64::from(value)));
    }

    pub(crate) fn attr_int(&mut self, field: u32, key: &str, value: i64) {
        self.attribute(field, key, |v| v.uint(3, value as u64));
    }

    pub(crate) fn attr_double(&mut self, field: u32, key: &str, value: f64) {
        self.attribute(field, key, |v| v.double(4, value));
    }

    fn attribute(&mut self, field: u32, key: &str, value: impl FnOnce(&mut Message)) {
        self.message(field, |kv| {
            kv.text(1, key);
            kv.message(2, value);
        });
    }

    fn key(&mut self, field: u32, wire_type: u32) {
        varint(&mut self.bytes, u64::from(field << 3 | wire_type));
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
