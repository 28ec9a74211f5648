//! Workers that go: the answer is right or an error, never a part of it.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fleet::{Fleet, Node, Worker};

const GROUPS: &str = "SELECT service, count(*), sum(severity) FROM events GROUP BY 1 ORDER BY 1";
/// Much to send: each row many times over.
const STREAM: &str = "SELECT \"offset\", \"row\", repeat(coalesce(body, 'x'), 200) AS b FROM events";

/// More than fits between workers and a client that does not read: so many records of the log, and of each row so much.
const MANY: u64 = 120;
const LONG: &str = "SELECT \"offset\", \"row\", array_to_string(range(\"row\" * 1000, \"row\" * 1000 + 4000), ',') AS b \
                    FROM events WHERE \"offset\" < 120";

/// A test that waits for longer has failed.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work)
        .await
        .unwrap_or_else(|_| panic!("in vain: {what}"))
}

async fn rows(node: &Node, sql: &str) -> Vec<Value> {
    node.ask(&node.operator, sql).await.rows()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_there_costs_nothing_but_its_help() {
    let fleet = Fleet::new().await;
    let (mut gone, stays) = (fleet.worker(), fleet.worker());
    gone.kill();
    let (alone, node) = (fleet.node(&[]).await, fleet.node(&[&gone, &stays]).await);
    let expected = rows(&alone, GROUPS).await;
    assert_eq!(rows(&node, GROUPS).await, expected);
    assert!(node.parts("here").await > 0, "its part ran here");
    assert!(node.parts("there").await > 0, "the other's did not");
    // From now on the other one gets all of it.
    let before = node.parts("here").await;
    assert_eq!(rows(&node, GROUPS).await, expected);
    assert_eq!(node.parts("here").await, before);
}

/// Killed at many moments while queries run: whatever is answered is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_in_the_middle_never_makes_a_wrong_answer() {
    let fleet = Fleet::new().await;
    let stays = fleet.worker();
    let alone = fleet.node(&[]).await;
    let sorted = |mut rows: Vec<Value>| {
        rows.sort_by_key(ToString::to_string);
        rows
    };
    let stream = format!("{STREAM} WHERE \"offset\" < 18");
    let expected = [rows(&alone, GROUPS).await, sorted(rows(&alone, &stream).await)];
    for round in 0..4u32 {
        let mut dies = fleet.worker();
        let node = fleet.node(&[&dies, &stays]).await;
        let asking = async {
            let mut seen = Vec::new();
            for _ in 0..4 {
                for (at, sql) in [GROUPS, stream.as_str()].into_iter().enumerate() {
                    seen.push((at, node.ask(&node.operator, sql).await));
                }
            }
            seen
        };
        // The kill comes when the worker has taken so many parts, whatever they are at then.
        let killing = async {
            while dies.metric("sluice_query_worker_taken_total").await <= u64::from(round) {
                tokio::task::yield_now().await;
            }
            dies.kill();
        };
        let (seen, ()) = soon("a worker takes parts", async { tokio::join!(asking, killing) }).await;
        for (at, reply) in seen {
            if reply.status == 200 {
                assert_eq!(sorted(reply.rows()), sorted(expected[at].clone()), "round {round}");
            } else {
                assert_eq!(
                    (reply.status.as_u16(), reply.json()["code"].clone()),
                    (503, json!("unavailable")),
                    "{}",
                    reply.text()
                );
                assert!(reply.text().contains("a worker was lost"), "{}", reply.text());
            }
        }
        // And then it is as if it had never been.
        assert_eq!(rows(&node, GROUPS).await, expected[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_may_not_or_cannot_do_runs_here() {
    let fleet = Fleet::new().await;
    let alone = fleet.node(&[]).await;
    let expected = rows(&alone, GROUPS).await;

    let other = Fleet::new().await;
    let astray = Worker::start(
        &other.folder.path().join("lake"),
        &format!("[scale]\nsecret_file = {:?}\n", fleet.secret()),
    );
    let node = fleet.node(&[&astray]).await;
    assert_eq!(rows(&node, GROUPS).await, expected, "it has another lake");
    assert_eq!(node.parts("there").await, 0);
    assert!(node.parts("here").await > 0);

    // One part at once: the two sides of a join are two.
    let narrow = fleet.worker_with("[worker]\nparts = 1\n");
    let node = fleet.node(&[&narrow]).await;
    let join = "SELECT l.service, count(*) FROM logs l JOIN spans s ON l.trace_id = s.trace_id GROUP BY 1 ORDER BY 1";
    let joins = futures::future::join_all((0..4).map(|_| rows(&node, join))).await;
    let expected = rows(&alone, join).await;
    assert!(joins.iter().all(|given| *given == expected));
    assert!(
        node.parts("there").await > 0 && node.parts("here").await > 0,
        "some there, some here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_what_workers_read_and_a_query_that_ends_ends_its_parts() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker()];
    let urls = workers.iter().map(Worker::url).collect::<Vec<_>>();
    let mut config = fleet.settings();
    config.scale.workers = urls.clone();
    // Two workers, each below the limit by itself, and both together beyond it.
    let all = {
        let node = fleet.node(&[&workers[0], &workers[1]]).await;
        rows(&node, "SELECT count(*), max(body) FROM events").await;
        let text = super::fleet::get(node.address, "/metrics", Some(&node.operator))
            .await
            .text();
        let read = text
            .lines()
            .filter(|line| line.starts_with("sluice_query_worker_read_bytes_total{"));
        read.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(all.iter().all(|read| *read > 0), "{all:?}");
    config.limits.max_scan = all.iter().max().unwrap() + all.iter().min().unwrap() / 2;
    let node = Node::start(config.clone(), fleet.tables()).await;
    let reply = node.ask(&node.operator, "SELECT count(*), max(body) FROM events").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["code"].clone()),
        (422, json!("scan_limit")),
        "{}",
        reply.text()
    );
    config.limits.max_scan = 1;
    let node = Node::start(config.clone(), fleet.tables()).await;
    let reply = node.ask(&node.operator, "SELECT count(*), max(body) FROM events").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["code"].clone()),
        (422, json!("scan_limit")),
        "{}",
        reply.text()
    );

    config.limits.max_scan = 1 << 40;
    config.limits.max_rows = 5;
    let node = Node::start(config, fleet.tables()).await;
    let reply = node.ask(&node.operator, STREAM).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["code"].clone()),
        (422, json!("too_many_rows")),
        "{}",
        reply.text()
    );
    let ended = async {
        for worker in &workers {
            while worker.metric("sluice_query_worker_running").await > 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    soon("parts of a query that is over end", ended).await;
}

/// A node of two workers with an answer that neither can finish, because its client reads the beginning of it and no more.
async fn held_up() -> (Fleet, [Worker; 2], Node, hyper::body::Incoming) {
    let fleet = Fleet::of(MANY).await;
    // Each file is read by itself, so that there are many batches.
    let worker = || fleet.worker_with("[limits]\nthreads = 24\n");
    let workers = [worker(), worker()];
    let mut config = fleet.settings();
    config.scale.workers = workers.iter().map(Worker::url).collect();
    // What a node keeps of rows is a part of it.
    config.limits.memory = 64 << 20;
    config.limits.timeout = config.limits.max_timeout;
    let node = Node::start(config, fleet.tables()).await;
    let mut answer = node.stream(&node.operator, LONG).await;
    let first = soon("rows come", answer.frame()).await.unwrap().unwrap();
    assert!(first.is_data());
    let running = async {
        for worker in &workers {
            while worker.metric("sluice_query_worker_running").await == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    soon("both have parts that cannot end", running).await;
    (fleet, workers, node, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_parts_of_its_query() {
    let (_fleet, workers, node, answer) = held_up().await;
    drop(answer);
    let ended = async {
        for worker in &workers {
            while worker.metric("sluice_query_worker_running").await > 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    soon("nobody computes for nobody", ended).await;
    assert_eq!(node.parts("lost").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_workers_die_after_its_first_rows_breaks_off_with_an_error() {
    let (_fleet, mut workers, node, answer) = held_up().await;
    for worker in &mut workers {
        worker.kill();
    }
    let rest = soon("it ends", answer.collect()).await;
    assert!(rest.is_err(), "a part of an answer passed as all of it");
    assert!(node.parts("lost").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_there_and_silent_is_done_without_until_it_speaks_again() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker()];
    let (alone, node) = (fleet.node(&[]).await, fleet.node(&[&workers[0], &workers[1]]).await);
    let expected = rows(&alone, GROUPS).await;
    assert_eq!(rows(&node, GROUPS).await, expected);
    assert_eq!((node.parts("there").await, node.parts("here").await), (2, 0));
    workers[0].signal("STOP");
    assert_eq!(rows(&node, GROUPS).await, expected);
    assert_eq!((node.parts("there").await, node.parts("here").await), (3, 1));
    workers[0].signal("CONT");
    let both = async {
        while !node.explained(&node.operator, GROUPS).await.contains("2 of 2 workers") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("it is tried again", both).await;
    assert_eq!(rows(&node, GROUPS).await, expected);
    assert_eq!((node.parts("there").await, node.parts("here").await), (5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_query_is_told_as_without_workers() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker()];
    let (alone, node) = (fleet.node(&[]).await, fleet.node(&[&workers[0], &workers[1]]).await);
    // Of a record that is cold.
    let questions = [
        "SELECT sum(100 / (CAST(\"offset\" AS BIGINT) - 5)) FROM events",
        "SELECT 100 / (CAST(\"offset\" AS BIGINT) - 5) FROM events",
        "SELECT CAST(CASE WHEN \"offset\" = 5 THEN name ELSE '1' END AS BIGINT) FROM events",
    ];
    for sql in questions {
        assert!(
            node.explained(&node.operator, sql).await.contains("ColdOnWorkers"),
            "{sql}"
        );
        let (expected, given) = (
            alone.ask(&alone.operator, sql).await,
            node.ask(&node.operator, sql).await,
        );
        assert_eq!(expected.json()["code"], "execution", "{}", expected.text());
        assert_eq!(
            (given.status, &given.json()["code"], &given.json()["message"]),
            (expected.status, &expected.json()["code"], &expected.json()["message"]),
            "{sql}: {}",
            given.text()
        );
    }
    assert_eq!(node.parts("lost").await, 0);
    let mut taken = 0;
    for worker in &workers {
        taken += worker.metric("sluice_query_worker_taken_total").await;
    }
    assert!(taken > 0);
}
