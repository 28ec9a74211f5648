//! A quarantine from which batches are taken out, by processes that die at each step of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sluice_ingest::log::{Head, LogRecord};
use sluice_ingest::quarantine::{Kept, Quarantine, QuarantineLimits, Resubmitted, resubmit};
use sluice_ingest::{Log, LogError};
use sluice_store::{Erasures, Rule};
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::{Partition, TenantId};
use sluice_wire::layout::IpcLimits;

use super::quarantine::embedded;
use super::sealed::batch_of;

const LIMITS: QuarantineLimits = QuarantineLimits {
    max_batches: 100,
    max_bytes: 1 << 30,
};
const FIRST_US: i64 = 1_790_000_000_000_000;

/// A log whose process dies at one of its changes: before it is made, or when it is made and nobody has heard of it.
struct Dying {
    log: Arc<dyn Log>,
    lives: AtomicU64,
    is_change_made: bool,
}

impl Dying {
    async fn change<T>(&self, made: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        let died = || LogError::Retry {
            reason: "the process is dead".to_owned(),
        };
        let lives = self
            .lives
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lives| lives.checked_sub(1));
        match lives {
            Ok(1) if self.is_change_made => made.await.and_then(|_| Err(died())),
            Ok(0 | 1) | Err(_) => Err(died()),
            Ok(_) => made.await,
        }
    }
}

#[async_trait]
impl Log for Dying {
    fn partitions(&self) -> Vec<Partition> {
        self.log.partitions()
    }

    async fn append(
        &self,
        partition: Partition,
        head: &Head,
        envelope: Bytes,
        ingested_at_us: i64,
    ) -> Result<u64, LogError> {
        self.change(self.log.append(partition, head, envelope, ingested_at_us))
            .await
    }

    async fn read(&self, partition: Partition, from: u64, max_bytes: usize) -> Result<Vec<LogRecord>, LogError> {
        self.log.read(partition, from, max_bytes).await
    }

    async fn wait_beyond(&self, partition: Partition, offset: u64) {
        self.log.wait_beyond(partition, offset).await;
    }

    fn end(&self, partition: Partition) -> u64 {
        self.log.end(partition)
    }

    fn first(&self, partition: Partition) -> u64 {
        self.log.first(partition)
    }

    fn bytes(&self, partition: Partition) -> u64 {
        self.log.bytes(partition)
    }

    async fn cut(&self, partition: Partition) -> Result<u64, LogError> {
        self.change(self.log.cut(partition)).await
    }

    async fn trim(&self, partition: Partition, below: u64) -> Result<(), LogError> {
        self.change(self.log.trim(partition, below)).await
    }
}

/// P3: whatever is left half done, the next one finishes it: what is erased is gone, and what stays is there once, as it was.
#[tokio::test]
async fn p3_batches_leave_the_quarantine_although_whoever_takes_them_out_dies() {
    for is_change_made in [false, true] {
        let mut lives = 1;
        while !dies_once(lives, is_change_made).await {
            lives += 1;
        }
        // A cut, five records that stay, and the trim.
        assert_eq!(lives, 8, "each change was one to die at");
    }
}

/// Whether it was done before it had to die.
async fn dies_once(lives: u64, is_change_made: bool) -> bool {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [log, main] = [embedded(folders[0].path(), 1), embedded(folders[1].path(), 1)];
    let keep = async |tenant: &str, seq: u64, at: i64| {
        let batch = batch_of(tenant, 1, seq, None);
        let id = Envelope::parse(batch.clone()).unwrap().header.id;
        // As a gateway of its own, which does not know what others keep.
        let gateway = Quarantine::new(Arc::clone(&log), LIMITS);
        gateway.keep(&id, "refused", &batch, None, FIRST_US + at).await.unwrap();
    };
    let of = async |tenant: &str| {
        let listing = Quarantine::new(Arc::clone(&log), LIMITS).list().await.unwrap();
        assert_eq!(listing.unreadable, [""; 0]);
        let mut kept = listing.batches;
        kept.retain(|kept| kept.tenant == tenant);
        // What is put behind the end gets another place.
        let kept = kept.into_iter().map(|kept| Kept { offset: 0, ..kept });
        kept.collect::<Vec<_>>()
    };
    keep("acme", 0, 0).await;
    keep("bolt", 0, 1).await;
    keep("bolt", 1, 2).await;
    keep("acme", 1, 3).await;
    keep("bolt", 0, 4).await;
    for tenant in ["acme", "bolt"] {
        let quarantine = Quarantine::new(Arc::clone(&log), LIMITS);
        let batches = quarantine.list().await.unwrap().batches;
        let kept = batches
            .iter()
            .find(|kept| kept.tenant == tenant && kept.seq == 1)
            .unwrap();
        let limits = IpcLimits::default();
        let became = resubmit(&quarantine, &main, kept, &limits, FIRST_US + 5, &Erasures::default()).await;
        assert!(matches!(became, Ok(Resubmitted::Done { .. })), "{became:?}");
    }
    keep("bolt", 2, 6).await;
    let stays = of("bolt").await;
    let seen: Vec<_> = stays
        .iter()
        .map(|kept| (kept.seq, kept.times, kept.resubmitted_as.is_some()))
        .collect();
    assert_eq!(seen, [(0, 2, false), (1, 1, true), (2, 1, false)]);

    let rule = Rule::new(&TenantId::new("acme").unwrap(), FIRST_US + 100, None, None);
    let erased = Erasures(vec![rule.erasure()]);
    let dying = Dying {
        log: Arc::clone(&log),
        lives: AtomicU64::new(lives),
        is_change_made,
    };
    let was_done = Quarantine::new(Arc::new(dying), LIMITS).erase(&erased).await.is_ok();
    assert_eq!(of("bolt").await, stays, "left half done, at change {lives}");
    Quarantine::new(Arc::clone(&log), LIMITS).erase(&erased).await.unwrap();
    assert_eq!(of("bolt").await, stays, "at change {lives}");
    assert_eq!(of("acme").await, [], "at change {lives}");
    was_done
}
