//! What a quarantine promises, tried on the embedded one and on Kafka alike.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use sluice_ingest::log::EmbeddedOptions;
use sluice_ingest::quarantine::{KeepError, Quarantine, QuarantineLimits, Resubmitted, resubmit};
use sluice_ingest::{EmbeddedLog, Log};
use sluice_store::Erasures;
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::Partition;
use sluice_wire::layout::IpcLimits;

use super::contract::head;
use super::shared::batch;
use super::{OpenKafka, soon};

const LIMITS: QuarantineLimits = QuarantineLimits {
    max_batches: 5,
    max_bytes: 1 << 30,
};
const FIRST_US: i64 = 1_790_000_000_000_000;

pub(crate) fn embedded(folder: &std::path::Path, partitions: u16) -> Arc<dyn Log> {
    let options = EmbeddedOptions {
        generation: 0,
        partitions,
        segment_bytes: 1 << 20,
        max_envelope_bytes: 1 << 20,
        ballast_bytes: 0,
    };
    Arc::new(EmbeddedLog::open(folder, &options).unwrap())
}

/// `open` opens the same log of one partition each time; the last one is closed by then.
async fn keeps_what_it_is_given<F: Future<Output = Arc<dyn Log>>>(open: impl Fn() -> F) {
    let folder = tempfile::tempdir().unwrap();
    let main = embedded(folder.path(), 3);
    let log = open().await;
    let quarantine = Quarantine::new(Arc::clone(&log), LIMITS);
    let id = head(7).id;
    let garbage = Bytes::from_static(b"no batch");
    for n in 0..2 {
        quarantine
            .keep(&id, "no batch at all", &garbage, None, FIRST_US + n)
            .await
            .unwrap();
    }
    // Another gateway gets the same.
    let other = Quarantine::new(Arc::clone(&log), LIMITS);
    other
        .keep(&id, "no batch at all", &garbage, None, FIRST_US + 9)
        .await
        .unwrap();
    let good = batch(1, 4);
    let good_id = Envelope::parse(good.clone()).unwrap().header.id;
    let place = (Partition::default(), 17);
    quarantine
        .keep(&good_id, "came twice", &good, Some(place), FIRST_US + 20)
        .await
        .unwrap();

    let check = async |quarantine: &Quarantine, resubmitted: bool| {
        let listing = soon("the list", quarantine.list()).await.unwrap();
        assert_eq!(listing.unreadable, [""; 0]);
        let [bad, kept] = &listing.batches[..] else {
            panic!("two batches: {listing:?}")
        };
        assert_eq!(
            (bad.first_seen_us, bad.times, bad.events, bad.bytes),
            (FIRST_US, 2, None, 8)
        );
        assert_eq!((bad.seq, bad.reason.as_str()), (7, "no batch at all"));
        assert_eq!(
            (kept.first_seen_us, kept.times, kept.events),
            (FIRST_US + 20, 1, Some(3))
        );
        assert_eq!(kept.place.as_deref(), Some("0@17"));
        assert_eq!(kept.resubmitted_as.is_some(), resubmitted);
        assert_eq!(bad.resubmitted_as, None);
        [bad.clone(), kept.clone()]
    };
    let [bad, kept] = check(&quarantine, false).await;
    let limits = IpcLimits::default();
    let refused = resubmit(&quarantine, &main, &bad, &limits, FIRST_US, &Erasures::default())
        .await
        .unwrap();
    assert!(matches!(refused, Resubmitted::Refused { .. }), "{refused:?}");
    // Twice, as two people may do it at once: one identity.
    let mut ids = Vec::new();
    for _ in 0..2 {
        match resubmit(&quarantine, &main, &kept, &limits, FIRST_US, &Erasures::default())
            .await
            .unwrap()
        {
            Resubmitted::Done { as_id } => ids.push(as_id),
            refused => panic!("{refused:?}"),
        }
    }
    assert_eq!(ids[0], ids[1]);
    let mut found = Vec::new();
    for partition in main.partitions() {
        found.extend(main.read(partition, 0, 1 << 20).await.unwrap());
    }
    assert_eq!(found.len(), 2);
    for record in &found {
        let put_back = Envelope::parse(record.envelope.clone()).unwrap();
        let was = Envelope::parse(good.clone()).unwrap();
        assert_eq!(put_back.rows(&limits).unwrap(), was.rows(&limits).unwrap());
        assert_eq!(put_back.header.counts, was.header.counts);
        assert_ne!(put_back.header.id, was.header.id);
        let id = &put_back.header.id;
        assert_eq!(format!("{}/{}/{}", id.stream, id.epoch, id.seq), ids[0]);
        assert_eq!(id.stream.partition_index(3), record.partition.index);
    }
    check(&quarantine, true).await;

    // With the marks there are five records: no room.
    let full = quarantine.keep(&head(9).id, "more", &garbage, None, FIRST_US).await;
    assert!(matches!(full, Err(KeepError::Full { held: 5, max: 5, .. })), "{full:?}");
    log.close().await;
    drop((quarantine, other, log));
    let log = open().await;
    check(&Quarantine::new(Arc::clone(&log), LIMITS), true).await;
    log.close().await;
    main.close().await;
}

#[tokio::test]
async fn an_embedded_quarantine_keeps_what_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    keeps_what_it_is_given(async || embedded(folder.path(), 1)).await;
}

#[tokio::test]
async fn a_quarantine_in_kafka_keeps_what_it_is_given() {
    let Some(topic) = OpenKafka::fresh(1) else { return };
    let running = std::sync::Mutex::new(None);
    keeps_what_it_is_given(|| async {
        let (log, stop) = topic.open().await.unwrap();
        drop(running.lock().unwrap().replace(stop));
        Arc::new(log) as Arc<dyn Log>
    })
    .await;
}
