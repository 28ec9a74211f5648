//! The questions of Grafana's data source for Postgres: those of a panel with its macros expanded as `macros.go` of
//! `pkg/tsdb/grafana-postgresql-datasource` does it, and those of its editor, which lists schemas, tables and columns.

use super::node::Node;
use super::postgres::{psql, psql_is_here};

/// `$__timeFilter(time)` of a dashboard from 00:00:00 to 00:00:01.5.
const FILTER: &str = "time BETWEEN '2026-11-21T00:00:00Z' AND '2026-11-21T00:00:01.5Z'";

#[tokio::test(flavor = "multi_thread")]
async fn panels_get_their_series_and_tables() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let second = 1_795_219_200;
    for (what, sql, rows) in [
        (
            "a time series: $__timeGroupAlias(time, 1s), grouped",
            "SELECT floor(extract(epoch from time)/1)*1 AS \"time\", service AS metric, count(*) AS value FROM logs \
             WHERE time BETWEEN '2026-11-21T00:00:00Z' AND '2026-11-21T01:00:00.123Z' GROUP BY 1, 2 ORDER BY 1"
                .to_owned(),
            vec![format!("{second}.0|canary-acme-svc|4"), format!("{}.0|canary-acme-svc|4", second + 2)],
        ),
        (
            "a time series: $__timeGroup(time, 5m)",
            format!("SELECT floor(extract(epoch from time)/300)*300 AS \"time\", avg(severity) AS severity FROM logs WHERE {FILTER} GROUP BY 1 ORDER BY 1"),
            vec![format!("{second}.0|10.5")],
        ),
        (
            "a time series: $__time(time), not grouped",
            format!("SELECT time AS \"time\", severity FROM logs WHERE {FILTER} AND severity = 9 ORDER BY 1"),
            vec!["2026-11-21 00:00:00.000000+00|9".to_owned()],
        ),
        (
            "a time series: $__timeEpoch(time)",
            format!("SELECT extract(epoch from time) as \"time\", severity FROM logs WHERE {FILTER} ORDER BY 2 LIMIT 1"),
            vec![format!("{second}.0|9")],
        ),
        (
            "a table: $__timeFrom() and $__timeTo()",
            "SELECT body, severity FROM logs WHERE time >= '2026-11-21T00:00:00Z' AND time <= '2026-11-21T00:00:01.5Z' ORDER BY severity DESC LIMIT 1".to_owned(),
            vec!["canary-acme said \"hi\", 3|12".to_owned()],
        ),
        (
            "a table: $__unixEpochFilter and $__unixEpochGroup over a number",
            format!(
                "SELECT floor((at)/300)*300 AS \"time\", count(*) FROM (SELECT CAST(extract(epoch from time) AS BIGINT) AS at FROM logs) s \
                 WHERE at >= {second} AND at <= {} GROUP BY 1 ORDER BY 1",
                second + 1
            ),
            vec![format!("{second}.0|4")],
        ),
        (
            "a variable: values of an attribute",
            "SELECT DISTINCT attrs['http.route'] FROM logs".to_owned(),
            vec!["/cart".to_owned()],
        ),
    ] {
        let said = psql(&node, &node.acme, &["-c", &sql]).await;
        assert_eq!(said.rows(), rows, "{what}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_editor_finds_tables_and_columns() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    for (sql, holds) in [
        (
            "SELECT current_setting('server_version_num')::int/100 AS version",
            "1600",
        ),
        (
            "SELECT schema_name AS \"name\" FROM information_schema.schemata WHERE schema_name NOT IN ('information_schema', 'pg_catalog') ORDER BY schema_name",
            "public",
        ),
        (
            "SELECT quote_ident(table_name) AS \"table\" FROM information_schema.tables WHERE quote_ident(table_schema) = 'public' ORDER BY 1",
            "logs",
        ),
        (
            "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns \
             WHERE quote_ident(table_name) = 'logs' AND quote_ident(table_schema) = 'public'",
            "body",
        ),
    ] {
        let said = psql(&node, &node.acme, &["-c", sql]).await;
        assert!(
            said.rows().iter().any(|row| row.split('|').next() == Some(holds)),
            "{sql}: {}{}",
            said.out,
            said.err
        );
    }
    // there is no TimescaleDB, and asking is no error
    let said = psql(
        &node,
        &node.acme,
        &[
            "-c",
            "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
        ],
    )
    .await;
    assert_eq!(said.rows(), [""; 0], "{}", said.err);
}
