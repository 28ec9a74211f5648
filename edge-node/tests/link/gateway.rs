//! A small gateway around the real session core, with faults on demand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesOrdered, StreamExt};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, TokioRuntime};
use quinn_proto::RandomConnectionIdGenerator;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sluice_wire::envelope::{Envelope, Kind};
use sluice_wire::session::ServerOptions;
use sluice_wire::session::frame::{self, Frame, Lane, Preamble, Renew, Renewed, Verdict};
use sluice_wire::session::server::{Action, Server, Ticket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) struct Pki {
    dir: tempfile::TempDir,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// Seconds since 1970 between which a certificate is valid.
pub(crate) type Validity = (u64, u64);

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let pki = Self {
            dir,
            issuer: Arc::new(Issuer::new(params, key)),
        };
        pki.issue(
            "edge",
            SanType::URI("sluice://acme/site-1".try_into().unwrap()),
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        pki.issue(
            "gateway",
            SanType::DnsName("localhost".try_into().unwrap()),
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        pki
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new pair of the edge, not written to its files; certificate and key as PEM.
    pub(crate) fn edge_pair(&self, validity: Validity) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = edge_params("site-1", validity).signed_by(&key, &*self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn write_edge(&self, (certificate, key): &(String, String)) {
        std::fs::write(self.file("edge.pem"), certificate).unwrap();
        std::fs::write(self.file("edge.key"), key).unwrap();
    }

    /// An authority that certifies the key of a request, for a node of its choice.
    pub(crate) fn authority(&self, node: &'static str, validity: Validity) -> Authority {
        let issuer = Arc::clone(&self.issuer);
        Box::new(move |ask| {
            let asked = CertificateSigningRequestParams::from_der(&ask.request.as_ref().into()).unwrap();
            let made = edge_params(node, validity)
                .signed_by(&asked.public_key, &*issuer)
                .unwrap();
            Ok(vec![Bytes::copy_from_slice(made.der())])
        })
    }

    fn issue(&self, file: &str, name: SanType, usage: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        std::fs::write(
            self.file(&format!("{file}.pem")),
            params.signed_by(&key, &*self.issuer).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

fn edge_params(node: &str, (from, to): Validity) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    let uri = format!("sluice://acme/{node}").try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    // No two are the same.
    params.serial_number = Some(rcgen::SerialNumber::from(rand::random::<u64>() | 1 << 62));
    let since_1970 = |s| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(s);
    (params.not_before, params.not_after) = (since_1970(from), since_1970(to));
    params
}

/// Answers requests for certificates.
pub(crate) type Authority = Box<dyn Fn(&Renew) -> Result<Vec<Bytes>, (u32, String)> + Send>;

/// What went into the log, and what goes wrong on the way; survives restarts of the gateway.
pub(crate) struct Cloud {
    pub(crate) log: Mutex<Vec<Envelope>>,
    /// Sequence numbers that are never taken with rows.
    pub(crate) poison: BTreeSet<u64>,
    /// Sequence numbers that are not taken at first.
    pub(crate) busy: Mutex<BTreeSet<u64>>,
    /// After writing these the connection is gone before the answer.
    pub(crate) dies_after: Mutex<BTreeSet<u64>>,
    pub(crate) written: watch::Sender<usize>,
    /// The log's limit, told to every session that begins.
    pub(crate) max_batch_bytes: AtomicU32,
    /// The log is behind: no backlog is taken.
    pub(crate) lags: AtomicBool,
    /// Lanes in the order of the log.
    pub(crate) lanes: Mutex<Vec<Lane>>,
    /// Without it the gateway is one that does not know of renewal.
    pub(crate) authority: Mutex<Option<Authority>>,
    /// Requests that came.
    pub(crate) asked: Mutex<Vec<Renew>>,
    /// Certificates count as expired: nothing but renewing.
    pub(crate) expired: AtomicBool,
}

/// A gateway at work; dropping it changes nothing.
pub(crate) struct Gateway {
    pub(crate) endpoint: Endpoint,
    /// Tells its edges that it goes.
    pub(crate) leaves: CancellationToken,
}

impl Gateway {
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }
}

impl Cloud {
    pub(crate) fn new(poison: &[u64], busy: &[u64], dies_after: &[u64]) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::default(),
            poison: poison.iter().copied().collect(),
            busy: Mutex::new(busy.iter().copied().collect()),
            dies_after: Mutex::new(dies_after.iter().copied().collect()),
            written: watch::channel(0).0,
            max_batch_bytes: AtomicU32::new(8 << 20),
            lags: AtomicBool::new(false),
            lanes: Mutex::default(),
            authority: Mutex::default(),
            asked: Mutex::default(),
            expired: AtomicBool::new(false),
        })
    }
}

pub(crate) fn start(pki: &Pki, address: SocketAddr, cloud: Arc<Cloud>) -> Gateway {
    // As the real one does, it answers packets of connections that it does not know.
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::<RandomConnectionIdGenerator>::default());
    let socket = std::net::UdpSocket::bind(address).unwrap();
    let endpoint = Endpoint::new(config, Some(server_config(pki)), socket, Arc::new(TokioRuntime)).unwrap();
    let gateway = Gateway {
        endpoint: endpoint.clone(),
        leaves: CancellationToken::new(),
    };
    let leaves = gateway.leaves.clone();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let (cloud, leaves) = (Arc::clone(&cloud), leaves.clone());
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    serve(connection, cloud, leaves).await;
                }
            });
        }
    });
    gateway
}

