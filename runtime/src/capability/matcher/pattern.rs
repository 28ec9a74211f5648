//! One compiled pattern: all its finds in one text, in time that is linear for each find.

use regex_automata::hybrid::{dfa, regex as lazy};
use regex_automata::meta::{self, Regex};
use regex_automata::util::iter::Searcher;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchError, MatchErrorKind};
use regex_syntax::hir::Hir;

use super::Syntax;

/// Compiled size of one pattern. The widest useful ones, words of Unicode with counts, stay below it.
const MAX_PATTERN_BYTES: usize = 2 * 1024 * 1024;
/// Tables that the search of one pattern may fill in, in each direction. With less, patterns that count digits of Unicode
/// are not searched with the fast engine at all.
const CACHE_BYTES: usize = 1024 * 1024;
/// Steps that the slowest engine may take for one text, which nothing interrupts: its bytes times the states of the
/// pattern. About a quarter of a second where every state is alive at every byte, which only hostile patterns manage.
const UNBROKEN_STEPS: usize = 1 << 25;
/// The same for a text that the fast engine cannot read, because the pattern asks for word borders of Unicode: enough for
/// a megabyte and a number between such borders.
const UNBROKEN_STEPS_UNICODE: usize = 1 << 29;
/// Compiled bytes per state, roughly, over all engines that a pattern is compiled for.
const BYTES_PER_STATE: usize = 128;
/// The fast engine gives up if it has emptied its table so many times, with fewer bytes read per state made than this.
const GIVE_UP_AFTER: usize = 8;
const GIVE_UP_BELOW: usize = 16;

#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    cache: meta::Cache,
    /// Bytes of the compiled expression; finding them out takes as long as a search.
    compiled_bytes: usize,
    /// As a regular expression.
    source: String,
    /// For texts that are too long for the regex above, made when the first one comes.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    regex: lazy::Regex,
    cache: lazy::Cache,
}

/// The parsed pattern and what it was made of.
pub(super) fn parse(kind: Syntax, text: &str) -> Result<(Hir, String), String> {
    let source = match kind {
        Syntax::Regex => text.to_owned(),
        Syntax::Literal => regex_syntax::escape(text),
        Syntax::LiteralAnyCase => format!("(?i:{})", regex_syntax::escape(text)),
    };
    let hir = regex_syntax::parse(&source).map_err(|error| error.to_string())?;
    Ok((hir, source))
}

impl Pattern {
    pub(super) fn compile(hir: &Hir, source: String, room: usize) -> Result<Pattern, String> {
        let config = meta::Config::new()
            .nfa_size_limit(Some(MAX_PATTERN_BYTES.min(room)))
            .hybrid_cache_capacity(CACHE_BYTES)
            .onepass(false);
        let regex = meta::Builder::new().configure(config).build_from_hir(hir);
        let regex = regex.map_err(|error| match error.size_limit() {
            Some(limit) => format!("compiled it is larger than the {limit} bytes that are left for patterns"),
            None => error.to_string(),
        })?;
        Ok(Pattern {
            cache: regex.create_cache(),
            compiled_bytes: regex.memory_usage(),
            regex,
            source,
            large: None,
        })
    }

    pub(super) fn compiled_bytes(&self) -> usize {
        self.compiled_bytes
    }

    pub(super) fn cache_bytes(&self) -> usize {
        let large = self.large.as_ref().map_or(0, |large| large.cache.memory_usage());
        self.cache.memory_usage() + large
    }

    pub(super) fn empty_cache(&mut self) {
        self.cache = self.regex.create_cache();
        self.large = None;
    }

    /// Calls `found` for each find, in order, until it answers false. The error tells what is wrong with the text.
    pub(super) fn find(&mut self, text: &[u8], found: &mut dyn FnMut(usize, usize) -> bool) -> Result<(), String> {
        let states = self.compiled_bytes / BYTES_PER_STATE;
        let steps = text.len().saturating_mul(states);
        if steps > UNBROKEN_STEPS {
            return self.find_in_large(text, steps, found);
        }
        self.find_in_any(text, found);
        Ok(())
    }

    fn find_in_any(&mut self, text: &[u8], found: &mut dyn FnMut(usize, usize) -> bool) {
        let Pattern { regex, cache, .. } = self;
        let mut finds = Searcher::new(Input::new(text));
        while let Some(find) = finds.advance(|input| Ok(regex.search_with(cache, input))) {
            if !found(find.start(), find.end()) {
                return;
            }
        }
    }

    fn find_in_large(
        &mut self,
        text: &[u8],
        steps: usize,
        found: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<(), String> {
        let large = match &mut self.large {
            Some(large) => large,
            none => none.insert(Large::compile(&self.source)?),
        };
        let Large { regex, cache } = large;
        let mut finds = Searcher::new(Input::new(text));
        let mut before = 0;
        let error = loop {
            match finds.try_advance(|input| regex.try_search(cache, input)) {
                Ok(None) => return Ok(()),
                Ok(Some(find)) => {
                    before += 1;
                    if !found(find.start(), find.end()) {
                        return Ok(());
                    }
                }
                Err(error) => break error,
            }
        };
        if is_unicode(&error) && steps <= UNBROKEN_STEPS_UNICODE {
            // The slower engine finds the same again, from the beginning.
            let mut again = 0;
            self.find_in_any(text, &mut |start, end| {
                again += 1;
                again <= before || found(start, end)
            });
            return Ok(());
        }
        Err(format!(
            "a text of {} bytes is too long for this pattern; make the pattern simpler{}",
            text.len(),
            if is_unicode(&error) {
                ", for example with `(?-u:\\b)` for `\\b`"
            } else {
                ""
            }
        ))
    }
}

fn is_unicode(error: &MatchError) -> bool {
    matches!(error.kind(), MatchErrorKind::Quit { .. })
}

impl Large {
    fn compile(source: &str) -> Result<Large, String> {
        let config = dfa::Config::new()
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true)
            .unicode_word_boundary(true)
            .minimum_cache_clear_count(Some(GIVE_UP_AFTER))
            .minimum_bytes_per_state(Some(GIVE_UP_BELOW));
        let regex = lazy::Builder::new()
            .syntax(syntax::Config::new())
            .dfa(config)
            .build(source);
        let regex = regex.map_err(|error| error.to_string())?;
        Ok(Large {
            cache: regex.create_cache(),
            regex,
        })
    }
}
