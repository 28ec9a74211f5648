//! Short forms that stand for longer ones: the engine's functions do not see columns that are not named, so these name them.
//!
//! Counts of sampled rows are sums of weights. A row with weight w stands for w rows of which one was kept, each decided by itself; so
//! the variance of a sum of x over them is the sum of x² w (w - 1), and its bound is that of 95 %.

use std::borrow::Cow;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, SetExpr, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

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

/// `match(` begins another phrase in one dialect that the parser knows, so it is written as a name.
pub(crate) fn spell<'a>(sql: &'a str, words: &[Token]) -> Cow<'a, str> {
    let is_match = |at: usize| match &words[at] {
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("match") => {
            let next = words[at + 1..]
                .iter()
                .find(|token| !matches!(token, Token::Whitespace(_)));
            matches!(next, Some(Token::LParen))
        }
        _ => false,
    };
    if !(0..words.len()).any(is_match) {
        return Cow::Borrowed(sql);
    }
    let spelled = words.iter().enumerate().map(|(at, token)| match is_match(at) {
        true => "\"match\"".to_owned(),
        false => token.to_string(),
    });
    Cow::Owned(spelled.collect())
}

/// Writes the short forms out.
pub(crate) fn complete(statement: &mut Statement) {
    match statement {
        Statement::Statement(ast) => {
            // It never breaks off.
            let _ = ast.visit(&mut Completer);
        }
        Statement::Explain(explain) => complete(&mut explain.statement),
        _ => {}
    }
}

struct Completer;

impl VisitorMut for Completer {
    type Break = ();

    /// What has no name keeps the short form as its name.
    fn pre_visit_query(&mut self, query: &mut datafusion::sql::sqlparser::ast::Query) -> ControlFlow<()> {
        name_columns(&mut query.body);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(written) = written_out(function)
        {
            *expr = written;
        }
        ControlFlow::Continue(())
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
        args.push(format!("({expr})"));
    }
    let text = match (name, args.as_slice()) {
        ("wcount", []) => "coalesce(sum(weight), 0.0)".to_owned(),
        ("wsum", [x]) => format!("sum(CAST({x} AS DOUBLE) * weight)"),
        ("wavg", [x]) => {
            format!("sum(CAST({x} AS DOUBLE) * weight) / sum(CASE WHEN {x} IS NOT NULL THEN weight END)")
        }
        ("wcount_error", []) => format!("coalesce({BOUND} * sqrt(sum(weight * (weight - 1.0))), 0.0)"),
        ("wsum_error", [x]) => {
            format!("{BOUND} * sqrt(sum(CAST({x} AS DOUBLE) * CAST({x} AS DOUBLE) * (weight * (weight - 1.0))))")
        }
        ("histogram_quantile", [q]) => format!(
            "histogram_quantile({q}, bounds, buckets, scale, zero_count, positive_offset, positive_buckets, negative_offset, negative_buckets)"
        ),
        _ => return None,
    };
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(&text).ok()?;
    let mut written = parser.parse_expr().ok()?;
    // What stood behind the short form stands behind each aggregate in the long one.
    let mut carry = Carry(function);
    // It never breaks off.
    let _ = written.visit(&mut carry);
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
