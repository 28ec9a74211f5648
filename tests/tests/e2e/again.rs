//! What operators do to the tables, through the commands themselves: replays that are killed and run again, erasure.

use std::path::Path;
use std::process::{Command, Output};

use sluice_tests::{Node, binary, eventually};

use crate::clickhouse;
use crate::crash::Flood;

const REPLAYS: [(&str, &str, &[&str]); 3] = [
    ("hot", "log", &["replay.hot.before_audit", "replay.hot.before_swap"]),
    ("hot", "cold", &["replay.hot.before_swap"]),
    ("cold", "log", &["replay.cold.before_swap"]),
];

fn ingest(arguments: &[&str], file: &Path, crash_at: Option<&str>) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.arg("ingest").args(arguments).arg("--config").arg(file);
    if let Some(point) = crash_at {
        command.env("SLUICE_CRASH_AT", point);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{} {out}{err}", output.status)
}

async fn count(node: &Node, sql: &str) -> u64 {
    node.sql().unwrap().ask(sql).await.unwrap().count().unwrap()
}

/// P2: a replay that dies at any step changes nothing, and one that ends changes nothing either; what is erased is gone at once, and the
/// counts of what was accepted stay.
#[tokio::test(flavor = "multi_thread")]
async fn p2_replays_change_nothing_wherever_they_die_and_erasure_keeps_the_counts() {
    let Some(config) = clickhouse::config("1 s") else {
        return;
    };
    let config = config.replace("replay_window = \"0 s\"", "replay_window = \"1 d\"");
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let flood = Flood::start(&node, 11);
    flood.acknowledged(500).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");
    const ROWS: &str = "SELECT count(*) FROM events";
    const ACCEPTED: &str = "SELECT sum(\"rows\") FROM ledger WHERE bucket = 'accepted'";
    const PLACES: &str = "SELECT count(DISTINCT (\"offset\" * 100000 + \"row\")) FROM events";
    let rows = count(&node, ROWS).await;
    assert!(rows >= 500 && count(&node, PLACES).await == rows);
    let tenant = node.sql().unwrap().ask("SELECT min(tenant) FROM events").await.unwrap();
    let tenant = tenant.rows[0][0].as_str().unwrap().to_owned();

    let data = node.data();
    let file = data.with_file_name("ingest.toml");
    let settings = config.replace("[ingest.", "[");
    let lake = data.join("lake");
    std::fs::write(&file, format!("data_dir = {data:?}\nlake = {lake:?}\n\n{settings}")).unwrap();
    // The log is in use.
    let refused = ingest(&["replay", "--into", "cold", "--from", "1970-01-01"], &file, None);
    assert!(
        !refused.status.success() && text(&refused).contains("in use"),
        "{}",
        text(&refused)
    );

    for (into, source, points) in REPLAYS {
        let arguments = ["replay", "--into", into, "--source", source, "--from", "1970-01-01"];
        node.stop().await.unwrap();
        for point in points {
            let died = ingest(&arguments, &file, Some(point));
            assert!(
                !died.status.success() && text(&died).contains(point),
                "{point}: {}",
                text(&died)
            );
        }
        node.start_again().await.unwrap();
        let same = || async {
            let seen = count(&node, ROWS).await;
            if seen == rows {
                Ok(())
            } else {
                Err(format!("{seen} of {rows}"))
            }
        };
        eventually("the same rows after a replay that died", same)
            .await
            .unwrap();
        node.stop().await.unwrap();
        for _ in 0..2 {
            let done = ingest(&arguments, &file, None);
            assert!(
                done.status.success() && text(&done).contains("made again"),
                "{into} from {source}: {}",
                text(&done)
            );
        }
        node.start_again().await.unwrap();
        let same = || async {
            let seen = (count(&node, ROWS).await, count(&node, PLACES).await);
            if seen == (rows, rows) {
                Ok(())
            } else {
                Err(format!("{seen:?} of {rows}"))
            }
        };
        eventually("the same rows after a replay", same).await.unwrap();
    }

    let accepted = count(&node, ACCEPTED).await;
    let asked = ingest(&["erase", "--tenant", &tenant], &file, None);
    assert!(
        asked.status.success() && text(&asked).contains("--yes"),
        "{}",
        text(&asked)
    );
    assert_eq!(count(&node, ROWS).await, rows);
    let done = ingest(&["erase", "--tenant", &tenant, "--yes"], &file, None);
    assert!(done.status.success(), "{}", text(&done));
    let gone = || async {
        let seen = count(&node, ROWS).await;
        if seen == 0 { Ok(()) } else { Err(format!("{seen} rows")) }
    };
    eventually("no row of the tenant", gone).await.unwrap();
    assert_eq!(count(&node, ACCEPTED).await, accepted);
    let listed = ingest(&["erase", "--list"], &file, None);
    assert!(
        text(&listed).contains(&tenant) && text(&listed).contains("invisible"),
        "{}",
        text(&listed)
    );
}
