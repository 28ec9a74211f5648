//! P15: an edge that makes the state of duplicates grow is held back; nobody else notices.

use sluice_wire::session::frame::{Frame, Verdict};

use crate::peer::batch;
use crate::pki::{Spec, uri};
use crate::{World, nack, site_1, stream};

#[tokio::test]
async fn p15_an_edge_that_skips_numbers_is_held_back_and_only_that_one() {
    let world = World::with(|config| config.max_edge_state = 16);
    let (_peer, mut session) = world.good_session().await;
    let mut taken = 0;
    let held = loop {
        session.send(&batch(site_1(), 2 * taken)).await;
        match session.frame().await.unwrap() {
            Frame::Ack(ack) => assert_eq!(ack.seq, 2 * taken),
            Frame::Nack(nack) => break nack,
            other => panic!("{other:?}"),
        }
        taken += 1;
        assert!(taken < 100, "no limit");
    };
    // One piece is the start itself, the others are the runs of its numbers.
    assert_eq!(taken, 15);
    assert!(
        matches!(held.verdict, Verdict::Hold { .. }),
        "held at the edge, with an alarm: {held:?}"
    );
    assert!(held.reason.contains("max_edge_state"), "{}", held.reason);
    assert_eq!(world.log.records().len(), 15);
    assert_eq!(world.status.snapshot().quota_holds, 1);

    let spec = Spec {
        names: vec![uri("sluice://acme/site-2")],
        serial: 0x2002,
        ..Spec::default()
    };
    let other = world.peer(&world.pki.issue("site-2", &spec));
    let mut other_session = other.open(world.gateway, stream("acme", "site-2")).await.unwrap();
    for seq in 0..40 {
        other_session.send(&batch(stream("acme", "site-2"), seq)).await;
        assert!(matches!(other_session.frame().await.unwrap(), Frame::Ack(ack) if ack.seq == seq));
    }
    session.send(&batch(site_1(), 1000)).await;
    assert_eq!(nack(&mut session).await.seq, 1000);
}
