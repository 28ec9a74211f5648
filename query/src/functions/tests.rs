#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::array::{Float64Array, Int64Array, StringArray, TimestampNanosecondArray, new_null_array};
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

use crate::guard;

/// A session with the functions, over few rows.
fn session(partitions: usize) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions);
    let mut builder = SessionStateBuilder::new_with_default_features().with_config(config);
    super::register(&mut builder);
    let ctx = SessionContext::new_with_state(builder.build());
    // Two partitions, so that states are merged.
    let events: Arc<dyn TableProvider> =
        Arc::new(MemTable::try_new(rows().schema(), vec![vec![rows()], vec![]]).unwrap());
    for (name, function) in super::tables(&events, None) {
        ctx.register_udtf(name, function);
    }
    ctx.register_table("events", events).unwrap();
    ctx
}

fn rows() -> RecordBatch {
    let schema = sluice_wire::events::schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("trace_id", _) => Arc::new(StringArray::from(vec![
                "4bf92f3577b34da6a3ce929d0e0e4736",
                "00",
                "4bf92f3577b34da6a3ce929d0e0e4736",
            ])),
            ("name", _) => Arc::new(StringArray::from(vec!["GET /", "GET /a", "SELECT"])),
            ("service", _) => Arc::new(StringArray::from(vec!["shop", "shop", "db"])),
            ("weight", _) => Arc::new(Float64Array::from(vec![1.0, 10.0, 10.0])),
            ("duration_ns", _) => Arc::new(Int64Array::from(vec![100, 200, 300])),
            ("time", kind) => Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3]).with_data_type(kind.clone())),
            (_, kind) => new_null_array(kind, 3),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

async fn ask(ctx: &SessionContext, sql: &str, params: Vec<ScalarValue>) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let options = ctx.state().config_options().sql_parser.clone();
    let mut statement = guard::parse(sql, &options).map_err(|e| format!("{e:?}"))?;
    super::complete(&mut statement);
    let plan = ctx.state().statement_to_plan(statement).await.map_err(|e| text(&e))?;
    let frame = ctx.execute_logical_plan(plan).await.map_err(|e| text(&e))?;
    let frame = match params.is_empty() {
        true => frame,
        false => frame.with_param_values(params).map_err(|e| text(&e))?,
    };
    let rows = frame.collect().await.map_err(|e| text(&e))?;
    Ok(pretty_format_batches(&rows).unwrap().to_string())
}

/// `match` is written as a name before the text is parsed, and nothing else of it changes.
#[tokio::test]
async fn what_stands_in_quotes_keeps_its_escapes_beside_match() {
    let question = "SELECT match('I can''t connect', '\"can''t\"') AS m, 'a'' OR ''1''=''1' AS t, \"odd\"\"name\" FROM (SELECT 1 AS \"odd\"\"name\")";
    let shown = ask(&session(1), question, Vec::new()).await.unwrap();
    assert!(shown.contains("| true | a' OR '1'='1 | 1 "), "{shown}");
}

fn description() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/FUNCTIONS.md")).unwrap()
}

/// The examples of FUNCTIONS.md: a query, and what it gives.
fn examples() -> Vec<(String, String)> {
    let text = description();
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("```sql\n") {
        let (query, after) = after.split_once("```").unwrap();
        let answer = after
            .trim_start()
            .strip_prefix("```text\n")
            .unwrap_or_else(|| panic!("no answer to {query}"));
        let (answer, after) = answer.split_once("```").unwrap();
        found.push((query.trim().to_owned(), answer.trim().to_owned()));
        rest = after;
    }
    found
}

