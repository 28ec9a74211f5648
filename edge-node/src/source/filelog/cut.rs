//! Where events begin and end in the bytes of a file. Pure: the same bytes give the same events, however they come in.

use memchr::memchr;
use regex_automata::meta::Regex;

/// Which lines are one event.
#[derive(Clone, Debug)]
pub(super) enum Grouping {
    Lines,
    /// A line and the indented or empty ones behind it.
    Indented,
    /// Lines until the next one that matches.
    Start(Regex),
}

/// Cuts events off the front of bytes.
#[derive(Clone, Debug)]
pub(super) struct Cutter {
    pub(super) grouping: Grouping,
    /// Of one event.
    pub(super) max_bytes: usize,
}

/// What stands at the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front<'a> {
    Event {
        /// Without the end of its last line.
        text: &'a [u8],
        consumed: usize,
        /// It was too long: what follows is its rest, which is to be skipped.
        is_cut: bool,
    },
    /// The rest of an event that was cut; `ended` if it ends here.
    Rest { consumed: usize, ended: bool },
    /// More bytes are needed to tell.
    Unknown,
}

/// How long the event at the front is, with its line ends.
enum Length {
    Known(usize),
    TooLong,
    Unknown,
}

impl Cutter {
    /// What is not known to be whole is never more than this, so a buffer of it always shows something.
    pub(super) fn max_unknown_bytes(&self) -> usize {
        2 * self.max_bytes + 4
    }

    /// What the bytes begin with. `skipping`: they are the rest of an event that was cut. `all`: nothing more will come, so what is
    /// there is taken.
    pub(super) fn front<'a>(&self, bytes: &'a [u8], skipping: bool, all: bool) -> Front<'a> {
        if bytes.is_empty() {
            return Front::Unknown;
        }
        if skipping {
            return self.rest(bytes, all);
        }
        match self.length(bytes, all) {
            Length::Known(consumed) => Front::Event {
                text: trimmed(&bytes[..consumed]),
                consumed,
                is_cut: false,
            },
            Length::Unknown => Front::Unknown,
            Length::TooLong => {
                let end = character_boundary(bytes, self.max_bytes);
                Front::Event {
                    text: &bytes[..end],
                    consumed: end,
                    is_cut: true,
                }
            }
        }
    }

    fn length(&self, bytes: &[u8], all: bool) -> Length {
        // Where the line at hand begins, which belongs to the event.
        let mut line = 0;
        loop {
            let newline = memchr(b'\n', &bytes[line..]).map(|at| line + at);
            if newline.is_none() && bytes.len() > self.max_bytes + 1 {
                return Length::TooLong;
            }
            let end = newline.unwrap_or(bytes.len());
            let visible = end - usize::from(bytes[line..end].ends_with(b"\r"));
            let next = match newline {
                None if !all => return Length::Unknown,
                _ if visible > self.max_bytes => return Length::TooLong,
                None => return Length::Known(end),
                Some(end) => end + 1,
            };
            match self.begins(&bytes[next..], all) {
                Some(true) => return Length::Known(next),
                Some(false) => line = next,
                None if all => return Length::Known(next),
                None => return Length::Unknown,
            }
        }
    }

    /// Whether an event begins with the line at the front, if that can be told. No more than `max_bytes` of it are looked at.
    fn begins(&self, bytes: &[u8], all: bool) -> Option<bool> {
        match &self.grouping {
            Grouping::Lines => Some(true),
            Grouping::Indented => bytes.first().map(|b| !b" \t\r\n".contains(b)),
            Grouping::Start(pattern) => {
                let seen = &bytes[..bytes.len().min(self.max_bytes)];
                let whole = all || seen.len() == self.max_bytes;
                let end = memchr(b'\n', seen).or(whole.then_some(seen.len()))?;
                (!bytes.is_empty()).then(|| pattern.is_match(trimmed(&seen[..end])))
            }
        }
    }

    /// The end of the last line that belongs to it stays unread until the next line tells whether it does, too.
    fn rest<'a>(&self, bytes: &'a [u8], all: bool) -> Front<'a> {
        let everything = Front::Rest {
            consumed: bytes.len(),
            ended: all && bytes.ends_with(b"\n"),
        };
        let Some(mut end) = memchr(b'\n', bytes) else {
            return everything;
        };
        loop {
            let line = end + 1;
            match self.begins(&bytes[line..], all) {
                Some(true) => {
                    return Front::Rest {
                        consumed: line,
                        ended: true,
                    };
                }
                Some(false) => match memchr(b'\n', &bytes[line..]) {
                    Some(next) => end = line + next,
                    // What is left of the line is skipped when its end is there.
                    None => return everything,
                },
                None if all => return everything,
                None if end == 0 => return Front::Unknown,
                None => {
                    return Front::Rest {
                        consumed: end,
                        ended: false,
                    };
                }
            }
        }
    }
}

