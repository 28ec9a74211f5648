//! What the server computes is what would be computed here, and of the rows of one moment.

use super::*;

fn any_pattern() -> impl Strategy<Value = String> {
    let letters = prop_oneof![
        Just("a"),
        Just("b"),
        Just("B"),
        Just("é"),
        Just("🦀"),
        Just("-"),
        Just("\\."),
        Just("\\\\"),
        Just("/"),
        Just(" "),
        Just("\\n"),
        Just("."),
        Just("\\d"),
        Just("\\s"),
        Just("[a-c]"),
        Just("[^b]"),
        Just("[^\\d]"),
        Just("(?i:é)"),
        Just("(?s:.)"),
        Just("\\x7f"),
        Just("^"),
        Just("$"),
        Just("(?-u:[a-z])"),
        Just("[\\]^-]"),
        Just("\\p{Greek}"),
    ];
    let one = letters.prop_map(str::to_owned);
    let pattern = one.prop_recursive(4, 24, 4, |inner| {
        let times = prop_oneof![
            Just("*"),
            Just("+"),
            Just("?"),
            Just("*?"),
            Just("{2}"),
            Just("{1,3}"),
            Just("{2,}")
        ];
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| all.concat()),
            1 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join("|"))),
            2 => (inner, times).prop_map(|(one, times)| format!("(?:{one}){times}")),
        ]
    });
    (any::<bool>(), pattern).prop_map(|(cased, pattern)| if cased { pattern } else { format!("(?i){pattern}") })
}

/// Rows with random bodies on the server, the same as the table `e` here, and the randomness that goes on.
async fn random_bodies(
    bodies: impl Strategy<Value = Option<String>>,
    last: u64,
) -> Option<(tempfile::TempDir, Stores, SessionContext, TestRunner)> {
    let (folder, stores) = world().await?;
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let p = partition(0);
    claim(&stores, p, 0).await;
    let rows = with_bodies(&stores, p, last, |_| bodies.new_tree(&mut runner).unwrap().current()).await;
    let plain = SessionContext::new();
    plain.register_batch("e", rows).unwrap();
    Some((folder, stores, plain, runner))
}

/// A regular expression finds the same rows on the server as here, whatever stands in it and in the texts.
#[tokio::test(flavor = "multi_thread")]
async fn p8_an_expression_means_the_same_on_the_server() {
    let texts = proptest::option::weighted(0.95, "[abB\u{e9}\u{c9}\u{1f980}λ٣3.\\\\/ \n\r\t\u{7f}x-]{0,8}");
    let Some((_folder, stores, plain, mut runner)) = random_bodies(texts, 59).await else {
        return;
    };
    let pinned = tables(&stores).pin().await.unwrap();
    let (mut there, mut found) = (0, 0);
    const PATTERNS: usize = 150;
    for _ in 0..PATTERNS {
        let pattern = any_pattern().new_tree(&mut runner).unwrap().current();
        let text = format!(
            "SELECT count(*), sum(\"offset\"), min(body), max(body) FROM e WHERE body ~ '{pattern}' AND NOT coalesce(body !~ '{pattern}', true)"
        );
        let expected = plain.sql(&text).await.unwrap().collect().await.unwrap();
        let answer = ask(&pinned, &text).await;
        assert_eq!(vec![answer.clone()], expected, "{pattern:?}");
        found += answer.column(0).as_primitive::<Int64Type>().value(0);
        let plan = format!("{:?}", ask(&pinned, &format!("EXPLAIN {text}")).await);
        there += usize::from(plan.contains("aggregated there"));
    }
    assert!(
        there > PATTERNS / 2 && found > 500,
        "{there} were asked there, {found} rows found"
    );
}

/// `match` as queries have it.
fn searching() -> ScalarUDF {
    let finds = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let each = arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>());
        let found: BooleanArray = each
            .map(|(body, asked)| Some(Search::new(asked?).finds(body?)))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    let texts = vec![DataType::Utf8, DataType::Utf8];
    create_udf(
        "match",
        texts,
        DataType::Boolean,
        Volatility::Immutable,
        Arc::new(finds),
    )
}

/// Rows of one insert with these bodies.
async fn with_bodies(
    stores: &Stores,
    p: Partition,
    last: u64,
    body: impl FnMut(usize) -> Option<String>,
) -> RecordBatch {
    let rows = concat_batches(&schema(), &records(p, 0..=last)).unwrap();
    let mut columns = rows.columns().to_vec();
    let bodies: StringArray = (0..rows.num_rows()).map(body).collect();
    columns[schema().index_of("body").unwrap()] = Arc::new(bodies);
    let rows = RecordBatch::try_new(schema(), columns).unwrap();
    let range = OffsetRange {
        partition: p,
        first: 0,
        last,
    };
    let slice = HotRows {
        range,
        rows: vec![rows.clone()],
    };
    stores.hot.insert(&[slice]).await.unwrap();
    rows
}

