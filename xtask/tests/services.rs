//! `cargo xtask services` as a developer meets it: what it starts, what it says, and that nothing outlives it. The engine is a stand-in,
//! built by a stand-in for Go, so that neither a network nor minutes are needed; the real engines are tried by `--check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long a condition may take to come true before the test gives up; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);
const GIVEN: [(&str, &str); 4] = [
    ("SLUICE_TEST_KAFKA_BROKERS", "127.0.0.1:1,127.0.0.1:2"),
    ("SLUICE_TEST_CLICKHOUSE_URL", "http://127.0.0.1:3"),
    ("SLUICE_TEST_S3_ENDPOINT", "http://127.0.0.1:4"),
    ("SLUICE_TEST_REGISTRY", "127.0.0.1:5"),
];

/// Counts its builds, waits while `hold` is there, fails where `broken` is; the server that it builds answers all requests with 200.
const GO: &str = r#"#!/bin/sh
if [ "$1" = version ]; then echo "go version go1.99.0 test/test"; exit 0; fi
echo build >> "$PLACE/builds"
while [ -e "$PLACE/hold" ]; do sleep 0.05; done
cp "$PLACE/server" "$GOBIN/minio"
if [ -e "$PLACE/broken" ]; then echo "the proxy is not reachable" >&2; exit 1; fi
"#;
const SERVER: &str = r#"#!/bin/sh
exec python3 -c '
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
host, port = sys.argv[sys.argv.index("--address") + 1].split(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
' "$@"
"#;

/// A cache of its own, with the stand-ins before everything else in the path.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let place = Self { folder };
        fs::create_dir(place.path("bin"))?;
        for (name, text) in [("bin/go", GO), ("server", SERVER)] {
            fs::write(place.path(name), text)?;
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn services(&self, words: &[&str]) -> Result<Command> {
        let old = env::var_os("PATH").context("no PATH")?;
        let path = env::join_paths([self.path("bin")].into_iter().chain(env::split_paths(&old)))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .arg("services")
            .args(words)
            .env("PATH", path)
            .env("PLACE", self.folder.path())
            .env("SLUICE_ENGINES_DIR", self.path("engines"))
            .stdin(Stdio::null());
        for (name, _) in GIVEN {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// Started in the background, ready, and what the ready file says.
    fn ready(&self, words: &[&str]) -> Result<(Child, Value)> {
        let file = self.path("ready.json");
        let mut all = vec!["s3", "--ready-file", file.to_str().context("path")?];
        all.extend(words);
        let log = fs::File::create(self.path("stderr"))?;
        let mut child = self.services(&all)?.stdout(Stdio::null()).stderr(log).spawn()?;
        until("the ready file", || {
            if let Some(status) = child.try_wait()? {
                bail!("ended with {status}: {}", self.said()?);
            }
            Ok(file.exists())
        })?;
        Ok((child, serde_json::from_str(&fs::read_to_string(file)?)?))
    }

    fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.path("stderr"))?)
    }

    fn builds(&self) -> usize {
        fs::read_to_string(self.path("builds")).map_or(0, |text| text.lines().count())
    }
}

fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !condition()? {
        if begun.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn lives(id: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    // What has ended and was not fetched by its parent yet is not alive.
    state.is_some_and(|state| state != "Z" && state != "X")
}

fn engine_of(ready: &Value) -> Result<i32> {
    let id = ready["engines"][0]["pid"]
        .as_i64()
        .context("no engine in the ready file")?;
    Ok(i32::try_from(id)?)
}

fn send(id: i32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(id).context("no process")?, signal)?)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The process numbers in a file, when all of them are there.
fn numbers(path: &Path, count: usize) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    until("the processes of the command", || {
        found = fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        Ok(found.len() == count)
    })?;
    Ok(found)
}

#[test]
fn given_engines_are_not_started_and_the_command_keeps_its_exit_code() -> Result<()> {
    let place = Place::new()?;
    let script = "echo $SLUICE_TEST_KAFKA_BROKERS $SLUICE_TEST_CLICKHOUSE_URL $SLUICE_TEST_S3_ENDPOINT $SLUICE_TEST_REGISTRY; exit 7";
    let output = place.services(&["--", "sh", "-c", script])?.envs(GIVEN).output()?;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let said = String::from_utf8(output.stdout)?;
    assert_eq!(
        said,
        "127.0.0.1:1,127.0.0.1:2 http://127.0.0.1:3 http://127.0.0.1:4 127.0.0.1:5\n"
    );
    assert_eq!(place.builds(), 0);
    Ok(())
}

#[test]
fn a_command_that_a_signal_ends_has_the_code_that_a_shell_would_show() -> Result<()> {
    let place = Place::new()?;
    let output = place
        .services(&["--", "sh", "-c", "kill -KILL $$"])?
        .envs(GIVEN)
        .output()?;
    assert_eq!(output.status.code(), Some(128 + 9), "{}", text(&output));
    Ok(())
}

#[test]
fn every_missing_tool_is_named_with_how_to_install_it() -> Result<()> {
    let place = Place::new()?;
    let nowhere = place.path("nowhere");
    let output = place
        .services(&[])?
        .env("PATH", nowhere)
        .env_remove("JAVA_HOME")
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    for tool in ["java", "mvn", "go", "python3"] {
        assert!(said.contains(&format!("`{tool}` is missing")), "{tool} in {said}");
    }
    assert!(said.contains("apt install openjdk"), "{said}");
    Ok(())
}

