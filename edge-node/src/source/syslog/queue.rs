//! Messages on their way from the sockets to the intake. It is bounded in bytes and in messages: whoever can wait does, and what
//! comes over UDP is counted and dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::message::{Context, Message, Zone};
use crate::intake::Intake;
use crate::sealer::blocking;
use crate::source::deliver::{Delivered, Delivery, deliver};
use crate::source::event::Origin;
use crate::source::export::{Attributes, Request, Value};
use crate::source::stats::SourceStats;
use crate::status::now_ns;

/// Messages that wait, however short they are.
const QUEUE_MESSAGES: usize = 16_384;
/// What a message takes beside its bytes.
const OVERHEAD_BYTES: usize = 128;
/// One request holds no more.
const REQUEST_ROWS: usize = 4096;
const REQUEST_BYTES: usize = 1 << 20;
/// After the sockets are closed, what waits gets this long to be accepted.
const DRAIN: Duration = Duration::from_secs(5);
const SCOPE: &str = "sluice.syslog";

/// One message, as it came.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: Vec<u8>,
    pub(super) is_cut: bool,
    pub(super) from: Sender,
    received_ns: u64,
    _room: OwnedSemaphorePermit,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) transport: &'static str,
    pub(super) is_tls: bool,
    pub(super) address: IpAddr,
}

/// The end that sockets have.
#[derive(Clone, Debug)]
pub(super) struct Inlet {
    room: Arc<Semaphore>,
    max_bytes: usize,
    queue: mpsc::Sender<Waiting>,
}

/// The end that the intake has.
#[derive(Debug)]
pub(super) struct Outlet(mpsc::Receiver<Waiting>);

pub(super) fn queue(max_bytes: usize) -> (Inlet, Outlet) {
    let (queue, waiting) = mpsc::channel(QUEUE_MESSAGES);
    let inlet = Inlet {
        room: Arc::new(Semaphore::new(max_bytes)),
        max_bytes,
        queue,
    };
    (inlet, Outlet(waiting))
}

impl Inlet {
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from((bytes + OVERHEAD_BYTES).min(self.max_bytes)).unwrap_or(u32::MAX)
    }

    /// Waits for room. False when nobody takes messages any more.
    pub(super) async fn put(&self, bytes: Vec<u8>, is_cut: bool, from: Sender) -> bool {
        let permits = self.permits(bytes.len());
        let Ok(room) = self.room.clone().acquire_many_owned(permits).await else {
            return false;
        };
        self.queue.send(waiting(bytes, is_cut, from, room)).await.is_ok()
    }

    /// False if there is no room.
    pub(super) fn try_put(&self, bytes: &[u8], is_cut: bool, from: Sender) -> bool {
        let permits = self.permits(bytes.len());
        let Ok(room) = self.room.clone().try_acquire_many_owned(permits) else {
            return false;
        };
        self.queue.try_send(waiting(bytes.to_vec(), is_cut, from, room)).is_ok()
    }
}

fn waiting(bytes: Vec<u8>, is_cut: bool, from: Sender, room: OwnedSemaphorePermit) -> Waiting {
    Waiting {
        bytes,
        is_cut,
        from,
        received_ns: now_ns(),
        _room: room,
    }
}

impl Outlet {
    /// Hands messages over until the last inlet is gone, and then for a while what is left.
    pub(super) async fn run(
        mut self,
        intake: &Arc<Intake>,
        stats: &Arc<SourceStats>,
        zone: Zone,
        stop: &CancellationToken,
    ) {
        let limits = &intake.limits.decode;
        let rows = REQUEST_ROWS.min(limits.max_rows);
        let bytes = REQUEST_BYTES.min(limits.max_bytes / 4);
        let attributes = limits.max_attributes;
        let (give_up, closed) = (CancellationToken::new(), stop.clone());
        let last_call = async {
            closed.cancelled().await;
            tokio::time::sleep(DRAIN).await;
            give_up.cancel();
        };
        let work = async {
            let mut waiting = Vec::with_capacity(rows);
            while self.0.recv_many(&mut waiting, rows).await > 0 {
                let batch = std::mem::replace(&mut waiting, Vec::with_capacity(rows));
                let (deliveries, _held) = blocking(move || (make(&batch, bytes, attributes, zone), batch)).await;
                for delivery in deliveries {
                    if deliver(intake, stats, &delivery, None, &give_up).await == Delivered::Stopped {
                        stats.refused("stopping", delivery.rows);
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = async { last_call.await; std::future::pending().await } => {}
        }
    }
}

/// Requests of messages, none much larger than `max_bytes`.
fn make(batch: &[Waiting], max_bytes: usize, max_attributes: usize, zone: Zone) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    let mut request = Request::new(SCOPE);
    let finish = |request: Request| Delivery {
        signal: Signal::Log,
        rows: request.rows() as u64,
        body: request.finish(),
        positions: Vec::new(),
    };
    for waiting in batch {
        let context = Context {
            received_ns: waiting.received_ns,
            zone,
        };
        let origin = Origin {
            observed_ns: waiting.received_ns,
            ..Origin::default()
        };
        let mut sender = Attributes::default();
        sender.text("network.transport", waiting.from.transport);
        sender.text("network.peer.address", &waiting.from.address.to_string());
        if waiting.from.is_tls {
            sender.push("tls.established", Value::Bool(true));
        }
        let text = String::from_utf8_lossy(&waiting.bytes);
        Message::parse(&text, context).push(&mut request, &origin, &sender, waiting.is_cut, max_attributes);
        if request.bytes() >= max_bytes {
            deliveries.push(finish(std::mem::replace(&mut request, Request::new(SCOPE))));
        }
    }
    if request.rows() > 0 {
        deliveries.push(finish(request));
    }
    deliveries
}
