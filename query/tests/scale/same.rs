//! What workers compute is what the node would have computed, row by row, and it was workers who did.

use serde_json::{Value, json};

use super::fleet::{Fleet, Node};
use super::rows::TRACE;

/// Each with whether its rows come in an order.
fn questions() -> Vec<(String, bool)> {
    let window = "\"time\" >= '2026-11-21T00:00:02Z' AND \"time\" < '2026-11-21T00:00:14.5Z'";
    let ordered = [
        "SELECT count(*), count(body), min(\"time\"), max(\"time\"), sum(severity), avg(severity) FROM events".to_owned(),
        "SELECT signal, service, count(*) AS n, count(DISTINCT attrs['user']) AS users FROM events GROUP BY 1, 2 ORDER BY 1, 2".into(),
        format!("SELECT service, count(*) FROM events WHERE {window} AND attr_int(attrs, 'code') >= 400 GROUP BY 1 ORDER BY 1"),
        "SELECT \"time\", service, name, body, attrs FROM events ORDER BY \"time\" DESC, service, name, \"row\" LIMIT 17".into(),
        "SELECT \"time\", body FROM events WHERE match(body, 'timeout \"connection refused\"') ORDER BY \"time\", \"row\" LIMIT 25".into(),
        "SELECT json_get_int(body, 'user', 'id') AS id, count(*) FROM logs GROUP BY 1 ORDER BY 1 NULLS FIRST".into(),
        "SELECT date_bin(INTERVAL '5 seconds', \"time\") AS at, service, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2".into(),
        "SELECT service, wcount(), wsum(duration_ns), wcount_error() FROM events GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, increase(value, \"time\", temporality, attrs['http.route']) FROM metrics WHERE name = 'requests' GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, histogram_quantile(0.5), histogram_quantile(0.9) FROM metrics WHERE name = 'latency' GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, approx_top_k(attrs['http.route'], 3) FROM events GROUP BY 1 ORDER BY 1".into(),
        "SELECT approx_distinct(attrs['user']), median(duration_ns), bit_xor(severity), bool_or(status = 'error') FROM events".into(),
        "SELECT * FROM service_red ORDER BY minute, service".into(),
        format!("SELECT \"time\", signal, name FROM trace('{TRACE}') ORDER BY \"time\", signal, \"row\""),
        "SELECT l.trace_id, count(*), sum(s.duration_ns) FROM logs l JOIN spans s ON l.trace_id = s.trace_id \
         WHERE l.severity > 15 AND s.status = 'error' GROUP BY 1 ORDER BY 1".into(),
        "SELECT s.name, l.n FROM (SELECT DISTINCT name, trace_id FROM spans) s LEFT JOIN \
         (SELECT trace_id, count(*) AS n FROM logs WHERE severity = 3 GROUP BY 1) l ON s.trace_id = l.trace_id ORDER BY 1, 2, s.trace_id".into(),
        "SELECT service, \"time\", \"row\", row_number() OVER (PARTITION BY service ORDER BY \"time\", \"row\") AS n, \
         lag(severity) OVER (PARTITION BY service ORDER BY \"time\", \"row\") AS before FROM logs WHERE severity > 17 ORDER BY 1, 2, 3".into(),
        "SELECT * FROM (SELECT service, \"time\", rank() OVER (PARTITION BY service ORDER BY \"time\" DESC) AS r FROM spans) WHERE r <= 3 ORDER BY 1, 3, 2".into(),
        "SELECT service, attrs['http.route'] AS route, count(*) FROM events GROUP BY GROUPING SETS ((service), (attrs['http.route']), ()) ORDER BY 1 NULLS FIRST, 2 NULLS FIRST".into(),
        "SELECT service, count(*) FROM events GROUP BY 1 HAVING count(*) > (SELECT count(*) / 4 FROM events) ORDER BY 1".into(),
        "SELECT signal, count(*) FROM events WHERE severity > (SELECT avg(severity) FROM events) OR severity IS NULL GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, string_agg(name, ',' ORDER BY \"time\", \"row\") FROM spans WHERE name = 'GET /r1' GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, first_value(severity ORDER BY \"offset\", \"row\"), last_value(name ORDER BY \"offset\", \"row\") FROM events GROUP BY 1 ORDER BY 1".into(),
        "SELECT service, array_agg(\"row\" ORDER BY \"offset\" DESC, \"row\") FROM logs WHERE severity = 3 GROUP BY 1 ORDER BY 1".into(),
        "SELECT count(*), count(r) FROM (SELECT random() AS r FROM events) WHERE r >= 0 AND r < 1".into(),
        "SELECT 'a', count(*) FROM logs UNION ALL SELECT 'b', count(*) FROM spans UNION ALL SELECT 'c', count(*) FROM metrics ORDER BY 1".into(),
        "SELECT count(*) FROM events WHERE service = 'nobody'".into(),
        "SELECT max(severity), min(severity), count(*) FILTER (WHERE severity > 10), sum(DISTINCT severity) FROM logs".into(),
        "SELECT stream, stored_rows FROM completeness('2026-11-21T00:00:00Z', '2026-11-22T00:00:00Z') ORDER BY 1".into(),
        "SELECT name, sum(\"rows\") FROM (SELECT bucket AS name, \"rows\" FROM ledger) GROUP BY 1 ORDER BY 1".into(),
        "SELECT DISTINCT service FROM events ORDER BY 1 LIMIT 2".into(),
        "SELECT service, max(\"time\") AS last FROM events GROUP BY 1 ORDER BY last DESC LIMIT 2".into(),
        "SELECT count(*) FROM (SELECT body FROM logs WHERE severity > 3 LIMIT 50)".into(),
        "SELECT count(*) FROM (SELECT service FROM events LIMIT 70 OFFSET 9)".into(),
        "SELECT count(*), max(body) FROM (SELECT body FROM logs WHERE severity > 8 LIMIT 4294967296)".into(),
        "SELECT body FROM logs WHERE severity > 8 ORDER BY body LIMIT 4294967297".into(),
        "SELECT count(*) FROM (SELECT body FROM logs WHERE severity > 8 LIMIT 9223372036854775807 OFFSET 10)".into(),
        "SELECT \"time\", \"offset\", \"row\" FROM events WHERE severity < 9 ORDER BY \"time\", \"offset\", \"row\" LIMIT 9 OFFSET 31".into(),
    ];
    let unordered = [
        "SELECT \"time\", tenant, service, attrs, body, \"offset\", \"row\" FROM events",
        "SELECT DISTINCT service, attrs['http.route'] FROM events",
        "SELECT body FROM logs WHERE body ~ 'refused \\d*7$' AND trace_id IN (SELECT trace_id FROM spans WHERE status = 'ok')",
        "SELECT \"count\", buckets, bounds, \"sum\" FROM metrics WHERE name = 'latency'",
    ];
    let ordered = ordered.into_iter().map(|sql| (sql, true));
    ordered.chain(unordered.map(|sql| (sql.to_owned(), false))).collect()
}

