//! `trace('…')`: every row of one trace, of all signals.

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::functions::string::expr_fn::lower;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident, lit};

pub(super) struct Trace {
    events: Arc<dyn TableProvider>,
}

impl Trace {
    pub(super) fn new(events: &Arc<dyn TableProvider>) -> Trace {
        Trace {
            events: Arc::clone(events),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

impl TableFunctionImpl for Trace {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let id = match args.exprs() {
            // A trace id is sixteen bytes in hexadecimal; some write them with lines between, or in capitals.
            [Expr::Literal(ScalarValue::Utf8(Some(id)) | ScalarValue::Utf8View(Some(id)), _)] => {
                lit(id.replace('-', "").to_ascii_lowercase())
            }
            [Expr::Literal(other, _)] if !other.is_null() => {
                return plan_err!("trace takes the text of a trace id, not {other}");
            }
            [id] => lower(id.clone()),
            other => return plan_err!("trace takes one trace id, not {} arguments", other.len()),
        };
        let plan = LogicalPlanBuilder::scan("events", provider_as_source(Arc::clone(&self.events)), None)?
            .filter(ident("trace_id").eq(id))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}
