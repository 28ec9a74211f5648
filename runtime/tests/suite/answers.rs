//! Answers of a guest, changed in every way that bytes can be: the host refuses them or takes what they say within what the plugin
//! may; it never panics, never makes up a row, and never takes more memory than one answer may cost.
//!
//! The answers come from a real guest that repeats what it is told. `SLUICE_ANSWERS` is how many are tried (2,000 by default),
//! `SLUICE_ANSWERS_SEED` which ones.

mod mutation;

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sluice_runtime::{Chain, Limits, OnFault, Plugin};
use sluice_wire::layout::{self, IpcLimits};

use self::mutation::{Answer, mutation, rest, valid_answers};
use crate::common::*;

const CASES: u64 = 2_000;
/// What a process may allocate that tries answers: far above what compiling and running the guest takes, and far below what a
/// length that was believed would.
const PROCESS_KIB: u64 = 1_500_000;
/// What trying them may add to the memory that is in use: an answer of a batch this small may have 64 KiB.
const GROWTH_KIB: u64 = 48 * 1024;
/// Set for the process that tries them.
const AT_WORK: &str = "SLUICE_ANSWERS_AT_WORK";
const ROWS: usize = 9;

/// In a process of its own, because what an allocation that is far too large does is to end the process.
#[test]
fn p10_no_answer_of_a_guest_makes_the_host_panic_grow_or_make_up_rows() {
    if env::var_os(AT_WORK).is_some() {
        return try_answers();
    }
    let limited = format!("ulimit -d {PROCESS_KIB} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "answers::p10_no_answer_of_a_guest_makes_the_host_panic_grow_or_make_up_rows",
            "--nocapture",
        ])
        .env(AT_WORK, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    assert!(out.contains("answers tried") && out.contains("1 passed"), "{out}");
    println!(
        "{}",
        out.lines()
            .find(|line| line.contains("answers tried"))
            .unwrap_or_default()
    );
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn try_answers() {
    let seed = number("SLUICE_ANSWERS_SEED", 1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let valid = valid_answers();
    let plugin = faulty("replay", OnFault::Bypass);
    let chain = chain([plugin.clone()]);
    let mut tally = Tally::default();

    // What is not changed is taken; a mutation of what is never taken would prove nothing.
    for answer in &valid {
        let (_, fault) = run(&chain, &plugin, answer, "unchanged");
        assert_eq!(fault, None, "{answer:?}");
    }
    let before = memory_kib("VmRSS:");
    let cases = (any::<Index>(), prop::collection::vec(mutation(), 1..4));
    for case in 0..number("SLUICE_ANSWERS", CASES) {
        let (which, mutations) = cases.new_tree(&mut runner).unwrap().current();
        let mut answer = valid[which.index(valid.len())].clone();
        for mutation in &mutations {
            mutation.apply(&mut answer, &valid);
        }
        let what = format!(
            "seed {seed}, case {case}: {mutations:?} of answer {}",
            which.index(valid.len())
        );
        let (rows, fault) = run(&chain, &plugin, &answer, &what);
        tally.count(rows, fault.as_deref(), &what);
        // After five faults in a row nothing would be handed over for a while.
        if fault.is_some() {
            assert_eq!(
                run(&chain, &plugin, &valid[0], &what).1,
                None,
                "the host is well after {what}"
            );
        }
    }
    let stats = plugin.stats();
    assert!(stats.memory_bytes <= Limits::default().memory_bytes as u64, "{stats:?}");
    let grown = memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown <= GROWTH_KIB, "memory grew by {grown} KiB");
    println!(
        "{} answers tried, {} taken, memory grew by {grown} KiB at most, refused: {:?}",
        tally.tried, tally.taken, tally.faults
    );
    assert!(tally.panics.is_empty(), "{:#?}", tally.panics);
    // Many of them go deep: into the decoder of Arrow, and into the checks behind it.
    for (what, least) in [
        ("columns", tally.tried / 20),
        ("column `", 1),
        ("selection", 1),
        ("counts", 1),
        ("weight", 1),
    ] {
        let found: u64 = tally
            .faults
            .iter()
            .filter(|(fault, _)| fault.contains(what))
            .map(|(_, count)| count)
            .sum();
        assert!(found >= least, "{found} faults speak of {what}: {:?}", tally.faults);
    }
    assert!(
        tally.taken >= tally.tried / 20,
        "{} of {} taken",
        tally.taken,
        tally.tried
    );
}

/// What became of the answers.
#[derive(Default)]
struct Tally {
    tried: u64,
    taken: u64,
    /// Those that made something panic: it was contained, and is a fault of ours all the same.
    panics: Vec<String>,
    faults: BTreeMap<String, u64>,
}

impl Tally {
    fn count(&mut self, rows: usize, fault: Option<&str>, what: &str) {
        assert!(rows <= ROWS);
        self.tried += 1;
        match fault {
            None => self.taken += 1,
            Some(fault) => {
                if fault.contains("cannot be decoded") || fault.contains("cannot be handled") {
                    self.panics.push(format!("{what}: {fault}"));
                }
                // The beginning, without the numbers, tells one kind from the other.
                let kind = fault.split(": ").take(3).collect::<Vec<_>>().join(": ");
                let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
                *self.faults.entry(kind).or_default() += 1;
            }
        }
    }
}

/// Memory of this process, by its line in the kernel's account of it.
fn memory_kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    found.split_whitespace().next().unwrap().parse().unwrap()
}

