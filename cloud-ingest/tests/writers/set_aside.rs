//! What the writers cannot store is set aside before the log may forget it, and comes back when it is put through the log again.

use std::time::Duration;

use sluice_ingest::config::Role;
use sluice_ingest::offline::{Offline, OfflineError, list_quarantine};
use sluice_ingest::quarantine::{Resubmitted, resubmit};
use sluice_store::erase::Place;
use sluice_store::{Erasures, Rule};
use sluice_wire::ids::TenantId;
use sluice_wire::layout::IpcLimits;

use crate::{ROWS, World, batch, batch_of, now_us};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_another_content_under_a_known_id_is_set_aside_and_comes_back_under_a_new_one() {
    let world = World::new(&[Role::Cold], 1);
    world
        .append(&[(0, batch(0, 0, 10)), (0, batch(0, 0, 11)), (0, batch(0, 1, 10))])
        .await;
    let running = world.start().await;
    running.until(|status| status.partitions[0].log_end == 3).await;
    // Beside a running ingest it can be looked at, and nothing else.
    let refused = Offline::open(&world.config).await;
    assert!(matches!(refused, Err(OfflineError::InUse { .. })), "{refused:?}");
    running.end().await.unwrap();

    let listing = list_quarantine(&world.config).await.unwrap();
    let [kept] = &listing.batches[..] else {
        panic!("{listing:?}")
    };
    assert_eq!(
        (kept.seq, kept.place.as_deref(), kept.events),
        (0, Some("0@1"), Some(ROWS))
    );
    // Twice, as after an answer that was lost.
    for _ in 0..2 {
        let offline = world.offline().await;
        let quarantine = offline.quarantine();
        let became = resubmit(
            &quarantine,
            &offline.log(),
            kept,
            &IpcLimits::default(),
            now_us(),
            &Erasures::default(),
        )
        .await;
        assert!(matches!(became, Ok(Resubmitted::Done { .. })), "{became:?}");
        offline.close().await;
    }
    // Its rows and their ledger row; and one ledger row of the copy.
    assert_eq!(world.run().await.committed_rows, ROWS + 2);
    let listing = list_quarantine(&world.config).await.unwrap();
    assert!(
        listing.batches.len() == 1 && listing.batches[0].resubmitted_as.is_some(),
        "{listing:?}"
    );
}

/// What is erased leaves the batches that are set aside, from the disk too, and is not put through the log again; others stay as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_erased_batches_leave_those_that_are_set_aside() {
    const HOUR_US: i64 = 3_600_000_000;
    let mut world = World::new(&[Role::Cold], 1);
    let then = now_us() - HOUR_US;
    let (acme, bolt) = (batch(0, 0, 11), batch_of("bolt", 0, 0, 11));
    let batches = [batch(0, 0, 10), acme.clone(), batch_of("bolt", 0, 0, 10), bolt.clone()];
    world.append_at(&batches.map(|batch| (0, batch)), then).await;
    world.run().await;
    let listed = async || {
        let mut batches = list_quarantine(&world.config).await.unwrap().batches;
        batches.sort_by(|one, other| one.tenant.cmp(&other.tenant));
        batches
    };
    let before = listed().await;
    assert_eq!(before.len(), 2, "{before:?}");
    let stores = world.stores().await;
    let rule = Rule::new(&TenantId::new("acme").unwrap(), then + HOUR_US / 2, None, None);

    // Before the writers have looked, nobody puts it back.
    let offline = world.offline().await;
    let quarantine = offline.quarantine();
    stores.erase(&rule).await.unwrap();
    let now = now_us();
    let erased = stores.hidden(now).await.unwrap();
    for (kept, tenant) in before.iter().zip(["acme", "bolt"]) {
        assert_eq!(kept.tenant, tenant);
        let became = resubmit(&quarantine, &offline.log(), kept, &IpcLimits::default(), now, &erased).await;
        assert_eq!(
            matches!(became, Ok(Resubmitted::Refused { .. })),
            tenant == "acme",
            "{became:?}"
        );
    }
    drop(quarantine);
    offline.close().await;
    let marked = listed().await;

    world.config.cold.compact_every = Duration::from_millis(50);
    let running = world.start().await;
    let done = async {
        while stores.rules_done(Place::Hot).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    crate::patiently(done).await;
    running.end().await.unwrap();
    let after = list_quarantine(&world.config).await.unwrap();
    let [left] = &after.batches[..] else {
        panic!("{after:?}")
    };
    assert_eq!(after.unreadable, [""; 0]);
    let expected = sluice_ingest::quarantine::Kept {
        offset: left.offset,
        ..marked[1].clone()
    };
    assert_eq!(*left, expected);
    assert!(left.resubmitted_as.is_some());
    assert!(is_on_disk(&world, &bolt) && !is_on_disk(&world, &acme));
}

/// Whether the bytes of a batch stand in a file of the quarantine.
fn is_on_disk(world: &World, batch: &[u8]) -> bool {
    let folder = world.config.data_dir.join("quarantine/g0-p0");
    let mut files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let end = &batch[batch.len() / 2..];
    files.any(|file| file.windows(end.len()).any(|window| window == end))
}
