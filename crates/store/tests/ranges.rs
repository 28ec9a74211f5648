//! What ranges of time are made of is another value whenever their rows are others, whatever tier they lie in, and stays the same where nothing
//! touched them.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use common::*;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::prelude::SessionContext;
use sluice_store::cold::CompactOptions;
use sluice_store::{Inputs, Looks, Rule, Scope, Stores, TimeRange};

const STEP_NS: i64 = 10_000_000_000;
const SCOPES: [Option<u64>; 3] = [None, Some(0), Some(1)];

/// One of the days that late rows are of, then steps of some seconds.
fn ranges() -> Vec<TimeRange> {
    let late = (START_NS - 4 * DAY_NS, START_NS);
    let steps = (0..16).map(|at| (START_NS + at * STEP_NS, START_NS + (at + 1) * STEP_NS));
    std::iter::once(late).chain(steps).collect()
}

fn scope(number: Option<u64>) -> Scope {
    number.map_or(Scope::All, |number| Scope::Tenant(tenant(number)))
}

/// The rows of each range, and what it is made of.
struct Look {
    rows: Vec<Vec<(i64, i64, i64)>>,
    inputs: Option<Arc<[Option<Inputs>]>>,
}

async fn inputs(stores: &Stores, of: Option<u64>, filters: &[Expr]) -> Option<Arc<[Option<Inputs>]>> {
    let pinned = tables(stores).pin().await.unwrap();
    let (table, ranges) = (pinned.events(scope(of)), ranges());
    let mut looks = Looks::new(None);
    let inputs = looks.look(&table, &ranges, filters).await.unwrap();
    assert_eq!(looks.look(&table, &ranges, filters).await.unwrap(), inputs);
    let everything = pinned.everything(scope(of));
    assert_eq!(looks.look(&everything, &ranges, filters).await.unwrap(), None);
    inputs
}

async fn look(stores: &Stores, of: Option<u64>) -> Look {
    let pinned = tables(stores).pin().await.unwrap();
    let (table, ranges) = (pinned.events(scope(of)), ranges());
    let inputs = Looks::new(None).look(&table, &ranges, &[]).await.unwrap();
    let ctx = SessionContext::new();
    ctx.register_table("e", table).unwrap();
    let text =
        "SELECT CAST(time AS BIGINT), \"partition\", \"offset\", CAST(\"row\" AS BIGINT) FROM e ORDER BY 2, 3, 4";
    let mut rows = vec![Vec::new(); ranges.len()];
    for batch in ctx.sql(text).await.unwrap().collect().await.unwrap() {
        let int = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        for at in 0..batch.num_rows() {
            let time = int(0).value(at);
            if let Some(range) = ranges.iter().position(|range| range.0 <= time && time < range.1) {
                rows[range].push((int(1).value(at), int(2).value(at), int(3).value(at)));
            }
        }
    }
    Look { rows, inputs }
}

/// All that was ever seen of each scope.
#[derive(Default)]
struct Seen {
    looks: Vec<Vec<Look>>,
}

