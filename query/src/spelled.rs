//! The text of a query with some of its words said otherwise, and every other as it was written: a word that is printed again from what
//! was read of it has lost its escapes, and with them its meaning. The same for expressions that are written around others.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// What stands in a text instead of some of its words.
pub(crate) struct Instead {
    pub(crate) words: usize,
    pub(crate) text: String,
}

/// Asks at each word what to say instead. `None`: nothing is said otherwise, or the text cannot be cut into words.
pub(crate) fn respelled(
    sql: &str,
    dialect: &dyn Dialect,
    instead: impl Fn(&[Token], usize) -> Option<Instead>,
) -> Option<String> {
    let placed = Tokenizer::new(dialect, sql).tokenize_with_location().ok()?;
    let (mut words, mut begins) = (Vec::with_capacity(placed.len()), Vec::with_capacity(placed.len() + 1));
    let mut chars = sql.char_indices();
    let (mut line, mut column, mut byte) = (1, 1, 0);
    for word in placed {
        while (line, column) < (word.span.start.line, word.span.start.column) {
            let (at, character) = chars.next()?;
            byte = at + character.len_utf8();
            (line, column) = if character == '\n' {
                (line + 1, 1)
            } else {
                (line, column + 1)
            };
        }
        begins.push(byte);
        words.push(word.token);
    }
    begins.push(sql.len());
    let (mut out, mut at, mut found) = (String::new(), 0, false);
    while at < words.len() {
        let next = match instead(&words, at) {
            Some(said) => {
                found = true;
                out.push_str(&said.text);
                at + said.words.max(1)
            }
            None => {
                out.push_str(sql.get(begins[at]..begins[at + 1])?);
                at + 1
            }
        };
        at = next;
    }
    found.then_some(out)
}

/// An expression of this form, in which `$1`, `$2`, … stand for these.
pub(crate) fn filled(form: &str, parts: &[Expr]) -> Option<Expr> {
    let mut written = form_of(form)?;
    fill(&mut written, parts);
    Some(written)
}

/// The form alone.
pub(crate) fn form_of(form: &str) -> Option<Expr> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(form).ok()?;
    parser.parse_expr().ok()
}

/// Puts expressions in their places. Places within what is put in are the query's own parameters and stay.
pub(crate) fn fill(written: &mut Expr, parts: &[Expr]) {
    // It never breaks off.
    let _ = written.visit(&mut Fill(parts));
}

struct Fill<'a>(&'a [Expr]);

impl VisitorMut for Fill<'_> {
    type Break = ();

    /// After what is below it, so that what was put in is not looked at.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        use datafusion::sql::sqlparser::ast::{Value, ValueWithSpan};
        if let Expr::Value(ValueWithSpan {
            value: Value::Placeholder(name),
            ..
        }) = expr
            && let Some(place) = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok())
            && let Some(part) = self.0.get(place.wrapping_sub(1))
        {
            *expr = Expr::Nested(Box::new(part.clone()));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use proptest::prelude::*;

    use super::*;

    /// A word of a query in the ways that people write them, with the signs that are easily lost.
    fn word() -> impl Strategy<Value = String> {
        let inside = "[a-zé\u{1f642}\\\\%_ \n\t-]{0,6}";
        prop_oneof![
            inside.prop_map(|text| format!("'{}'", text)),
            (inside, inside).prop_map(|(a, b)| format!("'{a}''{b}''''{a}'")),
            inside.prop_map(|text| format!("E'{}\\'\\n\\x41'", text.replace('\\', "\\\\"))),
            inside.prop_map(|text| format!("$tag${text}'$tag$")),
            inside.prop_map(|text| format!("\"a\"\"{text}\"")),
            "[a-z]{1,4}".prop_map(|text| format!("{text} ")),
            Just("-- it's '\n".to_owned()),
            Just("/* ' \" \n */".to_owned()),
            Just("1.50e3 ".to_owned()),
            Just("X'0aF' ".to_owned()),
            Just("N'it''s'".to_owned()),
            Just("::".to_owned()),
        ]
    }

    proptest! {
        /// Whatever stands around it, one word is said otherwise and the rest is the same, byte by byte.
        #[test]
        fn what_is_not_said_otherwise_stays_as_it_was_written(
            before in prop::collection::vec(word(), 0..8),
            after in prop::collection::vec(word(), 0..8),
        ) {
            let (before, after) = (before.join(" "), after.join(" "));
            let sql = format!("{before} swapped {after}");
            prop_assume!(Tokenizer::new(&PostgreSqlDialect {}, &sql).tokenize().is_ok());
            let swapped = respelled(&sql, &PostgreSqlDialect {}, |words, at| match &words[at] {
                Token::Word(word) if word.value == "swapped" && word.quote_style.is_none() => Some(Instead {
                    words: 1,
                    text: "SWAPPED".to_owned(),
                }),
                _ => None,
            });
            prop_assert_eq!(swapped, Some(format!("{before} SWAPPED {after}")));
        }

        /// A text keeps its quotes and signs when something is written around it.
        #[test]
        fn what_is_put_into_a_form_means_what_it_meant(text in "['\\\\a\"\n]{0,8}") {
            let literal = Expr::value(datafusion::sql::sqlparser::ast::Value::SingleQuotedString(text));
            let filled = filled("f($1)", std::slice::from_ref(&literal)).unwrap();
            let Expr::Function(function) = &filled else { panic!("{filled}") };
            let shown = format!("{:?}", function.args);
            prop_assert!(shown.contains(&format!("{literal:?}")), "{}", shown);
        }
    }
}
