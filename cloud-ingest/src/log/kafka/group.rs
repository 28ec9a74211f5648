//! Sharing the partitions between processes: a group of Kafka's says who writes which, and nothing else.
//!
//! It reads nothing and commits no offsets: where a writer goes on, the stores say. A process that believes for a while longer that a
//! partition is its own does no harm, because claims and conditional commits decide.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::watch;

use super::client::{KafkaOptions, Voice};

/// A member that is silent for so long is gone, and others get its partitions.
const SESSION_MS: &str = "10000";
/// How often the member looks for news.
const LOOK: Duration = Duration::from_millis(250);

/// One member of a group.
pub struct Member {
    consumer: Arc<BaseConsumer<Assignment>>,
    topic: String,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn open(options: &KafkaOptions, group: &str) -> Result<Self, KafkaError> {
        let mut config = options.client();
        config
            .set("group.id", group)
            .set("session.timeout.ms", SESSION_MS)
            .set("heartbeat.interval.ms", "3000")
            // Whoever keeps a partition goes on with it while others move.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Nothing is read here, so it does not matter where it would begin.
            .set("auto.offset.reset", "latest");
        let consumer = config.create_with_context(Assignment::default())?;
        Ok(Self {
            consumer: Arc::new(consumer),
            topic: options.topic.clone(),
        })
    }

    /// The partitions that this process writes, by index.
    pub fn partitions(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.consumer.context().mine.subscribe()
    }

    /// Stays a member for as long as it is polled. Dropping it leaves the group.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.consumer.subscribe(&[&self.topic]) {
                tracing::warn!(%error, "the group of writers cannot be joined, trying again");
                tokio::time::sleep(LOOK).await;
                continue;
            }
            break;
        }
        loop {
            while let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
                tracing::debug!(%error, "group of writers");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[derive(Default)]
struct Assignment {
    voice: Voice,
    mine: watch::Sender<BTreeSet<u16>>,
}

impl Assignment {
    fn change(&self, list: &TopicPartitionList, edit: impl Fn(&mut BTreeSet<u16>, u16)) {
        self.mine.send_modify(|mine| {
            let indices = list
                .elements()
                .into_iter()
                .filter_map(|one| u16::try_from(one.partition()).ok());
            indices.for_each(|index| edit(mine, index));
        });
        tracing::info!(partitions = ?*self.mine.borrow(), "the group of writers gave this process its partitions");
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => self.change(list, |mine, index| {
                mine.remove(&index);
            }),
            Rebalance::Assign(_) | Rebalance::Error(_) => {}
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "a member of the group of writers reads what it need not");
            }
            self.change(list, |mine, index| {
                mine.insert(index);
            });
        }
    }
}
