//! A door through which tests put an engine down and start it again, at its old address and on its old data.
//!
//! `GET /NAME` says `answers`, `starts` or `down`; `POST /NAME/kill` is SIGKILL, `POST /NAME/stop` asks it to end and waits for that;
//! `POST /NAME/expect` says that it will end by itself, as one does whose disk is full; `POST /NAME/start` starts what is down and does not
//! wait. Listens on the loopback only.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Up;
use super::engine::{Engine, State};

/// Where the door is, for whoever uses the engines.
pub(super) const VARIABLE: &str = "SLUICE_TEST_ENGINES";

/// For a request to come in, and for its answer to go out.
const PATIENCE: Duration = Duration::from_secs(2);
const HEAD_LIMIT_BYTES: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Control {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Look,
    Kill,
    Stop,
    Expect,
    Start,
}

impl Control {
    pub(super) async fn bind() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("no free port on the loopback")?;
        let address = listener.local_addr().context("no free port on the loopback")?;
        Ok(Self { listener, address })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next one who wants something. May be dropped at any moment.
    pub(super) async fn next(&self) -> Option<TcpStream> {
        self.listener.accept().await.ok().map(|(stream, _)| stream)
    }
}

/// Does what one request wants, and says so. Whoever does not ask or listen in time has lost its turn.
pub(super) async fn serve(mut stream: TcpStream, up: &mut Up) {
    let Ok(Some(head)) = tokio::time::timeout(PATIENCE, head(&mut stream)).await else {
        return;
    };
    let (status, words) = match parse(&head) {
        None => (
            "404 Not Found",
            "GET /NAME, POST /NAME/kill, /NAME/stop, /NAME/expect or /NAME/start".to_owned(),
        ),
        Some((engine, deed)) => match perform(engine, deed, up).await {
            Ok(words) => ("200 OK", words),
            Err(error) => ("409 Conflict", format!("{error:#}")),
        },
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{words}\n",
        words.len() + 1
    );
    // Whoever is gone does not want to know.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(answer.as_bytes())).await;
}

async fn perform(engine: Engine, deed: Deed, up: &mut Up) -> Result<String> {
    let one = up.started.iter_mut().find(|one| one.engine == engine);
    let one = one.with_context(|| format!("{} was not started from here", engine.name()))?;
    match deed {
        Deed::Look => {}
        Deed::Kill => one.put_down(rustix::process::Signal::KILL),
        Deed::Stop => one.put_down(rustix::process::Signal::TERM),
        Deed::Expect => one.expect_end(),
        Deed::Start => one.start_again()?,
    }
    Ok(match one.state().await {
        State::Answers => "answers".to_owned(),
        State::Starts(why) => format!("starts: {why:#}"),
        State::Down => "down".to_owned(),
    })
}

/// The head of a request; none if it has no end.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_LIMIT_BYTES {
            return None;
        }
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn parse(head: &str) -> Option<(Engine, Deed)> {
    let mut words = head.lines().next()?.split(' ');
    let (method, path) = (words.next()?, words.next()?.strip_prefix('/')?);
    let (name, deed) = match path.split_once('/') {
        None => (path, Deed::Look),
        Some((name, "kill")) => (name, Deed::Kill),
        Some((name, "stop")) => (name, Deed::Stop),
        Some((name, "expect")) => (name, Deed::Expect),
        Some((name, "start")) => (name, Deed::Start),
        Some(_) => return None,
    };
    let fits = method == if deed == Deed::Look { "GET" } else { "POST" };
    let engine = Engine::from_str(name, false).ok()?;
    fits.then_some((engine, deed))
}

#[cfg(test)]
mod tests {
    use super::{Deed, Engine, parse};

    #[test]
    fn only_what_is_meant_puts_an_engine_down() {
        let of = |line: &str| parse(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(of("GET /kafka"), Some((Engine::Kafka, Deed::Look)));
        assert_eq!(of("POST /clickhouse/kill"), Some((Engine::ClickHouse, Deed::Kill)));
        assert_eq!(of("POST /s3/stop"), Some((Engine::S3, Deed::Stop)));
        assert_eq!(of("POST /s3/start"), Some((Engine::S3, Deed::Start)));
        for wrong in [
            "GET /kafka/kill",
            "POST /kafka",
            "POST /all/kill",
            "GET /",
            "POST /kafka/kill/now",
            "GET",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
