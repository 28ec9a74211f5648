#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use datafusion::prelude::SessionContext;

use super::reviewed::{HARMLESS, growing};
use super::*;
use crate::catalog::Catalog;
use crate::config::LimitsConfig;

const MEMORY: u64 = 32 << 20;

fn session() -> SessionContext {
    let limits = LimitsConfig {
        memory: MEMORY,
        ..LimitsConfig::default()
    };
    SessionContext::new_with_state(Catalog::new(&limits).template())
}

async fn ask(ctx: &SessionContext, sql: &str) -> Result<usize> {
    let rows = ctx.sql(sql).await?.collect().await?;
    Ok(rows.iter().map(|batch| batch.num_rows()).sum())
}

/// Whoever brings a function in says here what it grows with.
#[test]
fn every_function_of_a_session_was_reviewed() {
    let ctx = session();
    let state = ctx.state();
    let named = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let scalars: BTreeSet<String> = state.scalar_functions().values().map(|f| f.name().to_owned()).collect();
    let mut known = named(HARMLESS);
    known.extend(growing().map(str::to_owned));
    let new: Vec<_> = scalars.difference(&known).collect();
    assert!(new.is_empty(), "not reviewed: {new:?}");
    let gone: Vec<_> = known.difference(&scalars).collect();
    assert!(gone.is_empty(), "reviewed, and not there: {gone:?}");
    for function in state.scalar_functions().values() {
        let grows = growing().any(|name| name == function.name());
        assert_eq!(function.inner().is::<Bounded>(), grows, "{}", function.name());
    }
    // States of aggregates are in the account of memory; `approx_percentile_cont` takes its room before, and is bounded by `rule`.
    let aggregates: BTreeSet<String> = state
        .aggregate_functions()
        .values()
        .map(|f| f.name().to_owned())
        .collect();
    let reviewed = named(
        "any_value approx_distinct approx_median approx_percentile_cont approx_percentile_cont_with_weight approx_top_k array_agg avg \
         bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp first_value grouping histogram_quantile increase \
         last_value max median min nth_value percentile_cont rate regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope \
         regr_sxx regr_sxy regr_syy stddev stddev_pop string_agg sum var var_pop",
    );
    assert_eq!(aggregates, reviewed);
    let windows: BTreeSet<String> = state.window_functions().values().map(|f| f.name().to_owned()).collect();
    let reviewed =
        named("cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number");
    assert_eq!(windows, reviewed);
    // They apply an expression to the items that are there.
    let higher: BTreeSet<String> = state
        .higher_order_functions()
        .values()
        .map(|f| f.name().to_owned())
        .collect();
    assert_eq!(
        higher,
        named("array_any_match array_filter array_first array_transform")
    );
    // They make their rows one batch after another.
    let tables: BTreeSet<String> = state.table_functions().keys().cloned().collect();
    assert_eq!(tables, named("generate_series range"));
}

