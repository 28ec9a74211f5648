//! Finds many patterns in many texts at native speed.
//!
//! One pass over all texts at once finds those that may hold a match (see `set`); only these are searched pattern by
//! pattern. What is found is exactly what the crate `regex` finds for each pattern alone in each text alone.

mod finder;
mod needles;
mod pattern;
mod set;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, UInt16Type, UInt32Type};
use arrow_array::{Array, StringArray};
use arrow_schema::DataType;

use set::Set;

/// Bounds of the sets of one instance, and of one answer.
#[derive(Clone, Copy, Debug)]
pub struct MatchLimits {
    /// Sets that an instance may compile.
    pub sets: usize,
    /// Patterns of all sets. The largest known plugin has 30.
    pub patterns: usize,
    /// Text of all patterns.
    pub pattern_bytes: usize,
    /// Compiled patterns of all sets.
    pub compiled_bytes: usize,
    /// Tables that searches fill in; beyond this they are emptied after a call.
    pub cache_bytes: usize,
    /// Finds of one call.
    pub hits: usize,
}

impl Default for MatchLimits {
    fn default() -> Self {
        MatchLimits {
            sets: 16,
            patterns: 512,
            pattern_bytes: 64 * 1024,
            compiled_bytes: 8 * 1024 * 1024,
            cache_bytes: 16 * 1024 * 1024,
            // 16 bytes each: as large as an answer may be.
            hits: 512 * 1024,
        }
    }
}

/// How the text of a pattern is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    Literal,
    LiteralAnyCase,
    Regex,
}

/// A find. `text` is its place among the texts, `start` and `end` are bytes within that text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub text: u32,
    pub start: u32,
    pub pattern: u32,
    pub end: u32,
}

/// Texts as Arrow has them: text i is `bytes[offsets[i]..offsets[i + 1]]`. Checked once, so that the search need not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a> {
    offsets: &'a [i32],
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    fn checked(offsets: &'a [i32], bytes: &'a [u8]) -> Result<Texts<'a>, String> {
        let mut before = 0;
        for (place, offset) in offsets.iter().enumerate() {
            if *offset < before {
                return Err(format!(
                    "offset {place} is {offset}; offsets begin at 0 or above and never fall"
                ));
            }
            before = *offset;
        }
        let end = before as usize;
        let all = bytes
            .get(..end)
            .ok_or_else(|| format!("the texts end at byte {end} of {}", bytes.len()))?;
        let begin = offsets.first().map_or(0, |first| *first as usize);
        let text = std::str::from_utf8(&all[begin..]).map_err(|error| format!("the texts are not UTF-8: {error}"))?;
        for (place, offset) in offsets.iter().enumerate() {
            if !text.is_char_boundary(*offset as usize - begin) {
                return Err(format!("offset {place} is {offset}, in the middle of a character"));
            }
        }
        Ok(Texts { offsets, bytes })
    }

    fn len(self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn start(self, text: usize) -> usize {
        self.offsets.get(text).map_or(0, |offset| *offset as usize)
    }

    fn end(self, text: usize) -> usize {
        self.start(text + 1)
    }

    fn text(self, text: usize) -> &'a [u8] {
        self.bytes.get(self.start(text)..self.end(text)).unwrap_or_default()
    }
}

/// The compiled sets of one instance.
#[derive(Debug, Default)]
pub struct PatternSets {
    limits: MatchLimits,
    sets: Vec<Set>,
    patterns: usize,
    pattern_bytes: usize,
    compiled_bytes: usize,
}

impl PatternSets {
    pub fn new(limits: MatchLimits) -> PatternSets {
        PatternSets {
            limits,
            ..PatternSets::default()
        }
    }

    /// Compiles patterns into a set for the life of the instance and answers its number.
    pub fn compile<T: AsRef<str>>(
        &mut self,
        patterns: &[(Syntax, T)],
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<u32, String> {
        let limits = self.limits;
        if self.sets.len() >= limits.sets {
            return Err(format!("an instance may have {} sets of patterns", limits.sets));
        }
        let count = self.patterns + patterns.len();
        if count > limits.patterns {
            return Err(format!("{count} patterns; an instance may have {}", limits.patterns));
        }
        let pattern_bytes = patterns.iter().map(|(_, text)| text.as_ref().len()).sum::<usize>() + self.pattern_bytes;
        if pattern_bytes > limits.pattern_bytes {
            return Err(format!(
                "the patterns have {pattern_bytes} bytes of text; an instance may have {}",
                limits.pattern_bytes
            ));
        }
        let room = limits.compiled_bytes.saturating_sub(self.compiled_bytes);
        let set = Set::compile(patterns, room, time_is_over)?;
        self.patterns = count;
        self.pattern_bytes = pattern_bytes;
        self.compiled_bytes += set.compiled_bytes();
        self.sets.push(set);
        Ok((self.sets.len() - 1) as u32)
    }

    /// For each pattern by itself the leftmost finds that do not overlap, ordered by text, then start, then pattern.
    pub fn find(
        &mut self,
        set: u32,
        offsets: &[i32],
        bytes: &[u8],
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<Hit>, String> {
        self.search(set, Texts::checked(offsets, bytes)?, time_is_over)
    }

    /// The same in a column; of one with a dictionary the texts are its values. A null holds no text.
    pub fn find_in_column(
        &mut self,
        set: u32,
        column: &dyn Array,
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<Hit>, String> {
        let texts = match column.data_type() {
            DataType::Utf8 => column.as_string_opt(),
            DataType::Dictionary(key, _) if **key == DataType::UInt16 => values::<UInt16Type>(column),
            DataType::Dictionary(key, _) if **key == DataType::UInt32 => values::<UInt32Type>(column),
            _ => None,
        };
        let texts: &StringArray = texts.ok_or_else(|| format!("a column of {} holds no text", column.data_type()))?;
        let view = Texts {
            offsets: texts.value_offsets(),
            bytes: texts.value_data(),
        };
        let mut hits = self.search(set, view, time_is_over)?;
        if texts.null_count() > 0 {
            hits.retain(|hit| texts.is_valid(hit.text as usize));
        }
        Ok(hits)
    }

    fn search(&mut self, set: u32, texts: Texts<'_>, time_is_over: &dyn Fn() -> bool) -> Result<Vec<Hit>, String> {
        let found = self.sets.get_mut(set as usize);
        let found = found.ok_or_else(|| format!("there is no set {set} of patterns"))?;
        let hits = found.find(texts, self.limits.hits, time_is_over);
        if self.sets.iter().map(Set::cache_bytes).sum::<usize>() > self.limits.cache_bytes {
            self.sets.iter_mut().for_each(Set::empty_caches);
        }
        hits
    }
}

fn values<K: ArrowDictionaryKeyType>(column: &dyn Array) -> Option<&StringArray> {
    column.as_dictionary_opt::<K>()?.values().as_string_opt()
}

#[cfg(test)]
mod tests;
