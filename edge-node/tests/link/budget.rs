//! P6: a link that may cost only so much a day carries what is fresh when the backlog has had its part, and a restart forgets nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_edge::link::{Budget, LinkConfig};

use crate::gateway::{Cloud, Gateway, Pki, start};
use crate::{Link, Spool, any_port};

const PER_DAY: u64 = 400_000;

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400
}

fn limited(pki: &Pki, gateway: &Gateway, spool: &Arc<Spool>, file: &Path) -> Link {
    Link::with(pki, pki, gateway.address(), spool, |config: &mut LinkConfig| {
        config.budget = Budget {
            per_day: Some(PER_DAY),
            live_percent: 50,
            ..Budget::default()
        };
        config.budget_file = Some(file.to_owned());
    })
}

/// How many batches of the backlog the log has.
fn backlog(cloud: &Cloud) -> usize {
    let log = cloud.log.lock().unwrap();
    log.iter().filter(|batch| batch.header.id.seq < 20).count()
}

async fn spend_a_day() {
    let pki = Pki::new();
    let cloud = Cloud::new(&[], &[], &[]);
    let gateway = start(&pki, any_port(), Arc::clone(&cloud));
    let file = pki.file("link-budget");
    let spool = Spool::new();
    spool.append_of(20, |_| 50_000);
    let mut link = limited(&pki, &gateway, &spool, &file);
    link.until(|s| s.budget.is_some_and(|b| b.used_today >= PER_DAY / 2))
        .await;
    spool.append_of(5, |_| 1_000);
    let status = link.until(|s| s.lanes.live.batches == 0 && s.acked >= 5).await;
    let budget = status.budget.unwrap();
    assert_eq!(budget.left_today, Some(PER_DAY - budget.used_today));
    assert!(!budget.exhausted && budget.used_today < PER_DAY * 3 / 4, "{budget:?}");
    // A part of the fifth was written; there is no more for it today.
    assert!((1..=4).contains(&backlog(&cloud)), "{}", backlog(&cloud));
    let used = budget.used_today;
    link.stop().await;

    let mut link = limited(&pki, &gateway, &spool, &file);
    spool.append_of(1, |_| 1_000);
    let status = link
        .until(|s| s.connected && s.lanes.live.batches == 0 && s.acked >= 1)
        .await;
    assert!(status.budget.unwrap().used_today > used);
    assert!(backlog(&cloud) <= 4);
    link.stop().await;
}

#[tokio::test]
async fn p6_a_day_s_budget_is_kept_and_its_second_half_is_for_what_is_fresh() {
    // A day that ends meanwhile proves nothing.
    loop {
        let day = today();
        spend_a_day().await;
        if day == today() {
            break;
        }
    }
}
