//! The functions that questions about telemetry need beside those of the engine. FUNCTIONS.md describes them; its examples are tests.

mod apply;
mod attributes;
mod bounded;
mod counters;
mod histogram;
mod json;
mod points;
mod search;
mod sugar;
mod talkers;
mod trace;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub use self::apply::{Applier, ApplyError, PluginCall, Plugins, applied_schema};
pub(crate) use self::bounded::{Literals, MAX_FIXED, step_bytes};
pub(crate) use self::sugar::{complete, spell};

/// Puts the functions that need no rows of anyone into a session in the making, and bounds around them and those of the engine: `most`
/// bytes for what one step makes.
pub(crate) fn register(builder: &mut SessionStateBuilder, most: u64) {
    builder.scalar_functions().get_or_insert_default().extend(scalars());
    builder
        .aggregate_functions()
        .get_or_insert_default()
        .extend(aggregates());
    bounded::register(builder, most);
}

fn scalars() -> Vec<Arc<ScalarUDF>> {
    let mut all = attributes::all();
    all.extend(json::all());
    all.extend(search::all());
    all.into_iter().map(Arc::new).collect()
}

fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let mut all = counters::all();
    all.push(histogram::quantile());
    all.push(talkers::approx_top_k());
    all.into_iter().map(Arc::new).collect()
}

/// Functions in the place of a table, over the rows that one caller may see.
pub(crate) fn tables(
    events: &Arc<dyn TableProvider>,
    plugins: Option<&Arc<dyn Plugins>>,
) -> Vec<(&'static str, Arc<dyn TableFunctionImpl>)> {
    let mut all: Vec<(&'static str, Arc<dyn TableFunctionImpl>)> = vec![("trace", Arc::new(trace::Trace::new(events)))];
    if let Some(plugins) = plugins {
        all.push(("apply", Arc::new(apply::Apply::new(events, plugins))));
    }
    all
}

/// A column as texts, whatever it is.
fn texts(column: &ArrayRef) -> Result<StringArray> {
    let texts = cast(column, &DataType::Utf8)?;
    let texts = texts.as_string_opt::<i32>().cloned();
    texts.ok_or_else(|| DataFusionError::Internal("a cast to text gave something else".into()))
}

#[cfg(test)]
mod tests;
