//! The intake: decode, run the chain, append to the journal, hand over to the sealer, answer. In this order.

mod cutter;
mod readers;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use sluice_runtime::{Call, Chain};
use sluice_wal::{WalError, crash_point};
use sluice_wire::Signal;
use sluice_wire::layout::{self, IpcLimits};
use sluice_wire::otlp::{DecodeLimits, Decoder, json_to_protobuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::OnFull;
use crate::hints::HintBoard;
use crate::journal::Journal;
use crate::positions::Position;
use crate::refusal::Refusal;
use crate::room::Reservation;
use crate::sealer::{Content, Pending, blocking};
use crate::source::event::json_lines;
use crate::source::stats::{SourceStats, Sources};
use crate::spool::SpoolError;
use crate::status::{Counters, StatusShared, now_ns};
use crate::tap::Tap;
use cutter::{Cutter, Prepared};
pub(crate) use readers::{Readers, Reading};

/// Decompressors may look this far back, as a power of two: what a stream claims is memory that it gets.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Between two looks, while there is no room for a body, for somebody who is slow.
const MAKE_WAY_EVERY: Duration = Duration::from_millis(20);

/// Everything between the doors and the journal.
pub(crate) struct Intake {
    pub(crate) limits: IntakeLimits,
    pub(crate) chain: Chain,
    pub(crate) tenant: String,
    pub(crate) hints: Arc<HintBoard>,
    pub(crate) tap: Arc<Tap>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) sealer: mpsc::Sender<Pending<Content>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) status: Arc<StatusShared>,
    /// Bytes of request bodies.
    pub(crate) budget: Arc<Semaphore>,
    /// Who is sending them.
    pub(crate) readers: Readers,
    /// Threads for decoding and plugins.
    pub(crate) workers: Arc<Semaphore>,
    /// Bytes of rows that are accepted and not sealed.
    pub(crate) unsealed: Arc<Semaphore>,
    /// Requests at work outlive their connection: what is in the journal must reach the sealer.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    /// Whether what an earlier life accepted is sealed; nothing new comes before it.
    pub(crate) recovered: AtomicBool,
    /// Ends the node: the disk cannot be trusted any more.
    pub(crate) fatal: mpsc::Sender<WalError>,
    pub(crate) start: u32,
    pub(crate) started: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct IntakeLimits {
    pub(crate) decode: DecodeLimits,
    pub(crate) budget_bytes: usize,
    pub(crate) unsealed_bytes: usize,
    /// Of one journal record, so that a batch holds whole records.
    pub(crate) record_rows: usize,
    pub(crate) record_bytes: usize,
    pub(crate) wait: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) retry_after: Duration,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Protobuf,
    Json,
    /// Logs, one object a line.
    JsonLines,
}

/// One request, read completely.
pub(crate) struct Submission {
    pub(crate) signal: Signal,
    pub(crate) format: Format,
    pub(crate) encoding: Encoding,
    pub(crate) body: Bytes,
    /// Its share of the budget.
    pub(crate) room: OwnedSemaphorePermit,
    pub(crate) source: Arc<SourceStats>,
    /// Up to where the source has read with these events.
    pub(crate) positions: Vec<Position>,
}

/// The sender is told that its events are safe; some rows may have been left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) reason: Option<String>,
}

/// Room for what becomes of a request.
struct Room {
    memory: OwnedSemaphorePermit,
    disk: Reservation,
}

/// What became of a request before any of it is written.
struct Work {
    prepared: Vec<Prepared>,
    taken: Taken,
    /// The share of the budget that its body had.
    body: OwnedSemaphorePermit,
}

impl Intake {
    /// Whoever still waits for room is told that the node is stopping.
    pub(crate) fn stop_waiting(&self) {
        for room in [&self.budget, &self.workers, &self.unsealed] {
            room.close();
        }
    }

    /// Says no early, before a body is read.
    pub(crate) fn gate(&self) -> Result<(), Refusal> {
        if self.stopping.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        self.has_room()
    }

    /// The same for what was read before the node was told to stop.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        // Only a full disk makes recovery wait while the doors are open.
        let recovered = self.recovered.load(Ordering::Acquire);
        if !recovered || self.counters.is_full() {
            return Err(Refusal::Full);
        }
        // Under the cap old batches may make room for new ones, which takes longer than a look.
        let has_room = self.status.on_full == OnFull::DropOldest || self.status.has_room(0);
        if !self.status.disk_has_room(0) && self.status.on_full == OnFull::Refuse {
            self.counters.note_full();
            return Err(Refusal::Full);
        }
        if has_room { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Room in memory for a body of this size. Where there is none, whoever sends slowly gives way, and it is waited for a while.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let room = acquire(&self.budget, bytes, self.limits.budget_bytes, self.limits.wait);
        tokio::pin!(room);
        loop {
            tokio::select! {
                biased;
                room = &mut room => return room,
                () = tokio::time::sleep(MAKE_WAY_EVERY) => self.readers.make_way(Instant::now()),
            }
        }
    }

