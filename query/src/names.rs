//! How large a query is with every name written out: a common table is planned anew each time it is named, so twenty short lines, each
//! of which names the one before twice, are a million. Counted on the words, before anything plans.

use std::collections::HashMap;

use datafusion::sql::sqlparser::tokenizer::Token;

/// Tables written out. More than anyone means, and planned in well under a second.
const MAX_TABLES: u64 = 1_024;

/// A common table whose text has begun.
struct Open {
    name: String,
    /// Brackets that were open around its text.
    depth: usize,
    cost: u64,
}

/// Whether the common tables of a query, written out wherever they are named, are too many.
pub(crate) fn too_many(tokens: &[Token]) -> bool {
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut open = vec![Open {
        name: String::new(),
        depth: 0,
        cost: 0,
    }];
    // The word before each open bracket, and before the one that was closed last: `name (columns) AS (`.
    let mut openers: Vec<Option<String>> = Vec::new();
    let mut named: Option<String> = None;
    // Set from `name AS` to its bracket.
    let mut begins: Option<String> = None;
    for token in tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))) {
        match token {
            Token::Word(word) => {
                let text = word.value.to_ascii_lowercase();
                if text == "as" {
                    begins = named.take();
                } else if !matches!(text.as_str(), "not" | "materialized") {
                    begins = None;
                }
                if let (Some(cost), Some(innermost)) = (known.get(&text), open.last_mut()) {
                    innermost.cost = innermost.cost.saturating_add(*cost);
                    if innermost.cost > MAX_TABLES {
                        return true;
                    }
                }
                named = Some(text);
            }
            Token::LParen => {
                if let Some(name) = begins.take() {
                    let depth = openers.len();
                    open.push(Open { name, depth, cost: 1 });
                }
                openers.push(named.take());
            }
            Token::RParen => {
                named = openers.pop().flatten();
                if open.len() > 1
                    && let Some(done) = open.pop_if(|table| table.depth == openers.len())
                {
                    let cost = known.entry(done.name).or_default();
                    *cost = done.cost.max(*cost);
                }
            }
            _ => (named, begins) = (None, None),
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn many(sql: &str) -> bool {
        too_many(&Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap())
    }

    #[test]
    fn names_are_counted_as_often_as_they_are_written_out() {
        let doubling = |links: usize, head: &str| {
            let tables: String = (1..links)
                .map(|n| {
                    format!(
                        ", \"A{n}\"{head} (SELECT x FROM A{0} UNION ALL SELECT x FROM a{0})",
                        n - 1
                    )
                })
                .collect();
            format!("WITH a0 AS (SELECT 1 AS x){tables} SELECT count(*) FROM a{}", links - 1)
        };
        for head in [" AS", " (x) AS", " AS NOT MATERIALIZED", " (x) AS MATERIALIZED"] {
            assert!(many(&doubling(40, head)), "{head}");
            assert!(!many(&doubling(9, head)), "{head}");
        }
        let chain: String = (1..100)
            .map(|n| format!(", a{n} AS (SELECT x FROM a{})", n - 1))
            .collect();
        assert!(!many(&format!("WITH a0 AS (SELECT 1 AS x){chain} SELECT x FROM a99")));
        assert!(!many(
            "SELECT CAST(a AS INT), sum(b) AS b FROM (SELECT * FROM logs) AS c WHERE c.b IN (1, 2)"
        ));
    }
}
