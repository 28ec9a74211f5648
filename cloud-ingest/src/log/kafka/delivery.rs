//! A producer, and a thread that hears what the broker says of its records.
//!
//! Not the library's own thread: that one waits in steps of a tenth of a second, and the last millisecond of each it spends asking over
//! and over, because its waits are whole milliseconds. That is 1 % of a core for ever, and was half of what a gateway needed at 20,000
//! rows a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::oneshot;

use super::client::Voice;

/// One wait of the thread, and so the longest that it goes on after it was told to end.
const WAIT: Duration = Duration::from_secs(1);

/// The offset of a record, or why it has none.
type Outcome = Result<i64, KafkaError>;

/// Hands over records one at a time, and hears of each.
pub(super) struct Delivery {
    producer: Arc<BaseProducer<Voice>>,
    /// Takes nothing more. Held while a record is handed over, so that the end waits for each that was.
    closed: RwLock<bool>,
    ends: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProducerContext for Voice {
    type DeliveryOpaque = Box<oneshot::Sender<Outcome>>;

    fn delivery(&self, result: &DeliveryResult<'_>, listener: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        // Whoever handed it over may have gone.
        let _ = listener.send(outcome);
    }
}

impl Delivery {
    pub(super) fn start(config: &ClientConfig, voice: Voice) -> Result<Self, KafkaError> {
        let producer: BaseProducer<Voice> = config.create_with_context(voice)?;
        let producer = Arc::new(producer);
        let ends = Arc::new(AtomicBool::new(false));
        let (heard, told) = (Arc::clone(&producer), Arc::clone(&ends));
        let listen = move || {
            while !told.load(Ordering::Relaxed) {
                heard.poll(WAIT);
            }
        };
        let thread = std::thread::Builder::new()
            .name("kafka answers".to_owned())
            .spawn(listen)
            .map_err(|error| KafkaError::ClientCreation(format!("no thread for the broker's answers: {error}")))?;
        Ok(Self {
            producer,
            closed: RwLock::new(false),
            ends,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands over a record; what comes back tells what became of it.
    pub(super) fn send(
        &self,
        topic: &str,
        partition: u16,
        timestamp_ms: i64,
        record: &[u8],
    ) -> Result<oneshot::Receiver<Outcome>, KafkaError> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(KafkaError::Canceled);
        }
        let (listener, outcome) = oneshot::channel();
        let message = BaseRecord::<(), [u8], _>::with_opaque_to(topic, Box::new(listener))
            .partition(i32::from(partition))
            .timestamp(timestamp_ms)
            .payload(record);
        self.producer.send(message).map_err(|(error, _)| error)?;
        Ok(outcome)
    }

    /// Takes nothing more, waits until all that was handed over has its answer, and ends.
    pub(super) fn end(&self, patience: Duration) -> Result<(), KafkaError> {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        let flushed = self.producer.flush(patience);
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears the broker's answers panicked");
        }
        flushed
    }

    /// Why this producer will take nothing more.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.producer.client().fatal_error()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
