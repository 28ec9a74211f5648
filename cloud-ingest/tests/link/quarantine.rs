//! What is refused for good is kept before its edge is told.

use std::sync::Arc;

use sluice_ingest::EmbeddedLog;
use sluice_ingest::log::EmbeddedOptions;
use sluice_ingest::quarantine::{Quarantine, QuarantineLimits};
use sluice_wire::session::frame::Verdict;

use super::{World, batch, nack, preamble, site_1};

const LIMITS: QuarantineLimits = QuarantineLimits {
    max_batches: 2,
    max_bytes: 1 << 30,
};

fn flipped(seq: u64) -> Vec<u8> {
    let mut bytes = batch(site_1(), seq).to_vec();
    bytes[40] ^= 1;
    bytes
}

/// P2: an edge lets go only of what is kept; where there is no room for it, the edge keeps it.
#[tokio::test]
async fn p2_what_is_refused_for_good_is_kept_first_and_without_room_its_edge_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        generation: 0,
        partitions: 1,
        segment_bytes: 1 << 20,
        max_envelope_bytes: 1 << 20,
        ballast_bytes: 0,
    };
    let log = Arc::new(EmbeddedLog::open(folder.path(), &options).unwrap());
    let quarantine = Quarantine::new(log, LIMITS);
    let world = World::with(|config| config.quarantine = Some(quarantine.clone()));
    let (_peer, mut session) = world.good_session().await;
    // The same again, as after an answer that was lost.
    for seq in [3, 3, 4] {
        let bytes = flipped(seq);
        session.send_raw(&preamble(seq, bytes.len()), &bytes).await;
        let refused = nack(&mut session).await;
        assert_eq!(
            (refused.verdict, refused.seq),
            (Verdict::Permanent, seq),
            "{}",
            refused.reason
        );
    }
    let listing = quarantine.list().await.unwrap();
    let seen: Vec<_> = listing.batches.iter().map(|kept| (kept.seq, kept.times)).collect();
    assert_eq!(seen, [(3, 1), (4, 1)]);
    let kept = &listing.batches[0];
    assert_eq!(
        (kept.stream.as_str(), kept.bytes),
        (site_1().to_string().as_str(), flipped(3).len() as u64)
    );
    assert!(
        kept.reason.contains("hash") && kept.hash == blake3::hash(&flipped(3)).to_string(),
        "{kept:?}"
    );

    let bytes = flipped(5);
    session.send_raw(&preamble(5, bytes.len()), &bytes).await;
    let held = nack(&mut session).await;
    assert!(
        matches!(held.verdict, Verdict::Hold { .. }) && held.reason.contains("max_batches"),
        "{held:?}"
    );
    assert!(world.log.records().is_empty());
}