impl Seen {
    /// Looks again. Returns for each scope which ranges are made of something else than at the last look, and which have other rows.
    async fn look(&mut self, stores: &Stores, what: &str) -> Vec<(Vec<usize>, Vec<usize>)> {
        self.looks.resize_with(SCOPES.len(), Vec::new);
        let mut changes = Vec::new();
        for (of, before) in SCOPES.into_iter().zip(&mut self.looks) {
            let now = look(stores, of).await;
            let differ = |look: &Look| -> (Vec<usize>, Vec<usize>) {
                let other = |at: &usize| match (&look.inputs, &now.inputs) {
                    (Some(one), Some(other)) => one[*at].is_none() || one[*at] != other[*at],
                    _ => true,
                };
                let all = 0..ranges().len();
                let rows = all.clone().filter(|at| look.rows[*at] != now.rows[*at]);
                (all.filter(other).collect(), rows.collect())
            };
            for look in before.iter() {
                let (made, rows) = differ(look);
                assert!(
                    rows.iter().all(|at| made.contains(at)),
                    "{what}, {of:?}: {rows:?} of {made:?}"
                );
            }
            changes.push(before.last().map(differ).unwrap_or_default());
            before.push(now);
        }
        changes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_time_are_made_of_something_else_when_their_rows_are_others() {
    for (_folder, stores) in lakes(1 << 30).await {
        let (a, b) = (partition(0), partition(1));
        let mut seen = Seen::default();
        stores.cold.commit(&[range(a, 0, 5)], records(a, 0..=5)).await.unwrap();
        stores.seam.claim_above(a, 5, &stores.hot.endpoint()).await.unwrap();
        claim(&stores, a, 6).await;
        claim(&stores, b, 0).await;
        seen.look(&stores, "cold alone").await;
        for offset in 6..40 {
            insert(&stores, a, offset..=offset).await.unwrap();
            insert(&stores, b, offset - 6..=offset - 6).await.unwrap();
            for (made, rows) in seen.look(&stores, "new rows").await {
                assert_eq!(made, rows, "ranges are made of their rows, and of no others");
            }
        }
        for (made, _) in seen.look(&stores, "nothing").await {
            assert!(made.is_empty(), "{made:?}");
        }
        stores
            .cold
            .commit(
                &[range(a, 6, 20), range(b, 0, 9)],
                [records(a, 6..=20), records(b, 0..=9)].concat(),
            )
            .await
            .unwrap();
        for (made, _) in seen.look(&stores, "cold took over, and hot still serves").await {
            assert!(made.is_empty(), "{made:?}");
        }
        stores.seam.advance(a, 20).await.unwrap();
        drop_to(&stores, a, 20);
        for (made, rows) in seen.look(&stores, "hand-off").await {
            assert!(!made.is_empty() && rows.is_empty());
        }
        stores.cold.compact(&CompactOptions::default()).await.unwrap();
        for (made, rows) in seen.look(&stores, "compaction").await {
            assert!(!made.is_empty() && rows.is_empty());
        }
        // Of one tenant, and of the third and fourth step.
        let ranges = ranges();
        let rule = Rule::new(&tenant(1), ingested_at(1_000), Some(ranges[3].0), Some(ranges[4].1));
        stores.erase(&rule).await.unwrap();
        let changes = seen.look(&stores, "erasure").await;
        assert!(changes[1].0.is_empty(), "of another tenant: {changes:?}");
        for (made, rows) in [&changes[0], &changes[2]] {
            assert_eq!(
                (made.as_slice(), rows.as_slice()),
                ([3, 4].as_slice(), [3, 4].as_slice())
            );
        }
        let rule = Rule::new(&tenant(0), ingested_at(10), None, None);
        stores.erase(&rule).await.unwrap();
        let changes = seen.look(&stores, "retention").await;
        assert!(!changes[1].0.is_empty() && changes[2].0.is_empty(), "{changes:?}");
        // Somebody else writes on.
        stores
            .cold
            .commit(&[range(a, 21, 39)], records(a, 21..=39))
            .await
            .unwrap();
        stores.seam.advance(a, 39).await.unwrap();
        claim(&stores, a, 40).await;
        seen.look(&stores, "another writer").await;
        insert(&stores, a, 40..=45).await.unwrap();
        seen.look(&stores, "his rows").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_only_rows_that_pass_the_filters_change_a_range() {
    let (a, all) = (partition(0), &[][..]);
    for (_folder, stores) in lakes(1 << 30).await {
        let is_server = stores.hot.clickhouse().is_some();
        stores.cold.commit(&[range(a, 0, 5)], records(a, 0..=5)).await.unwrap();
        stores.seam.claim_above(a, 5, &stores.hot.endpoint()).await.unwrap();
        claim(&stores, a, 6).await;
        // Without a word for this the server looks at all rows.
        let wordless = ident("value").gt(lit(1.5));
        let none = [ident("service").eq(lit("nobody's")), wordless.clone()];
        let before = [
            inputs(&stores, None, &none).await,
            inputs(&stores, None, std::slice::from_ref(&wordless)).await,
        ];
        assert!(before.iter().all(Option::is_some));
        insert(&stores, a, 6..=30).await.unwrap();
        let after = [
            inputs(&stores, None, &none).await,
            inputs(&stores, None, std::slice::from_ref(&wordless)).await,
        ];
        assert_eq!(before[0] == after[0], is_server);
        assert!(before[1] != after[1] && after[1] == inputs(&stores, None, all).await);
        // What retention takes away is another thing with each moment.
        let rule = Rule::new(&tenant(0), ingested_at(10), None, None);
        stores.erase(&rule).await.unwrap();
        let kept = inputs(&stores, Some(0), all).await.unwrap();
        assert!(
            kept.iter().any(Option::is_none) && kept.iter().any(Option::is_some),
            "{kept:?}"
        );
        assert!(inputs(&stores, Some(1), all).await.unwrap().iter().all(Option::is_some));
    }
}
