//! What a query asks for and gives back, as far as its plan tells without running it.

use std::collections::HashMap;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Postgres counts parameters in 16 bits.
const MAX_PARAMS: usize = 65_535;

/// The parameters and columns of a query.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The type of `$1`, `$2`, … in this order.
    pub(crate) params: Vec<DataType>,
    pub(crate) schema: SchemaRef,
}

impl Shape {
    /// What it takes to keep it.
    pub(crate) fn bytes(&self) -> usize {
        let fields: usize = self.schema.fields().iter().map(|field| field.size()).sum();
        let params: usize = self.params.iter().map(DataType::size).sum();
        let metadata = self
            .schema
            .metadata()
            .iter()
            .map(|(key, value)| key.len() + value.len());
        fields + params + metadata.sum::<usize>()
    }
}

/// A parameter has the type that its place in the query asks for, else the one that the client declared, else it is text.
pub(crate) fn of(plan: &LogicalPlan, declared: &[Option<DataType>]) -> Result<Shape> {
    let mut types: HashMap<usize, Option<DataType>> = HashMap::new();
    for (name, kind) in plan.get_parameter_types()? {
        types.insert(number(&name)?, kind);
    }
    for (name, kind) in casts(plan)? {
        types.entry(number(&name)?).or_default().get_or_insert(kind);
    }
    let count = types.keys().copied().max().unwrap_or(0).max(declared.len());
    let params: Vec<DataType> = (1..=count)
        .map(|at| {
            let wanted = types.remove(&at).flatten();
            let named = declared.get(at - 1).cloned().flatten();
            wanted.or(named).unwrap_or(DataType::Utf8)
        })
        .collect();
    let nulls = params
        .iter()
        .map(ScalarValue::try_new_null)
        .collect::<Result<Vec<_>>>()?;
    let bound = match params.is_empty() {
        true => plan.clone(),
        false => plan.clone().replace_params_with_values(&nulls.into())?,
    };
    Ok(Shape {
        params,
        schema: bound.schema().inner().clone(),
    })
}

/// Whether the rows come from the stores, and not from the names of things alone.
pub(crate) fn reads_stores(plan: &LogicalPlan) -> bool {
    let mut found = false;
    // what is visited here returns no error
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= !matches!(scan.table_name.schema(), Some("pg_catalog" | "information_schema"));
        }
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    found
}

fn number(name: &str) -> Result<usize> {
    let number = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
    number.filter(|n| (1..=MAX_PARAMS).contains(n)).ok_or_else(|| {
        DataFusionError::Plan(format!(
            "a parameter is written $1 to ${MAX_PARAMS}, and this one `{name}`"
        ))
    })
}

/// The types that parameters are cast to, where they stand alone in a cast.
fn casts(plan: &LogicalPlan) -> Result<Vec<(String, DataType)>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::Cast(cast) = part
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                {
                    found.push((placeholder.id.clone(), cast.field.data_type().clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}
