//! A real `sluice` process as a user starts it: spawn, wait until it is ready, ask it by SQL, kill it.
//!
//! Whoever holds a [`Process`] owns the process; dropping the handle ends it.

mod authority;
mod http;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

pub use authority::ca;
pub use http::{Answer, HttpAnswer, HttpError, Sql, get, http_send};

/// Between two looks at something that has no way to tell that it changed: a file, the end of a process.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Lines of a dead process's log that an error shows.
const LOG_TAIL_LINES: usize = 15;
/// Ticks of `/proc/<pid>/stat` in a second: fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Start {
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub ready_file: PathBuf,
    /// Standard output and error go to the end of this file.
    pub log: PathBuf,
    pub deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start {}; `cargo build -p sluice` makes it", .binary.display())]
    Spawn {
        binary: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{context}")]
    Io {
        context: String,
        #[source]
        source: std::io::Error,
    },
    #[error("ended before it was ready, with {status}; its last lines:\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("not ready within {seconds} s; its last lines:\n{log}")]
    Late { seconds: u64, log: String },
    #[error("the ready file is not what it should be")]
    ReadyFile {
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Debug, Deserialize)]
struct ReadyFile {
    listen: BTreeMap<String, SocketAddr>,
    token_file: Option<PathBuf>,
}

impl Start {
    /// `sluice up` on `data`, every door on a port of its own choosing.
    pub fn up(binary: &Path, data: &Path) -> Start {
        let ready_file = data.with_extension("ready.json");
        let arguments = ["up", "--data"].map(str::to_owned).into_iter();
        Start {
            binary: binary.to_owned(),
            arguments: arguments.chain([data.display().to_string()]).collect(),
            environment: Vec::new(),
            log: data.with_extension("log"),
            ready_file,
            deadline: Duration::from_secs(60),
        }
        .listen("otlp-grpc", "127.0.0.1:0")
        .listen("otlp-http", "127.0.0.1:0")
        .listen("link", "127.0.0.1:0")
        .listen("http", "127.0.0.1:0")
        .listen("pg", "127.0.0.1:0")
    }

