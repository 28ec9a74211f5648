//! The way of one batch through the gateway: announced, received, validated, appended.
//!
//! Each step is a future that the session polls; the session's core decides between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use sluice_wire::envelope::{Envelope, EnvelopeError};
use sluice_wire::ids::{BatchId, Partition, TenantId};
use sluice_wire::layout::{IpcLimits, LayoutError};
use sluice_wire::session::frame::{FrameError, Lane, Preamble};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::admission::Admission;
use crate::log::{Head, Log, LogError};
use crate::quarantine::{KeepError, Quarantine};
use crate::quota::{Quota, QuotaError, Share};
use crate::tenants::{Claim, Gate, Over, Quotas, Shares};

/// What all sessions share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    pub(super) limits: Arc<IpcLimits>,
    pub(super) quota: Arc<Quota>,
    pub(super) quarantine: Option<Quarantine>,
    /// What tenants may send.
    pub(super) quotas: Arc<Quotas>,
    /// In KiB, shared by tenants.
    pub(super) memory: Arc<Shares>,
    /// The part of it that backlog may take.
    pub(super) backlog_memory: Arc<Semaphore>,
    pub(super) admission: Arc<Admission>,
    /// Batches that are decoded at once, and KiB that are on their way into the log at once: what waits for it waits by tenant.
    pub(super) validations: Arc<Gate>,
    pub(super) appends: Arc<Gate>,
    pub(super) stall_timeout: Duration,
    pub(super) total_timeout: Duration,
}

/// A batch that passed every check, with the memory it is accounted for.
pub(super) struct Validated {
    pub(super) head: Head,
    pub(super) hash: [u8; 32],
    pub(super) generation: u32,
    pub(super) rows: u64,
    pub(super) bytes: Bytes,
    pub(super) memory: Memory,
}

/// What a batch takes while it is here.
pub(super) struct Memory {
    _whole: Claim,
    _of_backlog: Option<OwnedSemaphorePermit>,
}

