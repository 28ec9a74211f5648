//! Rows that do not count, answers that get lost, and a server that lost something or is not there.

use super::*;

/// A writer that lost its partition while it slept writes on: nobody sees its rows, in any view, and they can be swept out (F10).
#[tokio::test]
async fn a_zombie_writes_for_nobody() {
    let Some((folder, stores)) = world().await else { return };
    let p = partition(0);
    let hot = server_of(&stores).clone();
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=4).await.unwrap();
    // Another process takes over from a position that was saved before.
    let successor = another_writer(&folder, &stores).await;
    claim(&successor, p, 3).await;
    assert_eq!(
        seen(&stores).await,
        ((0..=2).collect(), rows_of(p, 0..=2)),
        "what the claim cut off does not count"
    );
    // The zombie wakes up and writes on, further than its successor.
    insert(&stores, p, 5..=9).await.unwrap();
    insert(&successor, p, 3..=6).await.unwrap();
    let expected = ((0..=6).collect::<Vec<i64>>(), rows_of(p, 0..=6));
    assert_eq!(seen(&stores).await, expected);

    let record = stores.seam.load(p).await.unwrap();
    assert_eq!(hot.audit(p, &record, 7).await.unwrap(), Audit::Whole);
    let seam = BTreeMap::from([(p, record.clone())]);
    hot.show(&seam).await.unwrap();
    assert_eq!(
        operator(&hot, "SELECT count() FROM events_visible").await,
        rows_of(p, 0..=6).to_string()
    );
    assert_eq!(hot.with_dead_rows(&seam).await.unwrap(), vec![p]);
    hot.delete_dead_rows(p, &record).await.unwrap();
    assert_eq!(
        operator(&hot, "SELECT count() FROM events").await,
        rows_of(p, 0..=6).to_string()
    );
    assert_eq!(hot.with_dead_rows(&seam).await.unwrap(), vec![]);
    assert_eq!(seen(&successor).await, expected);
}

/// The answer of an insert is lost: its outcome is unknown, the next claim begins behind what is known, and each row is seen once (F12).
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_leaves_every_row_seen_once() {
    let Some(url) = server() else { return };
    let relay = relay(&url, "").await;
    let (_folder, stores) = over(server_hot(&relay.url).await).await;
    let p = partition(0);
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=3).await.unwrap();
    relay.swallow.store(true, Ordering::SeqCst);
    let lost = insert(&stores, p, 4..=7).await;
    assert!(matches!(lost, Err(HotError::Unknown { .. })), "{lost:?}");
    claim(&stores, p, 4).await;
    assert_eq!(seen(&stores).await.0, (0..=3).collect::<Vec<i64>>());
    insert(&stores, p, 4..=5).await.unwrap();
    assert_eq!(seen(&stores).await, ((0..=5).collect(), rows_of(p, 0..=5)));
    insert(&stores, p, 6..=7).await.unwrap();
    assert_eq!(seen(&stores).await, ((0..=7).collect(), rows_of(p, 0..=7)));
}

/// Rows that the server had acknowledged are gone: counting says so, and no query shows a hole.
#[tokio::test]
async fn what_the_server_lost_is_noticed() {
    let Some((_folder, stores)) = world().await else { return };
    let (hot, p) = (server_of(&stores).clone(), partition(0));
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=4).await.unwrap();
    claim(&stores, p, 5).await;
    insert(&stores, p, 5..=9).await.unwrap();
    let record = stores.seam.load(p).await.unwrap();
    let audit = async || hot.audit(p, &record, 10).await.unwrap();
    assert_eq!(audit().await, Audit::Whole);
    operator(&hot, "ALTER TABLE events DELETE WHERE `offset` = 3 AND `row` = 0").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "one row of many");
    operator(&hot, "ALTER TABLE events DELETE WHERE gen = 1").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "a whole claim");
    assert_eq!(
        seen(&stores).await.0,
        Vec::<i64>::new(),
        "what lies behind the hole is not shown"
    );
    operator(&hot, "TRUNCATE TABLE events").await;
    assert!(matches!(audit().await, Audit::Lost { .. }), "all of it");
    // Cold has it: hot begins anew above.
    stores.cold.commit(&[range(p, 0, 9)], records(p, 0..=9)).await.unwrap();
    let record = stores.seam.claim_above(p, 9, &hot.endpoint()).await.unwrap();
    stores.hot.claim(p, record.last_claim().unwrap());
    insert(&stores, p, 10..=11).await.unwrap();
    assert_eq!(hot.audit(p, &record, 12).await.unwrap(), Audit::Whole);
    assert_eq!(seen(&stores).await, ((0..=11).collect(), rows_of(p, 0..=11)));
}

/// A server that is not there: queries read cold and say that hot is missing; one that fails midway fails the query.
#[tokio::test]
async fn without_the_server_queries_read_cold_and_say_so() {
    let nobody = {
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        door.local_addr().unwrap()
    };
    let config = ClickHouseConfig {
        url: format!("http://{nobody}"),
        ..ClickHouseConfig::default()
    };
    let (_folder, stores) = over(ClickHouseHot::new(&config).unwrap()).await;
    let p = partition(0);
    claim(&stores, p, 0).await;
    stores.cold.commit(&[range(p, 0, 2)], records(p, 0..=2)).await.unwrap();
    assert!(
        matches!(insert(&stores, p, 0..=1).await, Err(HotError::Busy { .. })),
        "nothing was sent"
    );
    assert_eq!(seen(&stores).await, ((0..=2).collect(), rows_of(p, 0..=2)));
    assert!(tables(&stores).pin().await.unwrap().completeness().hot_unreachable);
}
