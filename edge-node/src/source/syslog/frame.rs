//! Messages out of a stream (RFC 6587): each begins with its length, or ends with a new line or, as Python has it, a zero. Pure.

use bytes::{Buf, BytesMut};
use memchr::memchr2;

/// Digits of a length; RFC 6587 has it that they begin with none of zero.
const MAX_LENGTH_DIGITS: usize = 8;

/// Takes messages off the front of what has come in. It holds no more than `max_bytes` and what is read at once.
#[derive(Debug)]
pub(super) struct Frames {
    max_bytes: usize,
    /// Bytes of a counted message that are thrown away.
    discard: usize,
    /// Whether the rest of a line is thrown away.
    discard_line: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) message: Vec<u8>,
    /// It was longer.
    pub(super) is_cut: bool,
}

/// The stream is not one of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

impl Frames {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            discard: 0,
            discard_line: false,
        }
    }

    /// The next message, or `None` until there is more. `all`: nothing more will come.
    pub(super) fn next(&mut self, bytes: &mut BytesMut, all: bool) -> Result<Option<Frame>, BadFrame> {
        loop {
            let thrown = self.discard.min(bytes.len());
            bytes.advance(thrown);
            self.discard -= thrown;
            if self.discard_line {
                match memchr2(b'\n', 0, bytes) {
                    Some(end) => bytes.advance(end + 1),
                    None => {
                        bytes.clear();
                        return Ok(None);
                    }
                }
                self.discard_line = false;
            }
            // Between messages some senders put ends of lines.
            let blank = bytes.iter().take_while(|b| b"\r\n\0".contains(b)).count();
            bytes.advance(blank);
            let frame = match bytes.first() {
                None => return Ok(None),
                Some(b'1'..=b'9') => self.counted(bytes, all)?,
                Some(_) => self.line(bytes, all),
            };
            match frame {
                Some(frame) if frame.message.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn counted(&mut self, bytes: &mut BytesMut, all: bool) -> Result<Option<Frame>, BadFrame> {
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > MAX_LENGTH_DIGITS {
            return Err(BadFrame);
        }
        let length = bytes[..digits].iter().fold(0, |n, b| n * 10 + usize::from(b - b'0'));
        match bytes.get(digits) {
            None => return Ok(None),
            Some(b' ') => {}
            Some(_) => return Err(BadFrame),
        }
        let have = bytes.len() - digits - 1;
        let wanted = length.min(self.max_bytes);
        if have < wanted && !all {
            return Ok(None);
        }
        bytes.advance(digits + 1);
        let message = bytes.split_to(wanted.min(have)).to_vec();
        self.discard = length - wanted;
        Ok(Some(Frame {
            is_cut: message.len() < length,
            message,
        }))
    }

    fn line(&mut self, bytes: &mut BytesMut, all: bool) -> Option<Frame> {
        let end = match memchr2(b'\n', 0, &bytes[..bytes.len().min(self.max_bytes + 1)]) {
            Some(end) => end,
            None if bytes.len() > self.max_bytes => {
                self.discard_line = true;
                return Some(Frame {
                    message: bytes.split_to(self.max_bytes).to_vec(),
                    is_cut: true,
                });
            }
            None if all => bytes.len(),
            None => return None,
        };
        let message = bytes.split_to(end).to_vec();
        Some(Frame { message, is_cut: false })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(max_bytes: usize, pieces: &[&[u8]]) -> Result<Vec<(String, bool)>, BadFrame> {
        let (mut frames, mut bytes, mut found) = (Frames::new(max_bytes), BytesMut::new(), Vec::new());
        for (number, piece) in pieces.iter().enumerate() {
            bytes.extend_from_slice(piece);
            while let Some(frame) = frames.next(&mut bytes, number + 1 == pieces.len())? {
                assert!(frame.message.len() <= max_bytes);
                found.push((String::from_utf8_lossy(&frame.message).into_owned(), frame.is_cut));
            }
            assert!(bytes.len() <= max_bytes + MAX_LENGTH_DIGITS + 1);
        }
        Ok(found)
    }

    #[test]
    fn both_ways_of_framing_are_told_apart_message_by_message() {
        assert_eq!(
            frames(40, &[&b"6 <1>a\nb<2>two\n8 <3>three\n\n<4>last\0<5>"[..]]).unwrap(),
            [
                ("<1>a\nb", false),
                ("<2>two", false),
                ("<3>three", false),
                ("<4>last", false),
                ("<5>", false)
            ]
            .map(|(text, is_cut)| (text.to_owned(), is_cut))
        );
        assert_eq!(frames(5, &[b"9 <1>456789<2>45678\n3 <3>"]).unwrap().len(), 3);
        assert!(frames(40, &[b"123456789 x"]).is_err());
        assert!(frames(40, &[b"12x"]).is_err());
    }

    proptest! {
        #[test]
        fn messages_do_not_depend_on_how_bytes_come_in(
            messages in proptest::collection::vec(("[a-z<>]{1,12}", any::<bool>()), 0..6),
            cuts in proptest::collection::vec(0usize..80, 0..6),
            max_bytes in 4usize..16,
        ) {
            let mut text = Vec::new();
            for (message, counted) in &messages {
                if *counted {
                    text.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
                } else {
                    text.extend_from_slice(format!("<{message}\n").as_bytes());
                }
            }
            let mut at: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            at.sort_unstable();
            let (mut pieces, mut begin) = (Vec::new(), 0);
            for end in at.into_iter().chain([text.len()]) {
                pieces.push(&text[begin..end]);
                begin = end;
            }
            let found = frames(max_bytes, &pieces).unwrap();
            let expected: Vec<(String, bool)> = messages
                .iter()
                .map(|(message, counted)| {
                    let whole = if *counted { message.clone() } else { format!("<{message}") };
                    (whole.chars().take(max_bytes).collect(), whole.len() > max_bytes)
                })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_stream_is_messages_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = frames(10, &[&bytes]);
        }
    }
}
