//! A connection that ends when its peer announces a message longer than we take, before the message is gathered in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Follows the frames of the protocol: a kind (but for the first message), a length that counts itself, a body.
#[derive(Debug)]
pub(super) struct Frames {
    most: u64,
    header: [u8; 5],
    have: usize,
    /// The first message of a connection has no kind.
    first: bool,
    body: u64,
}

impl Frames {
    pub(super) fn new(most: u64) -> Frames {
        Frames {
            most,
            header: [0; 5],
            have: 0,
            first: true,
            body: 0,
        }
    }

    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.body > 0 {
                let skip = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
                self.body -= skip as u64;
                bytes = &bytes[skip..];
                continue;
            }
            if self.first && self.have == 0 {
                self.have = 1;
            }
            self.header[self.have] = *byte;
            self.have += 1;
            bytes = rest;
            if self.have == self.header.len() {
                let [_, a, b, c, d] = self.header;
                let length = u64::from(u32::from_be_bytes([a, b, c, d]));
                if length < 4 || length > self.most {
                    let message = format!("a message of {length} bytes; the limit is {}", self.most);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                (self.body, self.have, self.first) = (length - 4, 0, false);
            }
        }
        Ok(())
    }
}

/// A stream whose reading side is followed.
#[derive(Debug)]
pub(super) struct Capped<S> {
    inner: S,
    frames: Frames,
}

impl<S> Capped<S> {
    pub(super) fn new(inner: S, frames: Frames) -> Capped<S> {
        Capped { inner, frames }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(this.frames.follow(&buf.filled()[before..])),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Capped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages(bodies: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, body) in bodies.iter().enumerate() {
            if at > 0 {
                out.push(b'Q');
            }
            out.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
            out.extend(vec![0xff; *body]);
        }
        out
    }

    proptest! {
        /// However the bytes arrive, the first message above the limit is the one that ends it.
        #[test]
        fn only_what_is_too_long_is_refused(bodies in prop::collection::vec(0usize..200, 1..8), step in 1usize..300) {
            let fits = bodies.iter().all(|body| *body <= 96);
            let mut frames = Frames::new(100);
            let outcome = messages(&bodies).chunks(step).try_for_each(|bytes| frames.follow(bytes));
            prop_assert_eq!(outcome.is_ok(), fits);
        }
    }
}