    /// Takes a request in. Returns when its events are on disk, or why they are not taken. Goes on when it is dropped.
    pub(crate) async fn submit(self: &Arc<Self>, submission: Submission) -> Result<Taken, Refusal> {
        let (signal, source) = (submission.signal, submission.source.clone());
        let result = self.try_submit(submission).await;
        if let Err(refusal) = &result {
            self.refuse(signal, &source, refusal);
        }
        result
    }

    /// The same for a source that comes again by itself, so that a refusal is not the end of it.
    pub(crate) async fn try_submit(self: &Arc<Self>, submission: Submission) -> Result<Taken, Refusal> {
        let (this, source) = (self.clone(), submission.source.clone());
        let task = self.tasks.spawn(async move { this.process(submission).await });
        let result = match task.await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a request made its task fail");
                Err(Refusal::Internal("request could not be processed".to_owned()))
            }
        };
        if let Ok(taken) = &result {
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            source.accepted(taken.accepted, now_ns());
            self.counters.rejected_rows.fetch_add(taken.rejected, Ordering::Relaxed);
        }
        result
    }

    /// Counts a refusal and tells the operator of those that are not the sender's fault.
    pub(crate) fn refuse(&self, signal: Signal, source: &SourceStats, refusal: &Refusal) {
        self.counters.refused(refusal.name());
        source.refused(refusal.name(), 1);
        match refusal {
            Refusal::Masked(_) | Refusal::Internal(_) => {
                tracing::warn!(%signal, %refusal, "request refused")
            }
            _ => tracing::debug!(%signal, %refusal, "request refused"),
        }
    }

    async fn process(self: Arc<Self>, submission: Submission) -> Result<Taken, Refusal> {
        let worker = acquire(&self.workers, 1, 1, self.limits.wait).await?;
        let (this, signal, positions) = (self.clone(), submission.signal, submission.positions.clone());
        let (work, worker) = blocking(move || (this.prepare(submission), worker)).await;
        let Work { prepared, taken, body } = work?;
        crash_point("edge.after_decode");
        if prepared.is_empty() {
            return Ok(taken);
        }
        let bytes = prepared.iter().map(|p| p.bytes.len()).sum();
        // Until there is room for all that became of it, a request keeps its share of the budget and its worker: so what
        // is prepared and waits is never more than the workers can hold.
        let room = self.reserve(bytes).await?;
        drop((body, worker));
        self.append(signal, prepared, positions, bytes, room)
            .await
            .map(|()| taken)
    }

    /// Room for accepted rows, in memory and, once that is there, on the disk: what is waited for others may take.
    async fn reserve(&self, bytes: usize) -> Result<Room, Refusal> {
        let memory = acquire(&self.unsealed, bytes, self.limits.unsealed_bytes, self.limits.wait).await?;
        if let Some(disk) = self.status.reserve(bytes as u64) {
            return Ok(Room { memory, disk });
        }
        let status = self.status.clone();
        let result = blocking(move || {
            status.drop_oldest(bytes as u64)?;
            Ok(status.reserve(bytes as u64))
        })
        .await;
        match result {
            Ok(Some(disk)) => Ok(Room { memory, disk }),
            Ok(None) => Err(Refusal::Full),
            Err(error) => {
                let error: SpoolError = error;
                if error.is_full() {
                    self.counters.note_full();
                }
                tracing::warn!(%error, "old batches cannot be dropped");
                Err(Refusal::Full)
            }
        }
    }

    /// Decodes a request and runs the chain over it. Blocks; uses the CPU.
    fn prepare(&self, submission: Submission) -> Result<Work, Refusal> {
        let Submission {
            signal,
            format,
            encoding,
            body,
            room: body_room,
            positions,
            ..
        } = submission;
        let limits = &self.limits.decode;
        let body = unpack(body, encoding, limits.max_bytes)?;
        let received_ns = now_ns();
        let body = match format {
            Format::Protobuf => body,
            Format::Json => Bytes::from(json_to_protobuf(signal, &body, limits)?),
            Format::JsonLines => json_lines::to_protobuf(&body, limits, received_ns)
                .map_err(|error| Refusal::Malformed(error.to_string()))?,
        };
        let decoded = Decoder::new(limits.clone()).decode(signal, &body, received_ns)?;
        drop(body);
        let accepted = decoded.batch.num_rows() as u64;
        let mut taken = Taken {
            accepted,
            rejected: decoded.rejected,
            reason: decoded.reject_reason,
        };
        let mut cutter = Cutter {
            signal,
            start: self.start,
            received_ns,
            limits: &self.limits,
            dropped: Vec::new(),
            positions,
            prepared: Vec::new(),
            taken: &mut taken,
        };
        if accepted == 0 {
            return Ok(Work {
                prepared: cutter.finish(),
                taken,
                body: body_room,
            });
        }
        self.tap.offer(&decoded.batch, signal);
        let call = Call {
            hints: self.hints.hints(),
            ..Call::new(signal, received_ns, &self.tenant)
        };
        let outcome = match self.chain.run(decoded.batch, &call) {
            Ok(outcome) => outcome,
            Err(refused) => {
                let reason = self.chain.reasons().name(&refused.plugin, &refused.fault);
                self.counters.refused_by_plugin(&refused.plugin, &reason, accepted);
                let text = refused.to_string();
                return Err(if refused.retryable {
                    Refusal::PluginDown(text)
                } else {
                    Refusal::Masked(text)
                });
            }
        };
        // What the journal holds must be readable at the next start, and storable in the cloud: afterwards nobody can be told.
        layout::validate(&outcome.batch, &IpcLimits::default())
            .map_err(|e| Refusal::Internal(format!("events are not a batch: {e}")))?;
        cutter.dropped = outcome.dropped;
        cutter.name_the_rest(accepted, outcome.batch.num_rows() as u64);
        cutter.cut(outcome.batch)?;
        let prepared = cutter.finish();
        Ok(Work {
            prepared,
            taken,
            body: body_room,
        })
    }

    /// Writes the records of one request, all or none, and hands them over. Must run to its end.
    async fn append(
        &self,
        signal: Signal,
        mut prepared: Vec<Prepared>,
        positions: Vec<Position>,
        bytes: usize,
        room: Room,
    ) -> Result<(), Refusal> {
        let Room { mut memory, disk } = room;
        let sizes: Vec<usize> = prepared.iter().map(|p| p.bytes.len()).collect();
        let records = prepared
            .iter_mut()
            .map(|p| (std::mem::take(&mut p.bytes), p.counts.accepted))
            .collect();
        let appended = self.journal.append(records).await;
        let first = appended.map_err(|error| self.journal_failed(error))?;
        self.counters.unsealed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        // Before the sealer hears of it: the journal must not let go of a record whose positions are not known here.
        self.journal.positions().synced(first, positions);
        drop(disk);
        crash_point("edge.journal.synced");
        for ((index, prepared), size) in (first..).zip(prepared).zip(sizes) {
            let Prepared { rows, counts, .. } = prepared;
            self.counters.accepted(signal, &counts);
            // What was larger than everything holds less than its size.
            let own = memory.split(size.min(memory.num_permits()));
            let pending = Pending {
                index,
                damaged_before: 0,
                accepted: self.started.elapsed(),
                rows: rows.as_ref().map_or(0, RecordBatch::num_rows),
                bytes: size,
                content: Content {
                    counts,
                    rows,
                    _room: own,
                },
            };
            // The sealer ends only after the last of these; a failed one has ended the node already.
            let _ = self.sealer.send(pending).await;
        }
        Ok(())
    }

    fn journal_failed(&self, error: WalError) -> Refusal {
        match error {
            WalError::Full => {
                self.counters.note_full();
                Refusal::Full
            }
            WalError::TooLarge { max, .. } => Refusal::TooLarge { max },
            error => {
                tracing::error!(%error, "journal cannot be written, nothing more is accepted");
                let _ = self.fatal.try_send(error);
                Refusal::Stopping
            }
        }
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Undoes the compression of a body, as far as `max` bytes.
fn unpack(body: Bytes, encoding: Encoding, max: usize) -> Result<Bytes, Refusal> {
    let too_large = Refusal::TooLarge { max: max as u64 };
    let bad = |e: std::io::Error| Refusal::Malformed(format!("body cannot be decompressed: {e}"));
    let mut out = Vec::new();
    match encoding {
        Encoding::Identity => {
            return if body.len() > max { Err(too_large) } else { Ok(body) };
        }
        Encoding::Gzip => {
            let reader = flate2::read::MultiGzDecoder::new(&body[..]);
            reader.take(max as u64 + 1).read_to_end(&mut out).map_err(bad)?;
        }
        Encoding::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(bad)?;
            reader.window_log_max(ZSTD_WINDOW_LOG).map_err(bad)?;
            reader.take(max as u64 + 1).read_to_end(&mut out).map_err(bad)?;
        }
    }
    if out.len() > max {
        Err(too_large)
    } else {
        Ok(Bytes::from(out))
    }
}

/// Takes `wanted` of a limited thing, of which there are so many in all; waits a while for it.
async fn acquire(
    from: &Arc<Semaphore>,
    wanted: usize,
    all: usize,
    wait: Duration,
) -> Result<OwnedSemaphorePermit, Refusal> {
    // What is larger than everything takes everything.
    let permits = u32::try_from(wanted.min(all)).unwrap_or(u32::MAX);
    match tokio::time::timeout(wait, from.clone().acquire_many_owned(permits)).await {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(_)) => Err(Refusal::Stopping),
        Err(_) => Err(Refusal::Busy),
    }
}
