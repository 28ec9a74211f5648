//! From tokens to an expression whose columns and values fit each other.

use std::ops::Range;

use memchr::memmem::Finder;

use crate::condition::{Check, Condition, Literal, Order, TextCheck, check_lower, compare, one_of};
use crate::field::{Kind, Source};
use crate::mistake::{Mistake, nearest};
use crate::regexes::Regexes;
use crate::token::{Token, tokens};

/// Parentheses and `not` within each other. The stack of a guest has room for ten times as many.
pub const MAX_DEPTH: usize = 64;
/// Conditions of one expression; each is one pass over a column.
pub const MAX_CONDITIONS: usize = 512;
/// Texts or numbers after one `in`.
pub const MAX_LIST: usize = 1024;

/// A checked expression.
#[derive(Clone, Debug)]
pub enum Expr {
    Always(bool),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Condition(Condition),
}

impl Expr {
    /// Shows every column and attribute that the expression names.
    pub fn each_source(&self, show: &mut impl FnMut(&Source)) {
        match self {
            Expr::Always(_) => {}
            Expr::Not(inner) => inner.each_source(show),
            Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| part.each_source(show)),
            Expr::Condition(condition) => show(&condition.source),
        }
    }
}

const WORDS: [&str; 11] = [
    "and",
    "or",
    "not",
    "in",
    "contains",
    "starts_with",
    "ends_with",
    "exists",
    "lower",
    "true",
    "false",
];
const OPERATORS: &str = "==, !=, <, <=, >, >=, ~, contains, starts_with, ends_with or in";