    /// `sluice-edge run` on `data`, every door on a port of its own choosing.
    pub fn edge(binary: &Path, data: &Path) -> Start {
        let arguments = ["run", "--data"].map(str::to_owned).into_iter();
        Start {
            binary: binary.to_owned(),
            arguments: arguments.chain([data.display().to_string()]).collect(),
            environment: Vec::new(),
            log: data.with_extension("log"),
            ready_file: data.with_extension("ready.json"),
            deadline: Duration::from_secs(60),
        }
        .listen("otlp-grpc", "127.0.0.1:0")
        .listen("otlp-http", "127.0.0.1:0")
        .listen("http", "127.0.0.1:0")
    }

    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Start {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn config(self, path: &Path) -> Start {
        self.argument("--config").argument(path.display().to_string())
    }

    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Start {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the address of a door.
    #[must_use]
    pub fn listen(mut self, door: &str, address: &str) -> Start {
        let prefix = format!("{door}=");
        let value = format!("{prefix}{address}");
        match self.arguments.iter_mut().find(|a| a.starts_with(&prefix)) {
            Some(existing) => *existing = value,
            None => self.arguments.extend(["--listen".to_owned(), value]),
        }
        self
    }

    /// The same doors at the same addresses as a process that ran before.
    #[must_use]
    pub fn listen_as(mut self, before: &Process) -> Start {
        for (door, address) in &before.listen {
            self = self.listen(door, &address.to_string());
        }
        self
    }

    /// Starts and waits until the ready file is there.
    pub async fn spawn(&self) -> Result<Process, StartError> {
        let started = Instant::now();
        let mut child = self.launch()?;
        loop {
            if let Some(ready) = self.ready_file()? {
                return Ok(Process {
                    child,
                    token: read_token(ready.token_file.as_deref())?,
                    listen: ready.listen,
                    startup: started.elapsed(),
                    log: self.log.clone(),
                });
            }
            if let Some(status) = child.try_wait().map_err(io("cannot wait for the process"))? {
                return Err(StartError::Ended {
                    status,
                    log: tail(&self.log),
                });
            }
            if started.elapsed() > self.deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(StartError::Late {
                    seconds: self.deadline.as_secs(),
                    log: tail(&self.log),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Starts, and waits until it has ended by itself.
    pub async fn run_to_end(&self) -> Result<ExitStatus, StartError> {
        let mut child = self.launch()?;
        match end_within(&mut child, self.deadline).await? {
            Some(status) => Ok(status),
            None => Err(StartError::Late {
                seconds: self.deadline.as_secs(),
                log: tail(&self.log),
            }),
        }
    }

    fn launch(&self) -> Result<Child, StartError> {
        // A ready file of an earlier run would say too early that this one is ready.
        match fs::remove_file(&self.ready_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("cannot remove the old ready file")(error));
            }
            _ => {}
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io("cannot open the log"))?;
        let second = log.try_clone().map_err(io("cannot open the log"))?;
        Command::new(&self.binary)
            .args(&self.arguments)
            .arg("--ready-file")
            .arg(&self.ready_file)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .spawn()
            .map_err(|source| StartError::Spawn {
                binary: self.binary.clone(),
                source,
            })
    }

    fn ready_file(&self) -> Result<Option<ReadyFile>, StartError> {
        match fs::read(&self.ready_file) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StartError::ReadyFile { source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("cannot read the ready file")(error)),
        }
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    token: String,
    listen: BTreeMap<String, SocketAddr>,
    startup: Duration,
    log: PathBuf,
}

impl Process {
    /// The bound address of a door, if it has this door.
    pub fn address(&self, door: &str) -> Option<SocketAddr> {
        self.listen.get(door).copied()
    }

    /// `http://HOST:PORT` of a door.
    pub fn url(&self, door: &str) -> Result<String, HttpError> {
        self.address(door)
            .map(|address| format!("http://{address}"))
            .ok_or_else(|| HttpError::NoDoor(door.to_owned()))
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// From launch to ready.
    pub fn startup(&self) -> Duration {
        self.startup
    }

    /// The last lines that it wrote.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// A client for its SQL door.
    pub fn sql(&self) -> Result<Sql, HttpError> {
        Ok(Sql::new(self.url("http")?, self.token.clone()))
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// SIGTERM; the status with which it ended, or nothing if it went on for longer than `limit`.
    pub async fn terminate(mut self, limit: Duration) -> Result<Option<ExitStatus>, StartError> {
        self.signal(rustix::process::Signal::TERM)
            .map_err(io("cannot signal the process"))?;
        end_within(&mut self.child, limit).await
    }

    /// Waits until the process ends by itself.
    pub async fn ended(&mut self, limit: Duration) -> Result<Option<ExitStatus>, StartError> {
        end_within(&mut self.child, limit).await
    }

    /// Whether it runs still.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: rustix::process::Signal) -> std::io::Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(std::io::ErrorKind::InvalidInput)?;
        rustix::process::kill_process(pid, signal).map_err(Into::into)
    }

    /// Resident memory now and at its peak, in bytes.
    pub fn memory(&self) -> std::io::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
            Some(kib * 1024)
        };
        Ok((field("VmRSS:").unwrap_or(0), field("VmHWM:").unwrap_or(0)))
    }

    /// Processor time so far, user and system, in seconds.
    pub fn cpu_seconds(&self) -> std::io::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces; the fields after it are counted from `state`, the third.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn end_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, StartError> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if let Some(status) = child.try_wait().map_err(io("cannot wait for the process"))? {
            return Ok(Some(status));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(None)
}

fn read_token(path: Option<&Path>) -> Result<String, StartError> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let text = fs::read_to_string(path).map_err(io("cannot read the token file"))?;
    Ok(text.trim().to_owned())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn io(context: &'static str) -> impl Fn(std::io::Error) -> StartError {
    move |source| StartError::Io {
        context: context.to_owned(),
        source,
    }
}
