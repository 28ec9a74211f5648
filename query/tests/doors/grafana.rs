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

/// Which schemas a name without one is looked up in, as `buildSchemaConstraint` of `postgresMetaQuery.ts` asks it.
const IN_PATH: &str = r#"
          quote_ident(table_schema) IN (
          SELECT
            CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM
            generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
            ) as i,
            string_to_array(current_setting('search_path'),',') s
          )"#;

/// The questions of `postgresMetaQuery.ts`, whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_editor_finds_tables_and_columns() {
    if !psql_is_here() {
        return;
    }
    let node = Node::start().await;
    let schemas = "SELECT schema_name AS \"name\"
    FROM information_schema.schemata
    WHERE schema_name NOT IN ('information_schema',
                              'pg_catalog',
                              'pg_toast',
                              '_timescaledb_cache',
                              '_timescaledb_catalog',
                              '_timescaledb_internal',
                              '_timescaledb_config',
                              'timescaledb_information',
                              'timescaledb_experimental')
    ORDER BY schema_name";
    let tables = format!(
        "SELECT
    CASE WHEN {IN_PATH}
      THEN quote_ident(table_name)
      ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
    END AS \"table\"
    FROM information_schema.tables
    WHERE quote_ident(table_schema) NOT IN ('information_schema',
                             'pg_catalog',
                             '_timescaledb_cache',
                             '_timescaledb_catalog',
                             '_timescaledb_internal',
                             '_timescaledb_config',
                             'timescaledb_information',
                             'timescaledb_experimental')
    ORDER BY CASE WHEN {IN_PATH} THEN 0 ELSE 1 END, 1"
    );
    let of_schema = "SELECT quote_ident(table_name) AS \"table\"
      FROM information_schema.tables
      WHERE quote_ident(table_schema) = 'public'
      ORDER BY 1";
    let columns = |table: &str| {
        format!(
            "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\"
    FROM information_schema.columns
    WHERE
      CASE WHEN array_length(parse_ident('{table}'),1) = 2
        THEN quote_ident(table_schema) = (parse_ident('{table}'))[1]
          AND quote_ident(table_name) = (parse_ident('{table}'))[2]
        ELSE quote_ident(table_name) = '{table}'
          AND {IN_PATH}
      END"
        )
    };
    let all = [
        "events",
        "ledger",
        "logs",
        "metrics",
        "plugins",
        "quarantined",
        "service_red",
        "spans",
        "streams",
    ];
    let time = "time|timestamp with time zone";
    for (sql, wanted, exactly) in [
        (
            "SELECT current_setting('server_version_num')::int/100 as version",
            vec!["1600"],
            true,
        ),
        (schemas, vec!["public"], true),
        (tables.as_str(), all.to_vec(), true),
        (of_schema, all.to_vec(), true),
        (
            columns("logs").as_str(),
            vec![time, "body|text", "severity|integer", "attrs|json"],
            false,
        ),
        (columns("public.logs").as_str(), vec![time, "body|text"], false),
        (columns("nothing").as_str(), vec![], true),
        // there is no TimescaleDB, and asking is no error
        (
            "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
            vec![],
            true,
        ),
    ] {
        let said = psql(&node, &node.acme, &["-c", sql]).await;
        let rows = said.rows();
        assert!(
            wanted.iter().all(|row| rows.contains(row)),
            "{sql}: {rows:?}{}",
            said.err
        );
        assert!(!exactly || rows == wanted, "{sql}: {rows:?}");
    }
}
