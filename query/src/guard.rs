//! What kinds of statement a query may be: exactly one, and one that only reads. The planner's own options and a catalog that holds
//! nothing else stand behind this; each of the three would do alone.

use datafusion::common::config::SqlParserOptions;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as Ast};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::depth::too_deep;
use crate::error::{Kind, QueryError};
use crate::functions::{self, MAX_FIXED};
use crate::names;
use crate::position::{read_only, syntax};

/// Reads the text and refuses whatever is not one reading statement.
pub(crate) fn parse(sql: &str, options: &SqlParserOptions) -> Result<Statement, QueryError> {
    if sql.trim().is_empty() {
        return Err(QueryError::new(Kind::NotOneStatement, "the query is empty"));
    }
    let words = words(sql);
    measure(&words)?;
    let spelled = functions::spell(sql);
    let parsed = DFParserBuilder::new(&*spelled)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(options.recursion_limit.get())
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| match error.find_root() {
        DataFusionError::SQL(inner, _) => syntax(sql, &inner.to_string()).because(error),
        _ => syntax(sql, &error.strip_backtrace()).because(error),
    })?;
    let first = statements.pop_front();
    one(first, statements.len())
}

/// The words of a text as they were written: what stands in quotes keeps its escapes. What cannot be cut into words has none, and is the
/// parser's to explain.
pub(crate) fn words(sql: &str) -> Vec<Token> {
    let cut = Tokenizer::new(&GenericDialect {}, sql).with_unescape(false).tokenize();
    cut.unwrap_or_default()
}

/// Refuses what would take the parser or the planner too long.
pub(crate) fn measure(words: &[Token]) -> Result<(), QueryError> {
    if let Some(what) = too_deep(words) {
        return Err(QueryError::new(Kind::Syntax, format!("{what} cannot be read"))
            .hint("split it: a list with commas, a join or several queries say the same"));
    }
    if has_long_type(words) {
        return Err(QueryError::new(
            Kind::Invalid,
            format!("a type of more than {MAX_FIXED} items in each row"),
        )
        .hint("leave the number out: INT[] is a list of any length"));
    }
    if names::too_many(words) {
        return Err(
            QueryError::new(Kind::Invalid, "written out, the query has too many tables")
                .hint("a common table is computed each time it is named: name it once, or ask in several queries"),
        );
    }
    Ok(())
}

/// Words that end the name of a type before `[n]`.
const TYPES: [&str; 24] = [
    "BIGINT",
    "BINARY",
    "BOOL",
    "BOOLEAN",
    "BYTEA",
    "CHAR",
    "DATE",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "FLOAT4",
    "FLOAT8",
    "INT",
    "INT2",
    "INT4",
    "INT8",
    "INTEGER",
    "NUMERIC",
    "PRECISION",
    "REAL",
    "SMALLINT",
    "TEXT",
    "TIMESTAMP",
    "VARCHAR",
];
/// What stands in brackets behind other brackets may be a place in a list; nobody means one beyond this.
const MAX_PLACE: u64 = 1_000_000;

/// Whether a list of a fixed length is longer than anyone means: `NULL::INT[2000000000]` takes room for all of it. Casts in a plan are
/// looked at again there; arguments of a function in the place of a table are computed before.
fn has_long_type(words: &[Token]) -> bool {
    let mut last: [Option<&Token>; 3] = [None, None, None];
    let mut solid = words.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    solid.any(|token| {
        let found = match (last, token) {
            ([Some(before), Some(Token::LBracket), Some(Token::Number(number, _))], Token::RBracket) => {
                let most = match before {
                    Token::Word(word) if TYPES.iter().any(|kind| word.value.eq_ignore_ascii_case(kind)) => MAX_FIXED,
                    Token::RParen | Token::RBracket | Token::Gt => MAX_PLACE,
                    _ => u64::MAX,
                };
                let is_whole = number.bytes().all(|byte| byte.is_ascii_digit());
                most < u64::MAX && is_whole && number.parse().map_or(true, |number: u64| number > most)
            }
            _ => false,
        };
        last = [last[1], last[2], Some(token)];
        found
    })
}