/// Words and patterns find the same rows on the server as here, with its index and where a part has none yet.
#[tokio::test(flavor = "multi_thread")]
async fn p8_words_are_found_alike_with_the_index_and_without() {
    let texts = proptest::option::weighted(
        0.95,
        "([aAkKsS1 -]|[ab]|[\u{212a}\u{130}\u{17f}\u{e9}\u{c9}“…日\u{307}\t\u{7f}]){0,6}",
    );
    let Some((_folder, stores, plain, mut runner)) = random_bodies(texts, 99).await else {
        return;
    };
    plain.register_udf(searching());
    let patterns = prop_oneof![
        "[aAkKsS1b %-]{1,7}".prop_map(|pattern| format!("body LIKE '%{pattern}%'")),
        "[aAkKsS1b %é\u{212a}“-]{1,7}".prop_map(|pattern| format!("body LIKE '{pattern}'")),
        "[aAkKsS1b %é\u{17f}-]{1,7}".prop_map(|pattern| format!("body ILIKE '{pattern}'")),
        "[aAkKsSi1b \u{212a}*\"-]{1,5}".prop_map(|asked| format!("match(body, '{asked}')")),
        "[aksi1b]".prop_map(|asked| format!("match(body, '{asked}')")),
    ];
    let mut found = 0;
    for merged in [false, true] {
        if merged {
            operator(server_of(&stores), "OPTIMIZE TABLE events FINAL").await;
        }
        let ctx = asking(&tables(&stores).pin().await.unwrap());
        ctx.register_udf(searching());
        for _ in 0..150 {
            let condition = patterns.new_tree(&mut runner).unwrap().current();
            let text = format!("SELECT count(*), sum(\"offset\"), min(body), max(body) FROM e WHERE {condition}");
            let expected = plain.sql(&text).await.unwrap().collect().await.unwrap();
            let answer = answer(&ctx, &text).await;
            assert_eq!(vec![answer.clone()], expected, "{condition:?}, merged: {merged}");
            found += answer.column(0).as_primitive::<Int64Type>().value(0);
        }
    }
    assert!(found > 1000, "{found} rows found");
}

/// A word that few rows have is looked up: the server reads no rows that cannot have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rare_word_is_looked_up_in_the_index() {
    let Some((folder, stores)) = world().await else { return };
    let p = partition(0);
    claim(&stores, p, 0).await;
    let rows = with_bodies(&stores, p, 9_999, |row| {
        let rare = if row == 20_000 { ", the Needle in it" } else { "" };
        Some(format!("request {row} took 7 ms{rare}"))
    })
    .await;
    assert!(rows.num_rows() > 25_000, "{}", rows.num_rows());
    operator(server_of(&stores), "OPTIMIZE TABLE events FINAL").await;
    // Whoever asks may read two granules, not all.
    let frugal = relay(&server().unwrap(), "max_rows_to_read=17000&").await;
    let asker = ClickHouseConfig {
        url: frugal.url.clone(),
        ..config_of(server_of(&stores))
    };
    let asker = tables(&opened(&folder, ClickHouseHot::new(&asker).unwrap()).await);
    let ctx = asking(&asker.pin().await.unwrap());
    ctx.register_udf(searching());
    let ask = async |condition: &str| {
        let frame = ctx.sql(&format!("SELECT body FROM e WHERE {condition}")).await.unwrap();
        frame
            .collect()
            .await
            .map(|rows| rows.iter().map(RecordBatch::num_rows).sum::<usize>())
    };
    for condition in [
        "body LIKE '% Needle %'",
        "body LIKE '%the Needle in%' AND severity IS NOT NULL OR body LIKE '% Needle %'",
        "body ILIKE '% the needle in%'",
        "match(body, 'NEEDLE request')",
    ] {
        assert_eq!(ask(condition).await.unwrap(), 1, "{condition}");
    }
    // What may be a piece of a word is not.
    let error = ask("body LIKE '%Needle%'").await.unwrap_err().to_string();
    assert!(error.contains("TOO_MANY_ROWS"), "{error}");
}