/// Without the ends of lines behind it.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |at| at + 1);
    &bytes[..end]
}

/// The last place at or before `at` that is not inside of a character.
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    let inside = |at: usize| bytes.get(at).is_some_and(|b| b & 0xc0 == 0x80);
    (at.saturating_sub(3).max(1)..=at)
        .rev()
        .find(|at| !inside(*at))
        .unwrap_or(at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cutters(max_bytes: usize) -> [Cutter; 3] {
        [
            Grouping::Lines,
            Grouping::Indented,
            Grouping::Start(Regex::new("^[0-9]").unwrap()),
        ]
        .map(|grouping| Cutter { grouping, max_bytes })
    }

    /// The events of bytes that come in such pieces.
    fn events(cutter: &Cutter, pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let (mut have, mut events, mut skipping) = (Vec::new(), Vec::new(), false);
        for (number, piece) in pieces.iter().enumerate() {
            have.extend_from_slice(piece);
            let all = number + 1 == pieces.len();
            loop {
                let consumed = match cutter.front(&have, skipping, all) {
                    Front::Event { text, consumed, is_cut } => {
                        events.push((String::from_utf8_lossy(text).into_owned(), is_cut));
                        skipping = is_cut;
                        consumed
                    }
                    Front::Rest { consumed, ended } => {
                        skipping = !ended;
                        consumed
                    }
                    Front::Unknown => {
                        assert!(have.len() <= cutter.max_unknown_bytes(), "stuck");
                        break;
                    }
                };
                assert!(0 < consumed && consumed <= have.len());
                have.drain(..consumed);
            }
        }
        assert!(have.is_empty(), "left: {have:?}");
        events
    }

    #[test]
    fn lines_are_events_or_parts_of_one() {
        let text = b"1 first\r\n  at x\n\n2 second\nnot indented\n3";
        let whole =
            |cutter: &Cutter| -> Vec<String> { events(cutter, &[text]).into_iter().map(|(text, _)| text).collect() };
        let [lines, indented, start] = cutters(100);
        assert_eq!(
            whole(&lines),
            ["1 first", "  at x", "", "2 second", "not indented", "3"]
        );
        assert_eq!(whole(&indented), ["1 first\r\n  at x", "2 second", "not indented", "3"]);
        assert_eq!(whole(&start), ["1 first\r\n  at x", "2 second\nnot indented", "3"]);
    }

    #[test]
    fn what_is_too_long_is_cut_and_its_rest_skipped() {
        let [lines, indented, start] = cutters(5);
        let cut = |cutter: &Cutter, text: &str| events(cutter, &[text.as_bytes()]);
        let own = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
            list.iter()
                .map(|(text, is_cut)| ((*text).to_owned(), *is_cut))
                .collect()
        };
        assert_eq!(
            cut(&lines, "12345\n1234567\nab\n"),
            own(&[("12345", false), ("12345", true), ("ab", false)])
        );
        assert_eq!(cut(&lines, "1234é\n"), own(&[("1234", true)]));
        assert_eq!(
            cut(&indented, "12\n 45678\n x\nab\n"),
            own(&[("12\n 4", true), ("ab", false)])
        );
        assert_eq!(
            cut(&start, "12\nabcdef\nxyz\n3\n"),
            own(&[("12\nab", true), ("3", false)])
        );
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_bytes_come_in(
            text in proptest::collection::vec(prop::sample::select(&b"1a \n\r\xc3\xa9"[..]), 0..60),
            cuts in proptest::collection::vec(0usize..60, 0..6),
            max_bytes in 4usize..20,
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            at.sort_unstable();
            let mut pieces = Vec::new();
            let mut begin = 0;
            for end in at.into_iter().chain([text.len()]) {
                pieces.push(&text[begin..end]);
                begin = end;
            }
            for cutter in cutters(max_bytes) {
                let whole = events(&cutter, &[&text]);
                prop_assert_eq!(events(&cutter, &pieces), whole.clone(), "{:?}", cutter.grouping);
                prop_assert!(whole.iter().all(|(text, _)| text.chars().count() <= max_bytes));
                // Nothing is lost but what is cut and the ends of lines.
                if whole.iter().all(|(_, is_cut)| !is_cut) {
                    let visible = |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().filter(|b| !b"\r\n".contains(b)).collect() };
                    let joined: String = whole.iter().map(|(text, _)| text.as_str()).collect();
                    prop_assert_eq!(visible(joined.as_bytes()), visible(String::from_utf8_lossy(&text).as_bytes()));
                }
            }
        }
    }
}