/// The one reading statement of a text that was parsed, if that is what it holds.
pub(crate) fn one(first: Option<Statement>, more: usize) -> Result<Statement, QueryError> {
    match (first, more) {
        (Some(statement), 0) if reads_only(&statement) => Ok(statement),
        (Some(_), 0) => Err(read_only()),
        (None, _) => Err(QueryError::new(Kind::NotOneStatement, "the query is empty")),
        (Some(_), more) => Err(QueryError::new(
            Kind::NotOneStatement,
            format!("{} statements where one is answered", more + 1),
        )
        .hint("send them one by one")),
    }
}

fn reads_only(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(ast) => ast_reads_only(ast),
        Statement::Explain(explain) => reads_only(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn ast_reads_only(ast: &Ast) -> bool {
    match ast {
        Ast::Query(query) => query_reads_only(query),
        Ast::Explain { statement, .. } => ast_reads_only(statement),
        Ast::ExplainTable { .. } | Ast::ShowTables { .. } | Ast::ShowColumns { .. } | Ast::ShowFunctions { .. } => true,
        _ => false,
    }
}

fn query_reads_only(query: &Query) -> bool {
    let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
    ctes.map(|cte| cte.query.as_ref()).all(query_reads_only) && body_reads_only(&query.body)
}

fn body_reads_only(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::Query(query) => query_reads_only(query),
        SetExpr::SetOperation { left, right, .. } => body_reads_only(left) && body_reads_only(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Position;

    fn code(sql: &str) -> &'static str {
        match parse(sql, &SqlParserOptions::default()) {
            Ok(_) => "ok",
            Err(error) => error.kind.code(),
        }
    }

    #[test]
    fn only_one_reading_statement_passes() {
        for sql in [
            "SELECT 1",
            "select 1;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "EXPLAIN ANALYZE SELECT 1",
            "SELECT 1 UNION ALL SELECT 2",
            "SHOW TABLES",
            "DESCRIBE events",
            "SELECT 'DROP TABLE events; --'",
        ] {
            assert_eq!(code(sql), "ok", "{sql}");
        }
        for sql in [
            "CREATE TABLE t AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE VIEW v AS SELECT 1",
            "DROP TABLE events",
            "INSERT INTO events VALUES (1)",
            "UPDATE events SET body = 'x'",
            "DELETE FROM events",
            "TRUNCATE TABLE events",
            "COPY events TO '/tmp/x.csv'",
            "COPY (SELECT 1) TO '/tmp/x.csv'",
            "SET datafusion.execution.batch_size = 1",
            "SHOW ALL",
            "RESET datafusion.execution.batch_size",
            "EXPLAIN COPY events TO '/tmp/x.csv'",
            "EXPLAIN ANALYZE INSERT INTO events VALUES (1)",
            "BEGIN",
            "PREPARE p AS SELECT 1",
            "SELECT * INTO t FROM events",
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
        ] {
            assert!(["read_only", "syntax"].contains(&code(sql)), "{sql}: {}", code(sql));
        }
        assert_eq!(code("SELECT 1; SELECT 2"), "not_one_statement");
        assert_eq!(code("SELECT 1; DROP TABLE events"), "not_one_statement");
        assert_eq!(code("  -- nothing\n"), "not_one_statement");
    }

    #[test]
    fn a_syntax_error_has_its_place_and_depth_is_an_error() {
        let error = parse("SELECT 1\n  WHERE )", &SqlParserOptions::default()).unwrap_err();
        assert_eq!(error.kind, Kind::Syntax);
        assert_eq!(error.position.map(|p| p.line), Some(2));
        let error = parse("SELECT (1 +", &SqlParserOptions::default()).unwrap_err();
        assert_eq!(error.position, Some(Position { line: 1, column: 12 }));
        let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert_eq!(code(&deep), "syntax");
        for sql in [
            "SELECT NULL::INT[2000000000]",
            "SELECT CAST(NULL AS INT [ 99999999999999999999 ])",
        ] {
            assert_eq!(code(sql), "invalid_query", "{sql}");
        }
        for sql in [
            "SELECT NULL::INT[3], a[17] FROM t",
            "SELECT [5000], [1.5], ARRAY[99999], f(x)[9] FROM t",
        ] {
            assert_eq!(code(sql), "ok", "{sql}");
        }
    }
}