/// What is counted and ranked by sketches comes out alike: different values exactly so, as their sketch is made here; quantiles as near to the truth.
#[tokio::test(flavor = "multi_thread")]
async fn p8_sketches_come_out_alike_from_the_server() {
    let Some((_folder, stores)) = world().await else { return };
    let mut plain = Vec::new();
    for index in 0..2 {
        let p = partition(index);
        claim(&stores, p, 0).await;
        for first in [0, 200, 400] {
            insert(&stores, p, first..=first + 199).await.unwrap();
        }
        plain.extend(records(p, 0..=599));
    }
    let ctx = SessionContext::new();
    ctx.register_batch("e", concat_batches(&schema(), &plain).unwrap())
        .unwrap();
    let pinned = tables(&stores).pin().await.unwrap();
    let both = async |text: &str, mark: &str| {
        let plan = format!("{:?}", ask(&pinned, &format!("EXPLAIN {text}")).await);
        assert!(plan.contains(mark), "{text}: {plan}");
        let frame = ctx.sql(text).await.unwrap();
        let schema = Arc::clone(frame.schema().inner());
        let here = concat_batches(&schema, &frame.collect().await.unwrap()).unwrap();
        let there = ask(&pinned, text).await;
        assert_eq!(there.num_rows(), here.num_rows(), "{text}");
        (there, here)
    };
    for text in [
        "SELECT approx_distinct(body) FROM e",
        "SELECT service, approx_distinct(trace_id) FROM e WHERE signal = 'span' GROUP BY 1 ORDER BY 1",
        "SELECT signal, status, approx_distinct(duration_ns) FROM e GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT approx_distinct(body) FROM e WHERE service = 'nobody'",
        "SELECT approx_distinct(attrs['route']) FROM e",
    ] {
        let (there, here) = both(text, "each value once").await;
        assert_eq!(there, here, "{text}");
    }
    for text in [
        "SELECT name, min(value), max(value) FROM e GROUP BY 1 ORDER BY 1",
        "SELECT min(value) FILTER (WHERE service = 'service-1'), max(value) FILTER (WHERE service = 'nobody') FROM e",
        "SELECT min(value), max(value) FROM e WHERE signal = 'log'",
        "SELECT body ~ 'line \\d+7$' AS k, max(value), max(\"offset\") FROM e GROUP BY 1 ORDER BY 1",
    ] {
        let (there, here) = both(text, "aggregated there").await;
        assert_eq!(there, here, "{text}");
    }
    // Beside the estimate, the share of values that are below it.
    for (share, text) in [
        (
            0.5,
            "SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) FROM e",
        ),
        (
            0.99,
            "SELECT service, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) FROM e GROUP BY 1 ORDER BY 1",
        ),
        (
            0.9,
            "SELECT service, approx_percentile_cont(0.1, 200) WITHIN GROUP (ORDER BY duration_ns DESC) FROM e GROUP BY 1 ORDER BY 1",
        ),
        (
            0.1,
            "SELECT approx_percentile_cont(0.1) WITHIN GROUP (ORDER BY severity) FILTER (WHERE signal = 'log') FROM e",
        ),
        (
            0.5,
            "SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) FROM e WHERE service = 'nobody'",
        ),
    ] {
        let (there, here) = both(text, "aggregated there").await;
        let (there, here) = (there.columns().last().unwrap(), here.columns().last().unwrap());
        let numbers = |column: &ArrayRef| arrow::compute::cast(column, &DataType::Float64).unwrap();
        let (there, here) = (numbers(there), numbers(here));
        let (there, here) = (there.as_primitive::<Float64Type>(), here.as_primitive::<Float64Type>());
        for (there, here) in there.iter().zip(here.iter()) {
            let (Some(there), Some(here)) = (there, here) else {
                assert_eq!((there, here), (None, None), "{text}");
                continue;
            };
            let column = if text.contains("severity") {
                "severity"
            } else {
                "duration_ns"
            };
            let below = |value: f64| {
                let text = format!(
                    "SELECT avg(CASE WHEN {column} < {value} THEN 1.0 ELSE 0.0 END) AS less, avg(CASE WHEN {column} <= {value} THEN 1.0 ELSE 0.0 END) \
                     FROM e WHERE {column} IS NOT NULL"
                );
                let ctx = ctx.clone();
                async move {
                    let found = ctx.sql(&text).await.unwrap().collect().await.unwrap();
                    let at = |column: usize| found[0].column(column).as_primitive::<Float64Type>().value(0);
                    (at(0), at(1))
                }
            };
            let ((least, most), (low, high)) = (below(there).await, below(here).await);
            let apart = (least - high).max(low - most).max(0.0);
            assert!(
                apart < 0.03,
                "{text}, share {share}: {there} on the server and {here} here are {apart} apart"
            );
        }
    }
}

