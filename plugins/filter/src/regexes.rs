//! The regular expressions of all rules. The host finds them (`match`): at native speed, and without a second engine here.

use sluice_plugin::matching::PatternSet;

use crate::condition::RegexPlace;
use crate::field::Source;

/// Columns and attributes that have regular expressions; an instance may have as many sets of patterns.
const MAX_GROUPS: usize = 16;

/// By column or attribute, so that each is searched once for all its patterns.
#[derive(Clone, Debug, Default)]
pub struct Regexes {
    groups: Vec<(Source, Vec<String>)>,
}

/// The patterns of one column or attribute, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) source: Source,
    pub(crate) patterns: usize,
    pub(crate) set: PatternSet,
}

impl Regexes {
    pub(crate) fn add(&mut self, source: &Source, pattern: &str, any_case: bool) -> Result<RegexPlace, String> {
        check(pattern)?;
        // One find a text is all that is asked: it takes the rest of the text with it.
        let pattern = format!("(?{}:{pattern})(?s:.*)", if any_case { "i" } else { "" });
        let group = match self.groups.iter().position(|(other, _)| other == source) {
            Some(group) => group,
            None if self.groups.len() >= MAX_GROUPS => {
                return Err(format!(
                    "regular expressions on more than {MAX_GROUPS} columns and attributes"
                ));
            }
            None => {
                self.groups.push((source.clone(), Vec::new()));
                self.groups.len() - 1
            }
        };
        let patterns = &mut self.groups[group].1;
        let place = match patterns.iter().position(|other| *other == pattern) {
            Some(place) => place,
            None => {
                patterns.push(pattern);
                patterns.len() - 1
            }
        };
        Ok(RegexPlace { group, pattern: place })
    }

    pub(crate) fn compile(self) -> Result<Vec<Group>, String> {
        let compile = |(source, patterns): (Source, Vec<String>)| {
            let set =
                PatternSet::new(&patterns).map_err(|what| format!("the regular expressions of `{source}`: {what}"))?;
            Ok(Group {
                source,
                patterns: patterns.len(),
                set,
            })
        };
        self.groups.into_iter().map(compile).collect()
    }
}

/// Whether a pattern can stand in a group of a larger one: its own groups are closed, and it has no comments. Whatever else
/// is wrong with it the host finds.
fn check(pattern: &str) -> Result<(), String> {
    let (mut groups, mut classes) = (0usize, 0usize);
    let mut class_begins = false;
    let mut chars = pattern.char_indices();
    while let Some((at, c)) = chars.next() {
        let begins = std::mem::take(&mut class_begins);
        match c {
            '\\' if chars.next().is_none() => {
                return Err("the regular expression ends with a single backslash".to_owned());
            }
            '\\' => {}
            '^' if begins => class_begins = true,
            '[' => {
                classes += 1;
                class_begins = true;
            }
            // The first one of a class is itself.
            ']' if classes > 0 && !begins => classes -= 1,
            '(' if classes == 0 => {
                groups += 1;
                if flags(&pattern[at + 1..]).contains('x') {
                    return Err("the flag x of regular expressions is not supported".to_owned());
                }
            }
            ')' if classes == 0 => {
                groups = groups
                    .checked_sub(1)
                    .ok_or("a `)` of the regular expression was never opened")?;
            }
            _ => {}
        }
    }
    match (groups, classes) {
        (0, 0) => Ok(()),
        (_, 0) => Err("a `(` of the regular expression is never closed".to_owned()),
        _ => Err("a `[` of the regular expression is never closed".to_owned()),
    }
}

/// The flags that are switched on behind a `(`, if it is that kind of group.
fn flags(group: &str) -> &str {
    let Some(flags) = group.strip_prefix('?') else {
        return "";
    };
    let end = flags.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(flags.len());
    if flags.starts_with(['<', 'P']) {
        ""
    } else {
        &flags[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_would_break_out_of_their_group_are_refused() {
        for (pattern, fine) in [
            ("^/api/(v1|v2)", true),
            (r"[)(]\)[^]\]]", true),
            ("[[:alpha:]]", true),
            ("(?i)a", true),
            ("(?P<x>a)", true),
            ("a)(b", false),
            ("(a", false),
            ("[a", false),
            ("(?x) a # )", false),
            ("(?ix:a)", false),
            ("a\\", false),
        ] {
            assert_eq!(check(pattern).is_ok(), fine, "{pattern}");
        }
    }
}
