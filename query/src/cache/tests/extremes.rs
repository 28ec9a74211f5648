//! Least and greatest values of which one teaches the query what it need not read: the others are of all rows all the same.

use super::site::Site;
use crate::config::CacheConfig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_one_extreme_does_not_pass_over_the_rows_of_another() {
    let site = Site::new(CacheConfig::default()).await;
    let mut log = Vec::new();
    // A file each, the newest of which have the greatest offsets and not the longest bodies.
    for _ in 0..30 {
        site.insert(&mut log, 1, 0).await;
        site.commit(&log, 1).await;
    }
    site.hand_off().await;
    for (one, other) in [
        ("max(\"offset\")", "max(length(body))"),
        ("max(time)", "min(length(body))"),
        ("max(\"offset\")", "max(CASE WHEN \"offset\" < 9 THEN severity END)"),
        ("min(\"offset\")", "max(-severity)"),
    ] {
        let together = format!("SELECT {one} AS one, {other} AS other FROM events");
        let alone = format!(
            "SELECT one, other FROM (SELECT {one} AS one, count(*) AS n FROM events), (SELECT {other} AS other, count(*) AS m FROM events)"
        );
        let (together, alone) = (
            site.ask(&site.acme, &together).await,
            site.ask(&site.acme, &alone).await,
        );
        assert_eq!(together, alone, "{one}, {other}");
    }
}
