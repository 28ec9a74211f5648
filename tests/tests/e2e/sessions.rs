//! P15: what a gateway takes of memory with many edges, most of them at rest and some at work; in a real process, over real QUIC.
//!
//! `SLUICE_SESSIONS=10000,200` runs the form that is promised, 512 MiB for 10,000 sessions at rest and 200 at work; without it there are as many
//! as a test has time for, with the same share for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sluice_bench::process::{Process, Start, ca, get};
use sluice_tests::{SOON, binary, eventually};
use sluice_wire::session::frame::{Frame, Verdict};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::link::{Peer, Rows, Session, stream};

/// Without a word from the environment.
const SHORT: (usize, usize) = (1_000, 40);
/// What is promised for so many at rest and at work.
const WHOLE: u64 = 512 << 20;
const LONG: (usize, usize) = (10_000, 200);
/// How the 512 MiB are divided: what a session may cost by being there, what one at work has of batches on top, and what all share in
/// buffers and in the allocator's slack. The rest is the program itself, 48 MiB when it is optimised; one that is not is larger at its
/// start, and allowed to be.
const SESSION: u64 = 39 << 10;
const BATCHES: u64 = 256 << 10;
const SHARED: u64 = 24 << 20;
/// Batches that each session at work sends, and the rows of one.
const SENT: u64 = 20;
const ROWS: usize = 500;
/// Sent and not answered yet, by one session.
const ON_THEIR_WAY: u64 = 4;
/// Handshakes at once: a gateway makes those prove their address who come when there are more than 128.
const AT_ONCE: usize = 64;
/// Attempts of one session: on a machine that is busy a handshake may be late.
const ATTEMPTS: usize = 5;

fn asked_for() -> (usize, usize) {
    let Ok(text) = std::env::var("SLUICE_SESSIONS") else {
        return SHORT;
    };
    let parsed = text
        .split_once(',')
        .and_then(|(idle, busy)| Some((idle.trim().parse().ok()?, busy.trim().parse().ok()?)));
    parsed.unwrap_or_else(|| panic!("SLUICE_SESSIONS={text}: say how many are at rest and at work, such as 10000,200"))
}

/// With the shipped settings, but for how many sessions there may be.
async fn gateway(folder: &Path, sessions: usize) -> Process {
    let path = |name: &str| folder.join(name);
    let (binary, out) = (binary().unwrap(), path("certificates").display().to_string());
    let issue = |words: &[&str]| ca(&binary, &path("ca"), words).unwrap();
    issue(&["init"]);
    issue(&["issue", "--gateway", "localhost", "--out", &out]);
    issue(&["issue", "--tenant", "acme", "--node", "site-1", "--out", &out]);
    let text = format!(
        "roles = [\"gateway\"]\ndata_dir = {:?}\nlake = {:?}\n[gateway]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n\
         max_sessions = {sessions}\n",
        path("ingest"),
        path("lake"),
        path("certificates/gateway-localhost.pem"),
        path("certificates/gateway-localhost.key"),
        path("ca/ca.pem"),
    );
    std::fs::write(path("ingest.toml"), text).unwrap();
    let start = Start {
        binary,
        arguments: vec!["ingest".to_owned()],
        environment: Vec::new(),
        ready_file: path("ready.json"),
        log: path("ingest.log"),
        deadline: SOON,
    };
    let start = start.config(&path("ingest.toml")).listen("link", "127.0.0.1:0");
    start.listen("http", "127.0.0.1:0").spawn().await.unwrap()
}

/// So many sessions, each with a spool of its own, in this order.
async fn open(peer: &Arc<Peer>, gateway: &Process, spools: std::ops::Range<usize>) -> Vec<Session> {
    let (address, turns) = (gateway.address("link").unwrap(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut opening = JoinSet::new();
    for spool in spools {
        let (peer, turns) = (Arc::clone(peer), Arc::clone(&turns));
        opening.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let mut refused = Vec::new();
            for _ in 0..ATTEMPTS {
                match peer.open(address, stream("acme", "site-1", spool as u64)).await {
                    Ok(session) => return Ok((spool, session)),
                    Err(why) => refused.push(why),
                }
            }
            Err(format!("session {spool}: {refused:?}"))
        });
    }
    let all: Result<Vec<_>, String> = opening.join_all().await.into_iter().collect();
    let mut all = all.unwrap_or_else(|why| panic!("{why}; the gateway says:\n{}", gateway.log_tail()));
    all.sort_unstable_by_key(|(spool, _)| *spool);
    all.into_iter().map(|(_, session)| session).collect()
}

