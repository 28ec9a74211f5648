//! A peer of the gateway that says over QUIC whatever a test wants it to say: many sessions at once, and lies that no edge tells.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sluice_bench::corpus::{Corpus, Signal};
use sluice_tests::SOON;
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Header, Kind};
use sluice_wire::ids::{BatchId, Epoch, StreamId};
use sluice_wire::otlp::{DecodeLimits, Decoder};
use sluice_wire::session::frame::{self, Frame, Hello, Lane, Preamble};

/// As edges do: far more often than a gateway forgets.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const EPOCH: Epoch = Epoch {
    number: 1,
    random: 0xfeed,
};

/// A socket and what it shows.
pub(crate) struct Peer {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl Peer {
    /// With the certificate and key of these files, without their endings; or without any.
    pub(crate) fn new(ca: &Path, files: Option<&Path>) -> Peer {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match files {
            Some(files) => {
                let file = |ending: &str| format!("{}.{ending}", files.display());
                let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
                let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![frame::ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Peer { endpoint, config }
    }

    /// Connects and says HELLO; the error is whatever way the gateway chose to refuse.
    pub(crate) async fn open(&self, gateway: SocketAddr, stream: StreamId) -> Result<Session, String> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), gateway, "localhost")
            .map_err(|error| error.to_string())?;
        let connection = tokio::time::timeout(SOON, connecting)
            .await
            .map_err(|late| late.to_string())?
            .map_err(|error| error.to_string())?;
        let (send, recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let mut session = Session {
            connection,
            send,
            recv,
            buffer: BytesMut::new(),
        };
        let hello = Frame::Hello(Hello {
            stream,
            epoch: EPOCH,
            versions: vec![1],
            generation: 0,
            agent: "test".to_owned(),
            renews: true,
        });
        let said = session.send.write_all(&hello.encode()).await;
        said.map_err(|error| error.to_string())?;
        match session.frame().await? {
            Frame::Welcome(_) => Ok(session),
            other => Err(format!("{other:?}")),
        }
    }
}

/// A session that was welcomed.
pub(crate) struct Session {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    buffer: BytesMut,
}

impl Session {
    pub(crate) async fn frame(&mut self) -> Result<Frame, String> {
        let next = tokio::time::timeout(SOON, self.next_frame()).await;
        next.map_err(|late| late.to_string())?
    }

    async fn next_frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer).map_err(|error| error.to_string())? {
                return Ok(frame);
            }
            let chunk = self.recv.read_chunk(4096, true).await;
            let chunk = chunk.map_err(|error| error.to_string())?;
            self.buffer
                .extend_from_slice(&chunk.ok_or("control stream ended")?.bytes);
        }
    }

    /// Sends a batch as the one with this number, whatever it is.
    pub(crate) async fn send(&self, seq: u64, batch: &Bytes) {
        let preamble = Preamble {
            lane: Lane::Live,
            epoch: EPOCH,
            seq,
            length: batch.len() as u32,
        };
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(&preamble.encode()).await.unwrap();
        // The gateway may have stopped the stream already; what it answers is what tests look at.
        let _ = stream.write_all(batch).await;
        let _ = stream.finish();
    }
}

/// Rows as an edge seals them.
pub(crate) struct Rows(RecordBatch);

impl Rows {
    pub(crate) fn new(count: usize) -> Rows {
        let body = Corpus::new(1).request(Signal::Log, 0, count, 0);
        let mut decoder = Decoder::new(DecodeLimits::default());
        Rows(decoder.decode(sluice_wire::Signal::Log, &body, 1).unwrap().batch)
    }

    /// As a batch of a stream whose edge has heard of no generation yet.
    pub(crate) fn sealed(&self, stream: StreamId, seq: u64) -> Bytes {
        let rows = self.0.num_rows();
        let header = Header {
            id: BatchId {
                stream,
                epoch: EPOCH,
                seq,
            },
            generation: 0,
            kind: Kind::Data,
            rows: rows as u32,
            counts: Counts {
                accepted: rows as u64,
                stored: rows as u64,
                ..Counts::default()
            },
            journal_upto: 0,
            time_min_ns: 1,
            time_max_ns: 2,
            sealed_at_ns: 3,
            detail: String::new(),
        };
        envelope::seal(&header, Some(&self.0), Compression::default()).unwrap()
    }
}

/// A stream of a node, of which each spool has its own.
pub(crate) fn stream(tenant: &str, node: &str, spool: u64) -> StreamId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&spool.to_be_bytes());
    StreamId {
        tenant: tenant.parse().unwrap(),
        node: node.parse().unwrap(),
        spool: id,
    }
}
