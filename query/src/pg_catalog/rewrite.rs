//! Ways to say something that clients of Postgres use on its catalogue and that the planner does not know, said in a way that it does.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select,
    SelectItem, SetExpr, Statement, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::spelled::{Instead, filled, respelled};

/// Functions that make one of many rows.
const AGGREGATES: [&str; 12] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "first_value",
    "json_agg",
    "max",
    "min",
    "string_agg",
    "sum",
    "every",
];

/// What is asked of a column's default, sequence or collation, by SQLAlchemy and others: a column here has none of them, so that such a
/// query in the place of a value is null.
const OBJECTS: [&str; 3] = ["json_build_object", "pg_get_expr", "typcollation"];

/// Takes out of a text what it asks of things that no column here has, and names functions as the catalogue does. `None`: there is
/// nothing of the kind in it.
pub(super) fn without_objects(sql: &str) -> Option<String> {
    respelled(sql, &PostgreSqlDialect {}, |tokens, at| match &tokens[at] {
        Token::LParen if asks_object(&tokens[at + 1..]) => Some(Instead {
            words: closing(tokens, at)? - at + 1,
            text: "NULL".to_owned(),
        }),
        // the catalogue has functions by their names, as text
        Token::SingleQuotedString(name)
            if tokens.get(at + 1) == Some(&Token::DoubleColon) && is(tokens.get(at + 2), "regproc") =>
        {
            let name = name.rsplit('.').next().unwrap_or(name).replace('\'', "''");
            Some(Instead {
                words: 3,
                text: format!("'{name}'"),
            })
        }
        _ => None,
    })
}

fn is(token: Option<&Token>, text: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.value.eq_ignore_ascii_case(text))
}

/// Whether what follows a bracket is a query for one of the objects.
fn asks_object(after: &[Token]) -> bool {
    let mut words = after.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    if !is(words.next(), "select") {
        return false;
    }
    let value = words.take_while(|token| !matches!(token, Token::LParen | Token::Comma) && !is(Some(token), "from"));
    value
        .into_iter()
        .any(|token| OBJECTS.iter().any(|name| is(Some(token), name)))
}

/// Where the bracket is closed that is opened here.
fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Changes a statement that was read.
pub(super) fn rewrite(statement: &mut Statement) {
    // what is visited here never breaks off
    let _ = visit_expressions_mut(statement, |expr| {
        match expr {
            Expr::Like {
                pattern, escape_char, ..
            }
            | Expr::ILike {
                pattern, escape_char, ..
            } => {
                if let Some(escape) = escape_char.take() {
                    backslash(pattern, &escape.value);
                }
            }
            Expr::Function(function) if named(function, "generate_subscripts") => {
                if let Some(places) = subscripts(function) {
                    *expr = places;
                }
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let [AccessExpr::Dot(Expr::Identifier(name))] = access_chain.as_slice()
                    && let Some(read) = filled("get_field($1, $2)", &[root.as_ref().clone(), text(&name.value)])
                {
                    *expr = read;
                }
            }
            // where a range of numbers is made of it, the engine wants 64 bits
            Expr::Function(function) if named(function, "array_upper") || named(function, "array_lower") => {
                if let Some(wide) = filled("CAST($1 AS BIGINT)", &[Expr::Function(function.clone())]) {
                    *expr = wide;
                }
            }
            Expr::Subquery(query) => first_of_many(query),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}

/// `LIKE p ESCAPE '/'` with the one sign that the engine takes.
fn backslash(pattern: &mut Expr, escape: &Value) {
    if let Value::SingleQuotedString(sign) = escape
        && sign != "\\"
        && let Some(replaced) = filled("replace($1, $2, $3)", &[pattern.clone(), text(sign), text("\\")])
    {
        *pattern = replaced;
    }
}

/// `generate_subscripts(list, 1)`: 1 to the length of the list.
fn subscripts(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(list)), _] => filled(
            "unnest(range(1, CAST(cardinality($1) AS BIGINT) + 1))",
            std::slice::from_ref(list),
        ),
        _ => None,
    }
}

