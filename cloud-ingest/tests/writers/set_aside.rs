//! What the writers cannot store is set aside before the log may forget it, and comes back when it is put through the log again.

use sluice_ingest::config::Role;
use sluice_ingest::offline::{Offline, OfflineError, list_quarantine};
use sluice_ingest::quarantine::{Resubmitted, resubmit};
use sluice_wire::layout::IpcLimits;

use crate::{ROWS, World, batch, now_us};

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
        let became = resubmit(&quarantine, &offline.log(), kept, &IpcLimits::default(), now_us()).await;
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
