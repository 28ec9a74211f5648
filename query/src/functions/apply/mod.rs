//! `apply('plugin@version', 'which rows', 'configuration')`: what a plugin would have done with rows that are stored. In the place of the
//! condition a query may stand, `TABLE(SELECT …)`, which is read as `EXISTS (…)`: the one form of a query of any columns that the planner
//! takes for an argument.
//!
//! The plugin runs in its sandbox over the rows that the caller may see, and changes nothing. How plugins are found and run is not known
//! here: whoever composes the program brings it.

mod exec;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Subquery, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::tokenizer::Token;

use self::exec::ApplyExec;
use crate::{catalog, depth, guard};

/// Columns behind those of `events`.
const APPLIED: &str = "applied";
const REASON: &str = "applied_reason";

/// Loads plugins.
pub trait Plugins: Send + Sync + 'static {
    /// A plugin of one query, which has seen no rows yet and shares nothing with those of other queries. Blocks.
    fn open(&self, plugin: &PluginCall) -> Result<Arc<dyn Applier>, ApplyError>;
}

/// Runs one plugin over rows of the table.
pub trait Applier: Send + Sync + 'static {
    /// Every row, with the columns of [`applied_schema`]: as the plugin left it where it was kept, else as it was. Blocks.
    fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch, ApplyError>;
}

/// Which plugin, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginCall {
    pub name: String,
    pub version: Option<String>,
    /// A JSON object.
    pub config: String,
}

/// Why a plugin could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// The columns of `events`, what became of the row (`kept`, `dropped` or `quarantined`), and why.
pub fn applied_schema() -> SchemaRef {
    let events = sluice_wire::events::schema();
    let mut fields: Vec<Arc<Field>> = events.fields().iter().cloned().collect();
    fields.extend([APPLIED, REASON].map(|name| Arc::new(Field::new(name, DataType::Utf8, true))));
    Arc::new(arrow::datatypes::Schema::new(fields))
}

pub(super) struct Apply {
    events: Arc<dyn TableProvider>,
    plugins: Arc<dyn Plugins>,
}

impl Apply {
    pub(super) fn new(events: &Arc<dyn TableProvider>, plugins: &Arc<dyn Plugins>) -> Apply {
        Apply {
            events: Arc::clone(events),
            plugins: Arc::clone(plugins),
        }
    }

    /// The rows that a condition on `events` names.
    fn rows(&self, condition: Option<&str>, session: &dyn Session) -> Result<LogicalPlan> {
        let all = LogicalPlanBuilder::scan("events", provider_as_source(Arc::clone(&self.events)), None)?;
        let Some(condition) = condition.filter(|text| !text.trim().is_empty()) else {
            return all.build();
        };
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return plan_err!("apply cannot read a condition here");
        };
        // A text within the text of the query, which was one word to whoever measured that.
        if let Err(error) = guard::measure(&guard::words(condition)) {
            return plan_err!("the condition of apply: {error}");
        }
        let schema = DFSchema::try_from(sluice_wire::events::schema())?;
        let condition = state.create_logical_expr(condition, &schema)?;
        let mut own = true;
        condition.apply(|node| {
            own &= !matches!(
                node,
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
            );
            Ok(TreeNodeRecursion::Continue)
        })?;
        match own {
            true => all.filter(condition)?.build(),
            false => plan_err!("the condition of apply is on columns of events, without queries inside"),
        }
    }
}

impl fmt::Debug for Apply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apply")
    }
}

impl TableFunctionImpl for Apply {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let (plugin, which, config) = match args.exprs() {
            [plugin] => (plugin, None, None),
            [plugin, which] => (plugin, Some(which), None),
            [plugin, which, config] => (plugin, Some(which), Some(config)),
            _ => return plan_err!("apply takes {FORMS}"),
        };
        let (plugin, config) = (text(plugin)?, config.map_or(Ok("{}"), text)?);
        if !serde_json::from_str::<serde_json::Value>(config).is_ok_and(|value| value.is_object()) {
            return plan_err!("the configuration of apply is no JSON object");
        }
        let rows = match which {
            Some(Expr::Exists(query)) => given(&query.subquery)?,
            which => self.rows(which.map(text).transpose()?, args.session())?,
        };
        let (name, version) = plugin
            .split_once('@')
            .map_or((plugin, None), |(name, version)| (name, Some(version)));
        Ok(Arc::new(AppliedTable {
            rows,
            call: PluginCall {
                name: name.to_owned(),
                version: version.map(str::to_owned),
                config: config.to_owned(),
            },
            plugins: Arc::clone(&self.plugins),
            schema: applied_schema(),
        }))
    }
}