/// A query in the place of a value has one row by what its client knows; the engine wants to see it.
fn first_of_many(query: &mut Query) {
    if query.limit_clause.is_some() || query.fetch.is_some() || query.with.is_some() {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let Select {
        projection, group_by, ..
    } = select.as_mut();
    let plain = matches!(group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    if let ([SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }], true) =
        (projection.as_mut_slice(), plain)
        && !matches!(value, Expr::Function(function) if AGGREGATES.iter().any(|name| named(function, name)))
        && let Some(first) = filled("first_value($1)", std::slice::from_ref(value))
    {
        *value = first;
    }
}

fn named(function: &Function, name: &str) -> bool {
    function
        .name
        .0
        .last()
        .is_some_and(|part| part.to_string().eq_ignore_ascii_case(name))
}

fn text(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    /// What is put around an expression leaves its quotes as they are.
    #[test]
    fn texts_in_what_is_said_otherwise_keep_their_quotes() {
        let sql = r"SELECT n FROM t WHERE n LIKE 'a''''b\' ESCAPE '/'";
        let mut read = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        rewrite(&mut read[0]);
        let read = format!("{:?}", read[0]);
        assert!(read.contains(r#"SingleQuotedString("a''b\\")"#), "{read}");
        let sql = r"SELECT E'it\'s\n', 'a''b', (SELECT json_build_object('x') FROM s), U&'\0041', 'c\d'";
        assert_eq!(
            without_objects(sql).unwrap(),
            r"SELECT E'it\'s\n', 'a''b', NULL, U&'\0041', 'c\d'"
        );
    }

    #[test]
    fn what_the_planner_does_not_know_is_said_otherwise() {
        for (sql, said) in [
            (
                "SELECT n FROM t WHERE n NOT LIKE $1 || '%' ESCAPE '/'",
                "SELECT n FROM t WHERE n NOT LIKE replace(($1 || '%'), ('/'), ('\\'))",
            ),
            (
                "SELECT generate_subscripts(i.indkey, 1) AS ord FROM i",
                "SELECT unnest(range(1, CAST(cardinality((i.indkey)) AS BIGINT) + 1)) AS ord FROM i",
            ),
            (
                "SELECT 1 FROM t WHERE a = 0 OR (SELECT c.k = 'c' FROM c WHERE c.o = t.r)",
                "SELECT 1 FROM t WHERE a = 0 OR (SELECT first_value((c.k = 'c')) FROM c WHERE c.o = t.r)",
            ),
            ("SELECT (f(i.k)).n FROM i", "SELECT get_field(((f(i.k))), ('n')) FROM i"),
            ("SELECT (SELECT max(a) FROM b)", "SELECT (SELECT max(a) FROM b)"),
            ("SELECT (SELECT a FROM b LIMIT 1)", "SELECT (SELECT a FROM b LIMIT 1)"),
        ] {
            let mut read = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            rewrite(&mut read[0]);
            assert_eq!(read[0].to_string(), said);
        }
    }

    #[test]
    fn objects_are_taken_out_with_their_brackets() {
        let sql =
            "SELECT a, CASE WHEN b THEN (SELECT json_build_object('x', (1)) FROM s WHERE (c)) ELSE NULL END FROM t";
        let without = without_objects(sql).unwrap();
        assert_eq!(without, "SELECT a, CASE WHEN b THEN NULL ELSE NULL END FROM t");
        let sql = "SELECT t = 'pg_catalog.array_in'::regproc, (SELECT c.pg_type.typcollation FROM c) FROM t";
        assert_eq!(without_objects(sql).unwrap(), "SELECT t = 'array_in', NULL FROM t");
        assert_eq!(without_objects("SELECT (SELECT 1)"), None);
        assert_eq!(without_objects("SELECT (SELECT a, typcollation FROM b)"), None);
        assert_eq!(without_objects("SELECT (SELECT json_build_object("), None);
    }
}
