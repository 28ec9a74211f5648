//! Reading: a few consumers, each of which stands at one offset of each partition, so that every reader goes on where it was.
//!
//! Partitions are assigned by hand at the offset that is asked for; the library fetches ahead into a bounded queue of each partition
//! and says when something comes into an empty one. There is no group here, and no offset is ever committed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use sluice_wire::ids::Partition;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::client::{KafkaOptions, Voice, waiting};
use crate::log::{LogRecord, head};

/// Hot, cold, and one for everybody else.
const LANES: usize = 3;
/// Fetched ahead by one lane, all partitions together.
const AHEAD_BYTES: u64 = 32 << 20;
/// Fetched ahead of one partition in one request.
const FETCH_BYTES: u64 = 4 << 20;
/// Records in one answer.
const MAX_READ_RECORDS: usize = 4096;
/// A queue is looked at so often though nothing was heard of it.
const LOOK: Duration = Duration::from_millis(250);

/// Readers of one topic.
pub(super) struct Readers {
    topic: String,
    lanes: Vec<Arc<BaseConsumer<Voice>>>,
    partitions: Vec<Places>,
    clock: AtomicU64,
}

/// Why an answer has no records.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The broker has nothing at this offset.
    OutOfRange,
    /// Behind the offset comes another one than the next.
    Gap { found: u64 },
    /// The client failed; another attempt may do.
    Client(String),
}

/// Where the lanes stand in one partition.
struct Places {
    free: Mutex<Vec<Place>>,
    permits: Semaphore,
}

struct Place {
    lane: usize,
    /// The offset that comes next; `None` while nothing is assigned.
    next: Option<u64>,
    queue: Option<PartitionQueue<Voice>>,
    /// Something came into the queue when it was empty.
    news: Arc<Notify>,
    used: u64,
}

/// A place in use; it goes back whatever happens to the read.
struct Taken<'a> {
    places: &'a Places,
    place: Option<Place>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.places.lock().push(place);
        }
    }
}

impl Readers {
    pub(super) fn open(options: &KafkaOptions, voice: &Voice) -> Result<Self, KafkaError> {
        let mut config = options.client();
        config
            // The library wants a name even where nobody joins a group.
            .set("group.id", format!("{}.readers", options.topic))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What the log has forgotten is told to the reader, who stops.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            // Heads and envelopes have checksums of their own, which tell the damaged record from its neighbours.
            .set("check.crcs", "false")
            .set("fetch.wait.max.ms", "500")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", (AHEAD_BYTES / 1024).to_string())
            .set(
                "max.partition.fetch.bytes",
                FETCH_BYTES.max(u64::from(options.max_record_bytes)).to_string(),
            )
            .set(
                "fetch.max.bytes",
                AHEAD_BYTES.max(u64::from(options.max_record_bytes)).to_string(),
            );
        let receive = AHEAD_BYTES.max(u64::from(options.max_record_bytes)) + (1 << 20);
        config.set("receive.message.max.bytes", receive.to_string());
        let mut lanes = Vec::new();
        for _ in 0..LANES {
            let lane: BaseConsumer<Voice> = config.create_with_context(voice.clone())?;
            lanes.push(Arc::new(lane));
        }
        let place = |lane| Place {
            lane,
            next: None,
            queue: None,
            news: Arc::default(),
            used: 0,
        };
        let places = |_| Places {
            free: Mutex::new((0..LANES).map(place).collect()),
            permits: Semaphore::new(LANES),
        };
        Ok(Self {
            topic: options.topic.clone(),
            lanes,
            partitions: (0..options.partitions).map(places).collect(),
            clock: AtomicU64::new(1),
        })
    }

    /// Lets the clients say what they have to say; to be called every second or so.
    pub(super) fn serve(&self) {
        for lane in &self.lanes {
            // Partitions have queues of their own, so no record comes here.
            while lane.poll(Duration::ZERO).is_some() {}
        }
    }

