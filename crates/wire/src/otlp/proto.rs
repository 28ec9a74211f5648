//! Reads protobuf wire format in place: no message objects, only a position in the request.

use super::DecodeError;

/// Groups are long deprecated; they are skipped, to this depth.
const MAX_GROUP_DEPTH: usize = 8;

/// Wire types of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// One message inside a request: a window on the whole body, so that offsets in errors are those of the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
    /// Where the message ends in the body.
    end: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self {
            left: body,
            end: body.len(),
        }
    }

    pub(super) fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed {
            offset: self.offset(),
            what,
        }
    }

    /// Position in the body.
    fn offset(&self) -> usize {
        self.end - self.left.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Number and wire type of the next field; `None` at the end of the message.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<(u32, Wire)>, DecodeError> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(self.malformed("unknown wire type")),
        };
        match u32::try_from(tag >> 3) {
            Ok(number) if number != 0 && number < 1 << 29 => Ok(Some((number, wire))),
            _ => Err(self.malformed("field number out of range")),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.left {
            [first, left @ ..] if *first < 0x80 => {
                self.left = left;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.left.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(self.malformed("number does not fit 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.left = &self.left[i + 1..];
                return Ok(value);
            }
        }
        Err(self.malformed(if self.left.len() >= 10 {
            "number does not fit 64 bits"
        } else {
            "ends inside a number"
        }))
    }

    fn expect(&self, found: Wire, wanted: Wire) -> Result<(), DecodeError> {
        if found == wanted {
            Ok(())
        } else {
            Err(self.malformed("field has the wrong wire type"))
        }
    }

    pub(super) fn uint(&mut self, wire: Wire) -> Result<u64, DecodeError> {
        self.expect(wire, Wire::Varint)?;
        self.varint()
    }

    /// int32 and enums: the low 32 bits, as every protobuf decoder takes them.
    pub(super) fn int32(&mut self, wire: Wire) -> Result<i32, DecodeError> {
        Ok(self.uint(wire)? as i32)
    }

    pub(super) fn uint32(&mut self, wire: Wire) -> Result<u32, DecodeError> {
        Ok(self.uint(wire)? as u32)
    }

    pub(super) fn sint32(&mut self, wire: Wire) -> Result<i32, DecodeError> {
        let raw = self.uint(wire)? as u32;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.left.split_first_chunk::<N>() {
            Some((bytes, left)) => {
                self.left = left;
                Ok(*bytes)
            }
            None => Err(self.malformed("ends inside a fixed-size number")),
        }
    }

    pub(super) fn fixed64(&mut self, wire: Wire) -> Result<u64, DecodeError> {
        self.expect(wire, Wire::Fixed64)?;
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn fixed32(&mut self, wire: Wire) -> Result<u32, DecodeError> {
        self.expect(wire, Wire::Fixed32)?;
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn double(&mut self, wire: Wire) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.fixed64(wire)?))
    }

    /// A nested message, as a window of its own.
    #[inline]
    pub(super) fn message(&mut self, wire: Wire) -> Result<Reader<'a>, DecodeError> {
        self.expect(wire, Wire::Bytes)?;
        let length = self.varint()?;
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.left.split_at_checked(length));
        let Some((inner, left)) = split else {
            return Err(self.malformed("length goes beyond the message that holds it"));
        };
        self.left = left;
        Ok(Reader {
            left: inner,
            end: self.offset(),
        })
    }

    /// What is left of this message.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.left
    }

    pub(super) fn bytes(&mut self, wire: Wire) -> Result<&'a [u8], DecodeError> {
        Ok(self.message(wire)?.rest())
    }

    #[inline]
    pub(super) fn text(&mut self, wire: Wire) -> Result<&'a str, DecodeError> {
        self.message(wire)?.whole_text()
    }

    /// The two halves of a message that consists of a field 1 and a field 2, both short and in this order, which is how every encoder
    /// writes a `KeyValue`; `None` sends the caller the long way round.
    #[inline]
    pub(super) fn short_pair(&self) -> Option<(Reader<'a>, Reader<'a>)> {
        let [0x0a, length @ 0..0x80, left @ ..] = self.left else {
            return None;
        };
        let (first, left) = left.split_at_checked(usize::from(*length))?;
        let [0x12, length @ 0..0x80, second @ ..] = left else {
            return None;
        };
        if second.len() != usize::from(*length) {
            return None;
        }
        let end = self.end - left.len();
        Some((
            Reader { left: first, end },
            Reader {
                left: second,
                end: self.end,
            },
        ))
    }

    /// What is left of this message as text.
    #[inline]
    pub(super) fn whole_text(&self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.rest()).map_err(|e| DecodeError::Malformed {
            offset: self.offset() + e.valid_up_to(),
            what: "text is not UTF-8",
        })
    }

    /// Appends one or many (packed) 64-bit numbers.
    pub(super) fn fixed64s<T>(
        &mut self,
        wire: Wire,
        out: &mut Vec<T>,
        from: impl Fn(u64) -> T,
    ) -> Result<(), DecodeError> {
        if wire == Wire::Fixed64 {
            out.push(from(self.fixed64(wire)?));
            return Ok(());
        }
        let inner = self.message(wire)?;
        let (numbers, odd) = inner.rest().as_chunks::<8>();
        if !odd.is_empty() {
            return Err(inner.malformed("packed numbers end inside a number"));
        }
        out.extend(numbers.iter().map(|n| from(u64::from_le_bytes(*n))));
        Ok(())
    }

    /// Appends one or many (packed) varints.
    pub(super) fn uints(&mut self, wire: Wire, out: &mut Vec<u64>) -> Result<(), DecodeError> {
        if wire == Wire::Varint {
            out.push(self.varint()?);
            return Ok(());
        }
        let mut inner = self.message(wire)?;
        while !inner.is_empty() {
            out.push(inner.varint()?);
        }
        Ok(())
    }

    /// Passes over the value of an unknown field.
    pub(super) fn skip(&mut self, number: u32, wire: Wire) -> Result<(), DecodeError> {
        self.skip_nested(number, wire, MAX_GROUP_DEPTH)
    }

    fn skip_nested(&mut self, number: u32, wire: Wire, depth: usize) -> Result<(), DecodeError> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.take::<8>().map(drop),
            Wire::Fixed32 => self.take::<4>().map(drop),
            Wire::Bytes => self.message(wire).map(drop),
            Wire::GroupEnd => Err(self.malformed("end of a group that never began")),
            Wire::GroupStart => {
                if depth == 0 {
                    return Err(self.malformed("groups are nested too deeply"));
                }
                loop {
                    match self.field()? {
                        None => return Err(self.malformed("group never ends")),
                        Some((end, Wire::GroupEnd)) if end == number => return Ok(()),
                        Some((inner, wire)) => self.skip_nested(inner, wire, depth - 1)?,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<u64, DecodeError> {
        Reader::new(bytes).varint()
    }

    #[test]
    fn varints_are_bounded() {
        assert_eq!(first(&[0x96, 0x01]).unwrap(), 150);
        assert_eq!(
            first(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).unwrap(),
            u64::MAX
        );
        for bad in [
            &[][..],
            &[0x80],
            &[0xff; 9],
            &[0xff; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert!(
                matches!(first(bad), Err(DecodeError::Malformed { offset: 0, .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn unknown_fields_of_every_wire_type_are_skipped() {
        let bytes = [
            0x08, 0x01, // 1: varint
            0x11, 0, 0, 0, 0, 0, 0, 0, 0, // 2: fixed64
            0x1a, 0x02, 0xff, 0xff, // 3: bytes
            0x23, 0x08, 0x01, 0x2b, 0x2c, 0x24, // 4: a group that holds a number and a group
            0x2d, 0, 0, 0, 0, // 5: fixed32
        ];
        let mut reader = Reader::new(&bytes);
        let mut seen = Vec::new();
        while let Some((number, wire)) = reader.field().unwrap() {
            reader.skip(number, wire).unwrap();
            seen.push(number);
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn lengths_stay_inside_their_message() {
        let mut reader = Reader::new(&[0x0a, 0x05, 1, 2]);
        let (_, wire) = reader.field().unwrap().unwrap();
        assert_eq!(
            reader.message(wire).unwrap_err(),
            DecodeError::Malformed {
                offset: 2,
                what: "length goes beyond the message that holds it"
            }
        );
    }
}
