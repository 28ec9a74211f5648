//! Ways to say something that clients of Postgres use on its catalogue and that the planner does not know, said in a way that it does.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, GroupByExpr, Query, Select, SelectItem, SetExpr, Statement, Value,
    visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

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
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().ok()?;
    let (mut out, mut at, mut found) = (String::new(), 0, false);
    while let Some(token) = tokens.get(at) {
        match token {
            Token::LParen if asks_object(&tokens[at + 1..]) => {
                at = closing(&tokens, at)?;
                out.push_str("NULL");
                found = true;
            }
            // the catalogue has functions by their names, as text
            Token::SingleQuotedString(name)
                if tokens.get(at + 1) == Some(&Token::DoubleColon) && is(tokens.get(at + 2), "regproc") =>
            {
                let name = name.rsplit('.').next().unwrap_or(name).replace('\'', "''");
                out.push_str(&format!("'{name}'"));
                at += 2;
                found = true;
            }
            token => out.push_str(&token.to_string()),
        }
        at += 1;
    }
    found.then_some(out)
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
                    && let Some(read) = parse(&format!("get_field({root}, '{}')", name.value.replace('\'', "''")))
                {
                    *expr = read;
                }
            }
            // where a range of numbers is made of it, the engine wants 64 bits
            Expr::Function(function) if named(function, "array_upper") || named(function, "array_lower") => {
                if let Some(wide) = parse(&format!("CAST({function} AS BIGINT)")) {
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
        && let Some(replaced) = parse(&format!("replace({pattern}, '{}', '\\')", sign.replace('\'', "''")))
    {
        *pattern = replaced;
    }
}

/// `generate_subscripts(list, 1)`: 1 to the length of the list.
fn subscripts(function: &Function) -> Option<Expr> {
    let text = function.args.to_string();
    let list = text
        .strip_prefix('(')?
        .strip_suffix(')')?
        .rsplit_once(',')?
        .0
        .to_owned();
    parse(&format!("unnest(range(1, CAST(cardinality({list}) AS BIGINT) + 1))"))
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
        && let Some(first) = parse(&format!("first_value({value})"))
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

fn parse(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {})
        .try_with_sql(text)
        .ok()?
        .parse_expr()
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_planner_does_not_know_is_said_otherwise() {
        for (sql, said) in [
            (
                "SELECT n FROM t WHERE n NOT LIKE $1 || '%' ESCAPE '/'",
                "SELECT n FROM t WHERE n NOT LIKE replace($1 || '%', '/', '\\')",
            ),
            (
                "SELECT generate_subscripts(i.indkey, 1) AS ord FROM i",
                "SELECT unnest(range(1, CAST(cardinality(i.indkey) AS BIGINT) + 1)) AS ord FROM i",
            ),
            (
                "SELECT 1 FROM t WHERE a = 0 OR (SELECT c.k = 'c' FROM c WHERE c.o = t.r)",
                "SELECT 1 FROM t WHERE a = 0 OR (SELECT first_value(c.k = 'c') FROM c WHERE c.o = t.r)",
            ),
            ("SELECT (f(i.k)).n FROM i", "SELECT get_field((f(i.k)), 'n') FROM i"),
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
