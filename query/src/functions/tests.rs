#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::array::{Float64Array, Int64Array, StringArray, TimestampNanosecondArray, new_null_array};
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;

use super::{Applier, ApplyError, PluginCall, Plugins, applied_schema};
use crate::guard;

/// Keeps every row, and says how many rows it was shown before.
#[derive(Default)]
struct Counting {
    opened: AtomicUsize,
}

struct Counted(AtomicUsize);

impl Plugins for Counting {
    fn open(&self, plugin: &PluginCall) -> Result<Arc<dyn Applier>, ApplyError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        match plugin.name.as_str() {
            "counting" => Ok(Arc::new(Counted(AtomicUsize::new(0)))),
            other => Err(ApplyError(format!("no plugin {other}"))),
        }
    }
}

impl Applier for Counted {
    fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch, ApplyError> {
        let before = self.0.fetch_add(rows.num_rows(), Ordering::Relaxed);
        let mut columns = rows.columns().to_vec();
        let of = |text: &str| Arc::new(StringArray::from(vec![text; rows.num_rows()])) as ArrayRef;
        columns.extend([of("kept"), of(&before.to_string())]);
        RecordBatch::try_new(applied_schema(), columns).map_err(|error| ApplyError(error.to_string()))
    }
}

/// A session with the functions, over few rows.
fn session(partitions: usize) -> SessionContext {
    session_with(partitions, None)
}

