//! A connection that ends when its peer announces a message longer than we take, before the message is gathered in memory, or falls
//! silent in the middle of one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::wellformed;

/// Follows the frames of the protocol: a kind (but for the first message), a length that counts itself, a body.
#[derive(Debug)]
pub(super) struct Frames {
    most: u64,
    header: [u8; 5],
    have: usize,
    /// The first message of a connection has no kind.
    first: bool,
    body: u64,
    /// What has come of the body of a message that is looked at when it is whole.
    gathered: Vec<u8>,
}

impl Frames {
    pub(super) fn new(most: u64) -> Frames {
        Frames {
            most,
            header: [0; 5],
            have: 0,
            first: true,
            body: 0,
            gathered: Vec::new(),
        }
    }

    /// Whether a message has begun and has not ended.
    fn within(&self) -> bool {
        self.have > usize::from(self.first) || self.body > 0
    }

    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.body > 0 {
                let skip = usize::try_from(self.body).unwrap_or(usize::MAX).min(bytes.len());
                if self.is_gathered() {
                    self.gathered.extend_from_slice(&bytes[..skip]);
                }
                self.body -= skip as u64;
                bytes = &bytes[skip..];
                if self.body == 0 {
                    self.look()?;
                }
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
                if length < 4 {
                    let message = format!("a message says that it has {length} bytes, and its length alone has 4");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                if length > self.most {
                    let message = format!("a message of {length} bytes; the limit is {}", self.most);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                self.header[0] = if self.first { 0 } else { self.header[0] };
                (self.body, self.have, self.first) = (length - 4, 0, false);
                if self.body == 0 {
                    self.look()?;
                }
            }
        }
        Ok(())
    }

    fn is_gathered(&self) -> bool {
        wellformed::is_checked(self.header[0])
    }

    /// Looks at a message that is complete.
    fn look(&mut self) -> io::Result<()> {
        let (kind, body) = (self.header[0], std::mem::take(&mut self.gathered));
        if !self.is_gathered() || wellformed::is_whole(kind, &body) {
            return Ok(());
        }
        let message = format!(
            "a message of kind {} does not hold what its lengths and counts say",
            char::from(kind).escape_default()
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// A stream whose reading side is followed.
#[derive(Debug)]
pub(super) struct Capped<S> {
    inner: S,
    frames: Frames,
    /// How long the rest of a message may be awaited.
    patience: Duration,
    /// Runs while nothing comes of a message that has begun.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<S> Capped<S> {
    pub(super) fn new(inner: S, frames: Frames, patience: Duration) -> Capped<S> {
        Capped {
            inner,
            frames,
            patience,
            silence: None,
        }
    }

    /// Ends once the silence within a message has lasted too long; never between two messages.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.frames.within() {
            self.silence = None;
            return Poll::Pending;
        }
        let patience = self.patience;
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        silence.as_mut().poll(cx).map(|()| {
            let message = format!(
                "a message has begun, and nothing more of it came within {} s",
                patience.as_secs()
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Capped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                this.silence = None;
                Poll::Ready(this.frames.follow(&buf.filled()[before..]))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.poll_silence(cx),
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
                out.push(b'd');
            }
            out.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
            out.extend(vec![0xff; *body]);
        }
        out
    }

    /// However it is cut into pieces, a message is looked at as a whole.
    #[test]
    fn messages_that_belie_their_counts_are_refused() {
        let bind = b"p\0s\0\0\x01\0\0\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0";
        let parse = b"s\0SELECT $1\0\0\x01\0\0\0\x17";
        for (kind, body) in [
            (b'B', &bind[..]),
            (b'P', parse),
            (b'Q', b"SELECT 1\0"),
            (b'D', b"Sname\0"),
            (b'C', b"P\0"),
            (b'E', b"\0\0\0\0\0"),
            (b'S', b""),
        ] {
            let taken = |body: &[u8]| {
                let mut bytes = messages(&[0]);
                bytes.push(kind);
                bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                bytes.extend(body);
                (1..bytes.len()).all(|step| {
                    let mut frames = Frames::new(100);
                    bytes.chunks(step).try_for_each(|bytes| frames.follow(bytes)).is_ok()
                })
            };
            assert!(taken(body), "{}", char::from(kind));
            assert!((0..body.len()).all(|end| !taken(&body[..end])), "{}", char::from(kind));
            assert!(!taken(&[body, b"x"].concat()), "{}", char::from(kind));
        }
    }

    /// Nothing may be waited for longer than the rest of a message.
    #[tokio::test]
    async fn silence_ends_a_connection_within_a_message_only() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const PATIENCE: Duration = Duration::from_millis(30);
        for (sent, ends) in [
            (&messages(&[3, 5])[..], false),
            (&messages(&[3, 5])[..12], true),
            (&[0, 0][..], true),
            (&[], false),
        ] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut server = Capped::new(server, Frames::new(100), PATIENCE);
            client.write_all(sent).await.unwrap();
            let mut read = vec![0; sent.len()];
            server.read_exact(&mut read).await.unwrap();
            let mut more = [0];
            let next = tokio::time::timeout(PATIENCE * 4, server.read(&mut more)).await;
            let ended = next.is_ok_and(|read| read.unwrap_err().kind() == io::ErrorKind::TimedOut);
            assert_eq!(ended, ends, "{sent:?}");
        }
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
