//! The workers as a query node knows them: where they are, the way to them, how busy they are with its work, and what became of it.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use datafusion_distributed::WorkerChannel;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use rustls::pki_types::InvalidDnsNameError;
use rustls::pki_types::pem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::absence::{Absence, Going};
use super::dial::{channel, connector, is_loopback};
use super::secret::{Secret, SecretError};
use crate::config::ScaleConfig;

/// Parts of queries that one worker is given at once. The connection has 32 streams on the other side; who waited for a third part while
/// it holds one could wait for ever, so nobody waits: what finds no place runs here.
pub(super) const PLACES: usize = 12;

/// Why workers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("the secret that workers want")]
    Secret(#[from] SecretError),
    #[error("{worker:?} in `scale.workers` is no address of a worker: https://HOST:PORT, or http://HOST:PORT")]
    Address { worker: String },
    #[error("{worker} is twice in `scale.workers`")]
    Twice { worker: String },
    #[error("{worker} in `scale.workers` names a host that no certificate can name")]
    Name {
        worker: String,
        source: InvalidDnsNameError,
    },
    #[error(
        "{worker} in `scale.workers` is beyond this machine and without TLS: the secret and rows would be seen on the way; \
         write https://, or set `insecure = true`"
    )]
    Insecure { worker: String },
    #[error("`scale.ca` names no file, and {worker} has to prove who it is by an authority in it")]
    NoAuthority { worker: String },
    #[error("{} cannot be read as PEM (`scale.ca`)", path.display())]
    Authority { path: PathBuf, source: pem::Error },
    #[error("{} holds no authority (`scale.ca`)", path.display())]
    Empty { path: PathBuf },
    #[error("TLS towards workers")]
    Tls(#[from] rustls::Error),
}

/// All workers of this node.
#[derive(Debug)]
pub(crate) struct Workers {
    peers: Vec<Arc<Peer>>,
    pub(super) secret: Secret,
    /// Scans of fewer bytes run here.
    pub(super) min_bytes: u64,
    pub(super) max_scan: u64,
}

/// One worker.
pub(super) struct Peer {
    pub(super) url: Url,
    /// `host:port`.
    pub(super) name: String,
    channel: BoxCloneSyncChannel,
    places: Arc<Semaphore>,
    absence: Mutex<Absence>,
    counts: Counts,
}

/// The right to give a worker one more part.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    peer: Arc<Peer>,
    went: Going,
}

/// Of parts that a worker was meant for.
#[derive(Debug, Default)]
struct Counts {
    /// It computed them.
    there: AtomicU64,
    /// It did not, and this node did.
    here: AtomicU64,
    /// It was lost in the middle.
    lost: AtomicU64,
    read: AtomicU64,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    There,
    Here,
    Lost,
}

impl Workers {
    /// `None`: none are configured. Connects to nobody yet.
    pub(crate) fn open(config: &ScaleConfig, insecure: bool, max_scan: u64) -> Result<Option<Workers>, PeerError> {
        if config.workers.is_empty() {
            return Ok(None);
        }
        let secret = Secret::open(&config.secret_file)?;
        let mut names = HashSet::new();
        let peers = config.workers.iter().map(|worker| {
            let (url, name) = address(worker)?;
            if !names.insert(name.clone()) {
                return Err(PeerError::Twice { worker: worker.clone() });
            }
            let is_far = !is_loopback(&url);
            if url.scheme() == "http" && is_far && !insecure {
                return Err(PeerError::Insecure { worker: worker.clone() });
            }
            let tls = match url.scheme() {
                "https" => Some(connector(config, worker)?),
                _ => None,
            };
            Ok(Arc::new(Peer {
                channel: BoxCloneSyncChannel::new(channel(worker, &url, tls)?),
                url,
                name,
                places: Arc::new(Semaphore::new(PLACES)),
                absence: Mutex::default(),
                counts: Counts::default(),
            }))
        });
        Ok(Some(Workers {
            peers: peers.collect::<Result<_, _>>()?,
            secret,
            min_bytes: config.min_bytes,
            max_scan,
        }))
    }

    pub(super) fn peer(&self, at: usize) -> &Arc<Peer> {
        &self.peers[at]
    }

