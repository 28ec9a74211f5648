//! P6: while the readers of the log are behind, what an outage left behind waits at its edges, and what is fresh does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_ingest::gateway::ReadPosition;
use sluice_wire::envelope::Envelope;
use sluice_wire::ids::Partition;
use sluice_wire::session::frame::{Frame, Lane, Preamble, Verdict};

use crate::peer::{Session, batch, preamble};
use crate::{World, nack, site_1, until};

/// Has read so many records of every partition.
#[derive(Default)]
struct Reader(AtomicU64);

impl ReadPosition for Reader {
    fn next(&self, _: Partition) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst))
    }
}

async fn send(session: &Session, lane: Lane, seq: u64) {
    let bytes = batch(site_1(), seq);
    let announced = Preamble {
        lane,
        ..preamble(seq, bytes.len())
    };
    session.send_raw(&announced, &bytes).await;
}

async fn acked(session: &mut Session, seq: u64) {
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(ack) if ack.seq == seq));
}

#[tokio::test]
async fn p6_backlog_waits_while_the_log_is_behind_and_live_batches_do_not() {
    let reader = Arc::new(Reader::default());
    let world = World::read_by(Some(reader.clone()), |config| config.max_lag = Duration::ZERO);
    let (_peer, mut session) = world.good_session().await;
    send(&session, Lane::Backlog, 0).await;
    acked(&mut session, 0).await;
    // The first record is not read: nothing old is taken, everything fresh is.
    send(&session, Lane::Backlog, 1).await;
    let refused = nack(&mut session).await;
    assert!(
        refused.seq == 1 && matches!(refused.verdict, Verdict::Retry { after_ms: 50.. }),
        "{refused:?}"
    );
    send(&session, Lane::Live, 2).await;
    acked(&mut session, 2).await;
    send(&session, Lane::Backlog, 1).await;
    assert_eq!(nack(&mut session).await.seq, 1);
    // The writers have caught up.
    reader.0.store(2, Ordering::SeqCst);
    send(&session, Lane::Backlog, 1).await;
    acked(&mut session, 1).await;
    let seqs = |bytes: bytes::Bytes| Envelope::parse(bytes).unwrap().header.id.seq;
    let log: Vec<u64> = world.log.records().into_iter().map(|r| seqs(r.envelope)).collect();
    assert_eq!(log, [0, 2, 1]);
    assert_eq!(world.status.snapshot().backlog_rests, 2);
}

#[tokio::test]
async fn p15_backlog_leaves_memory_for_what_is_fresh() {
    let world = World::with(|config| {
        config.max_total_bytes = 4 << 20;
        config.max_batch_bytes = 1 << 20;
    });
    let (_peer, mut session) = world.good_session().await;
    // Announced and never sent on: three quarters of the memory are taken.
    let mut stalled = Vec::new();
    for seq in 0..3 {
        let mut stream = session.connection.open_uni().await.unwrap();
        let announced = Preamble {
            lane: Lane::Backlog,
            ..preamble(seq, 1 << 20)
        };
        stream.write_all(&announced.encode()).await.unwrap();
        stalled.push(stream);
    }
    until(|| world.status.snapshot().batches_in_flight == 3).await;
    send(&session, Lane::Backlog, 3).await;
    assert_eq!(nack(&mut session).await.seq, 3);
    send(&session, Lane::Live, 4).await;
    acked(&mut session, 4).await;
}