#[test]
fn asked_to_end_it_stops_the_engine_and_leaves_nothing() -> Result<()> {
    let place = Place::new()?;
    let (mut child, ready) = place.ready(&[])?;
    let engine = engine_of(&ready)?;
    assert!(lives(engine));
    send(i32::try_from(child.id())?, Signal::TERM)?;
    assert_eq!(child.wait()?.code(), Some(0), "{}", place.said()?);
    assert!(!lives(engine));
    assert!(!place.path("ready.json").exists());
    let left: Vec<_> = fs::read_dir(place.path("engines/run"))?
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn killed_it_takes_the_engine_and_all_descendants_of_the_command_along() -> Result<()> {
    let place = Place::new()?;
    let pids = place.path("pids");
    // One in a session of its own, whose parent ends: what most tools lose.
    let script = format!(
        "f={}; (setsid sh -c 'echo $$ >> '$f'; exec sleep 1000' &); echo $$ >> $f; sh -c 'echo $$ >> '$f'; exec sleep 1000'",
        pids.display()
    );
    let (mut child, ready) = place.ready(&["--", "sh", "-c", &script])?;
    let mut all = numbers(&pids, 3)?;
    all.push(engine_of(&ready)?);
    assert!(all.iter().all(|id| lives(*id)), "{all:?}");
    child.kill()?;
    child.wait()?;
    until("the end of all processes", || Ok(!all.iter().any(|id| lives(*id))))?;

    // What the killed run left in the cache goes with the next one.
    assert!(PathBuf::from(ready["engines"][0]["data"].as_str().context("data")?).exists());
    let output = place.services(&["s3", "--", "true"])?.output()?;
    assert!(output.status.success(), "{}", text(&output));
    assert!(!PathBuf::from(ready["engines"][0]["data"].as_str().context("data")?).exists());
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_command_leaves_running_ends_with_it_even_if_it_is_deaf() -> Result<()> {
    let place = Place::new()?;
    let pids = place.path("pids");
    let script = format!(
        "f={}; (setsid sh -c 'trap \"\" TERM; echo $$ >> '$f'; while :; do sleep 1; done' &); while [ ! -s $f ]; do sleep 0.05; done; exit 3",
        pids.display()
    );
    let output = place.services(&["--", "sh", "-c", &script])?.envs(GIVEN).output()?;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(!lives(numbers(&pids, 1)?[0]));
    Ok(())
}

#[test]
fn an_engine_that_ends_by_itself_ends_the_service_with_its_last_words() -> Result<()> {
    let place = Place::new()?;
    let (mut child, ready) = place.ready(&[])?;
    send(engine_of(&ready)?, Signal::KILL)?;
    assert_eq!(child.wait()?.code(), Some(1));
    let said = place.said()?;
    assert!(said.contains("s3 ended with signal: 9"), "{said}");
    Ok(())
}

#[test]
fn an_unfinished_fetch_is_reported_and_made_again() -> Result<()> {
    let place = Place::new()?;
    fs::write(place.path("broken"), "")?;
    let output = place.services(&["s3", "--", "true"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("the proxy is not reachable"),
        "{}",
        text(&output)
    );
    fs::remove_file(place.path("broken"))?;
    for builds in [2, 2] {
        let output = place.services(&["s3", "--", "true"])?.output()?;
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(place.builds(), builds);
    }
    Ok(())
}

#[test]
fn two_at_once_fetch_once() -> Result<()> {
    let place = Place::new()?;
    fs::write(place.path("hold"), "")?;
    let mut first = place.services(&["s3", "--", "true"])?.stderr(Stdio::null()).spawn()?;
    until("the first build", || Ok(place.builds() == 1))?;
    let log = fs::File::create(place.path("stderr"))?;
    let mut second = place.services(&["s3", "--", "true"])?.stderr(log).spawn()?;
    let waiting = format!("waiting: another `cargo xtask services` (process {})", first.id());
    until("the second to wait", || Ok(place.said()?.contains(&waiting)))?;
    fs::remove_file(place.path("hold"))?;
    assert!(first.wait()?.success());
    assert!(second.wait()?.success(), "{}", place.said()?);
    assert_eq!(place.builds(), 1);
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn killed_while_it_fetches_it_takes_the_tool_along() -> Result<()> {
    let place = Place::new()?;
    fs::write(place.path("hold"), "")?;
    let mut child = place.services(&["s3"])?.stderr(Stdio::null()).spawn()?;
    until("the build", || Ok(place.builds() == 1))?;
    let at_work = || -> Result<usize> {
        let mine = place.path("engines");
        let mut found = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let value = format!("GOBIN={}", mine.display());
            found += usize::from(lives(id) && environment.windows(value.len()).any(|w| w == value.as_bytes()));
        }
        Ok(found)
    };
    until("the tool to be seen", || Ok(at_work()? > 0))?;
    child.kill()?;
    child.wait()?;
    until("the end of the tool", || Ok(at_work()? == 0))
}

#[test]
fn a_data_folder_has_one_user() -> Result<()> {
    let place = Place::new()?;
    let data = place.path("data");
    let data = data.to_str().context("path")?;
    let (mut child, ready) = place.ready(&["--data", data])?;
    let output = place.services(&["s3", "--data", data, "--", "true"])?.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("in use by another"), "{}", text(&output));
    send(i32::try_from(child.id())?, Signal::TERM)?;
    assert_eq!(child.wait()?.code(), Some(0));
    // The bucket that is there from the start, in data that stay.
    assert!(place.path("data/s3/sluice-test").is_dir());
    assert!(!lives(engine_of(&ready)?));
    Ok(())
}