    /// Those that can be given work, as far as is known, with their places in the configuration.
    pub(super) fn present(&self) -> Vec<(usize, &str)> {
        let now = Instant::now();
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(_, peer)| peer.absence().is_present(now))
            .map(|(at, peer)| (at, peer.name.as_str()))
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// What `/metrics` says of them.
    pub(crate) fn metrics(&self, text: &mut String) {
        type Of = fn(&Counts) -> [(&'static str, u64); 3];
        let tasks: Of = |counts| {
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            [
                ("there", of(&counts.there)),
                ("here", of(&counts.here)),
                ("lost", of(&counts.lost)),
            ]
        };
        // writing to a String cannot fail
        let _ = writeln!(
            text,
            "# HELP sluice_query_worker_parts_total Parts of queries by the worker that they were meant for: computed there, here \
             instead, or lost.\n# TYPE sluice_query_worker_parts_total counter"
        );
        for peer in &self.peers {
            for (outcome, count) in tasks(&peer.counts) {
                let _ = writeln!(
                    text,
                    "sluice_query_worker_parts_total{{worker=\"{}\",outcome=\"{outcome}\"}} {count}",
                    peer.name
                );
            }
        }
        let _ = writeln!(
            text,
            "# HELP sluice_query_worker_read_bytes_total Bytes that workers read for this node's queries, as `limits.max_scan` counts \
             them.\n# TYPE sluice_query_worker_read_bytes_total counter"
        );
        for peer in &self.peers {
            let read = peer.counts.read.load(Ordering::Relaxed);
            let _ = writeln!(
                text,
                "sluice_query_worker_read_bytes_total{{worker=\"{}\"}} {read}",
                peer.name
            );
        }
        let _ = writeln!(
            text,
            "# HELP sluice_query_worker_present Whether a worker is given work.\n# TYPE sluice_query_worker_present gauge"
        );
        let now = Instant::now();
        for peer in &self.peers {
            let present = u8::from(peer.absence().is_present(now));
            let _ = writeln!(
                text,
                "sluice_query_worker_present{{worker=\"{}\"}} {present}",
                peer.name
            );
        }
    }
}

impl Peer {
    /// `None`: it has enough, or another part finds out whether it is there.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let went = self.absence().go(Instant::now())?;
        Some(Place {
            _permit: permit,
            peer: Arc::clone(self),
            went,
        })
    }

    pub(super) fn client(&self) -> Box<dyn WorkerChannel> {
        create_worker_client(self.channel.clone())
    }

    pub(super) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::There => &self.counts.there,
            Outcome::Here => &self.counts.here,
            Outcome::Lost => &self.counts.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn has_read(&self, bytes: u64) {
        self.counts.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// It gets work as always.
    pub(super) fn answered(&self) {
        self.absence().answered();
    }

    /// It gets no work for a while.
    pub(super) fn is_gone(&self) {
        self.absence().gone(Instant::now());
    }

    /// It gets no work for longer. Whether that is news.
    pub(super) fn is_unfit(&self) -> bool {
        self.absence().unfit(Instant::now())
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peer.absence().is_back(self.went);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("url", &self.url).finish_non_exhaustive()
    }
}

fn address(worker: &str) -> Result<(Url, String), PeerError> {
    let url = Url::parse(worker).ok().filter(|url| {
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        is_bare && matches!(url.scheme(), "http" | "https")
    });
    let named = url.and_then(|url| {
        let name = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
        Some((url, name))
    });
    named.ok_or_else(|| PeerError::Address {
        worker: worker.to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_that_cannot_be_reached_safely_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (secret_file, ca) = (folder.path().join("secret"), folder.path().join("ca.pem"));
        std::fs::write(&secret_file, "0123456789abcdef0123456789abcdef").unwrap();
        std::fs::write(&ca, "nothing").unwrap();
        let open = |worker: &str, ca: PathBuf, insecure: bool| {
            let config = ScaleConfig {
                workers: vec![worker.to_owned()],
                secret_file: secret_file.clone(),
                ca,
                ..ScaleConfig::default()
            };
            Workers::open(&config, insecure, 1).map(|workers| workers.map_or(0, |workers| workers.len()))
        };
        let none = PathBuf::new;
        for bad in [
            "",
            "worker",
            "ftp://a:1",
            "https://a:1/path",
            "https://me@a:1",
            "https://:word@a:1",
            "localhost:7082",
        ] {
            assert!(
                matches!(open(bad, none(), true), Err(PeerError::Address { .. })),
                "{bad}"
            );
        }
        let far = "http://10.0.0.5:7082";
        assert!(matches!(open(far, none(), false), Err(PeerError::Insecure { .. })));
        assert_eq!(open(far, none(), true).unwrap(), 1);
        assert_eq!(open("http://127.0.0.1:7082", none(), false).unwrap(), 1);
        let with_tls = "https://worker-1:7082";
        assert!(matches!(
            open(with_tls, none(), true),
            Err(PeerError::NoAuthority { .. })
        ));
        assert!(matches!(open(with_tls, ca, true), Err(PeerError::Empty { .. })));
        let twice = ScaleConfig {
            workers: vec!["http://127.0.0.1:7082".to_owned(), "http://127.0.0.1:7082/".to_owned()],
            secret_file: secret_file.clone(),
            ..ScaleConfig::default()
        };
        assert!(matches!(Workers::open(&twice, false, 1), Err(PeerError::Twice { .. })));
        let without = Workers::open(&ScaleConfig::default(), false, 1).unwrap();
        assert!(without.is_none());
    }
}
