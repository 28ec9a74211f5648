//! Protobuf wire format into a byte buffer. Fields with default values are left out, as proto3 has it; the `always` forms are for
//! fields whose presence means something.

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, field: u32, wire: u64) {
    varint(out, u64::from(field) << 3 | wire);
}

/// A nested message or other bytes, also when empty.
pub fn bytes_always(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    tag(out, field, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        bytes_always(out, field, bytes);
    }
}

pub fn text(out: &mut Vec<u8>, field: u32, text: Option<&str>) {
    bytes(out, field, text.unwrap_or_default().as_bytes());
}

pub fn uint_always(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 0);
    varint(out, value);
}

pub fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        uint_always(out, field, value);
    }
}

/// int32 and enums: negative numbers take ten bytes.
pub fn int32(out: &mut Vec<u8>, field: u32, value: i32) {
    uint(out, field, i64::from(value) as u64);
}

pub fn sint32(out: &mut Vec<u8>, field: u32, value: i32) {
    uint(out, field, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

pub fn fixed64_always(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        fixed64_always(out, field, value);
    }
}

pub fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    if value != 0 {
        tag(out, field, 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

pub fn double_always(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64_always(out, field, value.to_bits());
}

/// -0.0 is not the default value.
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    fixed64(out, field, value.to_bits());
}

/// Packed 64-bit numbers.
pub fn fixed64s(out: &mut Vec<u8>, field: u32, values: impl ExactSizeIterator<Item = u64>) {
    if values.len() == 0 {
        return;
    }
    tag(out, field, 2);
    varint(out, values.len() as u64 * 8);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}
