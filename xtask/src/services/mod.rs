//! `cargo xtask services`: real engines for tests, on a machine without containers.
//!
//! Fetches each engine once into a cache folder, starts what the environment does not give already, waits until it answers, says where,
//! and stops all of it with whoever asked for it: at the end of a command, at a signal, or when this process is killed.

mod addresses;
mod cache;
mod check;
mod child;
mod clickhouse;
mod control;
mod engine;
mod kafka;
pub(crate) mod keeper;
#[path = "../../../bench/src/ports.rs"]
#[allow(unreachable_pub)]
mod ports;
mod probe;
mod registry;
mod s3;
mod tools;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::task::JoinSet;

use addresses::{ReadyFile, Variables};
use cache::Cache;
use child::Running;
use control::Control;
use engine::{Engine, Started};
use keeper::TICK;

/// Lines of an engine's log that are shown when it ends by itself.
const LOG_TAIL_LINES: usize = 20;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask services                              all of them, until Ctrl-C
  cargo xtask services kafka s3 -- cargo test log   two of them, for one command, with its exit code
  cargo xtask services --check                      fetch, start, try and stop all: is this machine fit for the tests?
  cargo xtask services > engines.env                then, in another shell: set -a; . ./engines.env; set +a

An engine whose address is in the environment (SLUICE_TEST_KAFKA_BROKERS, SLUICE_TEST_CLICKHOUSE_URL, SLUICE_TEST_S3_ENDPOINT,
SLUICE_TEST_REGISTRY) is used and not started. Engines are kept in $SLUICE_ENGINES_DIR, or else in `engines` of cargo's target folder.

SLUICE_TEST_ENGINES is a door through which a test puts an engine down and starts it again: POST /kafka/kill, /kafka/stop, /kafka/start,
/kafka/expect if it will end by itself; GET /kafka says whether it answers.")]
pub(crate) struct Arguments {
    /// Which engines; all of them if none is named.
    engines: Vec<Engine>,
    /// Make a real round trip on each, say how it went, and stop.
    #[arg(long)]
    check: bool,
    /// Keep the engines' data in this folder, and use what is in it. Without it, data are fresh and go at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Write the addresses to this file, as JSON, when all engines answer. It goes when they do.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Run this command with the addresses in its environment, then stop. Whatever it leaves running is ended, too.
    #[arg(last = true, value_name = "CMD", conflicts_with = "check")]
    command: Vec<OsString>,
}

/// Runs a command beside the engines of a fleet.
pub(crate) fn beside(command: Vec<OsString>) -> Result<ExitCode> {
    run(&Arguments {
        engines: vec![Engine::Kafka, Engine::ClickHouse, Engine::S3],
        check: false,
        data: None,
        ready_file: None,
        command,
    })
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    // On this thread alone: what is on a leash ends with the thread that started it.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?
        .block_on(services(arguments))
}

async fn services(arguments: &Arguments) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let engines = chosen(&arguments.engines);
    let cache = Cache::open()?;
    let (given, own): (Vec<Engine>, Vec<Engine>) = engines.iter().partition(|engine| engine.given().is_some());
    let fetched = if arguments.check { &engines } else { &own };
    engine::need_tools(fetched, arguments.check, &cache)?;

    if let Some(path) = &arguments.ready_file {
        // One that a killed run left would be taken for ours.
        let _ = fs::remove_file(path);
    }
    let mut folder = Folder::open(arguments.data.as_deref(), &cache)?;
    let prepared = tokio::select! {
        signal = signals.next() => return Ok(stopped(signal)),
        prepared = prepare(&own, arguments.check.then_some(&engines[..]), &cache, &folder) => prepared,
    };
    let (started, clients) = prepared.inspect_err(|_| folder.spare())?;
    let mut up = Up {
        started,
        control: Control::bind().await?,
    };
    let mut variables = up.variables(&engines);
    if !up.started.is_empty() {
        variables.push((control::VARIABLE, up.control.url()));
    }
    for engine in &given {
        let address = variables
            .iter()
            .find(|(name, _)| engine.variables().first() == Some(name));
        let address = address.map_or("", |(_, value)| value);
        eprintln!("{:<10}  given by the environment: {address}", engine.name());
    }
    for one in &up.started {
        let (engine, address, seconds) = (one.engine.name(), one.launch.address, one.seconds);
        let (id, log) = (one.running.id(), one.log.display());
        eprintln!("{engine:<10}  answers on {address} after {seconds:.1} s (process {id}, log {log})");
    }
    let ready = arguments.ready_file.as_deref();
    let ready = ready.map(|path| ReadyFile::write(path, &variables, &up.started, &given));
    let _ready = ready.transpose()?;

    let result = if let Some(clients) = clients {
        tokio::select! {
            signal = signals.next() => Ok(stopped(signal)),
            code = check_all(&clients, &engines, &variables, &folder) => code,
        }
    } else if arguments.command.is_empty() {
        serve(&mut up, &variables, &mut signals).await
    } else {
        run_command(&arguments.command, &variables, &mut up, &mut signals).await
    };
    if result.is_err() {
        folder.spare();
    }
    up.stop();
    result
}

/// Each once, in their own order.
fn chosen(named: &[Engine]) -> Vec<Engine> {
    if named.is_empty() {
        return Engine::ALL.to_vec();
    }
    Engine::ALL
        .into_iter()
        .filter(|engine| named.contains(engine))
        .collect()
}

