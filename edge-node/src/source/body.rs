//! Reads request bodies: never more than the limit, never more than there is room for, never for ever.

use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::intake::{Intake, Reading};
use crate::refusal::Refusal;

/// Room is taken for so much at first, whatever is announced, and then for so many times what has come: a sender that claims much
/// and sends little holds little, and few bytes are moved because the room grows.
const FIRST_BYTES: usize = 16 << 10;
const GROWTH: usize = 4;
/// An HTTP/1 sender reads our answer only after its whole body is sent, so what is refused for its size is still read
/// this far, and thrown away.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// A whole body and its share of the budget.
pub(super) async fn whole(
    intake: &Intake,
    body: Body,
    announced: Option<u64>,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let reading = intake.readers.enter();
    in_time(intake, &reading, read(intake, &reading, body, announced)).await
}

/// What is read, unless it takes too long, or so long that it has to make way for others.
async fn in_time<T>(
    intake: &Intake,
    reading: &Reading<'_>,
    body: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let timeout = intake.limits.read_timeout;
    tokio::select! {
        result = tokio::time::timeout(timeout, body) => result.unwrap_or(Err(Refusal::Slow(timeout))),
        () = reading.given_way() => Err(Refusal::Busy),
    }
}

async fn read(
    intake: &Intake,
    reading: &Reading<'_>,
    mut body: Body,
    announced: Option<u64>,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let max = intake.limits.decode.max_bytes;
    let too_large = || Refusal::TooLarge { max: max as u64 };
    let announced = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > max {
        if announced <= DISCARD_BYTES {
            discard(body).await;
        }
        return Err(too_large());
    }
    let expected = if announced > 0 { announced } else { max };
    let mut room = Growing::begin(intake, expected).await?;
    let mut out = BytesMut::with_capacity(room.bytes.min(announced));
    while let Some(frame) = reading.wait_for(body.frame()).await {
        let frame = frame.map_err(|e| Refusal::Malformed(format!("body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if out.len() + data.len() > max {
            drop((out, room));
            discard(body).await;
            return Err(too_large());
        }
        room.hold(out.len() + data.len()).await?;
        out.reserve(room.bytes - out.len());
        out.extend_from_slice(&data);
    }
    if out.len() < announced {
        return Err(Refusal::Malformed(format!(
            "body has {} bytes of {announced} announced",
            out.len()
        )));
    }
    Ok((out.freeze(), room.permit))
}

/// Room for a body that is on its way.
struct Growing<'a> {
    intake: &'a Intake,
    permit: OwnedSemaphorePermit,
    bytes: usize,
    /// More than this will not come.
    expected: usize,
}

impl<'a> Growing<'a> {
    async fn begin(intake: &'a Intake, expected: usize) -> Result<Self, Refusal> {
        let bytes = expected.clamp(1, FIRST_BYTES);
        Ok(Self {
            permit: intake.room(bytes).await?,
            intake,
            bytes,
            expected,
        })
    }

    /// Room for so many bytes in all.
    async fn hold(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.bytes < bytes {
            let grown = self.bytes.saturating_mul(GROWTH).min(self.expected).max(bytes);
            self.permit.merge(self.intake.room(grown - self.bytes).await?);
            self.bytes = grown;
        }
        Ok(())
    }
}

/// Reads on and throws away, within bounds.
pub(super) async fn discard(mut body: Body) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await
            && seen < DISCARD_BYTES
        {
            seen += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

/// The one message of a unary gRPC call: whether it is compressed, and its bytes.
pub(super) async fn message(intake: &Intake, body: Body) -> Result<(bool, Bytes, OwnedSemaphorePermit), Refusal> {
    let reading = intake.readers.enter();
    in_time(intake, &reading, read_message(intake, &reading, body)).await
}

const PREFIX_BYTES: usize = 5;

async fn read_message(
    intake: &Intake,
    reading: &Reading<'_>,
    mut body: Body,
) -> Result<(bool, Bytes, OwnedSemaphorePermit), Refusal> {
    let malformed = |what: &str| Refusal::Malformed(what.to_owned());
    let max = intake.limits.decode.max_bytes;
    let mut head = BytesMut::new();
    while head.len() < PREFIX_BYTES {
        match reading.wait_for(next(&mut body)).await? {
            Some(data) => head.extend_from_slice(&data),
            None => return Err(malformed("call ends before its message")),
        }
    }
    let compressed = match head.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(malformed("first byte of the message is neither 0 nor 1")),
    };
    let length = head.get_u32() as usize;
    if length > max {
        return Err(Refusal::TooLarge { max: max as u64 });
    }
    let mut room = Growing::begin(intake, length).await?;
    let mut out = BytesMut::with_capacity(room.bytes.min(length));
    let mut data = head.freeze();
    loop {
        if out.len() + data.len() > length {
            return Err(malformed("more than one message in a unary call, or bytes behind it"));
        }
        room.hold(out.len() + data.len()).await?;
        out.reserve(room.bytes - out.len());
        out.extend_from_slice(&data);
        match reading.wait_for(next(&mut body)).await? {
            Some(more) => data = more,
            None if out.len() == length => return Ok((compressed, out.freeze(), room.permit)),
            None => return Err(malformed("message is shorter than announced")),
        }
    }
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Refusal::Malformed(format!("call cannot be read: {e}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
