//! P15: two hundred dashboards that open at once beside a monster: each is answered, memory stays within its bound, and the process lives.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use sluice_bench::corpus::Signal;
use sluice_bench::load::{Client, Protocol, Target};
use sluice_bench::process::{HttpAnswer, http_send};
use sluice_tests::Node;

use crate::otlp::{attribute, one_log, text};

const DASHBOARDS: usize = 200;
const CONFIG: &str =
    "[query.limits]\nmemory = \"64 MiB\"\ntotal_memory = \"128 MiB\"\nspill = \"256 MiB\"\nqueue_wait = \"4 min\"\n";
/// What the process may grow by: `total_memory`, what the engine takes without being counted (batches on their way, the plans of those
/// that run), and the allocator's slack.
const GROWTH: u64 = (128 + 256) << 20;
/// For one dashboard, all of which wait for each other.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(280);

/// Groups by every number: far more than its memory, so it spills and goes on until it is told to end.
const MONSTER: &str = "SELECT value % 99999989, count(*), max(repeat('x', 40) || CAST(value AS VARCHAR)) FROM range(40000000000) \
                       GROUP BY 1 ORDER BY 3 LIMIT 5";
const QUESTIONS: [&str; 4] = [
    "SELECT service, count(*) FROM logs GROUP BY 1 ORDER BY 2 DESC",
    "SELECT date_bin(INTERVAL '1 minute', time) AS t, count(*) FROM logs GROUP BY 1 ORDER BY 1",
    "SELECT body FROM logs WHERE severity >= 9 ORDER BY time DESC LIMIT 10",
    "SELECT count(*) FROM logs WHERE attrs['mark'] = 'crowd'",
];

async fn ask(url: &str, token: &str, question: serde_json::Value) -> HttpAnswer {
    let request = Request::post(url)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(question.to_string())));
    http_send(request.unwrap(), PATIENCE).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_two_hundred_dashboards_are_answered_beside_a_monster() {
    let mut node = Node::prepare(CONFIG).unwrap().started().await.unwrap();
    let target = Target::new(Protocol::Http, node.url("otlp-http").unwrap());
    let mut sender = Client::connect(&target).unwrap();
    for n in 0..20 {
        let event = one_log(&format!("hello {n}"), vec![attribute("mark", text("crowd"))]);
        sender.send(Signal::Log, Bytes::from(event)).await;
    }
    node.rows("SELECT body FROM logs WHERE attrs['mark'] = 'crowd'", 20)
        .await
        .unwrap();
    let url = format!("{}/v1/sql", node.url("http").unwrap());
    let token = node.process().unwrap().token().to_owned();
    let before = node.process().unwrap().memory().unwrap().1;

    let monster = async {
        // when its limits end it, the next one comes
        loop {
            let ended = ask(&url, &token, json!({"sql": MONSTER, "timeout_ms": 250_000})).await;
            assert!(
                !ended.status.is_success() && ended.text().contains("limits."),
                "{}",
                ended.text()
            );
        }
    };
    let running = format!("{}/metrics", node.url("http").unwrap());
    let dashboards = async {
        loop {
            let text = sluice_bench::process::get(&running, None).await.unwrap().text();
            if text.contains("\nsluice_query_running 1") {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut asked = tokio::task::JoinSet::new();
        for n in 0..DASHBOARDS {
            let (url, token) = (url.clone(), token.clone());
            asked.spawn(async move {
                (
                    n,
                    ask(&url, &token, json!({"sql": QUESTIONS[n % QUESTIONS.len()]})).await,
                )
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(n, _)| *n);
        answers
    };
    let answers = tokio::select! {
        () = monster => unreachable!("it does not end"),
        answers = dashboards => answers,
    };
    for (n, answer) in &answers {
        assert_eq!(answer.status, 200, "dashboard {n}: {}", answer.text());
    }
    for (_, answer) in answers.iter().skip(3).step_by(4) {
        let rows = serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap()["rows"].clone();
        assert_eq!(rows, json!([[20]]));
    }
    let process = node.process().unwrap();
    assert!(process.is_alive());
    let peak = process.memory().unwrap().1;
    assert!(peak < before + GROWTH, "memory went from {before} to {peak} bytes");
    let answer = node.sql().unwrap().ask("SELECT 40 + 2").await.unwrap();
    assert_eq!(answer.count().unwrap(), 42);
}