impl Memory {
    fn take(shared: &Shared, tenant: &TenantId, lane: Lane, length: u32) -> Option<Self> {
        let kib = kib(length as usize);
        Some(Self {
            _of_backlog: match lane {
                Lane::Live => None,
                Lane::Backlog => Some(Arc::clone(&shared.backlog_memory).try_acquire_many_owned(kib).ok()?),
            },
            _whole: shared.memory.take(tenant, kib.into())?,
        })
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}

/// Why a batch does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("stream of the batch ended early")]
    Abandoned,
    #[error("batch did not arrive in time")]
    Slow,
    #[error("gateway has no memory left for a batch of {0} bytes of this tenant")]
    Memory(u32),
    #[error("batch goes on after its announced {0} bytes")]
    Longer(u32),
    #[error(transparent)]
    Invalid(#[from] EnvelopeError),
    #[error("batch made the decoder fail")]
    Panicked,
    #[error("generation {0} of the log is not served here")]
    Generation(u32),
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    Over(#[from] Over),
    #[error("batch is not in the log")]
    Append(#[from] LogError),
    #[error("batch can never be stored ({why}), and it is not kept")]
    NotKept { why: String, source: KeepError },
}

impl BatchError {
    /// Whether the bytes of the batch were looked at and found wanting: that is work, which somebody has to pay for.
    pub(super) fn was_decoded(&self) -> bool {
        matches!(
            self,
            BatchError::Invalid(_) | BatchError::Panicked | BatchError::NotKept { .. }
        )
    }

    /// Whether no setting and no other build would take the batch.
    pub(super) fn is_for_good(&self) -> bool {
        match self {
            BatchError::Invalid(EnvelopeError::TooLarge { .. } | EnvelopeError::Layout(LayoutError::Limit { .. })) => {
                false
            }
            BatchError::Invalid(error) => !error.needs_upgrade(),
            BatchError::Panicked => true,
            _ => false,
        }
    }
}

/// Reads the announcement of a batch.
pub(super) async fn announce(recv: &mut quinn::RecvStream, patience: Duration) -> Result<Preamble, AnnounceError> {
    let mut bytes = [0u8; Preamble::BYTES];
    match timeout(patience, recv.read_exact(&mut bytes)).await {
        Ok(Ok(())) => Ok(Preamble::decode(&bytes)?),
        _ => Err(AnnounceError::Gone),
    }
}

/// Why a stream is not one of a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnnounceError {
    #[error("stream ended or stalled before it announced a batch")]
    Gone,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Receives the bytes of a batch and validates them completely: what the log holds, every writer can store. Its memory is taken
/// at once.
pub(super) fn receive(
    shared: Shared,
    tenant: TenantId,
    recv: quinn::RecvStream,
    lane: Lane,
    (id, length): (Option<BatchId>, u32),
) -> impl Future<Output = Result<Validated, BatchError>> {
    let memory = Memory::take(&shared, &tenant, lane, length).ok_or(BatchError::Memory(length));
    if memory.is_err() {
        shared.quotas.held_for_memory(&tenant);
    }
    async move { receive_into(memory?, shared, &tenant, recv, (id, length)).await }
}

async fn receive_into(
    memory: Memory,
    shared: Shared,
    tenant: &TenantId,
    mut recv: quinn::RecvStream,
    (id, length): (Option<BatchId>, u32),
) -> Result<Validated, BatchError> {
    let bytes = timeout(shared.total_timeout, read_all(&mut recv, length, shared.stall_timeout))
        .await
        .map_err(|_| BatchError::Slow)??;
    let _turn = shared.validations.turn(tenant, 1, length.into()).await;
    let limits = Arc::clone(&shared.limits);
    // Decoding is long and may fail in ways that only a thread of its own contains.
    let batch = bytes.clone();
    let checked = tokio::task::spawn_blocking(move || validate(batch, &limits)).await;
    let checked = checked.map_or(Err(BatchError::Panicked), |checked| checked.map_err(BatchError::from));
    let envelope = match checked {
        Ok(envelope) => envelope,
        Err(error) => return Err(set_aside(&shared, id.as_ref(), &bytes, error).await),
    };
    Ok(Validated {
        head: Head::from(&envelope.header),
        hash: envelope.hash,
        generation: envelope.header.generation,
        rows: u64::from(envelope.header.rows),
        bytes: envelope.bytes().clone(),
        memory,
    })
}

/// Appends a batch to the partition of its stream; durable when it returns.
pub(super) async fn append(shared: Shared, batch: Validated, share: Share) -> Result<(), BatchError> {
    let log = &shared.log;
    let partition = partition_of(&log.partitions(), &batch).ok_or(BatchError::Generation(batch.generation))?;
    let bytes = batch.bytes.len();
    let tenant = &batch.head.id.stream.tenant;
    let _turn = shared.appends.turn(tenant, kib(bytes).into(), bytes as u64).await;
    sluice_wal::crash_point("gw.before_append");
    let offset = log.append(partition, &batch.head, batch.bytes, now_us()).await?;
    sluice_wal::crash_point("gw.after_append");
    shared.admission.handle_appended(partition, offset);
    share.stands_at(partition, offset);
    drop(batch.memory);
    Ok(())
}

/// Keeps a batch that is refused for good before its edge is told: then the edge may let go of it.
async fn set_aside(shared: &Shared, id: Option<&BatchId>, bytes: &Bytes, error: BatchError) -> BatchError {
    let (Some(quarantine), Some(id), true) = (&shared.quarantine, id, error.is_for_good()) else {
        return error;
    };
    let why = with_sources(&error);
    match quarantine.keep(id, &why, bytes, None, now_us()).await {
        Ok(()) => error,
        Err(source) => BatchError::NotKept { why, source },
    }
}

pub(super) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn validate(bytes: Bytes, limits: &IpcLimits) -> Result<Envelope, EnvelopeError> {
    let envelope = Envelope::parse(bytes)?;
    envelope.rows(limits)?;
    Ok(envelope)
}

/// The newest generation for an edge that has not heard of any, else the one that its epoch began in.
fn partition_of(partitions: &[Partition], batch: &Validated) -> Option<Partition> {
    let newest = partitions.iter().map(|p| p.generation).max()?;
    let generation = if batch.generation == 0 {
        newest
    } else {
        batch.generation
    };
    let mut served: Vec<_> = partitions
        .iter()
        .filter(|p| p.generation == generation)
        .copied()
        .collect();
    served.sort_unstable();
    let index = batch
        .head
        .id
        .stream
        .partition_index(u16::try_from(served.len()).unwrap_or(u16::MAX));
    served.get(usize::from(index)).copied()
}

async fn read_all(recv: &mut quinn::RecvStream, length: u32, stall: Duration) -> Result<Bytes, BatchError> {
    let length = length as usize;
    // Grows with what arrives: an announcement alone costs nothing.
    let mut bytes = BytesMut::with_capacity(length.min(64 << 10));
    loop {
        // One byte more than announced is asked for, so that a longer stream is noticed.
        let want = length + 1 - bytes.len();
        match timeout(stall, recv.read_chunk(want.min(64 << 10), true)).await {
            Err(_) => return Err(BatchError::Slow),
            Ok(Err(_)) => return Err(BatchError::Abandoned),
            Ok(Ok(None)) if bytes.len() == length => return Ok(bytes.freeze()),
            Ok(Ok(None)) => return Err(BatchError::Abandoned),
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk.bytes),
        }
        if bytes.len() > length {
            return Err(BatchError::Longer(length as u32));
        }
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
