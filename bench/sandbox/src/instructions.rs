//! Instructions of one batch, counted by valgrind: unlike times they are the same on a busy machine, and many machines that
//! measure are virtual ones without counters in the processor.
//!
//! Each side runs as a program of its own, once with few batches and once with more, and the difference is what the batches took.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sluice_runtime::{COMPILE_COMMAND, Compiler, Host, HostOptions};

/// Batches of the shorter run, every one of the corpus once, and how many more the longer one has.
const FEW: usize = 8;
const MORE: usize = 8;
const ROWS: u64 = 8192;
/// A compiler that is emulated takes a hundred times as long, and its emulator has tables.
const COMPILER_TIME: Duration = Duration::from_secs(3600);
const COMPILER_BYTES: u64 = 256 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Side {
    Wasm,
    Native,
}

/// What a counted program is to do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Counted {
    #[arg(long, hide = true, requires_all = ["side", "batches", "images"])]
    case: Option<String>,
    #[arg(long, hide = true)]
    side: Option<Side>,
    #[arg(long, hide = true)]
    batches: Option<usize>,
    /// Where compiled plugins are kept between the runs.
    #[arg(long, hide = true)]
    images: Option<PathBuf>,
}

impl Counted {
    /// Does it, if this program was started for that.
    pub(crate) fn run(&self, dist: &Path) -> bool {
        let (Some(case), Some(side), Some(batches)) = (&self.case, self.side, self.batches) else {
            return false;
        };
        // Compiled under the same emulator, as that has another processor than the machine.
        let this = std::env::current_exe().unwrap();
        let args = [
            "--tool=none".into(),
            "-q".into(),
            this.into_os_string(),
            COMPILE_COMMAND.into(),
        ];
        let host = Host::new(HostOptions {
            compiler: Compiler {
                memory_bytes: COMPILER_BYTES,
                time: COMPILER_TIME,
                ..Compiler::new("valgrind", args)
            },
            cache: self.images.clone(),
            ..HostOptions::default()
        });
        crate::run(&host.unwrap(), dist, case, side, batches);
        true
    }
}

/// For each case what to say of it.
pub(crate) fn count<'a>(dist: &Path, cases: &[&'a str]) -> BTreeMap<&'a str, String> {
    let images = tempfile::tempdir().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let there = valgrind.status().is_ok_and(|status| status.success());
    let say = |case: &str| {
        if !there {
            return "instructions not counted on this machine: no valgrind".to_owned();
        }
        let per_row = |side: &str| {
            let all = [FEW, FEW + MORE].map(|batches| instructions(dist, images.path(), case, side, batches));
            let [Some(few), Some(more)] = all else { return None };
            Some(more.saturating_sub(few) / MORE as u64 / ROWS)
        };
        match (per_row("wasm"), per_row("native")) {
            (Some(wasm), Some(native)) => {
                let ratio = wasm as f64 / native.max(1) as f64;
                format!("{wasm} instructions a row, {ratio:.2} times native")
            }
            _ => "instructions not counted: the program does not run in valgrind".to_owned(),
        }
    };
    cases.iter().map(|case| (*case, say(case))).collect()
}

fn instructions(dist: &Path, images: &Path, case: &str, side: &str, batches: usize) -> Option<u64> {
    let output = Command::new("valgrind")
        // Copying by one repeated instruction would count once for every byte.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000",
        )
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .arg("--plugins")
        .arg(dist)
        .args([
            "--case",
            case,
            "--side",
            side,
            "--batches",
            &batches.to_string(),
            "--images",
        ])
        .arg(images)
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said.lines().find_map(|line| {
        line.split_once("refs:")
            .map(|(_, number)| number.trim().replace(',', ""))
    });
    if !output.status.success() {
        eprintln!("{case}, {side}: {said}");
        return None;
    }
    total?.parse().ok()
}