async fn answer(node: &Node, token: &str, sql: &str, ordered: bool) -> Vec<Value> {
    let reply = node.ask(token, sql).await;
    assert_eq!(reply.status, 200, "{sql}: {}", reply.text());
    let mut rows = reply.rows();
    if !ordered {
        rows.sort_by_key(ToString::to_string);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_without_workers_for_every_caller_and_workers_made_them() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker()];
    let (alone, spread) = (fleet.node(&[]).await, fleet.node(&[&workers[0], &workers[1]]).await);
    let (mut asked, mut some, mut divided) = (0, 0, 0);
    for (at, (sql, ordered)) in questions().into_iter().enumerate() {
        let callers = [
            (&alone.acme, &spread.acme),
            (&alone.operator, &spread.operator),
            (&alone.beta, &spread.beta),
        ];
        // The third sees as the first does, of less.
        for (one, other) in callers.into_iter().take(2 + usize::from(at % 4 == 0)) {
            asked += 1;
            let expected = answer(&alone, one, &sql, ordered).await;
            let given = answer(&spread, other, &sql, ordered).await;
            assert_eq!(given, expected, "{sql}");
            some += u32::from(!expected.is_empty());
            divided += u32::from(spread.explained(other, &sql).await.contains("ColdOnWorkers"));
        }
    }
    assert!(some * 10 >= asked * 9, "only {some} of {asked} answers have rows");
    assert!(
        divided * 10 >= asked * 8,
        "only {divided} of {asked} were computed by workers"
    );
    assert!(
        spread.parts("there").await >= u64::from(divided),
        "each of them asked a worker"
    );
    assert_eq!((spread.parts("here").await, spread.parts("lost").await), (0, 0));
    for worker in &workers {
        assert!(worker.metric("sluice_query_worker_taken_total").await > 0);
        assert_eq!(worker.metric("sluice_query_worker_refused_total").await, 0);
    }
    // Erased rows are in cold files, and nobody sees them.
    let erased =
        "SELECT count(*) FROM events WHERE \"time\" >= '2026-11-21T00:00:03Z' AND \"time\" < '2026-11-21T00:00:04Z'";
    assert_eq!(answer(&spread, &spread.acme, erased, true).await, [json!([0])]);
}

