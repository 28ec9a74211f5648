//! Patterns of paths: `*`, `?`, `[a-z]`, `[!a-z]` inside a name, and `**` for any folders.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Folders below a `**`.
const MAX_DEPTH: usize = 32;
/// Names looked at for one pattern: a pattern such as `/**` must not walk a whole machine for ever.
const MAX_VISITED: usize = 262_144;

/// One pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    rooted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(Vec<u8>),
    Wild(Vec<u8>),
    AnyFolders,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let part = |name: &str| match name {
            "**" => Part::AnyFolders,
            _ if name.contains(['*', '?', '[']) => Part::Wild(name.as_bytes().to_vec()),
            _ => Part::Name(name.as_bytes().to_vec()),
        };
        let names = text.split('/').filter(|name| !name.is_empty() && *name != ".");
        Self {
            parts: names.map(part).collect(),
            rooted: text.starts_with('/'),
        }
    }

    /// Whether a path is one of these.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let names: Vec<&[u8]> = path
            .as_os_str()
            .as_bytes()
            .split(|b| *b == b'/')
            .filter(|name| !name.is_empty() && *name != b".")
            .collect();
        path.is_absolute() == self.rooted && parts_match(&self.parts, &names)
    }

    /// Calls `visit` with every path of this pattern that there is. False if there were too many to look at all.
    pub(super) fn walk(&self, visit: &mut impl FnMut(PathBuf)) -> bool {
        let mut walk = Walk { visit, visited: 0 };
        let from = if self.rooted { "/" } else { "." };
        walk.folder(Path::new(from), &self.parts, MAX_DEPTH);
        walk.visited < MAX_VISITED
    }
}

struct Walk<'a, V> {
    visit: &'a mut V,
    visited: usize,
}

impl<V: FnMut(PathBuf)> Walk<'_, V> {
    fn folder(&mut self, folder: &Path, parts: &[Part], depth: usize) {
        let Some((part, rest)) = parts.split_first() else {
            return;
        };
        match part {
            Part::Name(name) => {
                let path = folder.join(std::ffi::OsStr::from_bytes(name));
                self.visited += 1;
                if path.exists() {
                    self.found(path, rest, depth);
                }
            }
            Part::Wild(pattern) => self.each(folder, |walk, path, name, _| {
                if name_matches(pattern, name) {
                    walk.found(path, rest, depth);
                }
            }),
            Part::AnyFolders => {
                self.folder(folder, rest, depth);
                if depth > 0 {
                    self.each(folder, |walk, path, _, is_folder| {
                        if is_folder {
                            walk.folder(&path, parts, depth - 1);
                        }
                    });
                }
            }
        }
    }

    fn found(&mut self, path: PathBuf, rest: &[Part], depth: usize) {
        if rest.is_empty() {
            (self.visit)(path);
        } else {
            self.folder(&path, rest, depth);
        }
    }

    /// Folders that cannot be read, or are none, hold nothing. Links to folders are not followed here: they may form a ring.
    fn each(&mut self, folder: &Path, mut see: impl FnMut(&mut Self, PathBuf, &[u8], bool)) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.visited >= MAX_VISITED {
                return;
            }
            self.visited += 1;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            see(self, entry.path(), entry.file_name().as_bytes(), is_folder);
        }
    }
}

fn parts_match(parts: &[Part], names: &[&[u8]]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((Part::AnyFolders, rest)), _) => {
            parts_match(rest, names) || (!names.is_empty() && parts_match(parts, &names[1..]))
        }
        (Some((Part::Name(wanted), rest)), Some((name, names))) => wanted == name && parts_match(rest, names),
        (Some((Part::Wild(pattern), rest)), Some((name, names))) => {
            name_matches(pattern, name) && parts_match(rest, names)
        }
        _ => false,
    }
}

/// Goes back to the last star only, so a name is matched in its length times that of the pattern.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
        } else if let Some(length) = one(&pattern[p.min(pattern.len())..], name[n]) {
            p += length;
            n += 1;
        } else if let Some((after, from)) = star {
            (p, n) = (after, from + 1);
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Bytes of the pattern that match this byte of a name.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(pattern, byte) {
            Some((length, is_in)) => is_in.then_some(length),
            // A bracket without an end is itself.
            None => (byte == b'[').then_some(1),
        },
        same => (*same == byte).then_some(1),
    }
}

fn set(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let begin = if negated { 2 } else { 1 };
    // A bracket that stands first is one of the set.
    let end = begin + 1 + pattern.get(begin + 1..)?.iter().position(|b| *b == b']')?;
    let mut members = &pattern[begin..end];
    let mut is_in = false;
    while let [first, rest @ ..] = members {
        (is_in, members) = match rest {
            [b'-', last, after @ ..] => (is_in || (*first..=*last).contains(&byte), after),
            _ => (is_in || *first == byte, rest),
        };
    }
    Some((end + 1, is_in != negated))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, path, matches) in [
            ("/var/log/*.log", "/var/log/a.log", true),
            ("/var/log/*.log", "/var/log/a.log.1", false),
            ("/var/log/*.log", "/var/log/x/a.log", false),
            ("/var/**/a?.log", "/var/log/x/a1.log", true),
            ("/var/**/a?.log", "/var/a1.log", true),
            ("/var/**/a?.log", "/var/a.log", false),
            ("/a/[a-c]x[!0-9]", "/a/bxz", true),
            ("/a/[a-c]x[!0-9]", "/a/bx5", false),
            ("/a/[]x]", "/a/]", true),
            ("/a/[", "/a/[", true),
            ("/a/*a*b*", "/a/xxaxxbxx", true),
            ("/a/*a*b*", "/a/xxbxxaxx", false),
            ("/**", "/a/b/c", true),
            ("/a/b", "/a//b", true),
            ("a/b", "/a/b", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(Path::new(path)),
                matches,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn a_walk_finds_what_matches_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "b.txt", "x/a.log", "x/y/a.log", "x/y/b.log"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        // A ring must not be walked round and round.
        std::os::unix::fs::symlink(dir.path(), dir.path().join("x/ring")).unwrap();
        for pattern in ["*.log", "**/*.log", "x/y*/a*", "x/y/b.log", "no/*", "**/y/*"] {
            let pattern = Pattern::new(&format!("{}/{pattern}", dir.path().display()));
            let mut found = Vec::new();
            assert!(pattern.walk(&mut |path| found.push(path)));
            found.sort();
            let mut expected = Vec::new();
            for name in [
                "a.log",
                "b.txt",
                "x/a.log",
                "x/y/a.log",
                "x/y/b.log",
                "x/y",
                "x",
                "x/ring",
            ] {
                expected.extend(Some(dir.path().join(name)).filter(|p| pattern.matches(p)));
            }
            expected.sort();
            assert_eq!(found, expected);
        }
    }

    proptest! {
        /// Against a matcher that tries everything.
        #[test]
        fn stars_match_as_they_should(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn slow(p: &[u8], n: &[u8]) -> bool {
                match (p.split_first(), n.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => slow(rest, n) || (!n.is_empty() && slow(p, &n[1..])),
                    (Some((b'?', rest)), Some((_, n))) => slow(rest, n),
                    (Some((a, rest)), Some((b, n))) => a == b && slow(rest, n),
                    _ => false,
                }
            }
            prop_assert_eq!(name_matches(pattern.as_bytes(), name.as_bytes()), slow(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_pattern_is_harmless(pattern in "[\\[\\]a!*?^-]{0,12}", name in "[a\\[\\]-]{0,8}") {
            let _ = name_matches(pattern.as_bytes(), name.as_bytes());
        }
    }
}
