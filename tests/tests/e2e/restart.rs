//! Stopping as an operator stops it, and starting again on the same data.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sluice_bench::audit::Audit;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{self, LoadOptions, Protocol, Target};
use sluice_bench::oracle::Oracle;
use sluice_tests::{Node, SOON};

const SEED: u64 = 77;
const RATE: f64 = 0.3;

async fn send(node: &Node, oracle: &Arc<Oracle>, first_request: u64, count: u64) -> load::LoadReport {
    let options = LoadOptions {
        target: Target::new(Protocol::Http, node.url("otlp-http").unwrap()),
        seed: SEED,
        signals: Signal::ALL.to_vec(),
        first_request,
        batch: 100,
        count,
        until_accepted: false,
        rate: None,
        concurrency: 4,
    };
    let report = load::run(options, oracle.clone(), Arc::new(AtomicBool::new(false)))
        .await
        .unwrap();
    assert_eq!(report.accepted, count, "{:?}", report.errors);
    report
}

/// SIGTERM right after the last answer, twice; with the two standard plugins in the chain. P2 and P3, and the mask's work.
#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_nothing_is_lost_by_a_planned_restart_and_the_ledger_says_what_plugins_dropped() {
    let config = format!(
        "[[edge.plugin]]\nname = \"sample\"\nconfig = {{ rate = {RATE:?} }}\n\n[[edge.plugin]]\nname = \"mask\"\n"
    );
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let oracle = Arc::new(Oracle::new(SEED));
    let mut next = 0;
    for _ in 0..2 {
        next = send(&node, &oracle, next, 3_000).await.next_request;
        let status = node.stop().await.unwrap();
        assert!(status.success(), "{status}");
        node.start_again().await.unwrap();
    }
    let audit = Audit::run(node.process().unwrap(), &oracle, |event| event.kept_at(RATE), SOON)
        .await
        .unwrap();
    assert!(audit.holds(), "{audit}");
    assert_eq!(audit.verdict.accepted, 6_000);
    assert!(audit.verdict.dropped > 1_000, "{audit}");
    assert_eq!(audit.ledger.dropped["sample: sampled"], audit.verdict.dropped);

    let sql = node.sql().unwrap();
    let leaks =
        "SELECT count(*) FROM events WHERE attrs['user.email'] LIKE '%@%' OR body LIKE '%@%' OR span_events LIKE '%@%'";
    assert_eq!(sql.ask(leaks).await.unwrap().count().unwrap(), 0);
    let masked = "SELECT count(*) FROM logs WHERE attrs['user.email'] = '[email]'";
    assert!(sql.ask(masked).await.unwrap().count().unwrap() > 100);
    let cards = "SELECT count(*) FROM logs WHERE body LIKE '%paid with [card]%'";
    assert!(sql.ask(cards).await.unwrap().count().unwrap() > 5);
    let cards_left = "SELECT count(*) FROM logs WHERE body LIKE '%paid with 4%'";
    assert_eq!(sql.ask(cards_left).await.unwrap().count().unwrap(), 0);

    // Weights make counts right again: what was kept stands for what was sent, within chance.
    let weight = "SELECT CAST(sum(weight) AS BIGINT) FROM events";
    let stands_for = sql.ask(weight).await.unwrap().count().unwrap();
    assert!((5_300..6_700).contains(&stands_for), "{stands_for} of 6000");
}
