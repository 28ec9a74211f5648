//! A client that says whatever a test wants it to say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::{self, Compression, Envelope, Header, Kind};
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};
use sluice_wire::session::frame::{self, Frame, Hello, Lane, Preamble, Welcome};

use crate::pki::Files;

/// Far beyond what anything here takes; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: quinn::ClientConfig,
}

impl Peer {
    /// Without `files` it shows no certificate.
    pub(crate) fn new(ca: &Path, files: Option<&Files>) -> Self {
        Self::with(ca, files, |_| {})
    }

    pub(crate) fn with(ca: &Path, files: Option<&Files>, change: impl FnOnce(&mut rustls::ClientConfig)) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match files {
            Some(files) => {
                // PEM, or DER as it comes over the link.
                let bytes = std::fs::read(&files.certificate).unwrap();
                let pem = CertificateDer::from_pem_slice(&bytes);
                let chain = vec![pem.unwrap_or_else(|_| CertificateDer::from(bytes))];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![frame::ALPN.to_vec()];
        change(&mut tls);
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        Self { endpoint, config }
    }

    pub(crate) async fn connect(&self, gateway: SocketAddr) -> Result<Connection, String> {
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), gateway, "localhost")
            .unwrap();
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .unwrap()
            .map_err(|e| e.to_string())
    }

    /// Connects and says HELLO; the error is whatever way the gateway chose to refuse.
    pub(crate) async fn open(&self, gateway: SocketAddr, stream: StreamId) -> Result<Session, String> {
        let (session, welcome) = self.greet(gateway, hello(stream)).await?;
        assert!(!welcome.renewal_only);
        Ok(session)
    }

    /// The same with any HELLO and any WELCOME.
    pub(crate) async fn greet(&self, gateway: SocketAddr, hello: Hello) -> Result<(Session, Welcome), String> {
        let connection = self.connect(gateway).await?;
        let mut session = Session::begin(connection, hello).await?;
        match session.frame().await? {
            Frame::Welcome(welcome) => {
                assert_eq!(welcome.generation, 3);
                Ok((session, welcome))
            }
            other => Err(format!("{other:?}")),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
    buffer: BytesMut,
}

impl Session {
    async fn begin(connection: Connection, hello: Hello) -> Result<Self, String> {
        let (send, recv) = connection.open_bi().await.map_err(|e| e.to_string())?;
        let mut session = Self {
            connection,
            send,
            recv,
            buffer: BytesMut::new(),
        };
        session.say(&Frame::Hello(hello)).await?;
        Ok(session)
    }

    pub(crate) async fn say(&mut self, frame: &Frame) -> Result<(), String> {
        self.send.write_all(&frame.encode()).await.map_err(|e| e.to_string())
    }

    pub(crate) async fn frame(&mut self) -> Result<Frame, String> {
        tokio::time::timeout(PATIENCE, self.next_frame()).await.unwrap()
    }

    async fn next_frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer).map_err(|e| e.to_string())? {
                return Ok(frame);
            }
            let chunk = self.recv.read_chunk(4096, true).await.map_err(|e| e.to_string())?;
            self.buffer
                .extend_from_slice(&chunk.ok_or("control stream ended")?.bytes);
        }
    }

    pub(crate) async fn send(&self, batch: &Bytes) {
        let header = Envelope::parse(batch.clone()).unwrap().header;
        self.send_raw(&preamble(header.id.seq, batch.len()), batch).await;
    }

    pub(crate) async fn send_raw(&self, preamble: &Preamble, bytes: &[u8]) {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(&preamble.encode()).await.unwrap();
        // The gateway may have stopped the stream already; what it answers is what tests look at.
        let _ = stream.write_all(bytes).await;
        let _ = stream.finish();
    }

    /// The code and reason with which the gateway closed.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap() {
            quinn::ConnectionError::ApplicationClosed(close) => (
                close.error_code.into_inner(),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            other => panic!("{other}"),
        }
    }
}

pub(crate) fn hello(stream: StreamId) -> Hello {
    Hello {
        stream,
        epoch: epoch(),
        versions: vec![1],
        generation: 0,
        agent: "test".to_owned(),
        renews: true,
    }
}

pub(crate) fn epoch() -> Epoch {
    Epoch {
        number: 1,
        random: 0xfeed,
    }
}

pub(crate) fn stream(tenant: &str, node: &str) -> StreamId {
    StreamId {
        tenant: TenantId::new(tenant).unwrap(),
        node: NodeId::new(node).unwrap(),
        spool: [9; 16],
    }
}

pub(crate) fn preamble(seq: u64, length: usize) -> Preamble {
    Preamble {
        lane: Lane::Live,
        epoch: epoch(),
        seq,
        length: length as u32,
    }
}

pub(crate) fn header(stream: StreamId, seq: u64, rows: u32) -> Header {
    Header {
        id: BatchId {
            stream,
            epoch: epoch(),
            seq,
        },
        generation: 3,
        kind: Kind::Data,
        rows,
        counts: Counts {
            accepted: u64::from(rows),
            stored: u64::from(rows),
            ..Counts::default()
        },
        journal_upto: 0,
        time_min_ns: 1,
        time_max_ns: 2,
        sealed_at_ns: 3,
        detail: String::new(),
    }
}

pub(crate) fn batch(stream: StreamId, seq: u64) -> Bytes {
    envelope::seal(&header(stream, seq, 3), Some(&rows(3, "time")), Compression::default()).unwrap()
}

/// Rows as FORMAT.md has them when the second column is called `time`, else not.
pub(crate) fn rows(n: usize, second: &str) -> RecordBatch {
    use arrow::datatypes::DataType::{Dictionary, UInt16, Utf8};
    let signal = StringArray::from_iter_values((0..n).map(|_| "log"));
    let signal = arrow::compute::cast(&signal, &Dictionary(Box::new(UInt16), Box::new(Utf8))).unwrap();
    let time: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n as i64));
    RecordBatch::try_from_iter_with_nullable(vec![("signal", signal, false), (second, time, false)]).unwrap()
}
