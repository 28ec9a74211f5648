//! P4: a log that fails ends ingest, so that the next start reads again what is on disk; it never goes on refusing for ever.

use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use sluice_ingest::config::Role;
use sluice_ingest::{IngestConfig, IngestService, RunError};
use sluice_store::Stores;
use sluice_wire::envelope::{self, Compression};
use sluice_wire::ids::StreamId;
use sluice_wire::session::frame::Frame;
use tokio_util::sync::CancellationToken;

use crate::peer::{PATIENCE, Peer, header, rows};
use crate::pki::{Pki, Spec};
use crate::site_1;

/// A batch of about 300 KB that does not compress.
pub(crate) fn large(stream: StreamId, seq: u64) -> bytes::Bytes {
    let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state % 90) as u8)
    };
    let texts = StringArray::from_iter_values((0..3).map(|_| (0..120_000).map(|_| letter()).collect::<String>()));
    let small = rows(3, "time");
    let mut columns: Vec<(&str, arrow::array::ArrayRef, bool)> = vec![("signal", small.column(0).clone(), false)];
    columns.push(("time", small.column(1).clone(), false));
    columns.push(("body", std::sync::Arc::new(texts), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    envelope::seal(&header(stream, seq, 3), Some(&batch), Compression::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_ingest_ends_when_the_log_cannot_be_written() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let server = pki.gateway();
    let mut config = IngestConfig {
        roles: vec![Role::Gateway],
        data_dir: dir.path().join("data"),
        ..IngestConfig::default()
    };
    config.gateway.listen.set_port(0);
    config.gateway.certificate = server.certificate;
    config.gateway.key = server.key;
    config.gateway.ca.clone_from(&pki.ca);
    config.log.segment = 1 << 20;
    config.log.generation = 3;
    let stores = Stores::open(dir.path().join("lake").to_str().unwrap(), 1 << 20)
        .await
        .unwrap();
    let service = IngestService::build(config, stores).unwrap();
    let gateway = service.listen()[0].1;
    let running = tokio::spawn(service.run(CancellationToken::new()));

    let peer = Peer::new(&pki.ca, Some(&pki.issue("good", &Spec::default())));
    let mut session = peer.open(gateway, site_1()).await.unwrap();
    session.send(&large(site_1(), 0)).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(_)));
    // The folder is gone: what is open can still be written, the next segment cannot be made.
    std::fs::rename(dir.path().join("data/log/g3-p0"), dir.path().join("gone")).unwrap();
    for seq in 1..20 {
        session.send(&large(site_1(), seq)).await;
        if !matches!(session.frame().await, Ok(Frame::Ack(_))) {
            break;
        }
        assert!(seq < 10, "the log never failed");
    }
    let ended = tokio::time::timeout(PATIENCE + Duration::from_secs(5), running)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(RunError::Log)), "{ended:?}");
}
