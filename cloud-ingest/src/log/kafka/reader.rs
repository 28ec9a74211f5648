//! Reading: a few consumers, each of which stands at one offset of each partition, so that every reader goes on where it was.
//!
//! Partitions are assigned by hand at the offset that is asked for; the library fetches ahead into a bounded queue of each partition
//! and says when something comes into an empty one. There is no group here, and no offset is ever committed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use sluice_wire::ids::Partition;
use tokio::sync::{Semaphore, watch};
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
    /// Something came into an empty queue of one of them.
    came: watch::Sender<()>,
}

struct Place {
    lane: usize,
    /// The offset that comes next; `None` while nothing is assigned.
    next: Option<u64>,
    queue: Option<PartitionQueue<Voice>>,
    /// Something came into the queue since it was read last. It says so to whoever asks, however many do: of two readers that wait at
    /// the same offset, the one that hears of it may be given the other place.
    has_news: Arc<AtomicBool>,
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
            has_news: Arc::default(),
            used: 0,
        };
        let places = |_| Places {
            free: Mutex::new((0..LANES).map(place).collect()),
            permits: Semaphore::new(LANES),
            came: watch::Sender::new(()),
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
            self.put(place, &places.came, partition.index, from).await?;
        }
        let mut came = places.came.subscribe();
        let until = Instant::now() + patience;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes.max(1) && records.len() < MAX_READ_RECORDS {
            let expected = from + records.len() as u64;
            came.mark_unchanged();
            // Before the queue is looked at: what comes behind the last look is news.
            place.has_news.store(false, Ordering::SeqCst);
            match place.poll(partition, expected) {
                Ok(Some(record)) => {
                    bytes += record.envelope.len();
                    records.push(record);
                    place.next = Some(expected + 1);
                }
                Ok(None) if records.is_empty() && Instant::now() < until => {
                    let wake = until.min(Instant::now() + LOOK);
                    // Whether it was news or time: the queue is looked at again.
                    drop(tokio::time::timeout_at(wake, came.changed()).await);
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
        place.has_news.store(true, Ordering::SeqCst);
        Ok(records)
    }

    /// Whether something came to a reader that stands at `offset`; `None` when none stands there.
    pub(super) fn has_news(&self, index: u16, offset: u64) -> Option<bool> {
        let places = self.partitions.get(usize::from(index))?.lock();
        let there = places.iter().filter(|place| place.next == Some(offset));
        there
            .map(|place| place.has_news.load(Ordering::SeqCst))
            .reduce(|some, other| some || other)
    }

    /// Changes whenever something comes to a reader of the partition that had nothing.
    pub(super) fn came(&self, index: u16) -> Option<watch::Receiver<()>> {
        Some(self.partitions.get(usize::from(index))?.came.subscribe())
    }

    /// Assigns the partition to the place's lane, at an offset.
    async fn put(&self, place: &mut Place, came: &watch::Sender<()>, index: u16, from: u64) -> Result<(), ReadError> {
        place.next = None;
        let had = place.queue.take().is_some();
        let (lane, topic) = (Arc::clone(&self.lanes[place.lane]), self.topic.clone());
        let (has_news, came) = (Arc::clone(&place.has_news), came.clone());
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
            queue.set_nonempty_callback(move || {
                has_news.store(true, Ordering::SeqCst);
                came.send_replace(());
            });
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
    /// The place that stands at `from`, one with news before others, else one that stands nowhere, else the one that was used least recently.
    fn take(&self, from: u64) -> Taken<'_> {
        let mut free = self.lock();
        let rank = |place: &Place| match place.next {
            Some(next) if next == from => (0, u64::from(!place.has_news.load(Ordering::SeqCst))),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const P0: Partition = Partition {
        generation: 0,
        index: 0,
    };

    fn options(brokers: String) -> KafkaOptions {
        KafkaOptions {
            brokers,
            topic: "events".to_owned(),
            generation: 0,
            partitions: 1,
            replication: 1,
            min_insync: 1,
            create: true,
            unsafe_settings: false,
            max_record_bytes: 1 << 20,
            queue_bytes: 1 << 20,
            timeout: SOON,
            properties: BTreeMap::new(),
        }
    }

    /// P9: of readers that wait at one offset none sleeps over a record, whichever of them hears of it first and wherever that one reads.
    #[tokio::test]
    async fn p9_a_record_that_came_is_told_to_all_who_wait_for_it() {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("events", 1, 1).unwrap();
        let options = options(broker.bootstrap_servers());
        let readers = Readers::open(&options, &Voice::default()).unwrap();
        let producer: BaseProducer = options.client().create().unwrap();
        let send = |text: &str| {
            let record = BaseRecord::<(), str>::to("events").partition(0).payload(text);
            producer.send(record).unwrap();
        };
        // Two places at one offset: the first is in use while the second is asked for.
        let places = &readers.partitions[0];
        let (mut first, mut second) = (places.take(0), places.take(0));
        for taken in [&mut first, &mut second] {
            let place = taken.place.as_mut().unwrap();
            readers.put(place, &places.came, 0, 0).await.unwrap();
        }
        let mut came = readers.came(0).unwrap();
        // One of them has looked, and found nothing, when the record comes.
        assert!(first.place.as_ref().unwrap().poll(P0, 0).unwrap().is_none());
        send("zero");
        producer.flush(SOON).unwrap();
        let has_come = |taken: &Taken<'_>| taken.place.as_ref().unwrap().has_news.load(Ordering::SeqCst);
        while !(has_come(&first) && has_come(&second)) {
            tokio::time::timeout(SOON, came.changed()).await.unwrap().unwrap();
        }
        drop((first, second));
        for _ in 0..3 {
            assert_eq!(readers.has_news(0, 0), Some(true), "to be told is not to have read");
        }
        // The library may say so a moment before the record is there.
        for others in [Some(true), None] {
            assert_eq!(readers.read(P0, 0, 1 << 20, SOON).await.unwrap().len(), 1);
            assert_eq!(readers.has_news(0, 0), others, "the other place, until it is read too");
        }
        assert_eq!(readers.has_news(0, 1), Some(false));

        // Who reads only when told so comes to the end, also of more than one read takes.
        let end = 1 + 2 * MAX_READ_RECORDS as u64;
        (1..end).for_each(|_| send("more"));
        producer.flush(SOON).unwrap();
        let mut next = 1;
        while next < end {
            if readers.has_news(0, next) == Some(false) {
                tokio::time::timeout(SOON, came.changed()).await.unwrap().unwrap();
                continue;
            }
            next += readers.read(P0, next, 1 << 20, Duration::ZERO).await.unwrap().len() as u64;
        }
    }
}
