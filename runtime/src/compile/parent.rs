//! The host's side of compiling: a child under limits, killed and reaped when it is over them, and in words what became of it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Compiler;
use super::child::{ANSWER, MALFORMED, USAGE};
use crate::component::ComponentError;
use crate::limits::MAX_IMAGE_BYTES;

/// How much longer than its own time a compiler may take on the wall. It stands back behind those who serve, so on a busy
/// machine it has a small part of a processor; who uses no processor at all must end some day too.
const WALL_FACTOR: u32 = 10;
/// How long a compiler may take to end that has closed its output.
const END_GRACE: Duration = Duration::from_secs(10);
/// Between two looks at a compiler that is about to end.
const END_LOOK: Duration = Duration::from_millis(2);
/// Bytes of its complaints that are read.
const MAX_COMPLAINT: u64 = 16 * 1024;
/// Set for a compiler: a program that is none and would start a compiler itself must not do so without end.
const INSIDE: &str = "SLUICE_COMPILING";
/// What of the environment a compiler needs: where its libraries are.
const INHERITED: [&str; 1] = ["LD_LIBRARY_PATH"];

/// Machine code of a component, made by another process. Blocks.
pub(crate) fn compile(compiler: &Compiler, component: &[u8]) -> Result<Vec<u8>, ComponentError> {
    if std::env::var_os(INSIDE).is_some() {
        let what = "this program was started as compiler and does not call `compile_command`";
        return Err(ComponentError::Compiler(what.to_owned()));
    }
    let mut child = Reaped(spawn(compiler)?);
    let wall = compiler.time.saturating_mul(WALL_FACTOR);
    let (answer, complaint) = talk(&mut child.0, component, wall)?;
    if matches!(answer, Answer::Late) {
        return Err(ComponentError::Starved(wall));
    }
    if matches!(answer, Answer::TooLong) {
        return Err(ComponentError::TooMuchCode(MAX_IMAGE_BYTES));
    }
    let status = child.end().map_err(|e| system(compiler, &e))?;
    let complaint = complaint();
    if !status.success() {
        return Err(explain(compiler, status, &complaint));
    }
    match answer {
        Answer::Image(image) => Ok(image),
        _ => Err(no_compiler(compiler, &complaint)),
    }
}

fn spawn(compiler: &Compiler) -> Result<Child, ComponentError> {
    // The kernel counts whole seconds.
    let seconds = compiler.time.as_millis().div_ceil(1000).max(1);
    let mut command = Command::new(&compiler.program);
    command
        .args(&compiler.args)
        .arg(format!("--memory-bytes={}", compiler.memory_bytes))
        .arg(format!("--seconds={seconds}"))
        .env_clear()
        .env(INSIDE, "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.spawn().map_err(|e| system(compiler, &e))
}

enum Answer {
    Image(Vec<u8>),
    /// It ended without a whole image.
    None,
    TooLong,
    Late,
}

/// Feeds the child and hears it. Its complaints are known once it has ended.
fn talk(
    child: &mut Child,
    component: &[u8],
    wall: Duration,
) -> Result<(Answer, impl FnOnce() -> String + use<>), ComponentError> {
    let lost = || ComponentError::Compiler("the compiler has no pipes".to_owned());
    let mut stdin = child.stdin.take().ok_or_else(lost)?;
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let stderr = child.stderr.take().ok_or_else(lost)?;
    let component = component.to_vec();
    let thread = |name: &str| std::thread::Builder::new().name(format!("compile-{name}"));
    let failed = |e: std::io::Error| ComponentError::Compiler(format!("no thread: {e}"));
    // A child that does not read to the end has its reasons; they stand on its standard error.
    let feed = move || drop(stdin.write_all(&component));
    drop(thread("in").spawn(feed).map_err(failed)?);
    let (said, answer) = sync_channel(1);
    let hear = move || drop(said.send(read_answer(stdout)));
    drop(thread("out").spawn(hear).map_err(failed)?);
    let (complained, complaint) = sync_channel(1);
    let listen = move || drop(complained.send(read_complaint(stderr)));
    drop(thread("err").spawn(listen).map_err(failed)?);
    let answer = match answer.recv_timeout(wall) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Answer::Late,
        Err(RecvTimeoutError::Disconnected) => Answer::None,
    };
    Ok((answer, move || complaint.recv_timeout(END_GRACE).unwrap_or_default()))
}

fn read_answer(mut stdout: impl Read) -> Answer {
    let mut head = [0u8; 16];
    if stdout.read_exact(&mut head).is_err() || head[..8] != ANSWER {
        return Answer::None;
    }
    let mut length = [0u8; 8];
    length.copy_from_slice(&head[8..]);
    let length = u64::from_le_bytes(length);
    if length > MAX_IMAGE_BYTES {
        return Answer::TooLong;
    }
    let mut image = Vec::new();
    match stdout.take(length + 1).read_to_end(&mut image) {
        Ok(bytes) if bytes as u64 == length => Answer::Image(image),
        _ => Answer::None,
    }
}

fn read_complaint(mut stderr: impl Read) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr).take(MAX_COMPLAINT).read_to_end(&mut text);
    // The rest is not kept, but a child that cannot write would never end.
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A child that is never left behind, whatever way its parent takes.
struct Reaped(Child);

impl Reaped {
    /// Waits for a child that has closed its output.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        let deadline = Instant::now() + END_GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(END_LOOK);
        }
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only for a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn explain(compiler: &Compiler, status: ExitStatus, complaint: &str) -> ComponentError {
    let text: String = complaint.chars().take(400).collect();
    let starved = ["memory allocation of", "Cannot allocate memory", "out of memory"];
    if starved.iter().any(|sign| complaint.contains(sign)) {
        return ComponentError::CompilerMemory(compiler.memory_bytes);
    }
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(MALFORMED) => ComponentError::Malformed(text),
        (Some(code), _) if code == i32::from(USAGE) => no_compiler(compiler, complaint),
        (_, Some(signal)) if signal == Signal::XCPU.as_raw() => ComponentError::TooSlow(compiler.time),
        (_, Some(signal)) => {
            ComponentError::Compiler(format!("the compiler was ended by signal {signal}; it said {text:?}"))
        }
        _ => ComponentError::Compiler(format!("the compiler ended with {status}; it said {text:?}")),
    }
}

fn no_compiler(compiler: &Compiler, complaint: &str) -> ComponentError {
    let text: String = complaint.chars().take(200).collect();
    ComponentError::Compiler(format!(
        "{} does not answer as a compiler of plugins; it said {text:?}",
        compiler.program.display()
    ))
}

fn system(compiler: &Compiler, error: &std::io::Error) -> ComponentError {
    ComponentError::Compiler(format!("{}: {error}", compiler.program.display()))
}
