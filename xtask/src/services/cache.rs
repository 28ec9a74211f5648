//! The folder where engines are kept once they were fetched, and how they are fetched.
//!
//! An engine's folder is named for its version and for everything that determines what is in it, so another version is another folder
//! and nothing is ever replaced under a running engine. A folder without its mark was not finished and is made again.

use std::fs::{self, File, TryLockError};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, process};

use anyhow::{Context, Result, bail};

use super::child::Running;
use super::keeper::TICK;
use super::tools::GO;
use crate::run;

const MARK: &str = ".complete";
/// How often a fetch says that it is still at it, where nobody watches a terminal.
const REPORT_EVERY: Duration = Duration::from_secs(15);
const LOG_TAIL_LINES: usize = 15;

/// What an engine is made from.
#[derive(Debug)]
pub(super) struct Recipe<'a> {
    /// With the version, as in `kafka-4.0.0`.
    pub(super) name: String,
    /// Everything that determines the result.
    pub(super) inputs: &'a [&'a str],
    /// A file that is there when it is whole, in the folder.
    pub(super) proof: &'a str,
}

#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn open() -> Result<Self> {
        let folder = env::var_os("SLUICE_ENGINES_DIR").map_or_else(|| run::target_dir().join("engines"), PathBuf::from);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot use {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The folder of a finished engine.
    pub(super) fn find(&self, recipe: &Recipe<'_>) -> Option<PathBuf> {
        let folder = self.place(recipe);
        (folder.join(MARK).is_file() && folder.join(recipe.proof).exists()).then_some(folder)
    }

    fn place(&self, recipe: &Recipe<'_>) -> PathBuf {
        self.folder
            .join(format!("{}-{:08x}", recipe.name, fingerprint(recipe.inputs)))
    }

    /// The folder of this engine; made by `fetch` if it is not there, by one process at a time.
    pub(super) async fn get(
        &self,
        recipe: &Recipe<'_>,
        fetch: impl AsyncFnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(found) = self.find(recipe) {
            return Ok(found);
        }
        let _lock = self.lock().await?;
        // Whom we waited for may have made it.
        if let Some(found) = self.find(recipe) {
            return Ok(found);
        }
        let folder = self.place(recipe);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot clear the unfinished {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fetch(&folder).await?;
        if !folder.join(recipe.proof).exists() {
            bail!("{} was fetched, but {} is not in it", folder.display(), recipe.proof);
        }
        fs::write(folder.join(MARK), "").context("cannot mark the engine as whole")?;
        Ok(folder)
    }

    async fn lock(&self) -> Result<File> {
        let path = self.folder.join(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            if !said {
                said = true;
                let who = fs::read_to_string(&path).unwrap_or_default();
                eprintln!(
                    "waiting: another `cargo xtask services`{} is fetching into {}",
                    if who.trim().is_empty() {
                        String::new()
                    } else {
                        format!(" (process {})", who.trim())
                    },
                    self.folder.display()
                );
            }
            tokio::time::sleep(TICK).await;
        }
        // For whoever waits for us. If it cannot be written, they only do not learn our number.
        let _ = file.set_len(0).and_then(|()| writeln!(&file, "{}", process::id()));
        Ok(file)
    }

    /// A fresh folder for the data of this run, and the lock that says it is in use. What killed runs left is removed.
    pub(super) fn run_folder(&self) -> Result<(PathBuf, File)> {
        let runs = self.folder.join("run");
        fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;
        let guard = File::create(runs.join(".lock")).context("cannot make the lock of runs")?;
        guard.lock().context("cannot lock the folder of runs")?;
        for entry in fs::read_dir(&runs).context("cannot list runs")?.flatten() {
            let lock = entry.path().join(".lock");
            if entry.path().is_dir() && File::open(&lock).is_ok_and(|file| file.try_lock().is_ok()) {
                // Left for the next run if it cannot be removed now.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = (0..)
            .map(|n| runs.join(format!("{}-{n}", process::id())))
            .find(|path| !path.exists())
            .context("no name for the folder of this run")?;
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = claim(&folder)?;
        Ok((folder, lock))
    }
}

/// Says that this process uses the folder; fails if another one does.
pub(super) fn claim(folder: &Path) -> Result<File> {
    let lock = File::create(folder.join(".lock")).with_context(|| format!("cannot write to {}", folder.display()))?;
    if lock.try_lock().is_err() {
        bail!("{} is in use by another `cargo xtask services`", folder.display());
    }
    Ok(lock)
}

/// Builds the program of a Go module into an engine's folder.
pub(super) async fn go_install(name: &str, what: &str, module: &str, flags: &[&str], folder: &Path) -> Result<()> {
    let mut go = Command::new(GO.find()?);
    go.current_dir(folder)
        .env("GOBIN", folder)
        .env("CGO_ENABLED", "0")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .args(["install", "-v", "-trimpath"])
        .args(flags)
        .arg(module);
    fetch(name, what, &go, &folder.join("fetch.log")).await
}

/// Runs a tool that takes long, with a sign of life, and shows the end of what it said if it fails.
pub(super) async fn fetch(name: &str, what: &str, command: &Command, log: &Path) -> Result<()> {
    let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log")?;
    eprintln!("{name:<10}  {what}");
    let begun = Instant::now();
    let watched = io::stderr().is_terminal();
    let every = if watched { Duration::from_secs(1) } else { REPORT_EVERY };
    let mut next = begun + every;
    let mut running = Running::tool(command, |outer| {
        outer.stdin(Stdio::null()).stdout(output).stderr(errors);
    })?;
    let status = loop {
        if let Some(status) = running.ended() {
            break status;
        }
        if Instant::now() >= next {
            next += every;
            let seconds = begun.elapsed().as_secs();
            let last = tail(log, 1);
            let last: String = last.trim().chars().take(90).collect();
            if watched {
                eprint!("\r\x1b[K{name:<10}  {seconds:>4} s  {last}");
            } else {
                eprintln!("{name:<10}  {seconds:>4} s  {last}");
            }
        }
        tokio::time::sleep(TICK).await;
    };
    if watched {
        eprint!("\r\x1b[K");
    }
    if !status.success() {
        bail!(
            "{name}: `{}` ended with {status}. Its last words (all of them in {}):\n{}",
            run::show(command),
            log.display(),
            tail(log, LOG_TAIL_LINES)
        );
    }
    eprintln!("{name:<10}  done in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// The last lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = &all[all.len().saturating_sub(lines)..];
    shown.iter().map(|line| format!("  {line}\n")).collect()
}

/// FNV-1a: names a folder, and stays the same in every build.
fn fingerprint(parts: &[&str]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
