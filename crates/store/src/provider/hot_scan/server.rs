//! Rows of a ClickHouse server: one statement with the seam's offsets and generations, the tenant, and what filters it can apply.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use sluice_wire::ids::Partition;

use super::sql;
use crate::hot::ClickHouseHot;
use crate::hot::clickhouse::{any_of, fit_rows, rows_between, text_parameter};
use crate::provider::events::Wanted;
use crate::provider::part_exec::PartExec;
use crate::rows::LEDGER;
use crate::seam::SeamRecord;

/// One statement, not yet sent.
#[derive(Clone)]
struct Question {
    hot: ClickHouseHot,
    columns: Vec<String>,
    conditions: Vec<String>,
    parameters: Vec<(String, String)>,
    limit: Option<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the parameters: they hold what people look for.
        f.debug_struct("Question")
            .field("conditions", &self.conditions)
            .finish_non_exhaustive()
    }
}

/// Plans the scan of the offsets that hot serves.
pub(super) fn plan(
    hot: &ClickHouseHot,
    seam: &BTreeMap<Partition, SeamRecord>,
    served: &BTreeMap<Partition, (u64, u64)>,
    wanted: &Wanted<'_>,
    filters: &[Expr],
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = wanted.projected()?;
    let places: Vec<String> = served
        .iter()
        .filter_map(|(partition, (first, last))| rows_between(*partition, seam.get(partition)?, *first, *last))
        .collect();
    if places.is_empty() {
        let input = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        return Ok(Arc::new(PartExec::new(
            "HotScan",
            "hot: nothing".to_owned(),
            input,
            None,
            schema,
        )));
    }
    let said = sql::say(filters, &wanted.schema);
    let mut parameters = said.parameters;
    let mut conditions = vec![any_of(places.into_iter())];
    if let Some(tenant) = wanted.tenant {
        let (text, parameter) = text_parameter("tenant", tenant);
        conditions.push(format!("`tenant` = {text}"));
        parameters.push(parameter);
    }
    if !wanted.hidden {
        conditions.push(format!("`signal` != '{LEDGER}' AND `quarantined_by` IS NULL"));
    }
    let (filtered, all) = (said.conditions.len(), filters.len());
    conditions.extend(said.conditions);
    let question = Question {
        hot: hot.clone(),
        columns: schema.fields().iter().map(|field| field.name().clone()).collect(),
        conditions,
        parameters,
        limit: if said.whole {
            wanted.limit_if_filtered
        } else {
            wanted.limit
        },
        schema: Arc::clone(&schema),
    };
    let label = format!(
        "hot: {} partitions on the server, {filtered} of {all} filters there",
        served.len()
    );
    let limit = question.limit;
    let no_orders = Vec::<datafusion::physical_expr::LexOrdering>::new();
    let input = StreamingTableExec::try_new(
        Arc::clone(&schema),
        vec![Arc::new(question)],
        None,
        no_orders,
        false,
        limit,
    )?;
    Ok(Arc::new(PartExec::new("HotScan", label, Arc::new(input), None, schema)))
}

impl PartitionStream for Question {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Batches come as they are asked for; dropping the stream ends the statement.
    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let question = self.clone();
        let begun = async move {
            let answer = question
                .hot
                .select(
                    &question.columns,
                    &question.conditions,
                    question.parameters,
                    question.limit,
                )
                .await
                .map_err(failed)?;
            let schema = question.schema;
            Ok::<_, DataFusionError>(stream::try_unfold((answer, schema), async |(mut answer, schema)| {
                let Some(batch) = answer.next().await.map_err(failed)? else {
                    return Ok(None);
                };
                let batch = fit_rows(&batch, &schema)?;
                Ok(Some((batch, (answer, schema))))
            }))
        };
        let rows = futures::TryStreamExt::try_flatten(stream::once(begun));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
