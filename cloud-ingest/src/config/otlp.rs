//! The OTLP door of the cloud: many tenants by API key.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where senders come in, and what carries their events on: an edge for each tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// Addresses; an empty one is switched off.
    pub grpc: String,
    pub http: String,
    /// Certificate and key of both doors, PEM; empty: they speak plain text.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Listen beyond loopback without TLS. Someone on the way can then read keys and events.
    pub insecure: bool,
    /// An edge's configuration: the way to the gateways, the chain, what is kept on disk; the same for every tenant but for its
    /// certificate and key, whose paths name the tenant as `{tenant}`.
    pub edge: PathBuf,
    /// Edges at work at once, each with a journal and a spool of its own.
    pub max_tenants: usize,
    /// Connections of each door.
    pub max_connections: usize,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            grpc: "127.0.0.1:4317".to_owned(),
            http: "127.0.0.1:4318".to_owned(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            insecure: false,
            edge: PathBuf::new(),
            max_tenants: 64,
            max_connections: 1024,
        }
    }
}

impl OtlpSettings {
    /// Name and address of every door that is on.
    pub fn addresses(&self) -> Result<Vec<(&'static str, SocketAddr)>, (&'static str, String)> {
        let mut doors = Vec::new();
        for (key, name, text) in [
            ("otlp.grpc", "otlp-grpc", &self.grpc),
            ("otlp.http", "otlp-http", &self.http),
        ] {
            if text.is_empty() {
                continue;
            }
            let Ok(address) = text.parse::<SocketAddr>() else {
                return Err((key, "is no address, such as 127.0.0.1:4318".to_owned()));
            };
            if !address.ip().is_loopback() && self.cert.as_os_str().is_empty() && !self.insecure {
                let why = "would show keys and events to the network: name cert and key, or say otlp.insecure = true";
                return Err((key, why.to_owned()));
            }
            doors.push((name, address));
        }
        Ok(doors)
    }

    pub(super) fn mistake(&self) -> Option<(&'static str, String)> {
        if self.cert.as_os_str().is_empty() != self.key.as_os_str().is_empty() {
            return Some(("otlp.cert", "needs otlp.key, and the other way round".to_owned()));
        }
        if !(1..=4_096).contains(&self.max_tenants) {
            return Some(("otlp.max_tenants", "goes from 1 to 4096".to_owned()));
        }
        if !(1..=65_536).contains(&self.max_connections) {
            return Some(("otlp.max_connections", "goes from 1 to 65536".to_owned()));
        }
        self.addresses().err()
    }
}