const FORMS: &str = "('plugin@version', 'condition on events', '{configuration}') or ('plugin@version', TABLE(SELECT …), '{configuration}')";

fn text(arg: &Expr) -> Result<&str> {
    match arg {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Ok(text),
        other => plan_err!("apply takes {FORMS}, and not {other}"),
    }
}

/// The rows of a query, as those of `events`: what it leaves out is null.
fn given(query: &Subquery) -> Result<LogicalPlan> {
    if !query.outer_ref_columns.is_empty() {
        return plan_err!("the query of apply cannot read columns from around it");
    }
    let plan = query.subquery.as_ref();
    catalog::options().verify_plan(plan)?;
    if depth::is_too_large(plan) {
        return plan_err!("written out, the query of apply has too many steps");
    }
    let events = sluice_wire::events::schema();
    let known = |name: &str| events.field_with_name(name).is_ok();
    if let Some(other) = plan.schema().fields().iter().find(|field| !known(field.name())) {
        return plan_err!(
            "the query of apply gives a column {}, which events has not: a plugin sees columns of events",
            other.name()
        );
    }
    let mut columns = Vec::with_capacity(events.fields().len());
    let mut missing = Vec::new();
    for field in events.fields() {
        let mut found = plan.schema().iter().filter(|(_, given)| given.name() == field.name());
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => return plan_err!("the query of apply gives the column {} twice", field.name()),
            (Some(given), None) => {
                let column = Expr::Column(Column::from(given));
                columns.push(
                    column
                        .cast_to(field.data_type(), plan.schema().as_ref())?
                        .alias(field.name()),
                );
            }
            (None, _) if NEEDED.contains(&field.name().as_str()) || !field.is_nullable() => {
                missing.push(field.name().as_str());
            }
            (None, _) => columns.push(lit(ScalarValue::try_new_null(field.data_type())?).alias(field.name())),
        }
    }
    match missing.is_empty() {
        true => LogicalPlanBuilder::from(plan.clone()).project(columns)?.build(),
        false => plan_err!(
            "the query of apply needs the columns {} too, or all of events",
            missing.join(", ")
        ),
    }
}

/// Whose rows they are and what kind of them, without which no plugin is told anything.
const NEEDED: [&str; 2] = ["tenant", "signal"];

/// `TABLE (` as an argument of `apply` is written as what the planner knows.
pub(super) fn table_argument(words: &[Token], at: usize) -> Option<&'static str> {
    let is = |token: &Token, name: &str| matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(name));
    let solid = |token: &&Token| !matches!(token, Token::Whitespace(_));
    if !is(&words[at], "table") || words[at + 1..].iter().find(solid) != Some(&Token::LParen) {
        return None;
    }
    // Back to the bracket that it stands in, and the name before that.
    let mut depth = 0usize;
    let mut before = words[..at].iter().rev().filter(solid);
    for token in before.by_ref() {
        match token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => break,
            Token::LParen => depth -= 1,
            _ => {}
        }
    }
    before.next().filter(|token| is(token, "apply")).map(|_| "EXISTS")
}

struct AppliedTable {
    rows: LogicalPlan,
    call: PluginCall,
    plugins: Arc<dyn Plugins>,
    schema: SchemaRef,
}

impl fmt::Debug for AppliedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppliedTable")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for AppliedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = state.create_physical_plan(&self.rows).await?;
        Ok(Arc::new(ApplyExec::new(
            input,
            self.call.clone(),
            Arc::clone(&self.plugins),
            projection.cloned(),
        )?))
    }
}
