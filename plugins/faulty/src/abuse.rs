//! What a guest can try with the host's capabilities. Each attempt answers what the host said to it, as an attribute.

use sluice_plugin::bindings::sluice::plugin::match_::{self, Pattern, Syntax};
use sluice_plugin::bindings::sluice::plugin::state::{self, Entry, Problem};
use sluice_plugin::bindings::sluice::plugin::{clock, lookup, random};

/// The answer of the host to this attempt; `None` for what is no attempt.
pub(crate) fn attempt(mode: &str) -> Option<String> {
    Some(match mode {
        "clock" => clock::now().to_string(),
        "empty_key" => said(state::put(&[entry(0, 1)], None).map_err(problem)),
        "giant_key" => said(state::put(&[entry(100_000, 1)], None).map_err(problem)),
        "giant_value" => said(state::put(&[entry(1, 70_000)], None).map_err(problem)),
        "giant_request" => said(state::put(&[entry(1, 3 << 20)], None).map_err(problem)),
        "state_full" => fill_state(),
        "state_read_bomb" => read_bomb(),
        "random_bomb" => random::bytes(u32::MAX).len().to_string(),
        "many_patterns" => said(match_::compile(&vec![pattern(Syntax::Literal, "x"); 1000])),
        "impossible_patterns" => raw::compile_with_length(1 << 31),
        "exponential_regex" => said(match_::compile(&[pattern(
            Syntax::Regex,
            "(((a{100}){100}){100}){100}",
        )])),
        "look_around" => said(match_::compile(&[pattern(Syntax::Regex, "(?=a)")])),
        "unknown_set" => hits(match_::find(99, &[0, 1], b"x")),
        "negative_offsets" => hits(match_::find(set("x"), &[0, -1, 1], b"x")),
        "falling_offsets" => hits(match_::find(set("x"), &[0, 3, 1], b"xxx")),
        "offsets_beyond" => hits(match_::find(set("x"), &[0, i32::MAX], b"x")),
        "no_offsets" => hits(match_::find(set("x"), &[], b"x")),
        "cut_character" => hits(match_::find(set("x"), &[0, 1, 2], "ä".as_bytes())),
        "undeclared_column" => hits(match_::find_in_column(set("x"), "time")),
        "number_column" => hits(match_::find_in_column(set("x"), "severity")),
        "declared_column" => hits(match_::find_in_column(set("secret"), "body")),
        "unknown_table" => said(lookup::find("passwd", &["root".to_owned()], &["x".to_owned()])),
        "endless_match" => endless_match(),
        _ => return None,
    })
}

fn said<T: std::fmt::Debug>(result: Result<T, String>) -> String {
    match result {
        Ok(value) => format!("allowed: {value:?}"),
        Err(what) => format!("refused: {what}"),
    }
}

fn hits(found: Result<Vec<match_::Hit>, String>) -> String {
    said(found.map(|found| found.len()))
}

fn problem(problem: Problem) -> String {
    match problem {
        Problem::Full => "full".to_owned(),
        Problem::Invalid(what) => what,
    }
}

fn entry(key: usize, value: usize) -> Entry {
    Entry {
        key: vec![b'k'; key],
        value: vec![b'v'; value],
    }
}

fn pattern(syntax: Syntax, text: &str) -> Pattern {
    Pattern {
        syntax,
        text: text.to_owned(),
    }
}

/// An instance has a number of sets, so attempts share this one; a failure shows in what follows.
fn set(text: &str) -> u32 {
    match_::compile(&[pattern(Syntax::Literal, text)]).unwrap_or(u32::MAX)
}

fn fill_state() -> String {
    for number in 0..1000u32 {
        let entry = Entry {
            key: number.to_le_bytes().to_vec(),
            value: vec![0; 60_000],
        };
        if let Err(error) = state::put(&[entry], None) {
            return format!("refused after {number}: {}", problem(error));
        }
    }
    "allowed".to_owned()
}

/// A small request for an answer of a gigabyte.
fn read_bomb() -> String {
    let key = b"k".to_vec();
    let entry = Entry {
        key: key.clone(),
        value: vec![0; 60_000],
    };
    if let Err(error) = state::put(&[entry], None) {
        return problem(error);
    }
    state::get(&vec![key; 5000]).len().to_string()
}

/// Work for the host that costs the guest next to nothing.
fn endless_match() -> String {
    let patterns: Vec<Pattern> = (0..200)
        .map(|number| pattern(Syntax::Regex, &format!(r"(?i)[a-z]+[0-9]{{1,{}}}q\b", number % 20 + 1)))
        .collect();
    let set = match_::compile(&patterns).unwrap_or(u32::MAX);
    let text = "abc1".repeat(25_000);
    let offsets = [0, text.len() as i32];
    loop {
        drop(match_::find(set, &offsets, text.as_bytes()));
    }
}

/// Calls that no bindings would make.
mod raw {
    #![allow(unsafe_code)]

    #[cfg(target_arch = "wasm32")]
    #[link(wasm_import_module = "sluice:plugin/match@1.0.0")]
    unsafe extern "C" {
        #[link_name = "compile"]
        fn compile(patterns: *const u8, length: usize, answer: *mut u8);
    }

    /// Claims to have so many patterns.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn compile_with_length(length: usize) -> String {
        let mut answer = [0u64; 4];
        // Safety: the host reads outside of the memory or not at all; that is what is tried.
        unsafe { compile(8 as *const u8, length, answer.as_mut_ptr().cast()) };
        "allowed".to_owned()
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn compile_with_length(_: usize) -> String {
        String::new()
    }
}
