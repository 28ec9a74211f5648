//! How deep a query may nest, counted on its words before anything looks at it that calls itself: a parser, a planner or the mere
//! dropping of a tree that is a hundred thousand levels deep would run out of stack, and that ends a process. A plan is measured again
//! before it is optimised: names make a small text a large plan.

use std::collections::HashMap;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

/// Brackets within brackets, of any kind. The parser gives up at fifty levels of what it does count.
const MAX_BRACKETS: usize = 128;
/// Words and signs that may nest in each other: `a + b + c …` nests once for every sign, a comma begins anew, and what stands in
/// brackets nests in what stands around them.
const MAX_NESTED: usize = 4_000;
/// Types within types, as in `ARRAY<ARRAY<…` or `INT[][]…`, which the parser does not count.
const MAX_TYPES: usize = 128;
/// Queries within a query: each may read the one before it, so they nest although they stand side by side.
const MAX_QUERIES: usize = 128;
/// Steps of a plan with everything written out that is named twice.
const MAX_STEPS: u64 = 4_096;

/// One level of brackets: how deep its elements nest.
#[derive(Default)]
struct Level {
    /// Since the last comma.
    run: usize,
    /// Of the elements before.
    deepest: usize,
}

/// What about a query is too deep, if anything is.
pub(crate) fn too_deep(tokens: &[Token]) -> Option<&'static str> {
    let mut levels = vec![Level::default()];
    let (mut types, mut queries) = (0, 0);
    // Runs of all open levels.
    let mut open = 0;
    let mut before: Option<&Token> = None;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::Lt if before.is_some_and(names_a_type) => types += 1,
            Token::RBracket if before == Some(&Token::LBracket) => types += 1,
            Token::Word(word) if matches!(word.keyword, Keyword::SELECT | Keyword::VALUES | Keyword::TABLE) => {
                queries += 1
            }
            _ => {}
        }
        // How deep what ends here nests in the element that it is a part of.
        let mut part = 1;
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace if levels.len() > 1 => {
                let closed = levels.pop().unwrap_or_default();
                open -= closed.run;
                part += closed.run.max(closed.deepest);
            }
            _ => {}
        }
        if let Some(level) = levels.last_mut() {
            if *token == Token::Comma {
                open -= level.run;
                level.deepest = level.deepest.max(level.run);
                level.run = 0;
            } else {
                open += part;
                level.run += part;
            }
        }
        if open > MAX_NESTED {
            return Some("an expression with too many parts");
        }
        if levels.len() > MAX_BRACKETS {
            return Some("brackets within too many brackets");
        }
        if types > MAX_TYPES {
            return Some("types within too many types");
        }
        if queries > MAX_QUERIES {
            return Some("a query of too many queries");
        }
        before = Some(token);
    }
    None
}

/// Whether a plan has more steps than anyone means, counting a step each time it is read.
pub(crate) fn is_too_large(plan: &LogicalPlan) -> bool {
    steps(plan, &mut HashMap::new()) > MAX_STEPS
}

/// Shared parts are looked at once and counted each time.
fn steps(plan: &LogicalPlan, known: &mut HashMap<*const LogicalPlan, u64>) -> u64 {
    let place: *const LogicalPlan = plan;
    if let Some(steps) = known.get(&place) {
        return *steps;
    }
    let below = plan.inputs().into_iter().map(|input| steps(input, known));
    let sum = below.fold(1u64, u64::saturating_add);
    known.insert(place, sum);
    sum
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
