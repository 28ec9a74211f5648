//! The cold parts of queries on workers: the program as an operator starts it, `sluice up` beside two `sluice query --worker`.

use std::path::Path;

use sluice_bench::process::{Process, Start, get};
use sluice_tests::{Node, binary, eventually};

use crate::crash::Flood;

const QUESTION: &str = "SELECT signal, service, count(*), count(DISTINCT attrs['evt.id']), sum(\"row\"), max(time) \
                        FROM events GROUP BY 1, 2 ORDER BY 1, 2";

async fn worker(folder: &Path, lake: &Path, number: u32) -> Process {
    let config = folder.join("worker.toml");
    let secret = folder.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(&config, format!("[scale]\nsecret_file = {secret:?}\n")).unwrap();
    let mut start = Start::up(&binary().unwrap(), &folder.join(format!("worker-{number}")));
    start.arguments = ["query", "--worker", "--lake"].map(str::to_owned).to_vec();
    let start = start.argument(lake.display().to_string());
    start
        .config(&config)
        .listen("worker", "127.0.0.1:0")
        .spawn()
        .await
        .unwrap()
}

async fn parts(node: &Node, outcome: &str) -> u64 {
    let metrics = get(&format!("{}/metrics", node.url("http").unwrap()), None)
        .await
        .unwrap();
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let of = format!("outcome=\"{outcome}\"");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("sluice_query_worker_parts_total{") && line.contains(&of));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_compute_what_is_cold_and_the_node_does_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::prepare("# as soon as it is known where workers are").unwrap();
    let lake = node.data().join("lake");
    let workers = [
        worker(folder.path(), &lake, 1).await,
        worker(folder.path(), &lake, 2).await,
    ];
    let urls = workers.each_ref().map(|worker| worker.url("worker").unwrap());
    let config = format!(
        "[ingest.hot]\nkeep = \"1 KiB\"\n\n[ingest.cold]\ncommit_every = \"500 ms\"\n\n\
         [query.scale]\nworkers = {urls:?}\nsecret_file = {:?}\nmin_bytes = \"0 B\"\n",
        folder.path().join("secret")
    );
    std::fs::write(node.data().with_file_name("sluice.toml"), config).unwrap();
    let mut node = node.started().await.unwrap();
    let flood = Flood::start(&node, 20_261_122);
    flood.acknowledged(6_000).await;
    let audit = flood.audit(&mut node).await;
    assert!(audit.holds(), "{audit}");

    let sql = node.sql().unwrap();
    let spread = || async {
        let plan = sql
            .ask(&format!("EXPLAIN {QUESTION}"))
            .await
            .map_err(|error| error.to_string())?;
        let plan = format!("{:?}", plan.rows);
        match plan.contains("ColdOnWorkers: 2 of 2 workers") {
            true => Ok(()),
            false => Err(plan),
        }
    };
    eventually("files for both workers", spread).await.unwrap();
    let with = sql.ask(QUESTION).await.unwrap();
    assert!(!with.rows.is_empty());
    let there = parts(&node, "there").await;
    assert!(there >= 2, "{there}");

    for worker in workers {
        worker.kill().unwrap();
    }
    // Another text: what was answered before is not asked again.
    let without = sql.ask(&format!("{QUESTION} -- without")).await.unwrap();
    assert_eq!(format!("{:?}", without.rows), format!("{:?}", with.rows));
    assert_eq!((parts(&node, "there").await, parts(&node, "lost").await), (there, 0));
    assert!(parts(&node, "here").await > 0);
}
