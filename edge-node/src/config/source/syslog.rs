//! `[[source.syslog]]`

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_settings::units;

use super::within;
use crate::config::ConfigError;
use crate::source::syslog::Zone;

/// Syslog over UDP, TCP and TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub name: String,
    #[serde(default)]
    pub udp: String,
    #[serde(default)]
    pub tcp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsDoor>,
    /// Of senders that name no zone (RFC 3164): `UTC`, an offset such as `+02:00`, or `guess`.
    #[serde(default = "utc")]
    pub zone: String,
    #[serde(default = "max_message_bytes", with = "units::size")]
    pub max_message_bytes: u64,
    #[serde(default = "syslog_connections")]
    pub max_connections: usize,
    /// Messages that wait to be accepted.
    #[serde(default = "max_waiting_bytes", with = "units::size")]
    pub max_waiting_bytes: u64,
    /// What the kernel holds for the UDP socket; it grants no more than `net.core.rmem_max`.
    #[serde(default = "udp_buffer", with = "units::size")]
    pub udp_buffer: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsDoor {
    pub address: String,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Senders must have a certificate of this authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// RFC 5424 asks receivers for 2 KiB; what applications send is longer.
fn max_message_bytes() -> u64 {
    64 << 10
}

fn syslog_connections() -> usize {
    128
}

fn max_waiting_bytes() -> u64 {
    4 << 20
}

fn udp_buffer() -> u64 {
    2 << 20
}

impl Syslog {
    pub(super) fn check(&self, text: &str, insecure: bool) -> Result<(), ConfigError> {
        let tls = self.tls.as_ref();
        let trusted = tls.is_some_and(|tls| tls.client_ca.is_some());
        let doors = [
            ("udp", self.udp.as_str(), false),
            ("tcp", self.tcp.as_str(), false),
            ("tls", tls.map_or("", |tls| tls.address.as_str()), trusted),
        ];
        if doors.iter().all(|(_, address, _)| address.is_empty()) {
            return Err(ConfigError::value(text, "source.syslog.name", "has no address")
                .with_hint("give it `udp`, `tcp` or `tls`"));
        }
        for (name, address, trusted) in doors.into_iter().filter(|(_, address, _)| !address.is_empty()) {
            let key = format!("source.syslog.{name}");
            let Ok(socket) = address.parse::<SocketAddr>() else {
                return Err(ConfigError::value(text, &key, format!("{address:?} is not an address"))
                    .with_hint("write ip:port, such as \"127.0.0.1:514\""));
            };
            if !socket.ip().is_loopback() && !insecure && !trusted {
                let message = format!("{socket} can be reached from other machines, and anybody may send there");
                return Err(ConfigError::value(text, &key, message)
                    .with_hint("use `tls` with `client_ca`, or say `insecure = true` in [listen]"));
            }
        }
        if Zone::parse(&self.zone).is_none() {
            let message = format!("{:?} is no zone", self.zone);
            return Err(ConfigError::value(text, "source.syslog.zone", message)
                .with_hint("write \"UTC\", \"+02:00\" or \"guess\""));
        }
        within(
            text,
            "source.syslog.max_message_bytes",
            self.max_message_bytes,
            480,
            1 << 20,
        )?;
        within(
            text,
            "source.syslog.max_connections",
            self.max_connections as u64,
            1,
            65_536,
        )?;
        within(
            text,
            "source.syslog.max_waiting_bytes",
            self.max_waiting_bytes,
            self.max_message_bytes.max(64 << 10),
            64 << 20,
        )?;
        within(text, "source.syslog.udp_buffer", self.udp_buffer, 4 << 10, 256 << 20)
    }
}