#[tokio::test]
async fn what_would_make_too_much_is_refused_with_its_limit() {
    let ctx = session();
    for (sql, step) in [
        ("SELECT repeat('x', 2000000000)", "`repeat`"),
        (
            "SELECT repeat(repeat(CAST(value AS TEXT), 4000), 4000) FROM range(10)",
            "`repeat`",
        ),
        ("SELECT lpad('x', 2000000000), 1", "`lpad`"),
        ("SELECT rpad(CAST(value AS TEXT), 100000) FROM range(5000)", "`rpad`"),
        ("SELECT range(1, 100000000000)", "`range`"),
        ("SELECT range(100000000000)", "`range`"),
        (
            "SELECT generate_series(value, 100000000000) FROM range(10)",
            "`generate_series`",
        ),
        (
            "SELECT generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 microsecond')",
            "`generate_series`",
        ),
        ("SELECT array_repeat(1, 2000000000)", "`array_repeat`"),
        ("SELECT array_repeat(repeat('x', 1000), 100000)", "`array_repeat`"),
        ("SELECT array_resize([1], 2000000000, 0)", "`array_resize`"),
        (
            "SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))",
            "`replace`",
        ),
        (
            "SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 1000), 'g')",
            "`regexp_replace`",
        ),
        (
            "SELECT array_to_string(range(1000000), repeat('x', 900))",
            "`array_to_string`",
        ),
        (
            "SELECT concat_ws(repeat(CAST(value AS TEXT), 200), '', '', '', '') FROM range(8000)",
            "`concat_ws`",
        ),
        ("SELECT repeat('x', 100000) FROM range(1000)", "a long text"),
        ("SELECT value, range(100000) FROM range(1000)", "a long text"),
        // doubled again and again, with an operator that is no function
        (
            "WITH a AS (SELECT repeat(CAST(value AS TEXT), 200) AS x FROM range(8000)), b AS (SELECT x || x AS x FROM a), \
             c AS (SELECT x || x AS x FROM b) SELECT x || x FROM c",
            "`||`",
        ),
    ] {
        let error = ask(&ctx, sql).await.expect_err(sql);
        let said = crate::error::QueryError::of_execution(error);
        assert_eq!(said.kind, crate::error::Kind::MemoryLimit, "{sql}: {said:?}");
        assert!(said.message.contains(step), "{sql}: {}", said.message);
        assert!(
            said.message.ends_with("`limits.memory` allows, which is 8388608 bytes"),
            "{}",
            said.message
        );
    }
    for (sql, says) in [
        (
            "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))",
            "compare shorter ones",
        ),
        (
            "SELECT array_has_all(range(30000), range(30000))",
            "compare shorter ones",
        ),
        (
            "SELECT approx_percentile_cont(value, 0.5, 10000000000) FROM range(10)",
            "10000 points",
        ),
        ("SELECT CAST(NULL AS INT[2000000000])", "4096 items"),
        ("SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')", "4096 items"),
        (
            "SELECT * FROM range(arrow_cast(NULL, 'FixedSizeBinary(2000000000)'))",
            "4096 items",
        ),
    ] {
        let error = ask(&ctx, sql).await.expect_err(sql).to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
}

/// Bounds change nothing for what stays within them, however the planner writes it.
#[tokio::test]
async fn what_stays_within_its_bounds_is_answered_as_before() {
    let bounded = session();
    let plain = SessionContext::new();
    for sql in [
        "SELECT repeat(CAST(value AS TEXT), 3), lpad('x', 5, 'ab'), rpad(CAST(value AS TEXT), 4, '.') FROM range(5) ORDER BY 1",
        "SELECT replace('a.b.c', '.', '--'), regexp_replace('a1b2', '[0-9]', '<\\0>', 'g'), regexp_match('k=v', '(.)=(.)')",
        "SELECT concat('a', NULL, value), concat_ws(', ', 'a', NULL, value), 'a' || value || NULL, 'x' || value FROM range(3)",
        "SELECT [1, 2] || [3], 0 || [1], [1] || 2, array_concat([1], [2]), array_to_string(range(5), '-', '?')",
        "SELECT generate_series(DATE '2026-01-01', DATE '2026-03-01', INTERVAL '1 month'), range(10, 0, -3)",
        "SELECT levenshtein('kitten', 'sitting'), array_has_all([1, 2, 3], [2, 3]), encode('abc', 'hex')",
        "SELECT 'a' || value AS x, count(*) FROM range(10) GROUP BY 'a' || value ORDER BY 'a' || value LIMIT 3",
        "SELECT sum(length('n' || value)) OVER (ORDER BY value) FROM range(4) ORDER BY 1",
        "SELECT value % 2, max('a' || value) FROM range(4) GROUP BY value % 2 ORDER BY 1",
        "SELECT replace(value || '.', '.', repeat('x', 900)) AS long FROM range(2000) ORDER BY 1 LIMIT 2",
        "SELECT approx_percentile_cont(value, 0.5, 200) FROM range(1000)",
        "SELECT arrow_cast('2026-01-01', 'Date32'), arrow_cast(1, 'Int16'), translate('abc', 'ab', 'é'), to_char(DATE '2026-01-02', '%Y')",
    ] {
        let (got, wanted) = (bounded.sql(sql).await.unwrap(), plain.sql(sql).await.unwrap());
        let names = |frame: &datafusion::dataframe::DataFrame| {
            let fields = frame
                .schema()
                .fields()
                .iter()
                .map(|f| (f.name().clone(), f.data_type().clone()));
            fields.collect::<Vec<_>>()
        };
        assert_eq!(names(&got), names(&wanted), "{sql}");
        let show = |rows: Vec<arrow::array::RecordBatch>| {
            arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string()
        };
        let (got, wanted) = (
            show(got.collect().await.unwrap()),
            show(wanted.collect().await.unwrap()),
        );
        assert_eq!(got, wanted, "{sql}");
    }
}
