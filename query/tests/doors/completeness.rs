//! `completeness(from, to)` at the doors, and what an answer lacks.

use serde_json::{Value, json};

use super::node::{Node, ROWS_PER_BATCH};
use super::postgres::{psql, psql_is_here};

/// Of one tenant's only stream: rows in the range, batches that it touches, accepted rows of these, missing batches.
async fn asked(node: &Node, token: &str, range: &str) -> Vec<Vec<Value>> {
    let sql = format!(
        "SELECT tenant, stored_rows, stored_ranges, accepted_rows, missing_batches, missing_ranges, sampled_out, silent FROM completeness({range})"
    );
    node.ask(token, &sql).await.rows()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_says_which_batches_it_touches_and_what_became_of_them() {
    let node = Node::start().await;
    // batches 0 and 1 of each tenant's stream are two seconds apart; the first begins with the day
    let day = "'2026-11-21T00:00:00Z'";
    let all = asked(&node, &node.acme, "now() - INTERVAL '200 years', '2099-01-01'").await;
    let row = &all[0];
    assert_eq!(
        (all.len(), &row[0], &row[1], &row[3]),
        (1, &json!("acme"), &json!(8), &json!(8)),
        "{row:?}"
    );
    assert!(row[2].as_str().unwrap().ends_with(":0-1"), "{row:?}");
    assert_eq!(
        (&row[4], &row[5], &row[6], &row[7]),
        (&json!(0), &Value::Null, &json!(0.0), &json!(true)),
        "{row:?}"
    );

    let first = asked(&node, &node.acme, &format!("{day}, TIMESTAMP '2026-11-21 00:00:01'")).await;
    assert_eq!(
        (&first[0][1], &first[0][3]),
        (&json!(ROWS_PER_BATCH), &json!(ROWS_PER_BATCH)),
        "{first:?}"
    );
    let part = asked(&node, &node.beta, &format!("{day}, '2026-11-21T00:00:01.000000002Z'")).await;
    assert_eq!(
        (&part[0][0], &part[0][1], &part[0][3]),
        (&json!("beta"), &json!(2), &json!(4)),
        "part of a batch: {part:?}"
    );
    // a stream without rows in the range is there, too
    let none = asked(&node, &node.acme, "'2098-01-01', '2099-01-01'").await;
    assert_eq!((&none[0][1], &none[0][6]), (&json!(0), &Value::Null), "{none:?}");

    let bound = json!({"sql": "SELECT stored_rows FROM completeness($1, $2)", "params": ["2026-11-21T00:00:00Z", "2026-11-21T00:00:01Z"]});
    assert_eq!(node.ask_with(&node.acme, bound).await.rows(), [[ROWS_PER_BATCH]]);
    let both = node
        .ask(
            &node.operator,
            "SELECT count(*) FROM completeness('2020-01-01', '2099-01-01')",
        )
        .await;
    assert_eq!(both.rows(), [[2]], "who may see all streams sees all");
    for wrong in [
        "SELECT * FROM completeness()",
        "SELECT * FROM completeness('2020-01-01')",
        "SELECT * FROM completeness('soon', 'later')",
    ] {
        let refused = node.ask(&node.acme, wrong).await;
        assert!([400, 422].contains(&refused.refused().0), "{wrong}: {}", refused.text());
    }
}

/// P13: whoever asks first, nobody gets the function over somebody else's rows, though all share one catalogue of Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn p13_the_function_is_over_the_callers_own_tables_at_every_door() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let sql = "SELECT DISTINCT f.tenant FROM completeness('2020-01-01', '2099-01-01') f, pg_catalog.pg_class c WHERE c.relname = 'events'";
    for (token, own) in [(&node.acme, "acme"), (&node.beta, "beta"), (&node.acme, "acme")] {
        let said = psql(&node, token, &["-c", sql]).await;
        assert_eq!(said.rows(), [own], "{}", said.err);
        let plain = psql(
            &node,
            token,
            &[
                "-c",
                "SELECT tenant, stored_rows FROM completeness('2020-01-01', '2099-01-01')",
            ],
        )
        .await;
        assert_eq!(plain.rows(), [format!("{own}|8")], "{}", plain.err);
    }
}
