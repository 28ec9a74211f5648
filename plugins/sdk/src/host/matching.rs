//! Many patterns over many texts, searched by the host at native speed.

use arrow_array::Array;
use arrow_array::StringArray;
use arrow_buffer::BooleanBuffer;

#[cfg(target_arch = "wasm32")]
use crate::bindings::sluice::plugin::match_ as imported;
use crate::{Batch, Text, bits};

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Literal(String),
    /// ASCII and Unicode letters match both ways.
    LiteralAnyCase(String),
    /// As the Rust crate `regex` has it: no look-around, no back-references, linear time.
    Regex(String),
}

/// A find. `text` is its place among the texts, `start` and `end` are bytes within that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub text: u32,
    pub start: u32,
    pub end: u32,
    pub pattern: u32,
}

/// Compiled patterns. Compile in `init` and keep the set in the plugin: it lives as long as the instance.
#[derive(Clone, Debug)]
pub struct PatternSet {
    id: u32,
}

impl PatternSet {
    /// A set of regular expressions.
    pub fn new<P: AsRef<str>>(regexes: &[P]) -> Result<PatternSet, String> {
        let patterns: Vec<Pattern> = regexes.iter().map(|p| Pattern::Regex(p.as_ref().to_owned())).collect();
        PatternSet::of(&patterns)
    }

    pub fn of(patterns: &[Pattern]) -> Result<PatternSet, String> {
        #[cfg(target_arch = "wasm32")]
        let id = {
            let patterns: Vec<imported::Pattern> = patterns
                .iter()
                .map(|pattern| {
                    let (syntax, text) = match pattern {
                        Pattern::Literal(text) => (imported::Syntax::Literal, text),
                        Pattern::LiteralAnyCase(text) => (imported::Syntax::LiteralAnyCase, text),
                        Pattern::Regex(text) => (imported::Syntax::Regex, text),
                    };
                    imported::Pattern {
                        syntax,
                        text: text.clone(),
                    }
                })
                .collect();
            imported::compile(&patterns)?
        };
        #[cfg(not(target_arch = "wasm32"))]
        let id = super::native::with(|host| host.compile(patterns))?;
        Ok(PatternSet { id })
    }

    /// For each pattern by itself the leftmost finds that do not overlap, ordered by text, then start, then pattern. The texts
    /// are the rows of a plain column and the values of a dictionary ([`Text::values`]).
    pub fn find_in(&self, column: &Text<'_>) -> Result<Vec<Hit>, String> {
        match column.values() {
            Some(texts) => self.find(texts),
            None => Ok(Vec::new()),
        }
    }

    pub fn find(&self, texts: &StringArray) -> Result<Vec<Hit>, String> {
        #[cfg(target_arch = "wasm32")]
        {
            let offsets = texts.value_offsets();
            let (first, last) = match (offsets.first(), offsets.last()) {
                (Some(first), Some(last)) if !texts.is_empty() => (*first, *last),
                _ => return Ok(Vec::new()),
            };
            let bytes = &texts.value_data()[first as usize..last as usize];
            let hits = if first == 0 {
                imported::find(self.id, offsets, bytes)?
            } else {
                let moved: Vec<i32> = offsets.iter().map(|offset| offset - first).collect();
                imported::find(self.id, &moved, bytes)?
            };
            Ok(hits.into_iter().map(hit).collect())
        }
        #[cfg(not(target_arch = "wasm32"))]
        super::native::with(|host| host.find(self.id, texts))
    }

    /// The same in a text column of the batch at hand, which the host has already: cheaper than [`PatternSet::find_in`].
    /// A column that the batch does not have has no hits.
    pub fn find_in_column(&self, batch: &Batch, column: &str) -> Result<Vec<Hit>, String> {
        if batch.column(column).is_none() {
            return Ok(Vec::new());
        }
        #[cfg(target_arch = "wasm32")]
        return Ok(imported::find_in_column(self.id, column)?
            .into_iter()
            .map(hit)
            .collect());
        #[cfg(not(target_arch = "wasm32"))]
        self.find_in(&batch.text(column)?)
    }

    /// The rows of a column in which any of the patterns is.
    pub fn rows_with(&self, batch: &Batch, column: &str) -> Result<BooleanBuffer, String> {
        let text = batch.text(column)?;
        let mut found = vec![false; text.values().map_or(0, |values| values.len())];
        for hit in self.find_in_column(batch, column)? {
            if let Some(found) = found.get_mut(hit.text as usize) {
                *found = true;
            }
        }
        Ok(bits::of_texts(&text, batch.rows(), &found))
    }
}

#[cfg(target_arch = "wasm32")]
fn hit(hit: imported::Hit) -> Hit {
    Hit {
        text: hit.text,
        start: hit.start,
        end: hit.end,
        pattern: hit.pattern,
    }
}
