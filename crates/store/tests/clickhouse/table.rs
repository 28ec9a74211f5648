//! How the table comes to be, is brought up to date and is cleared out.

use super::*;

/// Days leave whole, and only what lies in them.
#[tokio::test]
async fn days_are_listed_and_dropped_whole() {
    let Some((_folder, stores)) = world().await else { return };
    let (hot, p) = (server_of(&stores).clone(), partition(0));
    claim(&stores, p, 0).await;
    // Records arrive a second apart, so this jumps from day to day.
    for offset in [0, 1, 90_000, 180_000] {
        let claimed = stores.hot.claimed(p).unwrap().1;
        if claimed != offset {
            claim(&stores, p, offset).await;
        }
        insert(&stores, p, offset..=offset).await.unwrap();
    }
    let seam = BTreeMap::from([(p, stores.seam.load(p).await.unwrap())]);
    let days = hot.days(&seam).await.unwrap();
    let shown: Vec<_> = days.iter().map(|day| (day.name.as_str(), day.highest[&p])).collect();
    assert_eq!(
        shown,
        [("2025-11-21", 1), ("2025-11-22", 90_000), ("2025-11-23", 180_000)]
    );
    assert!(days.iter().all(|day| day.bytes > 0) && stores.hot.bytes() > 0);
    assert_eq!(days[1].number, days[0].number + 1);
    hot.drop_day(&days[0]).await.unwrap();
    assert_eq!(operator(&hot, "SELECT min(`offset`) FROM events").await, "90000");
}

/// Tables are made once, another version is refused, and a dry run changes nothing.
#[tokio::test]
async fn tables_are_brought_up_to_date_once() {
    let Some(url) = server() else { return };
    let hot = server_hot(&url).await;
    assert_eq!(hot.migrate(false).await.unwrap(), Vec::<String>::new());
    let fresh = ClickHouseHot::new(&ClickHouseConfig {
        database: format!("{}_fresh", config_of(&hot).database),
        ..config_of(&hot)
    })
    .unwrap();
    let planned = fresh.migrate(true).await.unwrap();
    assert!(
        planned
            .iter()
            .any(|text| text.starts_with("CREATE TABLE IF NOT EXISTS `events`")),
        "{planned:?}"
    );
    assert!(matches!(
        fresh.prepare().await,
        Err(MigrateError::Older { found: 0, .. })
    ));
    assert_eq!(fresh.migrate(false).await.unwrap(), planned);
    fresh.prepare().await.unwrap();
    let projections = "SELECT arrayStringConcat(groupArray(name), ',') FROM system.projections WHERE database = currentDatabase() AND table = 'events'";
    assert_eq!(operator(&fresh, projections).await, "ends,held");
    let of_words = "SELECT arrayStringConcat(groupArray(name), ',') FROM system.data_skipping_indices \
                    WHERE database = currentDatabase() AND table = 'events' AND type = 'text'";
    assert_eq!(operator(&fresh, of_words).await, "by_words");
    // As earlier programs made it.
    operator(&fresh, "ALTER TABLE events DROP INDEX by_words").await;
    operator(
        &fresh,
        "ALTER TABLE events ADD INDEX by_word ifNull(body, '') TYPE text(tokenizer = 'splitByNonAlpha')",
    )
    .await;
    assert_eq!(fresh.migrate(false).await.unwrap().len(), 2);
    assert_eq!(operator(&fresh, of_words).await, "by_words");
    operator(
        &hot,
        "INSERT INTO sluice_migrations (version, name) VALUES (99, 'from the future')",
    )
    .await;
    assert!(matches!(
        hot.migrate(false).await,
        Err(MigrateError::Newer { found: 99, .. })
    ));
    assert!(matches!(hot.prepare().await, Err(MigrateError::Newer { .. })));
}

/// A table without the projection `held`, as earlier programs made it, is asked as it is, and gets one for all parts while it is asked.
#[tokio::test]
async fn what_was_set_aside_is_learnt_of_parts_that_are_older_than_that() {
    let Some((folder, stores)) = world().await else { return };
    let (hot, p) = (server_of(&stores), partition(0));
    claim(&stores, p, 0).await;
    insert(&stores, p, 0..=9).await.unwrap();
    insert(&stores, p, 10..=19).await.unwrap();
    let parts = "SELECT countIf(name = 'held'), countIf(name != 'held') FROM system.projection_parts \
                 WHERE database = currentDatabase() AND table = 'events' AND active";
    assert_eq!(operator(hot, parts).await, "2\t2");
    operator(hot, "ALTER TABLE events DROP PROJECTION held").await;
    assert_eq!(operator(hot, parts).await, "0\t2");
    // As a process that did not look before.
    let asked = async || {
        let other = opened(&folder, ClickHouseHot::new(&config_of(hot)).unwrap()).await;
        let pinned = tables(&other).pin().await.unwrap();
        let explained = ask(&pinned, "EXPLAIN SELECT service FROM seen").await;
        let newest = "SELECT \"offset\", \"row\", body FROM seen ORDER BY 1 DESC, 2 LIMIT 40";
        (format!("{explained:?}"), ask(&pinned, newest).await)
    };
    let (explained, newest) = asked().await;
    assert!(
        explained.contains("2 parts whole") && !explained.contains("nothing set aside"),
        "{explained}"
    );
    let planned = hot.migrate(true).await.unwrap();
    assert_eq!(planned.len(), 2, "{planned:?}");
    assert_eq!(hot.migrate(false).await.unwrap(), planned);
    hot.prepare().await.unwrap();
    let done = async {
        while operator(hot, parts).await != "2\t2" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
    assert_eq!(hot.migrate(false).await.unwrap(), Vec::<String>::new());
    let (explained, again) = asked().await;
    assert!(
        explained.contains("2 parts whole, nothing set aside in 1"),
        "{explained}"
    );
    assert_eq!(again, newest);
}

/// The password is sent, and stands in no error.
#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let Some(url) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let config = ClickHouseConfig {
        url,
        password_file: file,
        ..ClickHouseConfig::default()
    };
    let hot = ClickHouseHot::new(&config).unwrap();
    let Err(MigrateError::Server(error)) = hot.migrate(false).await else {
        panic!("taken")
    };
    assert!(
        matches!(error, ClickHouseError::Refused { code: Some(516), .. }),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?} {hot:?}").contains("hunter2"));
}
