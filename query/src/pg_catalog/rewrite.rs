//! Ways to say something that clients of Postgres use on its catalogue and that the planner does not know, said in a way that it does.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, Statement, Value, VisitMut, VisitorMut, visit_expressions_mut, visit_relations_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::information::redirect;
use crate::catalog::SCHEMA;
use crate::spelled::{Instead, filled, form_of, respelled};

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

const SESSION_USER: &str = "session_user";

/// What psql makes lists of and what is not here: options of tables, members of roles, events that start something, checks of domains,
/// policies, and rights to a column beside those to its table.
const LISTED: [&str; 6] = [
    "reloptions",
    "pg_auth_members",
    "evttags",
    "pg_constraint",
    "pg_policy",
    "attacl",
];

/// Takes out of a text what it asks of things that no column here has, and names functions as the catalogue does. `None`: there is
/// nothing of the kind in it.
pub(super) fn without_objects(sql: &str) -> Option<String> {
    respelled(sql, &PostgreSqlDialect {}, |tokens, at| match &tokens[at] {
        Token::LParen if asks_object(&tokens[at + 1..]) => Some(Instead {
            words: closing(tokens, at)? - at + 1,
            text: "NULL".to_owned(),
        }),
        Token::LParen if asks_path(&tokens[at..=closing(tokens, at)?]) => Some(Instead {
            words: closing(tokens, at)? - at + 1,
            text: format!("('{SCHEMA}')"),
        }),
        Token::Word(word) if word.value.eq_ignore_ascii_case("array") && tokens.get(at + 1) == Some(&Token::LParen) => {
            let end = closing(tokens, at + 1)?;
            let inside = &tokens[at + 2..end];
            let is_empty = inside
                .iter()
                .any(|token| LISTED.iter().any(|name| is(Some(token), name)));
            (is_empty && is(solid(inside).next(), "select")).then(|| Instead {
                words: end - at + 1,
                text: "CAST(NULL AS TEXT[])".to_owned(),
            })
        }
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
    let mut words = solid(after);
    if !is(words.next(), "select") {
        return false;
    }
    let value = words.take_while(|token| !matches!(token, Token::LParen | Token::Comma) && !is(Some(token), "from"));
    value
        .into_iter()
        .any(|token| OBJECTS.iter().any(|name| is(Some(token), name)))
}

/// Whether a bracket holds the question of Grafana's editor in which schemas names are looked up: it takes the setting apart with
/// functions that the engine has in another form, and the answer is always the one schema.
fn asks_path(bracket: &[Token]) -> bool {
    let is_path = |token: &Token| matches!(token, Token::SingleQuotedString(name) if name == "search_path");
    let mut words = solid(&bracket[1..]);
    is(words.next(), "select")
        && is(words.next(), "case")
        && bracket.iter().any(|token| is(Some(token), "generate_series"))
        && bracket.iter().any(is_path)
}

fn solid(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)))
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
    let _ = visit_relations_mut(statement, |name| {
        redirect(name);
        ControlFlow::<()>::Continue(())
    });
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
            // it is a word of its own in Postgres, and no column's name
            Expr::Function(function) if named(function, "user") && function.args == FunctionArguments::None => {
                function.name = ObjectName::from(vec![Ident::new(SESSION_USER)]);
            }
            Expr::Identifier(name) if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("user") => {
                if let Some(Expr::Function(user)) = form_of(SESSION_USER) {
                    *expr = Expr::Function(user);
                }
            }
            Expr::Subquery(query) => first_of_many(query),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    let _ = statement.visit(&mut Names);
}

/// Gives names to values that are asked for several times without one, such as `NULL, NULL`: the engine wants columns apart.
struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        name_values(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn name_values(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            for (at, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(value) = item
                    && !seen.insert(value.to_string())
                {
                    let alias = Ident::with_quote('"', format!("?column?{}", at + 1));
                    *item = SelectItem::ExprWithAlias {
                        expr: value.clone(),
                        alias,
                    };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_values(left);
            name_values(right);
        }
        _ => {}
    }
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
            (
                "SELECT NULL, a.b, NULL FROM a UNION SELECT 1, NULL, NULL",
                "SELECT NULL, a.b, NULL AS \"?column?3\" FROM a UNION SELECT 1, NULL, NULL AS \"?column?3\"",
            ),
            (
                "SELECT c.data_type, 'user' FROM information_schema.columns AS c, information_schema.triggers WHERE o = user",
                "SELECT c.data_type, 'user' FROM pg_information.columns AS c, information_schema.triggers WHERE o = session_user",
            ),
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
        let sql =
            "SELECT c.reloptions || array(select 'toast.' || x from unnest(tc.reloptions) x), array(select 1) FROM c";
        let said = "SELECT c.reloptions || CAST(NULL AS TEXT[]), array(select 1) FROM c";
        assert_eq!(without_objects(sql).unwrap(), said);
        let sql = "SELECT n IN (SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END FROM \
                   generate_series(1, 2) as i, string_to_array(current_setting('search_path'),',') s) FROM t";
        assert_eq!(without_objects(sql).unwrap(), "SELECT n IN ('public') FROM t");
        assert_eq!(without_objects("SELECT (SELECT 1)"), None);
        assert_eq!(without_objects("SELECT (SELECT a, typcollation FROM b)"), None);
        assert_eq!(without_objects("SELECT (SELECT json_build_object("), None);
    }
}