fn session_with(partitions: usize, plugins: Option<Arc<dyn Plugins>>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions);
    let mut builder = SessionStateBuilder::new_with_default_features().with_config(config);
    super::register(&mut builder, 128 << 20);
    let ctx = SessionContext::new_with_state(builder.build());
    // Two partitions, so that states are merged.
    let events: Arc<dyn TableProvider> =
        Arc::new(MemTable::try_new(rows().schema(), vec![vec![rows()], vec![]]).unwrap());
    for (name, function) in super::tables(&events, plugins.as_ref()) {
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
    super::complete(&mut statement).map_err(|e| text(&e))?;
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

/// Each query has a plugin of its own, and takes its rows from a condition or from a query.
#[tokio::test]
async fn a_plugin_is_shown_the_rows_of_one_query_and_remembers_those_alone() {
    let plugins = Arc::new(Counting::default());
    let ctx = session_with(3, Some(Arc::clone(&plugins) as Arc<dyn Plugins>));
    for (asked, query) in [
        "SELECT min(applied_reason) AS r, count(*) AS n FROM apply('counting', 'service = ''shop''')",
        "SELECT min(applied_reason) AS r, count(*) AS n FROM apply('counting@1.2', TABLE(SELECT * FROM events WHERE service = 'shop'))",
        "SELECT min(applied_reason) AS r, count(*) AS n FROM apply ( 'counting', table /* of */ (SELECT name, tenant, \
         'log' AS signal, service FROM events WHERE match(service, 'shop') AND name <> 'it''s'), '{}') WHERE body IS NULL",
    ]
    .into_iter()
    .enumerate()
    {
        let got = ask(&ctx, query, Vec::new()).await;
        assert!(got.as_ref().is_ok_and(|got| got.contains("| 0 | 2 |")), "{query}\n{got:?}");
        assert_eq!(plugins.opened.load(Ordering::Relaxed), asked + 1, "{query}");
    }
    let deep = format!("1 = 1{}", " + 1".repeat(50_000));
    let nested = format!("{}1{} = 1", "(".repeat(1_000), ")".repeat(1_000));
    for (query, says) in [
        (
            format!("SELECT * FROM apply('counting', '{deep}')"),
            "the condition of apply",
        ),
        (
            format!("SELECT * FROM apply('counting', '{nested}')"),
            "the condition of apply",
        ),
        (
            "SELECT * FROM apply('counting', TABLE(SELECT service FROM events))".to_owned(),
            "tenant, signal",
        ),
        (
            "SELECT * FROM apply('counting', TABLE(SELECT *, 1 AS more FROM events))".to_owned(),
            "a column more",
        ),
        (
            "SELECT * FROM apply('counting', TABLE(SELECT *, 'x' AS body FROM events))".to_owned(),
            "body",
        ),
        (
            "SELECT * FROM apply('counting', TABLE(DELETE FROM events))".to_owned(),
            "",
        ),
        (
            "SELECT * FROM apply('counting', TABLE(SELECT * FROM nowhere))".to_owned(),
            "nowhere",
        ),
        ("SELECT * FROM apply('other')".to_owned(), "no plugin other"),
        ("SELECT * FROM apply()".to_owned(), "apply takes"),
        ("SELECT * FROM apply('counting', 7)".to_owned(), "apply takes"),
    ] {
        let refused = ask(&ctx, &query, Vec::new()).await.expect_err(&query);
        assert!(refused.contains(says), "{}: {refused}", &query[..query.len().min(200)]);
    }
}

/// What the long form has no place for is not left out in silence.
#[tokio::test]
async fn weighted_sums_take_no_distinct_and_their_errors_are_numbers() {
    for query in [
        "SELECT wsum(DISTINCT duration_ns) FROM events",
        "SELECT wcount(DISTINCT service) FROM events",
        "SELECT service FROM events GROUP BY service HAVING wavg(DISTINCT duration_ns) > 1",
        "SELECT wsum_error(DISTINCT duration_ns) FROM events",
        "SELECT wsum(duration_ns ORDER BY time) FROM events",
        "EXPLAIN SELECT wsum(DISTINCT duration_ns) FROM events",
    ] {
        let refused = ask(&session(2), query, Vec::new()).await;
        assert!(
            refused.as_ref().is_err_and(|said| said.contains("does not take")),
            "{query}: {refused:?}"
        );
    }
    for (rows, sum, error, mean) in [
        // kept for sure, with a weight below one, or with none at all
        ("(1.0, 5.0), (0.5, 2.0)", "6.0", "0.0", "4.0"),
        ("(CAST(NULL AS DOUBLE), 5.0)", "", "0.0", ""),
        ("(1.0, CAST('Infinity' AS DOUBLE))", "inf", "0.0", "inf"),
        ("(2.0, CAST(NULL AS DOUBLE))", "", "", ""),
        ("(0.0, 5.0)", "0.0", "0.0", ""),
    ] {
        let query = format!(
            "SELECT wsum(x) AS s, wsum_error(x) AS e, wavg(x) AS m, wcount_error() AS c FROM (VALUES {rows}) AS t(weight, x)"
        );
        let got = ask(&session(2), &query, Vec::new()).await.unwrap();
        let cells: Vec<&str> = got.lines().nth(3).unwrap().split('|').map(str::trim).collect();
        assert_eq!(cells[1..4], [sum, error, mean], "{query}\n{got}");
        assert!(!cells[4].contains("NaN"), "{got}");
    }
}

/// Rows in any order, in any number of parts, give one answer, also where times are equal.
#[tokio::test]
async fn counters_with_equal_times_give_one_answer_in_any_order() {
    let mut rows = [
        "(0, 10.0, 'cumulative', 'a')",
        "(10, 30.0, 'cumulative', 'a')",
        "(10, 20.0, 'cumulative', 'a')",
        "(20, 5.0, 'cumulative', 'a')",
        "(0, 2.0, 'delta', 'b')",
        "(0, 3.0, 'delta', 'b')",
        "(20, 8.0, 'delta', 'b')",
        "(7, 1.0, 'cumulative', 'c')",
        "(7, 9.0, 'cumulative', 'c')",
    ];
    let mut answers = std::collections::BTreeSet::new();
    for turn in 0..rows.len() {
        rows.rotate_left(1);
        rows.swap(turn % 4, 8 - turn % 3);
        let time = "arrow_cast(t * 1000000000, 'Timestamp(Nanosecond, None)')";
        let query = format!(
            "SELECT increase(v, {time}, k, s) AS i, rate(v, {time}, k, s) AS r FROM (VALUES {}) AS p(t, v, k, s)",
            rows.join(", ")
        );
        for partitions in [1, 3] {
            answers.insert(ask(&session(partitions), &query, Vec::new()).await.unwrap());
        }
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    // a: 20 up, then a reset and 5; b: all that was added, and for the rate all but the first; c: one point
    let cells: Vec<f64> = answers
        .first()
        .unwrap()
        .lines()
        .nth(3)
        .unwrap()
        .split('|')
        .filter_map(|c| c.trim().parse().ok())
        .collect();
    assert_eq!(cells, [25.0 + 13.0, 25.0 / 20.0 + 11.0 / 20.0]);
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
