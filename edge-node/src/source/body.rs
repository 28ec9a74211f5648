//! Reads request bodies: never more than the limit, never more than there is room for, never for ever.

use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::intake::Intake;
use crate::refusal::Refusal;

/// Room is taken in such steps while the length of a body is not known.
const STEP_BYTES: usize = 256 << 10;
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
    let timeout = intake.limits.read_timeout;
    match tokio::time::timeout(timeout, read(intake, body, announced)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::Slow(timeout)),
    }
}

async fn read(
    intake: &Intake,
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
    let mut reserved = announced.max(1);
    let mut room = intake.room(reserved).await?;
    let mut out = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Refusal::Malformed(format!("body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if out.len() + data.len() > max {
            drop((out, room));
            discard(body).await;
            return Err(too_large());
        }
        while out.len() + data.len() > reserved {
            room.merge(intake.room(STEP_BYTES).await?);
            reserved += STEP_BYTES;
        }
        out.extend_from_slice(&data);
    }
    if out.len() < announced {
        return Err(Refusal::Malformed(format!(
            "body has {} bytes of {announced} announced",
            out.len()
        )));
    }
    Ok((out.freeze(), room))
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
    let timeout = intake.limits.read_timeout;
    match tokio::time::timeout(timeout, read_message(intake, body)).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::Slow(timeout)),
    }
}

const PREFIX_BYTES: usize = 5;

async fn read_message(intake: &Intake, mut body: Body) -> Result<(bool, Bytes, OwnedSemaphorePermit), Refusal> {
    let malformed = |what: &str| Refusal::Malformed(what.to_owned());
    let max = intake.limits.decode.max_bytes;
    let mut head = BytesMut::new();
    while head.len() < PREFIX_BYTES {
        match next(&mut body).await? {
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
    // The length is known before the bytes are here, so room for all of it is taken at once.
    let room = intake.room(length.max(1)).await?;
    let mut out = BytesMut::with_capacity(length);
    let mut data = head.freeze();
    loop {
        if out.len() + data.len() > length {
            return Err(malformed("more than one message in a unary call, or bytes behind it"));
        }
        out.extend_from_slice(&data);
        match next(&mut body).await? {
            Some(more) => data = more,
            None if out.len() == length => return Ok((compressed, out.freeze(), room)),
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
