//! Rules about what is written in files.

use std::fs;
use std::path::Path;

use super::{files, refuse, root};

const MAX_LINES: usize = 800;

/// Texts that belong to one machine, and not to the product. Put together here, so that this file passes.
fn machine_paths() -> Vec<String> {
    let homes = ["root", "home", "Users", "work"].map(|folder| format!("/{folder}/"));
    let mut texts = homes.to_vec();
    texts.push(format!("{}.dev.local", "internal"));
    texts
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

fn each_rust_file(mut look: impl FnMut(&str, &str)) {
    for path in files().iter().filter(|path| is_rust(path)) {
        let text = fs::read_to_string(root().join(path)).unwrap();
        look(&path.display().to_string(), &text);
    }
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let mut broken = Vec::new();
    each_rust_file(|path, text| {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            broken.push(format!(
                "{path}: {lines} lines, {MAX_LINES} are allowed; split it by subject"
            ));
        }
    });
    refuse("length of files", &broken);
}

#[test]
fn every_source_file_says_first_what_it_is() {
    let mut broken = Vec::new();
    each_rust_file(|path, text| {
        // A file of tests is described by the file that it tests.
        if path.ends_with("/tests.rs") {
            return;
        }
        let first = text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
        if !first.is_some_and(|line| line.starts_with("//! ") && !line.contains("(being written)")) {
            broken.push(path.to_owned());
        }
    });
    refuse("these files do not open with `//!` and what they are", &broken);
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    let words = machine_paths();
    let mut broken = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| mentions(line, word)) {
                broken.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    refuse("paths of a machine", &broken);
}

/// A path begins where no other path goes on: a folder of that name within the checkout is none of a machine.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "./_-}*~$>".contains(c))
    })
}

#[test]
fn unsafe_code_is_only_where_it_gives_its_reason() {
    let mut broken = Vec::new();
    each_rust_file(|path, text| {
        // What runs in the sandbox can harm nobody, and its bindings are generated.
        if path.starts_with("plugins/") {
            return;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let allows = line.contains("unsafe_code") && (line.contains("allow(") || line.contains("expect("));
            let near = &lines[number.saturating_sub(3)..(number + 4).min(lines.len())];
            let reason = |l: &&str| l.contains("reason = ") || l.trim_start().starts_with("//");
            if allows && !near.iter().any(reason) {
                broken.push(format!("{path}: {}", line.trim()));
            }
        }
    });
    refuse("unsafe code", &broken);
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let marks = ["TODO", "FIXME", "XXX"].map(|mark| format!("{mark}{}", ""));
    let mut broken = Vec::new();
    each_rust_file(|path, text| {
        if path.ends_with("rules/sources.rs") {
            return;
        }
        for (number, line) in text.lines().enumerate() {
            if marks
                .iter()
                .any(|mark| line.contains(&format!("// {mark}")) || line.contains(&format!("//{mark}")))
            {
                broken.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    });
    refuse("marks of unfinished work", &broken);
}

/// `#[allow(clippy::unwrap_used)]` is for tests.
#[test]
fn panicking_shortcuts_are_allowed_only_in_tests() {
    let mut broken = Vec::new();
    each_rust_file(|path, text| {
        let test_file = path
            .split('/')
            .any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples" | "fuzz_targets"));
        if test_file {
            return;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if line.contains("allow(clippy::unwrap_used") {
                let near = &lines[number.saturating_sub(2)..(number + 4).min(lines.len())];
                if !near.iter().any(|l| l.contains("mod tests") || l.contains("cfg(test)")) {
                    broken.push(format!("{path}:{}", number + 1));
                }
            }
        }
    });
    refuse("unwrap outside tests", &broken);
}