/// P8: what a query pinned stays what it was, whatever becomes of the parts that it knew: while it is asked, rows come that it must not see, rows of
/// a lost claim lie beside its own, and the server merges parts of which all rows counted with others.
#[tokio::test(flavor = "multi_thread")]
async fn p8_a_pinned_moment_outlives_its_parts() {
    let Some((folder, stores)) = world().await else { return };
    let (p, q) = (partition(0), partition(1));
    claim(&stores, p, 0).await;
    claim(&stores, q, 0).await;
    for first in [0, 10, 20] {
        insert(&stores, p, first..=first + 9).await.unwrap();
        insert(&stores, q, first..=first + 9).await.unwrap();
    }
    // Its last ten offsets stop counting, and one of its parts is cut in two.
    let successor = another_writer(&folder, &stores).await;
    claim(&successor, p, 15).await;
    insert(&successor, p, 15..=29).await.unwrap();

    // Whoever asks has a server that takes its time between two looks at the table.
    let slow = relay(&server().unwrap(), "merge_tree_storage_snapshot_sleep_ms=20&").await;
    let asker = ClickHouseConfig {
        url: slow.url.clone(),
        ..config_of(server_of(&stores))
    };
    let asker = tables(&opened(&folder, ClickHouseHot::new(&asker).unwrap()).await);
    let pinned = asker.pin().await.unwrap();
    let rows = [rows_of(p, 0..=29), rows_of(q, 0..=29)];
    let by_partition =
        "SELECT \"partition\", count(*), min(\"offset\"), max(\"offset\"), sum(\"row\") FROM e GROUP BY 1 ORDER BY 1";
    let newest = "SELECT \"offset\", \"row\", \"partition\" FROM e ORDER BY 1 DESC, 2, 3 LIMIT 7";
    let one_service =
        "SELECT service, body FROM e WHERE service = 'service-1' ORDER BY body, \"offset\", \"row\", \"partition\"";
    let explained = ask(&pinned, &format!("EXPLAIN {by_partition}")).await;
    let explained = format!("{explained:?}");
    assert!(
        explained.contains("parts whole") && explained.contains("aggregated there"),
        "{explained}"
    );
    let mut first = Vec::new();
    // Some parts hold rows that were set aside, others none.
    let seen = "SELECT \"partition\", count(*), sum(\"row\") FROM seen GROUP BY 1 ORDER BY 1";
    let without = "SELECT \"partition\", count(*), sum(\"row\") FROM e WHERE signal <> '_batch' AND quarantined_by IS NULL GROUP BY 1 ORDER BY 1";
    assert_eq!(
        ask(&pinned, seen).await.columns(),
        ask(&pinned, without).await.columns()
    );
    let aside = ask(&pinned, "SELECT count(*) FROM e WHERE quarantined_by IS NOT NULL").await;
    assert!(aside.column(0).as_primitive::<Int64Type>().value(0) > 0);
    for text in [by_partition, newest, one_service, seen, "SELECT count(*) FROM e"] {
        first.push((text, ask(&pinned, text).await));
    }
    let counted = first[0].1.column(1).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(counted, rows.map(|rows| i64::try_from(rows).unwrap()));

    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (done, successor, stores) = (Arc::clone(&done), successor.clone(), stores.clone());
        async move {
            let mut merges = 0;
            for first in (30..).step_by(2) {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                insert(&successor, p, first..=first + 1).await.unwrap();
                // The zombie, too.
                insert(&stores, p, first..=first + 1).await.unwrap();
                insert(&stores, q, first..=first + 1).await.unwrap();
                if first % 6 == 0 {
                    operator(server_of(&stores), "OPTIMIZE TABLE events FINAL").await;
                    merges += 1;
                }
            }
            merges
        }
    });
    // Old moments lose their parts, new ones know the newest: both are asked while parts come and go.
    for _ in 0..15 {
        for (text, expected) in &first {
            assert_eq!(&ask(&pinned, text).await, expected, "{text}");
        }
        let now = asker.pin().await.unwrap();
        let counted = ask(&now, by_partition).await;
        let column = |at: usize| counted.column(at).as_primitive::<Int64Type>().values().to_vec();
        for (at, partition) in [p, q].into_iter().enumerate() {
            let last = u64::try_from(column(3)[at]).unwrap();
            assert_eq!(
                column(1)[at],
                i64::try_from(rows_of(partition, 0..=last)).unwrap(),
                "partition {at} up to {last}"
            );
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0, "nothing was merged meanwhile");
}
