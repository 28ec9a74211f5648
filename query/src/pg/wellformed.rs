//! Whether the body of a client's message holds what its counts and lengths say. The library that reads messages takes their word for
//! it: it would read on into the next message, or panic where there is none.

/// Whether a body is gathered and looked at when a message of this kind has come.
pub(super) fn is_checked(kind: u8) -> bool {
    matches!(
        kind,
        b'B' | b'C' | b'D' | b'E' | b'H' | b'P' | b'Q' | b'S' | b'X' | b'c' | b'f'
    )
}

/// <https://www.postgresql.org/docs/16/protocol-message-formats.html>
pub(super) fn is_whole(kind: u8, body: &[u8]) -> bool {
    let mut rest = Rest(body);
    let read = match kind {
        b'Q' | b'f' => rest.text(),
        b'P' => rest.parse(),
        b'B' => rest.bind(),
        b'C' | b'D' => rest.skip(1).and_then(|()| rest.text()),
        b'E' => rest.text().and_then(|()| rest.skip(4)),
        // the others of the kinds above have no body
        _ => Some(()),
    };
    read.is_some() && rest.0.is_empty()
}

/// What has not been read of a body; `None`: it ends too early.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn text(&mut self) -> Option<()> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.skip(end + 1)
    }

    fn number(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number).into())
    }

    /// So many things of so many bytes.
    fn numbered(&mut self, each: usize) -> Option<()> {
        let count = self.number()?;
        self.skip(count * each)
    }

    fn parse(&mut self) -> Option<()> {
        self.text()?;
        self.text()?;
        self.numbered(4)
    }

    fn bind(&mut self) -> Option<()> {
        self.text()?;
        self.text()?;
        self.numbered(2)?;
        for _ in 0..self.number()? {
            let (length, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            match i32::from_be_bytes(*length) {
                // null
                -1 => {}
                length => self.skip(usize::try_from(length).ok()?)?,
            }
        }
        self.numbered(2)
    }
}
