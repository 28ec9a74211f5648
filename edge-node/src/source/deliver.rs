//! Hands over what a source has read, again and again until it is taken: a source that waits here reads nothing more, which is how
//! pressure goes back to whoever writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_wire::Signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stats::SourceStats;
use crate::intake::{Encoding, Format, Intake, Submission};
use crate::positions::Position;
use crate::refusal::Refusal;

/// An export request in protobuf.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) signal: Signal,
    pub(crate) body: Bytes,
    pub(crate) rows: u64,
    pub(crate) positions: Vec<Position>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// On disk.
    Taken,
    /// Never to be taken; counted.
    Refused,
    /// The node stops, and this is not taken.
    Stopped,
}

/// Returns when it is taken, can never be, or `stop` says that there is no more time. With `patience` it is given up after so long, as refused.
pub(crate) async fn deliver(
    intake: &Arc<Intake>,
    source: &Arc<SourceStats>,
    delivery: &Delivery,
    patience: Option<Duration>,
    stop: &CancellationToken,
) -> Delivered {
    let give_up = patience.map(|patience| Instant::now() + patience);
    let mut waited = false;
    loop {
        if stop.is_cancelled() {
            return Delivered::Stopped;
        }
        let refusal = match hand_over(intake, source, delivery).await {
            Ok(()) => {
                if waited {
                    source.problem(None);
                }
                return Delivered::Taken;
            }
            Err(refusal) => refusal,
        };
        let late = give_up.is_some_and(|at| Instant::now() >= at);
        if late || !refusal.is_retryable() {
            source.refused(refusal.name(), delivery.rows);
            source.problem(Some(refusal.to_string()));
            return Delivered::Refused;
        }
        waited = true;
        source.add("waits", 1);
        source.problem(Some(format!("waits: {refusal}")));
        tokio::select! {
            () = tokio::time::sleep(intake.limits.retry_after) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn hand_over(intake: &Arc<Intake>, source: &Arc<SourceStats>, delivery: &Delivery) -> Result<(), Refusal> {
    intake.has_room()?;
    let room = intake.room(delivery.body.len().max(1)).await?;
    let submission = Submission {
        signal: delivery.signal,
        format: Format::Protobuf,
        encoding: Encoding::Identity,
        body: delivery.body.clone(),
        room,
        source: source.clone(),
        positions: delivery.positions.clone(),
    };
    let taken = intake.try_submit(submission).await?;
    if let Some(reason) = &taken.reason {
        source.refused("rejected", taken.rejected);
        tracing::warn!(
            source = source.name(),
            rows = taken.rejected,
            reason,
            "events are left out"
        );
    }
    Ok(())
}
