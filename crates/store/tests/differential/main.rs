//! Generated queries answer alike from every place that rows can be in, and as one plain table in memory does (P8).
//!
//! `SLUICE_DIFFERENTIAL_QUERIES` is how many are asked (500 where nothing is said; the long form is 5,000), `SLUICE_DIFFERENTIAL_SEED`
//! which ones. A difference names its seed and number.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod generate;
mod layouts;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use self::generate::{CLASSES, Question, question};
use self::layouts::{Fleet, Layout};

const QUERIES: usize = 500;
const SEED: u64 = 20_251_121;
const AT_ONCE: usize = 4;

fn wish(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// What a query gives: the types of its columns, and its rows as texts; sorted unless the query says in which order they come.
#[derive(Debug, PartialEq)]
struct Given {
    types: Vec<String>,
    rows: Vec<String>,
}

async fn ask(ctx: &SessionContext, question: &Question) -> Result<Given, String> {
    let frame = ctx.sql(&question.sql).await.map_err(|e| e.to_string())?;
    let types = frame.schema().fields().iter();
    let types = types
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect();
    let batches = frame.collect().await.map_err(|e| e.to_string())?;
    let mut rows: Vec<String> = batches.iter().flat_map(texts).collect();
    if !question.ordered {
        rows.sort();
    }
    Ok(Given { types, rows })
}

fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("∅");
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
        .collect();
    let row = |at: usize| {
        columns
            .iter()
            .map(|c| c.value(at).to_string())
            .collect::<Vec<_>>()
            .join(" | ")
    };
    (0..batch.num_rows()).map(row).collect()
}

/// How two answers differ, shortly.
fn difference(wanted: &Given, got: &Given) -> String {
    if wanted.types != got.types {
        return format!("columns {:?} instead of {:?}", got.types, wanted.types);
    }
    let at = wanted.rows.iter().zip(&got.rows).position(|(a, b)| a != b);
    let at = at.unwrap_or(wanted.rows.len().min(got.rows.len()));
    format!(
        "{} rows instead of {}; row {at} is {:?} instead of {:?}",
        got.rows.len(),
        wanted.rows.len(),
        got.rows.get(at),
        wanted.rows.get(at)
    )
}

/// Rows that the plain table gives, and what any of the layouts gives instead.
async fn compare(fleet: &Fleet, layouts: &[&Layout], question: &Question) -> (usize, Vec<String>) {
    let wanted = match ask(&fleet.plain, question).await {
        Ok(wanted) => wanted,
        Err(error) => return (0, vec![format!("no query: {error}\n  {}", question.sql)]),
    };
    let mut found = Vec::new();
    for layout in layouts {
        let different = match ask(&layout.ctx, question).await {
            Ok(got) if got == wanted => continue,
            Ok(got) => difference(&wanted, &got),
            Err(error) => error,
        };
        found.push(format!("{}: {different}\n  {}", layout.name, question.sql));
    }
    (wanted.rows.len(), found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_generated_queries_answer_alike_everywhere() {
    let count = wish("SLUICE_DIFFERENTIAL_QUERIES", QUERIES as u64) as usize;
    let seed = wish("SLUICE_DIFFERENTIAL_SEED", SEED);
    let fleet = Arc::new(Fleet::new(seed).await);
    for layout in &fleet.layouts {
        let (hot, cold) = layout.tiers;
        assert!(
            !layout.name.contains("seam") || hot >= 50 && cold >= 50,
            "{}: {hot} rows in hot, {cold} in cold",
            layout.name
        );
    }
    let checked = futures::stream::iter(0..count).map(|number| {
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move {
            let question = question(seed, number);
            let (rows, found) = compare(&fleet, &fleet.places(number), &question).await;
            let found: Vec<String> = found
                .iter()
                .map(|text| format!("seed {seed}, query {number}, {text}"))
                .collect();
            (question.class, rows, found)
        })
    });
    let mut checked = checked.buffer_unordered(AT_ONCE);
    let (mut classes, mut filled, mut wrong) = (BTreeMap::<&str, usize>::new(), 0, Vec::new());
    while let Some(done) = checked.next().await {
        let (class, rows, found) = done.unwrap();
        *classes.entry(class).or_default() += 1;
        filled += usize::from(rows > 0);
        wrong.extend(found);
        assert!(wrong.len() < 40, "{}", wrong.join("\n"));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(classes.len(), CLASSES.len(), "not every class was asked: {classes:?}");
    assert!(filled * 4 > count * 3, "only {filled} of {count} answers had rows");
    println!(
        "{count} queries on {} places, {filled} with rows: {classes:?}",
        fleet.layouts.len()
    );
}

/// A server may say a chain of comparisons as a list, and in a list a null is not null.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_long_lists_keep_their_nulls_everywhere() {
    let fleet = Fleet::new(SEED).await;
    let places: Vec<&Layout> = fleet.layouts.iter().collect();
    let mut filled = 0;
    for condition in [
        "severity NOT IN (1, 2, 3, 4, 5, 9)",
        "NOT (severity = 1 OR severity = 2 OR severity = 3 OR severity = 9)",
        "severity <> 1 AND severity <> 2 AND severity <> 3 AND severity <> 9",
        "severity_text NOT IN ('a', 'b', 'INFO', 'WARN', 'x')",
        "attrs['route'] NOT IN ('/r0', '/r1', '/r2', '/none', '')",
        "(severity IN (1, 2, 3, 9)) IS NULL",
        "coalesce(severity NOT IN (1, 2, 3, 4, 9), true)",
        "CASE WHEN name IN ('a', 'b', 'c', 'd') THEN false ELSE true END",
        "trace_id NOT IN ('00', '01', '02', '03')",
    ] {
        for sql in [
            format!("SELECT \"offset\", \"row\" FROM events WHERE {condition}"),
            format!("SELECT {condition} AS k, count(*) FROM events GROUP BY 1"),
        ] {
            let question = Question {
                class: "lists",
                sql,
                ordered: false,
            };
            let (rows, found) = compare(&fleet, &places, &question).await;
            assert!(found.is_empty(), "{}", found.join("\n"));
            filled += usize::from(rows > 0);
        }
    }
    assert!(filled >= 12, "only {filled} had rows");
}

/// The comparison notices a single offset that neither store serves, and one that both do, within few queries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_one_offset_too_few_or_too_many_is_found() {
    let fleet = Fleet::new(SEED).await;
    for layout in layouts::damaged().await {
        let mut asked = 0;
        loop {
            let (_, found) = compare(&fleet, &[&layout], &question(SEED, asked)).await;
            if !found.is_empty() {
                break;
            }
            asked += 1;
            assert!(asked < 40, "{} was not noticed by {asked} queries", layout.name);
        }
    }
}
