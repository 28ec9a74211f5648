//! A set of patterns: which texts may hold a match, found in one pass over all of them, then each of those by pattern.
//!
//! Every pattern is in one of three groups.
//! * **needles**: each match contains one of a few rare literals. All literals are looked for at once.
//! * **shapes**: the rest. One automaton of all their shapes, without anchors and word borders, runs over the texts as if
//!   they were one. It stops where the first match ends: a match within an earlier text would have ended before, so only
//!   the text of that byte may hold one, and the search goes on behind it.
//! * **anywhere**: those that match the empty text, and so everywhere.

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::{Input, PatternID, PatternSet};
use regex_syntax::hir::Hir;

use super::finder::Needles;
use super::needles::{Literals, needles, without_looks};
use super::pattern::{Pattern, parse};
use super::{Hit, Syntax, Texts};

/// Bytes searched between two looks at the time: some 100 µs.
const PIECE_BYTES: usize = 64 * 1024;
/// Texts searched pattern by pattern, and finds, between two looks at the time.
const TEXTS_PER_LOOK: usize = 64;
const HITS_PER_LOOK: usize = 4096;
/// Each find may read a text to its end, so in a long text finds alone are no measure.
const FIND_BYTES_PER_LOOK: usize = 4 * 1024 * 1024;
/// From so many patterns on it pays to find out first which of them a text may hold: one look at the text for all shapes is
/// faster than two that find nothing.
const WORTH_NARROWING_SHAPES: usize = 2;
const NO_TIME: &str = "there was no time left for the search";
/// The automaton of all shapes, and the table that its searches fill in.
const MAX_SHAPES_BYTES: usize = 4 * 1024 * 1024;
const SHAPES_CACHE_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Set {
    patterns: Vec<Pattern>,
    needles: Option<Needles>,
    shapes: Option<Shapes>,
    /// Numbers of patterns that may match everywhere.
    anywhere: Vec<usize>,
}

#[derive(Debug)]
struct Shapes {
    automaton: DFA,
    cache: Cache,
    patterns: Vec<usize>,
}