/// Reads an expression; its regular expressions are put to the others.
pub fn parse(text: &str, regexes: &mut Regexes) -> Result<Expr, Mistake> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        conditions: 0,
        regexes,
    };
    if parser.peek() == &Token::End {
        return Err(parser.mistake("the expression is empty"));
    }
    let expr = parser.any(0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        Token::Sign(")") => Err(parser.mistake("this parenthesis was never opened")),
        _ => Err(parser.mistake("expected `and`, `or` or the end")),
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    conditions: usize,
    regexes: &'a mut Regexes,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    /// Where the next token is.
    fn here(&self) -> Range<usize> {
        let last = self.tokens.last().map_or(0..0, |(_, at)| at.clone());
        self.tokens.get(self.next).map_or(last, |(_, at)| at.clone())
    }

    fn take(&mut self) -> (Token, Range<usize>) {
        let taken = (self.peek().clone(), self.here());
        self.next += 1;
        taken
    }

    fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake::new(self.here(), what)
    }

    fn word(&self) -> Option<&'static str> {
        let Token::Name(name) = self.peek() else { return None };
        WORDS.into_iter().find(|word| name.eq_ignore_ascii_case(word))
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.word() == Some(word);
        self.next += usize::from(found);
        found
    }

    fn skip_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(next) if *next == sign);
        self.next += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str, what: &str) -> Result<(), Mistake> {
        if self.skip_sign(sign) {
            return Ok(());
        }
        Err(self.mistake(format!("expected `{sign}` {what}")))
    }

    fn any(&mut self, depth: usize) -> Result<Expr, Mistake> {
        let mut parts = vec![self.all(depth)?];
        while self.skip_word("or") || self.skip_sign("||") {
            parts.push(self.all(depth)?);
        }
        Ok(single(parts, Expr::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expr, Mistake> {
        let mut parts = vec![self.unary(depth)?];
        while self.skip_word("and") || self.skip_sign("&&") {
            parts.push(self.unary(depth)?);
        }
        Ok(single(parts, Expr::All))
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, Mistake> {
        if depth > MAX_DEPTH {
            return Err(self.mistake(format!("more than {MAX_DEPTH} parentheses and `not` within each other")));
        }
        if self.skip_word("not") || self.skip_sign("!") {
            return Ok(Expr::Not(Box::new(self.unary(depth + 1)?)));
        }
        let open = self.here();
        if self.skip_sign("(") {
            let expr = self.any(depth + 1)?;
            if self.skip_sign(")") {
                return Ok(expr);
            }
            return Err(match self.peek() {
                Token::End => Mistake::new(open, "this parenthesis is never closed"),
                _ => self.mistake("expected `and`, `or` or `)`"),
            });
        }
        if self.skip_word("true") {
            return Ok(Expr::Always(true));
        }
        if self.skip_word("false") {
            return Ok(Expr::Always(false));
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Expr, Mistake> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(self.mistake(format!(
                "more than {MAX_CONDITIONS} conditions; use `in` or a regular expression"
            )));
        }
        if self.skip_word("exists") {
            self.expect_sign("(", "after exists")?;
            let (source, _) = self.source()?;
            self.expect_sign(")", "after the column")?;
            return Ok(one(source, vec![Check::Exists]));
        }
        let lower = self.skip_word("lower");
        if lower {
            self.expect_sign("(", "after lower")?;
        }
        let (source, at) = self.source()?;
        if lower {
            self.expect_sign(")", "after the column")?;
            if !matches!(source.kind, Kind::Text | Kind::Any) {
                return Err(Mistake::new(at, format!("lower(…) is for texts; `{source}` is none")));
            }
        }
        let negated = self.skip_word("not");
        let operator = self.here();
        let expr = if let Some(word) = self
            .word()
            .filter(|word| ["contains", "starts_with", "ends_with", "in"].contains(word))
        {
            self.next += 1;
            let checks = match word {
                "in" => self.list(&source)?,
                word => vec![self.part(&source, word)?],
            };
            one(source, in_case(checks, lower, &operator)?)
        } else if negated {
            return Err(self.mistake("after `not` behind a column stands in, contains, starts_with or ends_with"));
        } else {
            self.sign(source, at, lower)?
        };
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    /// What follows a column: a comparison, or nothing if it is true or false itself.
    fn sign(&mut self, source: Source, at: Range<usize>, lower: bool) -> Result<Expr, Mistake> {
        let operator = self.here();
        let order = match self.peek() {
            Token::Sign("==" | "!=") => Order::Equal,
            Token::Sign("<") => Order::Less,
            Token::Sign("<=") => Order::LessOrEqual,
            Token::Sign(">") => Order::Greater,
            Token::Sign(">=") => Order::GreaterOrEqual,
            Token::Sign(sign @ ("~" | "~*" | "!~" | "!~*")) => {
                let (negated, any_case) = (sign.starts_with('!'), sign.ends_with('*') || lower);
                self.next += 1;
                return self.regex(source, any_case, negated);
            }
            Token::Sign("=") => return Err(self.mistake("`=` is no comparison; did you mean `==`?")),
            Token::Sign("=~") => {
                return Err(self.mistake("regular expressions are compared by `~`, and by `~*` in any case"));
            }
            Token::Name(name) if self.word().is_none() => {
                let words = [
                    "contains",
                    "starts_with",
                    "ends_with",
                    "exists",
                    "in",
                    "and",
                    "or",
                    "not",
                ];
                return Err(self.mistake(match nearest(name, words) {
                    Some(meant) => format!("`{name}` is no operator; did you mean `{meant}`?"),
                    None => format!("expected one of {OPERATORS}"),
                }));
            }
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Duration(_) => {
                return Err(self.mistake(format!("expected one of {OPERATORS} before this")));
            }
            _ if matches!(source.kind, Kind::Bool | Kind::Any) => return Ok(one(source, vec![Check::Bool(true)])),
            _ => {
                let what = format!("`{source}` alone is neither true nor false; compare it by {OPERATORS}");
                return Err(Mistake::new(at, what));
            }
        };
        let negated = self.peek() == &Token::Sign("!=");
        self.next += 1;
        let (literal, place) = self.literal()?;
        let check = compare(&source, order, &literal, &place)?;
        let expr = one(source, in_case(vec![check], lower, &operator)?);
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn regex(&mut self, source: Source, any_case: bool, negated: bool) -> Result<Expr, Mistake> {
        let (pattern, at) = self.text(&source, "a regular expression in quotes")?;
        let place = self
            .regexes
            .add(&source, &pattern, any_case)
            .map_err(|what| Mistake::new(at, what))?;
        let expr = one(source, vec![Check::Regex(place)]);
        Ok(if negated { Expr::Not(Box::new(expr)) } else { expr })
    }

    fn part(&mut self, source: &Source, word: &str) -> Result<Check, Mistake> {
        let (text, _) = self.text(source, "a text in quotes")?;
        Ok(Check::Text(match word {
            "contains" => TextCheck::Contains(Box::new(Finder::new(&text).into_owned())),
            "starts_with" => TextCheck::StartsWith(text),
            _ => TextCheck::EndsWith(text),
        }))
    }

    /// The text behind an operator that is for texts only.
    fn text(&mut self, source: &Source, what: &str) -> Result<(String, Range<usize>), Mistake> {
        if !matches!(source.kind, Kind::Text | Kind::Any) {
            let operator = self.tokens[self.next - 1].1.clone();
            return Err(Mistake::new(operator, format!("this is for texts; `{source}` is none")));
        }
        match self.take() {
            (Token::Text(text), at) => Ok((text, at)),
            (_, at) => Err(Mistake::new(at, format!("expected {what}"))),
        }
    }

    fn list(&mut self, source: &Source) -> Result<Vec<Check>, Mistake> {
        self.expect_sign("(", "after in")?;
        let mut literals = Vec::new();
        loop {
            if literals.len() >= MAX_LIST {
                return Err(self.mistake(format!("more than {MAX_LIST} values after one `in`")));
            }
            literals.push(self.literal()?);
            if self.skip_sign(")") {
                return one_of(source, &literals);
            }
            self.expect_sign(",", "or `)` after a value")?;
        }
    }

    /// A column or attribute, and where it stands.
    fn source(&mut self) -> Result<(Source, Range<usize>), Mistake> {
        let (token, at) = self.take();
        let name = match token {
            Token::Name(name) => name,
            Token::Text(_) | Token::Int(_) | Token::Float(_) | Token::Duration(_) => {
                return Err(Mistake::new(
                    at,
                    "a column stands to the left, what it is compared with to the right",
                ));
            }
            Token::End => return Err(Mistake::new(at, "the expression ends where a condition should stand")),
            Token::Sign(_) => {
                return Err(Mistake::new(
                    at,
                    "expected a column, such as severity or attrs[\"http.route\"]",
                ));
            }
        };
        if WORDS.iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return Err(Mistake::new(at, format!("expected a column before `{name}`")));
        }
        let source = if self.skip_sign("[") {
            let key = match self.take() {
                (Token::Text(key), _) if !key.is_empty() => key,
                (_, at) => return Err(Mistake::new(at, format!("expected the key in quotes: {name}[\"key\"]"))),
            };
            self.expect_sign("]", "after the key")?;
            Source::attribute(&name, &key)
        } else {
            Source::of_name(&name)
        };
        let end = self.tokens[self.next - 1].1.end;
        Ok((source.map_err(|what| Mistake::new(at.clone(), what))?, at.start..end))
    }

    fn literal(&mut self) -> Result<(Literal, Range<usize>), Mistake> {
        let word = self.word();
        let (token, at) = self.take();
        let literal = match token {
            Token::Text(text) => Literal::Text(text),
            Token::Int(number) => Literal::Int(number),
            Token::Float(number) => Literal::Double(number),
            Token::Duration(ns) => Literal::Duration(ns),
            Token::Name(_) if word == Some("true") => Literal::Bool(true),
            Token::Name(_) if word == Some("false") => Literal::Bool(false),
            Token::Name(name) => Literal::Name(name),
            Token::End => return Err(Mistake::new(at, "the expression ends where a value should stand")),
            Token::Sign(_) => {
                return Err(Mistake::new(
                    at,
                    "expected a value: a text in quotes, a number, true or false",
                ));
            }
        };
        Ok((literal, at))
    }
}

fn one(source: Source, any_of: Vec<Check>) -> Expr {
    Expr::Condition(Condition { source, any_of })
}

fn single(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            many(parts)
        }
    }
}

/// The checks, of the text in small letters if so wanted.
fn in_case(checks: Vec<Check>, lower: bool, at: &Range<usize>) -> Result<Vec<Check>, Mistake> {
    if !lower {
        return Ok(checks);
    }
    let lowered = checks.into_iter().map(|check| match check {
        Check::Text(check) => check_lower(&check, at).map(|()| Check::LowerText(check)),
        _ => Err(Mistake::new(at.clone(), "lower(…) is compared with texts only")),
    });
    lowered.collect()
}