/// Sends and takes acknowledgements; what it is told to send again, it does.
async fn work(mut session: Session, batches: Vec<Bytes>) -> Session {
    let (mut next, mut acked) = (0, 0);
    while acked < SENT {
        while next < SENT && next - acked < ON_THEIR_WAY {
            session.send(next, &batches[next as usize]).await;
            next += 1;
        }
        match session.frame().await.unwrap() {
            Frame::Ack(_) => acked += 1,
            Frame::Nack(nack) => {
                let Verdict::Retry { after_ms } = nack.verdict else {
                    panic!("{nack:?}")
                };
                tokio::time::sleep(Duration::from_millis(after_ms.into())).await;
                session.send(nack.seq, &batches[nack.seq as usize]).await;
            }
            other => panic!("{other:?}"),
        }
    }
    session
}

async fn status(gateway: &Process) -> Value {
    let answer = get(&(gateway.url("http").unwrap() + "/v1/status"), None).await.unwrap();
    serde_json::from_str(&answer.text()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_memory_is_bounded_with_many_sessions_at_rest_and_some_at_work() {
    let (idle, busy) = asked_for();
    let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().unwrap();
    let gateway = gateway(folder.path(), idle + busy).await;
    let files = folder.path().join("certificates/acme.site-1");
    let peer = Arc::new(Peer::new(&folder.path().join("ca/ca.pem"), Some(&files)));
    let at_start = gateway.memory().unwrap().1;
    // Sealed before, so that nothing else keeps the sessions' heartbeats waiting.
    let rows = Rows::new(ROWS);
    let seal = |spool: usize| -> Vec<Bytes> {
        let stream = stream("acme", "site-1", spool as u64);
        (0..SENT).map(|seq| rows.sealed(stream.clone(), seq)).collect()
    };
    let batches: Vec<_> = (idle..idle + busy).map(seal).collect();

    let resting = open(&peer, &gateway, 0..idle).await;
    let (at_rest, peak) = gateway.memory().unwrap();
    let each = at_rest.saturating_sub(at_start) / idle as u64;
    println!(
        "{idle} sessions at rest: {} MiB, {} MiB at its peak, {} at the start; {each} bytes each",
        at_rest >> 20,
        peak >> 20,
        at_start >> 20
    );
    let working = open(&peer, &gateway, idle..idle + busy).await;
    let mut work_of_all = JoinSet::new();
    for (session, batches) in working.into_iter().zip(batches) {
        work_of_all.spawn(work(session, batches));
    }
    let working = work_of_all.join_all().await;
    let all_sessions = || async {
        let now = status(&gateway).await;
        match now["gateway"]["sessions"].as_u64() == Some((idle + busy) as u64) {
            true => Ok(now),
            false => Err(format!("{:#}", now["gateway"])),
        }
    };
    let now = eventually("all sessions", all_sessions).await.unwrap();
    assert_eq!(now["gateway"]["rows_acknowledged"], busy as u64 * SENT * ROWS as u64);
    assert_eq!(
        now["gateway"]["sessions_opened"].as_u64().unwrap(),
        (idle + busy) as u64,
        "nobody was lost"
    );
    let peak = gateway.memory().unwrap().1;
    let bound = match (idle, busy) {
        LONG => WHOLE,
        _ => at_start + SHARED + busy as u64 * BATCHES + (idle + busy) as u64 * SESSION,
    };
    println!(
        "{busy} sessions at work beside them: {} MiB at its peak, {} may be",
        peak >> 20,
        bound >> 20
    );
    assert!(
        peak <= bound,
        "{peak} bytes at its peak, {bound} may be; {each} for each session at rest"
    );
    drop((resting, working));
    assert!(gateway.terminate(SOON).await.unwrap().unwrap().success());
}