/// Fetches one after the other, because each uses all cores, then starts all at once.
async fn prepare(
    own: &[Engine],
    checked: Option<&[Engine]>,
    cache: &Cache,
    folder: &Folder,
) -> Result<(Vec<Started>, Option<check::Clients>)> {
    let mut installed = Vec::new();
    for engine in own {
        installed.push((*engine, engine.installed(cache).await?));
    }
    let clients = match checked {
        Some(engines) => Some(check::clients(engines, cache).await?),
        None => None,
    };
    let mut starting = JoinSet::new();
    for (engine, place) in installed {
        let data = folder.path.join(engine.name());
        let keep = folder.kept;
        starting.spawn(async move { engine::start(engine, &place, &data, keep).await });
    }
    let mut started = Vec::new();
    while let Some(one) = starting.join_next().await {
        started.push(one.context("starting was cut short")??);
    }
    started.sort_by_key(|one| one.engine);
    Ok((started, clients))
}

/// Prints where the engines are, and waits for the end.
async fn serve(up: &mut Up, variables: &Variables, signals: &mut Signals) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    // Nobody has to read it: then the ready file or the log above will do.
    let _ = out
        .write_all(addresses::lines(variables).as_bytes())
        .and_then(|()| out.flush());
    eprintln!("ready; Ctrl-C stops");
    loop {
        tokio::select! {
            signal = signals.next() => {
                eprintln!("{}: stopping", name(signal));
                return Ok(ExitCode::SUCCESS);
            }
            Some(stream) = up.control.next() => control::serve(stream, up).await,
            () = tokio::time::sleep(TICK) => {}
        }
        if let Some(words) = up.lost().pop() {
            bail!("{words}");
        }
    }
}

/// Runs the command to its end; the exit code is its own.
async fn run_command(
    words: &[OsString],
    variables: &Variables,
    up: &mut Up,
    signals: &mut Signals,
) -> Result<ExitCode> {
    let (program, rest) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let mut running = Running::tool(&command, |_| {})?;
    loop {
        tokio::select! {
            signal = signals.next() => {
                // A terminal has sent it to the command as well, which decides by itself what it means.
                if !(signal == Signal::INT && io::stdin().is_terminal()) {
                    eprintln!("{}: stopping", name(signal));
                    running.stop();
                    return Ok(stopped(signal));
                }
            }
            Some(stream) = up.control.next() => control::serve(stream, up).await,
            () = tokio::time::sleep(TICK) => {}
        }
        // Tests may kill an engine on purpose; they know best what follows from it.
        for words in up.lost() {
            eprintln!("note: {words}");
        }
        if let Some(status) = running.ended() {
            return Ok(ExitCode::from(keeper::code(&status)));
        }
    }
}

async fn check_all(
    clients: &check::Clients,
    engines: &[Engine],
    variables: &Variables,
    folder: &Folder,
) -> Result<ExitCode> {
    let mut failed = 0;
    for engine in engines {
        let own: Variables = variables
            .iter()
            .filter(|(name, _)| engine.variables().contains(name))
            .cloned()
            .collect();
        match clients.check(*engine, &own, &folder.path.join("check")).await {
            Ok(shown) => println!("{:<10}  ok      {shown}", engine.name()),
            Err(error) => {
                failed += 1;
                println!("{:<10}  FAILED  {error:#}", engine.name());
            }
        }
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The engines that answer. Dropping it stops them.
#[derive(Debug)]
struct Up {
    started: Vec<Started>,
    control: Control,
}

impl Up {
    /// Of these engines, started or given.
    fn variables(&self, engines: &[Engine]) -> Variables {
        let of = |engine: &Engine| {
            let started = self.started.iter().find(|one| one.engine == *engine);
            started.map_or_else(
                || engine.given().unwrap_or_default(),
                |one| one.launch.variables.clone(),
            )
        };
        engines.iter().flat_map(of).collect()
    }

    /// What to say of engines that ended by themselves; each is mentioned once, and can be started again.
    fn lost(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        for one in self.started.iter_mut().filter(|one| !one.is_put_down) {
            let Some(status) = one.running.ended() else { continue };
            one.is_put_down = true;
            words.push(format!(
                "{} ended with {status}. Its last words (all of them in {}):\n{}",
                one.engine.name(),
                one.log.display(),
                cache::tail(&one.log, LOG_TAIL_LINES)
            ));
        }
        words
    }

    /// All at once, so that the slowest is all one waits for.
    fn stop(mut self) {
        for one in &mut self.started {
            one.running.farewell();
        }
    }
}

/// Where the engines of this run keep their data and logs.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    kept: bool,
    _lock: File,
}

impl Folder {
    fn open(data: Option<&std::path::Path>, cache: &Cache) -> Result<Self> {
        let Some(path) = data else {
            let (path, lock) = cache.run_folder()?;
            return Ok(Self {
                path,
                kept: false,
                _lock: lock,
            });
        };
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot use {}", path.display()))?;
        let lock = cache::claim(&path)?;
        Ok(Self {
            path,
            kept: true,
            _lock: lock,
        })
    }

    /// Something failed: its logs stay until the next run tidies up.
    fn spare(&mut self) {
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // What stays behind goes at the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What asks this program to end.
#[derive(Debug)]
struct Signals {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).map_err(|error| anyhow!(error).context("cannot hear signals"));
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "interrupted",
        Signal::TERM => "asked to end",
        _ => "the terminal is gone",
    }
}

/// Ended by a signal before the work was done: as a shell would show it.
fn stopped(signal: Signal) -> ExitCode {
    eprintln!("{}: stopped", name(signal));
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))
}
