//! P15: a gateway with 10,000 idle sessions and 200 busy ones stays within 512 MiB. It runs in a process of its own, so that what is
//! measured is its memory and not that of its peers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use sluice_ingest::config::Role;
use sluice_ingest::{IngestConfig, IngestService};
use sluice_store::Stores;
use sluice_wire::ids::StreamId;
use sluice_wire::session::frame::{Frame, Verdict};
use tokio_util::sync::CancellationToken;

use crate::failing_log::large;
use crate::peer::{PATIENCE, Peer, Session};
use crate::pki::{Files, Pki, Spec};
use crate::site_1;

const IDLE: usize = 10_000;
const BUSY: usize = 200;
/// Batches of each busy session, all of them on their way at once: together more than the gateway may hold.
const BATCHES: u64 = 4;
const LIMIT_KIB: u64 = 512 << 10;
/// Each has a socket.
const PEERS: usize = 16;
/// The folder of the process under test, in which it finds its certificates and leaves its address.
const FOLDER: &str = "SLUICE_TEST_GATEWAY_FOLDER";

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What the process under test does.
async fn serve(folder: &Path) {
    let mut config = IngestConfig {
        roles: vec![Role::Gateway],
        data_dir: folder.join("data"),
        ..IngestConfig::default()
    };
    config.gateway.listen.set_port(0);
    config.gateway.certificate = folder.join("gateway.pem");
    config.gateway.key = folder.join("gateway.key");
    config.gateway.ca = folder.join("ca.pem");
    config.gateway.max_sessions = IDLE + BUSY;
    config.log.generation = 3;
    let stores = Stores::open(folder.join("lake").to_str().unwrap(), 1 << 20)
        .await
        .unwrap();
    let service = IngestService::build(config, stores).unwrap();
    let address = service.listen()[0].1.to_string();
    std::fs::write(folder.join("address.new"), address).unwrap();
    std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
    service.run(CancellationToken::new()).await.unwrap();
}

async fn address(folder: &Path) -> SocketAddr {
    let told = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(folder.join("address")) {
                break text.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap()
}

/// The most that a process ever had in memory, and what it has now.
fn memory_kib(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("VmHWM:"), of("VmRSS:"))
}

fn peer(ca: &Path, files: &Files) -> Peer {
    let mut peer = Peer::new(ca, Some(files));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(8)));
    peer.config.transport_config(Arc::new(transport));
    peer
}

fn spool(number: usize) -> StreamId {
    let mut stream = site_1();
    stream.spool[..8].copy_from_slice(&(number as u64).to_le_bytes());
    stream
}

/// Has all batches of a session on their way at once; every one of them is taken in the end.
async fn work(session: &mut Session, stream: StreamId) {
    let batches: Vec<_> = (0..BATCHES).map(|seq| large(stream.clone(), seq)).collect();
    for batch in &batches {
        session.send(batch).await;
    }
    let mut open = BATCHES;
    while open > 0 {
        match session.frame().await.unwrap() {
            Frame::Ack(_) => open -= 1,
            Frame::Nack(nack) => {
                let Verdict::Retry { after_ms } = nack.verdict else {
                    panic!("{nack:?}")
                };
                tokio::time::sleep(Duration::from_millis(after_ms.into())).await;
                session.send(&batches[nack.seq as usize]).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p15_ten_thousand_idle_sessions_and_two_hundred_busy_ones_stay_within_512_mib() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return serve(Path::new(&folder)).await;
    }
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let server = pki.gateway();
    for (from, to) in [
        (&server.certificate, "gateway.pem"),
        (&server.key, "gateway.key"),
        (&pki.ca, "ca.pem"),
    ] {
        std::fs::copy(from, folder.path().join(to)).unwrap();
    }
    let this_test = "memory::p15_ten_thousand_idle_sessions_and_two_hundred_busy_ones_stay_within_512_mib";
    let gateway = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this_test])
        .env(FOLDER, folder.path())
        .spawn()
        .unwrap();
    let gateway = Gateway(gateway);
    let at = address(folder.path()).await;
    let good = pki.issue("good", &Spec::default());
    let peers: Vec<Peer> = (0..PEERS).map(|_| peer(&pki.ca, &good)).collect();
    let opened = stream::iter(0..IDLE + BUSY).map(|number| {
        let peer = &peers[number % PEERS];
        async move { (number, peer.open(at, spool(number)).await.unwrap()) }
    });
    let mut sessions: Vec<(usize, Session)> = opened.buffer_unordered(32).collect().await;
    assert_eq!(sessions.len(), IDLE + BUSY);
    let idle = memory_kib(gateway.0.id());
    let busy = sessions.iter_mut().take(BUSY);
    let busy = busy.map(|(number, session)| work(session, spool(*number)));
    futures::future::join_all(busy).await;
    // Nobody was let go of meanwhile.
    let gone = sessions
        .iter()
        .filter(|(_, session)| session.connection.close_reason().is_some());
    assert_eq!(gone.count(), 0, "sessions ended");
    let (most, now) = memory_kib(gateway.0.id());
    println!("idle {} KiB, most {most} KiB, now {now} KiB", idle.1);
    assert!(most < LIMIT_KIB, "{most} KiB, {LIMIT_KIB} are allowed");
}
