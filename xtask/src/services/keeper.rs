//! Processes that do not outlive the one that started them, whatever ends it.
//!
//! This program starts itself between us and what we run, in one of two ways:
//!
//! * as a **leash**, for a program without children: it asks the kernel to be killed with its parent, then becomes the program.
//! * as a **keeper**, for a program with children of its own (a build tool, a developer's command): it adopts whatever they leave
//!   behind, and ends all of it when the program ends or when we do, even by SIGKILL.
//!
//! Where the kernel has no such request (anything but Linux), the leash is a keeper too, and keepers look every second for their parent.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// How long what runs in a keeper may take to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often the state of a child is looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who started this; it is over when somebody else is the parent.
    #[arg(long)]
    parent: i32,
    /// A program without children: become it.
    #[arg(long)]
    leash: bool,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The command as it is to be spawned, so that it dies with us. Environment and folders are those of `command`.
pub(super) fn leashed(command: &Command) -> Result<Command> {
    wrapped(command, true)
}

/// The same for a command that starts others.
pub(super) fn kept(command: &Command) -> Result<Command> {
    wrapped(command, false)
}

fn wrapped(command: &Command, leash: bool) -> Result<Command> {
    let mut outer = Command::new(env::current_exe().context("cannot find this program")?);
    outer.args(["services-keeper", "--parent", &process::id().to_string()]);
    if leash {
        outer.arg("--leash");
    }
    outer.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
    Ok(outer)
}

/// What `services-keeper` does.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (program, words) = arguments.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(words);
    if arguments.leash && cfg!(target_os = "linux") {
        die_with_parent(Signal::KILL)?;
        still_wanted(arguments.parent)?;
        let error = command.exec();
        return Err(error).with_context(|| format!("cannot run `{}`", program.to_string_lossy()));
    }
    die_with_parent(Signal::TERM)?;
    adopt_orphans()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(keep(arguments, &command))
}

async fn keep(arguments: &Arguments, command: &Command) -> Result<ExitCode> {
    let mut term = signal(SignalKind::terminate()).context("no signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("no signals")?;
    // A terminal sends this one to the command as well, which decides by itself what it means.
    let _interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    still_wanted(arguments.parent)?;
    let mut child = if cfg!(target_os = "linux") {
        // Should somebody kill the keeper itself, at least its child goes with it.
        leashed(command)?.spawn()
    } else {
        Command::new(command.get_program()).args(command.get_args()).spawn()
    }
    .with_context(|| format!("cannot run `{}`", command.get_program().to_string_lossy()))?;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for the command")? {
            break Some(status);
        }
        tokio::select! {
            _ = term.recv() => break None,
            _ = hangup.recv() => break None,
            () = tokio::time::sleep(TICK) => if still_wanted(arguments.parent).is_err() { break None },
        }
    };
    end_descendants(&mut child);
    Ok(ExitCode::from(status.map_or(128 + 15, |status| code(&status))))
}

/// The code that a shell would show.
pub(super) fn code(status: &ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn still_wanted(parent: i32) -> Result<()> {
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent) {
        bail!("who started this is gone");
    }
    Ok(())
}

/// SIGTERM for all that descends from this process, SIGKILL for what is still there after `GRACE`.
fn end_descendants(child: &mut Child) {
    let begun = Instant::now();
    let mut told = HashMap::new();
    loop {
        // Takes what has ended from the process table.
        let running = matches!(child.try_wait(), Ok(None));
        let mut left = descendants(getpid());
        if let Ok(id) = i32::try_from(child.id())
            && let Some(id) = Pid::from_raw(id)
            && running
            && !left.contains(&id)
        {
            left.push(id);
        }
        if left.is_empty() {
            return;
        }
        let late = begun.elapsed() > GRACE;
        for id in left {
            let signal = if late { Signal::KILL } else { Signal::TERM };
            if told.insert(id.as_raw_nonzero(), signal) != Some(signal) {
                // It may have ended by itself in between; then there is nothing left to do.
                let _ = kill_process(id, signal);
            }
        }
        if begun.elapsed() > 2 * GRACE {
            return; // not even SIGKILL helps: it waits for a device
        }
        thread::sleep(TICK);
    }
}

/// All living processes below this one, from the kernel's table. Elsewhere than on Linux nobody knows them.
fn descendants(of: Pid) -> Vec<Pid> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // `pid (name) state parent …`, where the name may hold anything, parentheses too.
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let mut fields = text.rsplit(')').next().unwrap_or("").split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|p| p.parse::<i32>().ok()));
        if let (Some(state), Some(parent)) = (state, parent)
            && !matches!(state, "Z" | "X")
        {
            parents.insert(id, parent);
        }
    }
    let root = i32::from(of.as_raw_nonzero());
    let below = |id: i32| {
        let mut at = id;
        // A table read while it changes may hold a circle; no real chain is that long.
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(&parent) if parent == root => return true,
                Some(&parent) => at = parent,
                None => return false,
            }
        }
        false
    };
    let found = parents.keys().copied().filter(|&id| id != root && below(id));
    found.filter_map(Pid::from_raw).collect()
}

#[cfg(target_os = "linux")]
fn die_with_parent(signal: Signal) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal)).context("cannot ask to end with the parent")
}

#[cfg(target_os = "linux")]
fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(getpid())).context("cannot adopt what a command leaves behind")
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: Signal) -> Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() -> Result<()> {
    Ok(())
}