impl Set {
    pub(super) fn compile<T: AsRef<str>>(
        patterns: &[(Syntax, T)],
        room: usize,
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<Set, String> {
        let mut compiled = Vec::with_capacity(patterns.len());
        let mut literals: Vec<(usize, Literals)> = Vec::new();
        let (mut shapes, mut shape_patterns) = (Vec::new(), Vec::new());
        let mut anywhere = Vec::new();
        let mut taken = 0;
        for (number, (kind, text)) in patterns.iter().enumerate() {
            let tell = |what| format!("pattern {number}: {what}");
            if time_is_over() {
                return Err(tell("there was no time left to compile it".to_owned()));
            }
            let (hir, source) = parse(*kind, text.as_ref()).map_err(tell)?;
            let pattern = Pattern::compile(&hir, source, room.saturating_sub(taken)).map_err(tell)?;
            taken += pattern.compiled_bytes();
            if taken > room {
                return Err(tell("the patterns are too large together".to_owned()));
            }
            compiled.push(pattern);
            if hir.properties().minimum_len().is_none_or(|bytes| bytes == 0) {
                anywhere.push(number);
            } else if let Some(needles) = needles(&hir) {
                literals.push((number, needles));
            } else {
                shapes.push(without_looks(&hir));
                shape_patterns.push(number);
            }
        }
        let mut set = Set {
            patterns: compiled,
            needles: None,
            shapes: None,
            anywhere,
        };
        match Needles::build(&literals) {
            Some(needles) => set.needles = Some(needles),
            None => set.anywhere.extend(literals.iter().map(|(number, _)| *number)),
        }
        match Shapes::build(&shapes, shape_patterns.clone()) {
            Some(shapes) => set.shapes = Some(shapes),
            None => set.anywhere.extend(shape_patterns),
        }
        set.anywhere.sort_unstable();
        set.anywhere.dedup();
        Ok(set)
    }

    pub(super) fn compiled_bytes(&self) -> usize {
        let needles = self.needles.as_ref().map_or(0, Needles::bytes);
        let shapes = self.shapes.as_ref().map_or(0, |shapes| shapes.automaton.memory_usage());
        self.patterns.iter().map(Pattern::compiled_bytes).sum::<usize>() + needles + shapes
    }

    pub(super) fn cache_bytes(&self) -> usize {
        let shapes = self.shapes.as_ref().map_or(0, |shapes| shapes.cache.memory_usage());
        let needles = self.needles.as_ref().map_or(0, Needles::cache_bytes);
        self.patterns.iter().map(Pattern::cache_bytes).sum::<usize>() + shapes + needles
    }

    pub(super) fn empty_caches(&mut self) {
        self.patterns.iter_mut().for_each(Pattern::empty_cache);
        if let Some(shapes) = &mut self.shapes {
            shapes.cache = shapes.automaton.create_cache();
        }
        self.needles.iter_mut().for_each(Needles::empty_cache);
    }

    pub(super) fn find(
        &mut self,
        texts: Texts<'_>,
        max_hits: usize,
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<Hit>, String> {
        let mut search = Search {
            hits: Vec::new(),
            max_hits,
            time_is_over,
            searched: 0,
            bytes: 0,
        };
        let (mut with_needles, mut with_shapes) = (Vec::new(), Vec::new());
        let mut wanted = Vec::new();
        let mut from = 0;
        while from < texts.len() {
            search.look()?;
            let until = piece(texts, from);
            with_needles.clear();
            with_shapes.clear();
            if let Some(needles) = &mut self.needles {
                needles.candidates(texts, from, until, &mut with_needles);
            }
            if let Some(shapes) = &mut self.shapes {
                shapes.candidates(texts, from, until, &mut with_shapes);
            }
            let (mut needle, mut shape) = (with_needles.iter().peekable(), with_shapes.iter().peekable());
            let mut next = from;
            loop {
                let soonest = [needle.peek(), shape.peek()]
                    .into_iter()
                    .flatten()
                    .map(|text| **text)
                    .min();
                let text = if self.anywhere.is_empty() {
                    soonest
                } else {
                    (next < until).then_some(next)
                };
                let Some(text) = text else { break };
                next = text + 1;
                let bytes = texts.text(text);
                wanted.clear();
                wanted.extend_from_slice(&self.anywhere);
                if needle.next_if_eq(&&text).is_some() {
                    self.needles
                        .iter()
                        .for_each(|needles| needles.narrow(bytes, &mut wanted));
                }
                if shape.next_if_eq(&&text).is_some() {
                    self.shapes
                        .iter_mut()
                        .for_each(|shapes| shapes.narrow(bytes, &mut wanted));
                }
                search.text(&mut self.patterns, &wanted, text, bytes)?;
            }
            from = until;
        }
        Ok(search.hits)
    }
}

/// The first text behind those that are searched together.
fn piece(texts: Texts<'_>, from: usize) -> usize {
    let bytes = texts.start(from) + PIECE_BYTES;
    let mut until = from + 1;
    while until < texts.len() && texts.end(until) <= bytes {
        until += 1;
    }
    until
}

/// The text that holds the byte at `place`, looking from text `from` on. Empty texts hold none.
pub(super) fn text_of(texts: Texts<'_>, from: usize, until: usize, place: usize) -> usize {
    let ends = &texts.offsets[from + 1..=until];
    // It is near where matches are dense.
    let mut step = 1;
    while step < ends.len() && ends[step - 1] as usize <= place {
        step *= 2;
    }
    let before = step / 2;
    from + before + ends[before..step.min(ends.len())].partition_point(|end| *end as usize <= place)
}

impl Shapes {
    fn build(shapes: &[Hir], patterns: Vec<usize>) -> Option<Shapes> {
        if shapes.is_empty() {
            return None;
        }
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(MAX_SHAPES_BYTES));
        let nfa = thompson::Compiler::new()
            .configure(config)
            .build_many_from_hir(shapes)
            .ok()?;
        let config = DFA::config()
            .match_kind(regex_automata::MatchKind::All)
            .cache_capacity(SHAPES_CACHE_BYTES)
            .skip_cache_capacity_check(true);
        let automaton = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        Some(Shapes {
            cache: automaton.create_cache(),
            automaton,
            patterns,
        })
    }

    /// Texts in which a match of some shape ends.
    fn candidates(&mut self, texts: Texts<'_>, from: usize, until: usize, candidates: &mut Vec<usize>) {
        let (mut at, end) = (texts.start(from), texts.start(until));
        let mut text = from;
        while at < end {
            let input = Input::new(texts.bytes).range(at..end).earliest(true);
            let place = match self.automaton.try_search_fwd(&mut self.cache, &input) {
                Ok(None) => return,
                Ok(Some(find)) => find.offset().saturating_sub(1).max(at),
                // The automaton never gives up; if it did, every text would have to be searched.
                Err(_) => at,
            };
            text = text_of(texts, text, until, place);
            candidates.push(text);
            at = texts.end(text);
            text += 1;
        }
    }

    fn narrow(&mut self, text: &[u8], wanted: &mut Vec<usize>) {
        if self.patterns.len() < WORTH_NARROWING_SHAPES {
            wanted.extend_from_slice(&self.patterns);
            return;
        }
        let mut set = PatternSet::new(self.patterns.len());
        let searched = self
            .automaton
            .try_which_overlapping_matches(&mut self.cache, &Input::new(text), &mut set);
        let held = |place: &usize| searched.is_err() || PatternID::new(*place).is_ok_and(|id| set.contains(id));
        wanted.extend((0..self.patterns.len()).filter(held).map(|place| self.patterns[place]));
    }
}

/// One call: what it found and what it may still take.
struct Search<'a> {
    hits: Vec<Hit>,
    max_hits: usize,
    time_is_over: &'a dyn Fn() -> bool,
    searched: usize,
    bytes: usize,
}