#[tokio::test]
async fn every_example_gives_what_is_written() {
    let examples = examples();
    assert!(examples.len() > 12);
    let mut wrong = Vec::new();
    for (query, wanted) in &examples {
        for partitions in [1, 3] {
            match ask(&session(partitions), query, Vec::new()).await {
                Ok(got) if got.trim() == wanted => {}
                Ok(got) => wrong.push(format!("{query}\n{got}")),
                Err(error) => wrong.push(format!("{query}\n{error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_function_is_described() {
    let text = description();
    let scalars = super::scalars().into_iter().map(|function| function.name().to_owned());
    let aggregates = super::aggregates()
        .into_iter()
        .map(|function| function.name().to_owned());
    for name in scalars
        .chain(aggregates)
        .chain(["trace".to_owned(), "apply".to_owned()])
    {
        assert!(
            text.contains(&format!("`{name}(")),
            "FUNCTIONS.md says nothing of {name}"
        );
    }
}

#[tokio::test]
async fn parameters_are_taken_everywhere() {
    let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    for (query, params) in [
        (
            "SELECT count(*) AS n FROM trace($1)",
            vec![text("4BF92F35-77b34da6a3ce929d0e0e4736")],
        ),
        (
            "SELECT count(*) + 1 AS n FROM events WHERE match(name, $1)",
            vec![text("select")],
        ),
        ("SELECT attr_int(MAP {'k': '2'}, $1) AS n", vec![text("k")]),
        (
            "SELECT json_get_int('{\"a\":[1,2]}', $1, $2) AS n",
            vec![text("a"), ScalarValue::Int64(Some(1))],
        ),
        (
            "SELECT CAST(wsum(duration_ns) AS BIGINT) / 1500 AS n FROM events WHERE service = $1 AND name <> $2",
            vec![text("db"), text("x")],
        ),
    ] {
        let query = query.replace("trace($1)", "trace(replace($1, '-', ''))");
        let got = ask(&session(2), &query, params).await;
        assert!(got.as_ref().is_ok_and(|got| got.contains("| 2 ")), "{query}\n{got:?}");
    }
}

/// What is wrong is told, and nothing panics.
#[tokio::test]
async fn wrong_arguments_are_errors() {
    for query in [
        "SELECT attr_int('text', 'k')",
        "SELECT json_get(attrs, 'k') FROM events",
        "SELECT json_get('{}')",
        "SELECT approx_top_k(name, 0) FROM events",
        "SELECT approx_top_k(name) FROM events",
        "SELECT histogram_quantile(0.5, bounds) FROM events",
        "SELECT increase(duration_ns) FROM events",
        "SELECT * FROM trace()",
        "SELECT * FROM trace(7)",
        "SELECT * FROM apply('mask')",
    ] {
        assert!(ask(&session(2), query, Vec::new()).await.is_err(), "{query}");
    }
    for query in [
        "SELECT json_get('{\"a\":', 'a') IS NULL AS ok",
        "SELECT json_get(repeat('[', 100000), '0') IS NULL AS ok",
        "SELECT histogram_quantile(7, bounds, buckets) IS NULL AS ok FROM events",
        "SELECT histogram_quantile(0.5, [1.0], [1, 2, 3, 4]) IS NOT NULL AS ok",
        "SELECT match('', '\"-\" *') AS ok",
        "SELECT rate(1.0, NULL) IS NULL AS ok",
    ] {
        let got = ask(&session(2), query, Vec::new()).await;
        assert!(got.as_ref().is_ok_and(|got| got.contains("true")), "{query}\n{got:?}");
    }
}

/// Counting in bounded memory never misses a value that is frequent enough, and its error bound holds, however the rows are split.
#[tokio::test]
async fn frequent_values_are_found_with_an_honest_error() {
    for partitions in [1, 4] {
        let ctx = session(partitions);
        // 2,000 rare values, and five that come 100 to 500 times.
        let query = "SELECT t['value'] AS v, t['count'] AS n, t['error'] AS e FROM (SELECT unnest(approx_top_k(v, 5)) AS t FROM (\
             SELECT CASE WHEN x % 7 < 3 THEN 'hot-' || CAST(x % 5 AS TEXT) ELSE 'rare-' || CAST(x AS TEXT) END AS v \
             FROM (SELECT unnest(range(0, 4000)) AS x)))";
        let got = ask(&ctx, query, Vec::new()).await.unwrap();
        for hot in 0..5 {
            let exact = (0..4000).filter(|x| x % 7 < 3 && x % 5 == hot).count() as i64;
            let line = got
                .lines()
                .find(|line| line.contains(&format!("hot-{hot}")))
                .unwrap_or_else(|| panic!("{hot}: {got}"));
            let numbers: Vec<i64> = line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
            assert!(
                numbers[0] - numbers[1] <= exact && exact <= numbers[0] + numbers[1],
                "{line}: {exact}"
            );
        }
    }
}

#[test]
fn types_of_results_are_what_people_count_on() {
    let kinds: Vec<DataType> = super::scalars()
        .iter()
        .filter(|f| f.name().starts_with("json_get_"))
        .map(|f| f.return_type(&[DataType::Utf8, DataType::Utf8]).unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            DataType::Utf8,
            DataType::Int64,
            DataType::Float64,
            DataType::Boolean,
            DataType::Utf8
        ]
    );
}