async fn serve(connection: Connection, cloud: Arc<Cloud>, leaves: CancellationToken) -> Option<()> {
    let options = ServerOptions {
        generation: 5,
        max_in_flight: 8,
        max_batch_bytes: cloud.max_batch_bytes.load(Ordering::SeqCst),
        renews: cloud.authority.lock().unwrap().is_some(),
        ..ServerOptions::default()
    };
    let mut core = Server::new(options, "acme".parse().unwrap(), "site-1".parse().unwrap(), 1, 0);
    if cloud.expired.load(Ordering::SeqCst) {
        core = core.for_renewal_only();
    }
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let (batches, mut arrived) = mpsc::channel::<Arrived>(64);
    tokio::spawn(receive(connection.clone(), batches));
    let mut draining = false;
    let mut buffer = BytesMut::new();
    loop {
        while let Some(action) = core.poll_action() {
            match action {
                Action::Send(frame) => send.write_all(&frame.encode()).await.ok()?,
                Action::Close { code, reason } => connection.close(code.number().into(), reason.as_bytes()),
                Action::Renew(ask) => {
                    let answer = cloud
                        .authority
                        .lock()
                        .unwrap()
                        .as_ref()
                        .map(|authority| authority(&ask));
                    cloud.asked.lock().unwrap().push(ask);
                    match answer.unwrap() {
                        Ok(certificates) => {
                            cloud.expired.store(false, Ordering::SeqCst);
                            core.handle_renewed(Renewed { certificates });
                        }
                        Err((after_ms, reason)) => core.handle_not_renewed(after_ms, &reason),
                    }
                }
            }
        }
        tokio::select! {
            chunk = recv.read_chunk(4096, true) => {
                buffer.extend_from_slice(&chunk.ok()??.bytes);
                while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    core.handle_frame(frame);
                }
            }
            Some((preamble, bytes)) = arrived.recv() => {
                let rest = cloud.lags.load(Ordering::SeqCst).then_some(20);
                let Some(ticket) = core.handle_preamble(&preamble, rest) else {
                    continue;
                };
                let Some(bytes) = bytes else {
                    core.handle_abandoned(ticket);
                    continue;
                };
                let batch = Envelope::parse(bytes).unwrap();
                assert!(core.handle_batch(ticket, &batch.header.id, batch.hash));
                decide(&mut core, ticket, batch, preamble.lane, &cloud, &connection);
            }
            () = leaves.cancelled(), if !draining => {
                draining = true;
                core.handle_drain("restart");
            }
        }
    }
}

/// A batch, without its bytes if its stream was given up.
type Arrived = (Preamble, Option<Bytes>);

/// Batches of a lane come out in the order in which their streams were begun; the lanes do not wait for each other.
async fn receive(connection: Connection, batches: mpsc::Sender<Arrived>) {
    let mut lanes: [FuturesOrdered<BoxFuture<'static, Arrived>>; 2] = Default::default();
    loop {
        let [live, backlog] = &mut lanes;
        let batch = tokio::select! {
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                let mut head = [0; Preamble::BYTES];
                if stream.read_exact(&mut head).await.is_ok() {
                    let preamble = Preamble::decode(&head).unwrap();
                    lanes[preamble.lane as usize].push_back(read(stream, preamble).boxed());
                }
                continue;
            }
            Some(batch) = live.next() => batch,
            Some(batch) = backlog.next() => batch,
        };
        batches.send(batch).await.ok();
    }
}

fn decide(core: &mut Server, ticket: Ticket, batch: Envelope, lane: Lane, cloud: &Cloud, connection: &Connection) {
    let seq = batch.header.id.seq;
    if cloud.poison.contains(&seq) && batch.header.kind != Kind::Tombstone {
        return core.handle_failed(ticket, Verdict::Permanent, "rows are not valid");
    }
    if cloud.busy.lock().unwrap().remove(&seq) {
        return core.handle_failed(ticket, Verdict::Retry { after_ms: 20 }, "log is busy");
    }
    cloud.log.lock().unwrap().push(batch);
    cloud.lanes.lock().unwrap().push(lane);
    cloud.written.send_modify(|n| *n += 1);
    if cloud.dies_after.lock().unwrap().remove(&seq) {
        return connection.close(0u32.into(), b"killed");
    }
    core.handle_durable(ticket);
}

async fn read(mut stream: RecvStream, preamble: Preamble) -> Arrived {
    let bytes = stream.read_to_end(16 << 20).await.ok();
    assert!(bytes.as_ref().is_none_or(|b| b.len() == preamble.length as usize));
    (preamble, bytes.map(Bytes::from))
}

fn server_config(pki: &Pki) -> quinn::ServerConfig {
    let certificate = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&pki.file("ca.pem"))).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![certificate(&pki.file("gateway.pem"))],
            PrivateKeyDer::from_pem_file(pki.file("gateway.key")).unwrap(),
        )
        .unwrap();
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    let mut transport = quinn::TransportConfig::default();
    // A socket is free again only when every connection on it is over, so that a restart waits no longer than this.
    transport.max_idle_timeout(Some(std::time::Duration::from_secs(4).try_into().unwrap()));
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    config
}
