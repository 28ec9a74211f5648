//! Syslog: RFC 5424 and 3164 over UDP, TCP and TLS.

mod frame;
mod message;
mod queue;
mod stream;
mod tls;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::stats::SourceStats;
use crate::config::Syslog;
use crate::intake::Intake;
pub(crate) use message::Zone;
use queue::queue;
use stream::Connections;
use tls::Tls;

/// A `[[source.syslog]]` with its sockets.
pub(crate) struct SyslogSource {
    max_message_bytes: usize,
    max_waiting_bytes: usize,
    max_connections: usize,
    zone: Zone,
    udp: Option<UdpSocket>,
    streams: Vec<(TcpListener, Option<Arc<Tls>>)>,
    stats: Arc<SourceStats>,
}

impl SyslogSource {
    /// Binds its sockets.
    pub(crate) async fn build(config: &Syslog) -> io::Result<(Self, Arc<SourceStats>)> {
        let stats = SourceStats::new(&config.name, "syslog");
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut this = Self {
            max_message_bytes: size(config.max_message_bytes),
            max_waiting_bytes: size(config.max_waiting_bytes),
            max_connections: config.max_connections,
            zone: Zone::parse(&config.zone).unwrap_or(Zone::Fixed(0)),
            udp: None,
            streams: Vec::new(),
            stats: stats.clone(),
        };
        let in_use = |address: &str| {
            let address = address.to_owned();
            move |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        if let Some(address) = parse(&config.udp) {
            let (socket, granted) = udp::bind(address, config.udp_buffer).map_err(in_use(&config.udp))?;
            stats.listens("udp", socket.local_addr()?.to_string());
            stats.gauge("udp_buffer_bytes", granted as u64);
            this.udp = Some(socket);
        }
        if let Some(address) = parse(&config.tcp) {
            let listener = TcpListener::bind(address).await.map_err(in_use(&config.tcp))?;
            stats.listens("tcp", listener.local_addr()?.to_string());
            this.streams.push((listener, None));
        }
        if let Some(door) = &config.tls
            && let Some(address) = parse(&door.address)
        {
            let tls = Tls::load(door)?;
            let listener = TcpListener::bind(address).await.map_err(in_use(&door.address))?;
            stats.listens("tls", listener.local_addr()?.to_string());
            this.streams.push((listener, Some(Arc::new(tls))));
        }
        Ok((this, stats))
    }

    /// Listens until it is told to stop; then what has come in is handed over.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        for (protocol, address) in self.stats.addresses() {
            tracing::info!(source = self.stats.name(), protocol, address, "listening");
        }
        let (inlet, outlet) = queue(self.max_waiting_bytes);
        let connections = Connections {
            max_bytes: self.max_message_bytes,
            slots: Arc::new(Semaphore::new(self.max_connections)),
            open: Arc::default(),
            inlet: inlet.clone(),
            stats: self.stats.clone(),
        };
        let streams = self
            .streams
            .into_iter()
            .map(|(listener, tls)| stream::run(listener, tls, connections.clone(), stop.clone()));
        let streams: Vec<_> = streams.collect();
        drop(connections);
        let (udp, max, stats) = (self.udp, self.max_message_bytes, &self.stats);
        let datagrams = async {
            if let Some(socket) = udp {
                udp::run(socket, max, inlet, stats, &stop).await;
            }
        };
        // The outlet ends when the last of the others has dropped its inlet.
        tokio::join!(
            futures::future::join_all(streams),
            datagrams,
            outlet.run(&intake, &self.stats, self.zone, &stop)
        );
    }
}

fn parse(address: &str) -> Option<SocketAddr> {
    address.parse().ok()
}

impl std::fmt::Debug for SyslogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyslogSource")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