/// Branches of a union read the same files: each row comes once from each branch, whoever reads it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_file_that_two_branches_read_come_once_from_each() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker(), fleet.worker()];
    let alone = fleet.node(&[]).await;
    let branches = [
        "SELECT name, severity FROM events UNION ALL SELECT name, severity FROM events",
        "SELECT body AS name, severity FROM logs UNION ALL SELECT name, 2 FROM spans",
        "SELECT name, severity FROM events WHERE severity > 4 UNION ALL SELECT service, severity FROM logs \
         UNION ALL SELECT name, 1 FROM metrics",
    ];
    for count in [2, 3] {
        let node = fleet.node(&workers.iter().take(count).collect::<Vec<_>>()).await;
        for union in branches {
            let questions = [
                (
                    format!("SELECT count(*), sum(severity), max(name) FROM ({union})"),
                    true,
                ),
                (
                    format!("SELECT name, severity FROM ({union}) ORDER BY 1, 2 LIMIT 400"),
                    true,
                ),
                (union.to_owned(), false),
            ];
            for (sql, ordered) in questions {
                let plan = node.explained(&node.acme, &sql).await;
                let (_, below) = plan.split_once("ColdOnWorkers").expect("workers compute it");
                assert!(below.contains("UnionExec"), "both branches: {plan}");
                let expected = answer(&alone, &alone.acme, &sql, ordered).await;
                assert_eq!(
                    answer(&node, &node.acme, &sql, ordered).await,
                    expected,
                    "{count}: {sql}"
                );
            }
        }
        // One file in two scans is nothing to divide.
        let one = "SELECT count(*) FROM (SELECT name FROM events WHERE \"offset\" = 1 UNION ALL \
                   SELECT name FROM events WHERE \"offset\" = 1)";
        let expected = answer(&alone, &alone.operator, one, true).await;
        assert_eq!(answer(&node, &node.operator, one, true).await, expected);
        assert_eq!((node.parts("here").await, node.parts("lost").await), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_soon_read_is_not_sent() {
    let fleet = Fleet::new().await;
    let worker = fleet.worker();
    let mut config = fleet.settings();
    config.scale.workers = vec![worker.url()];
    let sql = "SELECT service, count(*) FROM events GROUP BY 1 ORDER BY 1";
    for (min_bytes, sent) in [(0, true), (sluice_query::QueryConfig::default().scale.min_bytes, false)] {
        config.scale.min_bytes = min_bytes;
        let node = Node::start(config.clone(), fleet.tables()).await;
        let plan = node.explained(&node.acme, sql).await;
        assert_eq!(plan.contains("ColdOnWorkers"), sent, "{plan}");
        node.ask(&node.acme, sql).await.rows();
        assert_eq!(node.parts("there").await > 0, sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_workers_do_and_what_stays() {
    let fleet = Fleet::new().await;
    let workers = [fleet.worker(), fleet.worker()];
    let node = fleet.node(&[&workers[0], &workers[1]]).await;
    let plan = node
        .explained(
            &node.acme,
            "SELECT service, count(*) FROM events WHERE severity > 3 GROUP BY 1 ORDER BY 2 DESC LIMIT 3",
        )
        .await;
    assert!(plan.contains("ColdOnWorkers: 2 of 2 workers, worker 1: "), "{plan}");
    let (above, below) = plan.split_once("ColdOnWorkers").unwrap();
    assert!(below.contains("mode=Partial") && below.contains("ColdScan: "), "{plan}");
    assert!(
        above.contains("HotScan") && above.contains("mode=FinalPartitioned"),
        "hot stays: {plan}"
    );
    assert!(
        !plan.contains(&workers[0].address.to_string()),
        "where workers are is told to nobody: {plan}"
    );
    let analyzed = node.explained(&node.acme, "ANALYZE SELECT count(*) FROM events").await;
    assert!(
        analyzed.contains("on_workers=2") && analyzed.contains("here_instead=0"),
        "{analyzed}"
    );
    let alone = fleet.node(&[]).await;
    let plan = alone
        .explained(&alone.acme, "SELECT count(*) FROM events WHERE severity > 3")
        .await;
    assert!(!plan.contains("ColdOnWorkers"), "{plan}");
}