    /// Records from `from` on; waits for the first one for as long as `patience`.
    pub(super) async fn read(
        &self,
        partition: Partition,
        from: u64,
        max_bytes: usize,
        patience: Duration,
    ) -> Result<Vec<LogRecord>, ReadError> {
        let Some(places) = self.partitions.get(usize::from(partition.index)) else {
            return Ok(Vec::new());
        };
        let client = |error: &dyn std::fmt::Display| ReadError::Client(error.to_string());
        let _permit = places.permits.acquire().await.map_err(|error| client(&error))?;
        let mut taken = places.take(from);
        let Some(place) = &mut taken.place else {
            return Ok(Vec::new());
        };
        place.used = self.clock.fetch_add(1, Ordering::Relaxed);
        let is_fresh = place.next != Some(from);
        if is_fresh {
            self.put(place, partition.index, from).await?;
        }
        let until = Instant::now() + patience;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes.max(1) && records.len() < MAX_READ_RECORDS {
            let expected = from + records.len() as u64;
            match place.poll(partition, expected) {
                Ok(Some(record)) => {
                    bytes += record.envelope.len();
                    records.push(record);
                    place.next = Some(expected + 1);
                }
                Ok(None) if records.is_empty() && Instant::now() < until => {
                    let wake = until.min(Instant::now() + LOOK);
                    // Whether it was news or time: the queue is looked at again.
                    drop(tokio::time::timeout_at(wake, place.news.notified()).await);
                }
                Ok(None) => return Ok(records),
                Err(error) => {
                    // What was read is good; who reads on meets the same again, at a place that is made anew.
                    place.next = None;
                    return if records.is_empty() { Err(error) } else { Ok(records) };
                }
            }
        }
        // There may be more in the queue, and nobody will say so again.
        place.news.notify_one();
        Ok(records)
    }

    /// What is notified when a record comes to the reader that stands at `offset`; `None` when none stands there.
    pub(super) fn news(&self, index: u16, offset: u64) -> Option<Arc<Notify>> {
        let places = self.partitions.get(usize::from(index))?.lock();
        let place = places.iter().find(|place| place.next == Some(offset))?;
        Some(Arc::clone(&place.news))
    }

    /// Assigns the partition to the place's lane, at an offset.
    async fn put(&self, place: &mut Place, index: u16, from: u64) -> Result<(), ReadError> {
        place.next = None;
        let had = place.queue.take().is_some();
        let (lane, topic, news) = (
            Arc::clone(&self.lanes[place.lane]),
            self.topic.clone(),
            Arc::clone(&place.news),
        );
        let put = move || -> Result<PartitionQueue<Voice>, KafkaError> {
            let mut at = TopicPartitionList::new();
            let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
            at.add_partition_offset(&topic, i32::from(index), offset)?;
            if had {
                lane.incremental_unassign(&at)?;
            }
            // Before it is assigned, so that no record goes elsewhere.
            let queue = lane.split_partition_queue(&topic, i32::from(index));
            let mut queue = queue.ok_or(KafkaError::NoMessageReceived)?;
            queue.set_nonempty_callback(move || news.notify_one());
            lane.incremental_assign(&at)?;
            Ok(queue)
        };
        let queue = waiting(put).await.map_err(ReadError::Client)?;
        place.queue = Some(queue.map_err(|error| ReadError::Client(error.to_string()))?);
        place.next = Some(from);
        Ok(())
    }
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Places {
    /// The place that stands at `from`, else one that stands nowhere, else the one that was used least recently.
    fn take(&self, from: u64) -> Taken<'_> {
        let mut free = self.lock();
        let rank = |place: &Place| match place.next {
            Some(next) if next == from => (0, 0),
            None => (1, place.used),
            Some(_) => (2, place.used),
        };
        let best = (0..free.len()).min_by_key(|at| rank(&free[*at]));
        Taken {
            places: self,
            place: best.map(|at| free.swap_remove(at)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        // Each change is one call.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The record at `expected`, if it is here.
    fn poll(&self, partition: Partition, expected: u64) -> Result<Option<LogRecord>, ReadError> {
        let Some(queue) = &self.queue else {
            return Ok(None);
        };
        loop {
            match queue.poll(Duration::ZERO) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or_default();
                    // Of an earlier assignment.
                    if offset < expected {
                        continue;
                    }
                    if offset > expected {
                        return Err(ReadError::Gap { found: offset });
                    }
                    let payload = message.payload().unwrap_or_default();
                    return Ok(Some(record(partition, offset, payload)));
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        return Err(ReadError::OutOfRange);
                    }
                    // The client tries again by itself.
                    _ => tracing::debug!(%partition, %error, "reading the log"),
                },
            }
        }
    }
}

fn record(partition: Partition, offset: u64, payload: &[u8]) -> LogRecord {
    match head::take(payload) {
        Some(opening) => LogRecord {
            partition,
            offset,
            ingested_at_us: opening.ingested_at_us,
            envelope: Bytes::copy_from_slice(&payload[opening.length..]),
            head: Some(opening.head),
            damaged: None,
        },
        None => LogRecord {
            partition,
            offset,
            ingested_at_us: 0,
            envelope: Bytes::new(),
            head: None,
            damaged: Some("record has no readable head".to_owned()),
        },
    }
}
