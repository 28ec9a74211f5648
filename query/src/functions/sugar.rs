//! Short forms that stand for longer ones: the engine's functions do not see columns that are not named, so these name them.
//!
//! Counts of sampled rows are sums of weights. A row with weight w stands for w rows of which one was kept, each decided by itself; so
//! the variance of a sum of x over them is the sum of x² w (w - 1), and its bound is that of 95 %.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, SetExpr,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::apply;
use crate::error::{Kind, QueryError};
use crate::spelled::{Instead, fill, form_of, respelled};

/// Two standard deviations, for 95 of 100.
const BOUND: f64 = 1.96;
const NAMES: [&str; 6] = [
    "wcount",
    "wsum",
    "wavg",
    "wcount_error",
    "wsum_error",
    "histogram_quantile",
];

/// `match(` begins another phrase in one dialect that the parser knows, so it is written as a name; and what the planner has no form for
/// is written in one that it has.
pub(crate) fn spell(sql: &str) -> Cow<'_, str> {
    let spelled = respelled(sql, &GenericDialect {}, |words, at| {
        let Token::Word(word) = &words[at] else { return None };
        let mut after = words[at + 1..]
            .iter()
            .filter(|token| !matches!(token, Token::Whitespace(_)));
        let is_match = word.quote_style.is_none()
            && word.value.eq_ignore_ascii_case("match")
            && after.next() == Some(&Token::LParen);
        let text = if is_match {
            "\"match\""
        } else {
            apply::table_argument(words, at)?
        };
        Some(Instead {
            words: 1,
            text: text.to_owned(),
        })
    });
    spelled.map_or(Cow::Borrowed(sql), Cow::Owned)
}

/// Writes the short forms out. What cannot be said in the long one is refused, not left out.
pub(crate) fn complete(statement: &mut Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(ast) => match ast.visit(&mut Completer) {
            ControlFlow::Break(refused) => Err(*refused),
            ControlFlow::Continue(()) => Ok(()),
        },
        Statement::Explain(explain) => complete(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Completer;

impl VisitorMut for Completer {
    type Break = Box<QueryError>;

    /// What has no name keeps the short form as its name.
    fn pre_visit_query(&mut self, query: &mut datafusion::sql::sqlparser::ast::Query) -> ControlFlow<Self::Break> {
        name_columns(&mut query.body);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::Function(function) = expr
            && let Some(written) = written_out(function)
        {
            if let Some(what) = beyond(function) {
                let name = function.name.to_string();
                let refused = QueryError::new(Kind::Unsupported, format!("{name} does not take {what}"));
                return ControlFlow::Break(Box::new(refused.hint(
                    "a weight stands for rows like this one, so which of them differ is not known: group by the values first",
                )));
            }
            *expr = written;
        } else if let Expr::Function(function) = expr
            && is_weighted(function)
            && let Some(what) = beyond(function)
        {
            let refused = QueryError::new(Kind::Unsupported, format!("{} does not take {what}", function.name));
            return ControlFlow::Break(Box::new(
                refused.hint("count(DISTINCT x) counts the rows that are there"),
            ));
        }
        ControlFlow::Continue(())
    }
}

/// Whether a function is called as the short forms of weighted rows are.
fn is_weighted(function: &Function) -> bool {
    let name = function.name.to_string();
    NAMES
        .iter()
        .any(|known| known.starts_with('w') && known.eq_ignore_ascii_case(&name))
}

/// What stands in a call that the long form has no place for.
fn beyond(function: &Function) -> Option<&'static str> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        Some("DISTINCT")
    } else if !list.clauses.is_empty() || !function.within_group.is_empty() {
        Some("an order of its rows")
    } else if function.null_treatment.is_some() {
        Some("a treatment of nulls")
    } else {
        None
    }
}

fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && let Expr::Function(function) = &*expr
                    && written_out(function).is_some()
                {
                    let alias = Ident::with_quote('"', expr.to_string().replace('"', ""));
                    *item = SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias,
                    };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_columns(left);
            name_columns(right);
        }
        // Nested queries are visited by themselves.
        _ => {}
    }
}

/// The long form of a call.
fn written_out(function: &Function) -> Option<Expr> {
    let name = match function.name.0.as_slice() {
        [part] => part.as_ident()?.value.to_ascii_lowercase(),
        _ => return None,
    };
    let name = NAMES.into_iter().find(|known| *known == name)?;
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let mut args = Vec::new();
    for arg in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            return None;
        };
        args.push(expr.clone());
    }
    let text = match (name, args.len()) {
        ("wcount", 0) => "coalesce(sum(weight), 0.0)".to_owned(),
        ("wsum", 1) => "sum(CAST($1 AS DOUBLE) * weight)".to_owned(),
        ("wavg", 1) => {
            "sum(CAST($1 AS DOUBLE) * weight) / nullif(sum(CASE WHEN $1 IS NOT NULL THEN weight END), 0.0)".to_owned()
        }
        // A weight of 1 or less says that nothing was left out, whatever the value.
        ("wcount_error", 0) => {
            format!("coalesce({BOUND} * sqrt(sum(CASE WHEN weight > 1.0 THEN weight * (weight - 1.0) END)), 0.0)")
        }
        ("wsum_error", 1) => format!(
            "{BOUND} * sqrt(sum(CASE WHEN $1 IS NULL THEN NULL WHEN weight > 1.0 \
             THEN CAST($1 AS DOUBLE) * CAST($1 AS DOUBLE) * (weight * (weight - 1.0)) ELSE 0.0 END))"
        ),
        ("histogram_quantile", 1) => "histogram_quantile($1, bounds, buckets, scale, zero_count, positive_offset, \
                                      positive_buckets, negative_offset, negative_buckets)"
            .to_owned(),
        _ => return None,
    };
    let mut written = form_of(&text)?;
    // What stood behind the short form stands behind each aggregate in the long one.
    let mut carry = Carry(function);
    // It never breaks off.
    let _ = written.visit(&mut carry);
    fill(&mut written, &args);
    Some(Expr::Nested(Box::new(written)))
}

struct Carry<'a>(&'a Function);

impl VisitorMut for Carry<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && ["sum", "histogram_quantile"].contains(&function.name.to_string().as_str())
        {
            function.filter.clone_from(&self.0.filter);
            function.over.clone_from(&self.0.over);
        }
        ControlFlow::Continue(())
    }
}
