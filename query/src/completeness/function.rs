//! `completeness(from, to)`: for the doors that cannot say beside an answer how complete it is, and for who wants to know it of a time
//! range. One row per stream of the caller: which of its batches the range touches, what became of them, which batches between them are
//! not there, and what of the rows was sampled out.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::ViewTable;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, cast, lit};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

pub(crate) const NAME: &str = "completeness";

/// In terms of the caller's own tables. A batch that is not there has no event times of its own: it counts where it lies between two that
/// the range touches. The same holds for what an edge keeps (`backlog_rows`): its times are not known here.
const QUERY: &str = r#"
WITH touched AS (
  SELECT tenant, stream, epoch, min(seq) AS first, max(seq) AS last, count(*) AS "rows", sum(weight) AS weight
  FROM events WHERE "time" >= $1 AND "time" < $2 GROUP BY tenant, stream, epoch),
batches AS (
  SELECT l.tenant, l.stream, l.epoch, l.seq,
    sum(CASE WHEN l.bucket = 'accepted' THEN l."rows" ELSE 0 END) AS accepted,
    sum(CASE WHEN l.bucket = 'dropped' THEN l."rows" ELSE 0 END) AS dropped,
    sum(CASE WHEN l.bucket = 'quarantined' THEN l."rows" ELSE 0 END) AS quarantined,
    sum(CASE WHEN l.bucket = 'damaged' THEN l."rows" ELSE 0 END) AS damaged
  FROM ledger l JOIN touched t ON l.tenant = t.tenant AND l.stream = t.stream AND l.epoch = t.epoch
  WHERE l.outcome <> 'duplicate' AND l.seq >= t.first AND l.seq <= t.last
  GROUP BY l.tenant, l.stream, l.epoch, l.seq),
followed AS (
  SELECT tenant, stream, epoch, seq, lead(seq) OVER (PARTITION BY tenant, stream, epoch ORDER BY seq) AS next FROM batches),
missing AS (
  SELECT tenant, stream, sum(next - seq - 1) AS batches,
    string_agg(concat(epoch, ':', CAST(seq + 1 AS VARCHAR), '-', CAST(next - 1 AS VARCHAR)), ', ') AS ranges
  FROM followed WHERE next > seq + 1 GROUP BY tenant, stream),
counted AS (
  SELECT tenant, stream, sum(accepted) AS accepted, sum(dropped) AS dropped, sum(quarantined) AS quarantined, sum(damaged) AS damaged
  FROM batches GROUP BY tenant, stream),
stored AS (
  SELECT tenant, stream, sum("rows") AS "rows", sum(weight) AS weight,
    string_agg(concat(epoch, ':', CAST(first AS VARCHAR), '-', CAST(last AS VARCHAR)), ', ') AS ranges
  FROM touched GROUP BY tenant, stream)
SELECT s.tenant, s.node, s.stream, s.silent, s.last_heard,
  coalesce(st."rows", 0) AS stored_rows, st.ranges AS stored_ranges,
  coalesce(c.accepted, 0) AS accepted_rows, coalesce(c.dropped, 0) AS dropped_rows,
  coalesce(c.quarantined, 0) AS quarantined_rows, coalesce(c.damaged, 0) AS damaged_rows,
  coalesce(m.batches, 0) AS missing_batches, m.ranges AS missing_ranges, s.backlog_rows,
  CASE WHEN st.weight > 0 THEN greatest(1.0 - st."rows" / st.weight, 0.0) END AS sampled_out
FROM streams s
LEFT JOIN stored st ON st.tenant = s.tenant AND st.stream = s.stream
LEFT JOIN counted c ON c.tenant = s.tenant AND c.stream = s.stream
LEFT JOIN missing m ON m.tenant = s.tenant AND m.stream = s.stream"#;

#[derive(Debug)]
struct Completeness {
    /// The query over the tables of one session, with `$1` and `$2` open.
    plan: LogicalPlan,
}

/// Makes the function known to a session, if the query names it.
pub(crate) async fn register(ctx: &SessionContext, sql: &str) -> Result<()> {
    if !names(sql) {
        return Ok(());
    }
    let plan = ctx.state().create_logical_plan(QUERY).await?;
    ctx.register_udtf(NAME, Arc::new(Completeness { plan }));
    Ok(())
}

fn names(sql: &str) -> bool {
    let words = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    words
        .iter()
        .any(|token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(NAME)))
}

impl TableFunctionImpl for Completeness {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let (from, to) = match args.exprs() {
            [from, to] => (from, to),
            _ => return plan_err!("{NAME} takes two times: {NAME}(now() - INTERVAL '1 hour', now())"),
        };
        let plan = self.plan.clone().transform_up_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|part| {
                    let bound = match &part {
                        Expr::Placeholder(open) if open.id == "$1" => time(from),
                        Expr::Placeholder(open) if open.id == "$2" => time(to),
                        _ => return Ok(Transformed::no(part)),
                    };
                    Ok(Transformed::yes(bound))
                })
            })
        });
        Ok(Arc::new(ViewTable::new(plan.data()?, None)))
    }
}

/// An argument as a time, a text too.
fn time(argument: &Expr) -> Expr {
    let kind = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    match argument {
        Expr::Literal(value, _) => match value.cast_to(&kind) {
            Ok(ScalarValue::TimestampNanosecond(Some(ns), zone)) => {
                lit(ScalarValue::TimestampNanosecond(Some(ns), zone))
            }
            // the cast says what is wrong with it when the query is planned
            _ => cast(argument.clone(), kind),
        },
        other => cast(other.clone(), kind),
    }
}
