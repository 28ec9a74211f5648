//! What the driver reads of the spool: the next batch of each lane, and what tombstones are made of.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use sluice_wire::session::client::Offer;
use sluice_wire::session::frame::Lane;
use tracing::error;

use super::{Announcement, Doomed, Driver, Reading};
use crate::link::reading::{self, Read, ReadBatch};
use crate::link::{BatchSource, SourceError};

/// After a spool that could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Reads ahead while the core has use for more.
    pub(super) fn start_reading(&mut self, now_ms: u64) {
        if self.reading.is_some() {
            return;
        }
        for lane in Lane::ALL {
            // What went over from the live lane to the backlog may be known already.
            while let Some(from) = self.frontier.next_read(lane).filter(|from| self.core.knows(*from)) {
                self.frontier.handle_read(lane, from, from + 1);
            }
            let Some(from) = self.frontier.next_read(lane).filter(|_| self.core.wants(now_ms, lane)) else {
                continue;
            };
            let source = Arc::clone(&self.uplink.source);
            let end = *self.changed.borrow();
            self.reading = Some(read(source, Reading { lane, from }, end).boxed());
            return;
        }
    }

    pub(super) fn handle_read(&mut self, Reading { lane, from }: Reading, read: Read) {
        self.reading = None;
        match read {
            Read::Batch(ReadBatch {
                offer,
                bytes,
                sealed_at_ns,
            }) => {
                let (key, in_lane) = (offer.key, self.frontier.lane_of(offer.key));
                if in_lane != lane && lane == Lane::Backlog {
                    // Everything between is acknowledged; this one is the other lane's to read.
                    self.frontier.handle_read(lane, from, key);
                    return;
                }
                if !self.frontier.handle_read(lane, from, key + 1) {
                    return;
                }
                let announcement = Announcement {
                    epoch: offer.epoch,
                    seq: offer.seq,
                    sealed_at_ns,
                };
                if !self.core.knows(key) {
                    self.announcements.insert(key, announcement);
                    self.ready.insert(key, bytes);
                    self.core.offer(Offer { lane: in_lane, ..offer });
                }
            }
            Read::Nothing(end) => {
                self.frontier.handle_read(lane, from, end);
            }
            Read::Strange(index, what) => {
                error!(index, what, "spool record is not a batch, it is kept and not sent");
                self.view.alarm = Some(format!("spool record {index} is not a batch: {what}"));
                self.frontier.handle_read(lane, from, index + 1);
            }
            Read::Failed(error) => {
                error!(%error, "spool not read");
                self.view.alarm = Some(error.to_string());
            }
        }
    }

    pub(super) fn doom(&mut self, key: u64, reason: String) {
        let source = Arc::clone(&self.uplink.source);
        let task = async move {
            let (sent, why) = (reason.clone(), reason);
            let made = tokio::task::spawn_blocking(move || reading::tombstone(source.as_ref(), key, &why)).await;
            (key, sent, made.unwrap_or_else(|e| Err(e.to_string())))
        };
        self.dooming.push(task.boxed());
    }

    pub(super) fn handle_doomed(&mut self, (key, reason, made): Doomed) {
        match made {
            Ok((bytes, hash)) => {
                self.view.tombstones += 1;
                self.uplink.sink.tombstoned(key, &reason);
                self.core.replace(key, hash, bytes.len() as u32);
                self.tombstones.insert(key, bytes);
            }
            Err(error) => {
                error!(index = key, error, "tombstone not made");
                self.core.hold(self.now_ms(), key);
            }
        }
    }
}

async fn read(source: Arc<dyn BatchSource>, asked: Reading, end: u64) -> (Reading, Read) {
    let Reading { lane, from } = asked;
    let read = tokio::task::spawn_blocking(move || reading::next(source.as_ref(), lane, from, end)).await;
    let read = read.unwrap_or_else(|_| {
        Read::Failed(SourceError {
            index: from,
            what: "reading panicked".to_owned(),
        })
    });
    if matches!(read, Read::Failed(_)) {
        tokio::time::sleep(READ_PAUSE).await;
    }
    (asked, read)
}