/// Hands the answer to the guest, which gives it back, and checks what the host made of it. Returns the rows that are left and the
/// fault, if it was one.
fn run(chain: &Chain, plugin: &Arc<Plugin>, answer: &Answer, what: &str) -> (usize, Option<String>) {
    let given = given(answer);
    let faults = plugin.stats().faults;
    let outcome = chain.run(given.clone(), CALL).unwrap_or_else(|e| panic!("{what}: {e}"));
    let stats = plugin.stats();
    if stats.faults > faults {
        let fault = stats.last_fault.unwrap_or_default();
        assert_eq!(outcome.batch, given, "{what}: a fault leaves the batch as it was");
        assert_eq!((outcome.dropped.len(), outcome.quarantined), (0, 0), "{what}");
        return (given.num_rows(), Some(fault));
    }
    let batch = &outcome.batch;
    let dropped: u64 = outcome.dropped.iter().map(|dropped| dropped.rows).sum();
    assert_eq!(
        batch.num_rows() as u64 + dropped,
        ROWS as u64,
        "{what}: every row is there or counted"
    );
    assert!(outcome.quarantined <= batch.num_rows() as u64, "{what}");
    // `time` may not be written, so it says which rows these are.
    let rows = times(batch);
    assert!(
        rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|row| (0..ROWS as i64).contains(row)),
        "{what}: {rows:?}"
    );
    layout::validate(batch, &IpcLimits::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        column
            .to_data()
            .validate_full()
            .unwrap_or_else(|e| panic!("{what}: {}: {e}", field.name()));
        let name = field.name().as_str();
        let written = ["body", "severity", "weight", "buckets", "scope:*"].contains(&name) || name.contains(":added");
        let hosts = name.starts_with("quarantine");
        match given.column_by_name(name) {
            // What it may not write is as it was, in the rows that are left.
            Some(before) if !written => {
                let left: Int64Array = rows.iter().copied().collect();
                let before = arrow_select::take::take(before, &left, None).unwrap();
                assert_eq!(texts_of(&before), texts_of(column), "{what}: `{name}` was changed");
            }
            Some(_) => {}
            None => assert!(written || hosts, "{what}: `{name}` came from nowhere"),
        }
    }
    (batch.num_rows(), None)
}

fn texts_of(column: &ArrayRef) -> Vec<Option<String>> {
    let plain = arrow_cast::cast(column, &arrow_schema::DataType::Utf8).unwrap();
    let plain = arrow_array::cast::AsArray::as_string::<i32>(&plain);
    plain.iter().map(|text| text.map(str::to_owned)).collect()
}

/// The batch whose first body tells the guest what to answer.
fn given(answer: &Answer) -> RecordBatch {
    let said = answer.said();
    let mut bodies = vec!["a body"; ROWS];
    bodies[0] = &said;
    let untouched = Arc::new(StringArray::from(vec!["as it was"; ROWS]));
    let batch = with(&logs(&bodies), "attrs:s:untouched", untouched);
    with(&batch, "scope:*", rest("as it was"))
}