impl Search<'_> {
    fn look(&self) -> Result<(), String> {
        if (self.time_is_over)() {
            return Err(NO_TIME.to_owned());
        }
        Ok(())
    }

    fn text(&mut self, patterns: &mut [Pattern], wanted: &[usize], text: usize, bytes: &[u8]) -> Result<(), String> {
        let first = self.hits.len();
        for number in wanted {
            self.searched += 1;
            self.bytes += bytes.len();
            if self.searched >= TEXTS_PER_LOOK || self.bytes >= PIECE_BYTES {
                (self.searched, self.bytes) = (0, 0);
                self.look()?;
            }
            let (hits, max_hits, time_is_over) = (&mut self.hits, self.max_hits, self.time_is_over);
            let mut stopped = None;
            let (mut finds, mut read) = (0, 0);
            let found = patterns[*number].find(bytes, &mut |start, end| {
                if hits.len() >= max_hits {
                    stopped = Some(format!("more than {max_hits} finds; search fewer texts at once"));
                    return false;
                }
                finds += 1;
                read += bytes.len();
                if finds >= HITS_PER_LOOK || read >= FIND_BYTES_PER_LOOK {
                    (finds, read) = (0, 0);
                    if time_is_over() {
                        stopped = Some(NO_TIME.to_owned());
                        return false;
                    }
                }
                hits.push(Hit {
                    text: text as u32,
                    start: start as u32,
                    pattern: *number as u32,
                    end: end as u32,
                });
                true
            });
            found.map_err(|what| format!("pattern {number} in text {text}: {what}"))?;
            if let Some(stopped) = stopped {
                return Err(stopped);
            }
        }
        self.hits[first..].sort_unstable();
        Ok(())
    }
}
