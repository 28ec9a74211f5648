//! How deep a query may nest, counted on its words before anything looks at it that calls itself: a parser, a planner or the mere
//! dropping of a tree that is a hundred thousand levels deep would run out of stack, and that ends a process.

use datafusion::sql::sqlparser::tokenizer::Token;

/// Brackets within brackets, of any kind. The parser gives up at fifty levels of what it does count.
const MAX_BRACKETS: usize = 128;
/// Words and signs between two commas at one level of brackets: `a + b + c …` nests once for every sign.
const MAX_RUN: usize = 4_000;
/// Types within types, as in `ARRAY<ARRAY<…` or `INT[][]…`, which the parser does not count.
const MAX_TYPES: usize = 128;

/// What about a query is too deep, if anything is.
pub(crate) fn too_deep(tokens: &[Token]) -> Option<&'static str> {
    // The run of each open level; the last one is where we are.
    let mut runs = vec![0usize];
    let mut types = 0;
    let mut before: Option<&Token> = None;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => runs.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if runs.len() > 1 => drop(runs.pop()),
            Token::Lt if before.is_some_and(names_a_type) => types += 1,
            _ => {}
        }
        if matches!((before, token), (Some(Token::LBracket), Token::RBracket)) {
            types += 1;
        }
        if let Some(run) = runs.last_mut() {
            *run = if *token == Token::Comma { 0 } else { *run + 1 };
            if *run > MAX_RUN {
                return Some("an expression with too many parts");
            }
        }
        if runs.len() > MAX_BRACKETS {
            return Some("brackets within too many brackets");
        }
        if types > MAX_TYPES {
            return Some("types within too many types");
        }
        before = Some(token);
    }
    None
}

/// Types that take others in angle brackets.
fn names_a_type(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    ["ARRAY", "STRUCT", "MAP", "NESTED", "TUPLE", "UNION", "NULLABLE"]
        .iter()
        .any(|name| word.value.eq_ignore_ascii_case(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn deep(sql: &str) -> bool {
        too_deep(&Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap()).is_some()
    }

    #[test]
    fn what_nests_is_counted_and_what_stands_side_by_side_is_not() {
        let many = |what: &str, n: usize| what.repeat(n);
        assert!(deep(&format!("SELECT 1{}", many(" + 1", 50_000))));
        assert!(deep(&format!("SELECT 1{}", many(" UNION ALL SELECT 1", 50_000))));
        assert!(deep(&format!("SELECT {}1", many("(", 200))));
        assert!(deep(&format!("SELECT CAST(1 AS {}", many("ARRAY<", 200))));
        assert!(deep(&format!("SELECT CAST(1 AS INT{}", many("[]", 200))));
        assert!(deep(&format!("SELECT 1{}", many("::int", 5_000))));
        assert!(!deep(&format!(
            "SELECT a FROM t WHERE a IN (1{})",
            many(", 1", 100_000)
        )));
        assert!(!deep(&format!("SELECT {}1", many("(1), ", 10_000))));
        assert!(!deep(&format!("SELECT a FROM t WHERE {}a", many("a < 1 OR ", 900))));
    }
}
