//! The wall clock of a process that runs, put forward or back: a small library that is loaded before the program's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const SOURCE: &str = include_str!("clock.c");

/// The clock of one process.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Compiles the library into `folder`.
    pub(super) fn new(folder: &Path, name: &str) -> Result<Clock> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        if !library.exists() {
            fs::write(&source, SOURCE)?;
            let compiled = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
                .args([&library, &source])
                .arg("-ldl")
                .status()
                .context("a C compiler (`cc`) makes the clock that can be set")?;
            ensure!(compiled.success(), "the clock that can be set does not compile");
        }
        let offset = folder.join(format!("{name}.clock"));
        fs::write(&offset, 0i64.to_ne_bytes())?;
        Ok(Clock { library, offset })
    }

    /// What the process needs in its environment.
    pub(super) fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("SLUICE_CHAOS_CLOCK", self.offset.display().to_string()),
        ]
    }

    /// Takes effect at once: the process has the file in its memory, so it is written in place.
    pub(super) fn set(&self, seconds: i64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options().write(true).open(&self.offset)?;
        file.write_all_at(&seconds.to_ne_bytes(), 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn year(clock: &Clock) -> i32 {
        let date = Command::new("date")
            .arg("+%Y")
            .envs(clock.environment())
            .output()
            .unwrap();
        String::from_utf8(date.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_program_sees_the_clock_that_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new(folder.path(), "one").unwrap();
        let before = year(&clock);
        clock.set(10 * 366 * 86_400).unwrap();
        assert_eq!(year(&clock), before + 10);
    }
}
