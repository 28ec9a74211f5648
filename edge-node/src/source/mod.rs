//! How events come in. Doors take requests within limits and answer in the manner of their protocol; the other sources read or
//! listen by themselves. All hand export requests to the intake, and none goes on before what it handed over is on disk.

pub(crate) mod at_work;
mod body;
mod deliver;
pub(crate) mod event;
pub(crate) mod export;
mod filelog;
mod host;
mod json_lines;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
mod prometheus;
pub(crate) mod reply;
pub(crate) mod stats;
pub(crate) mod syslog;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::intake::Intake;
use filelog::FileLogSource;
use host::HostSource;
use prometheus::PrometheusSource;
use syslog::SyslogSource;

/// A source of the configuration, which does nothing until it is run.
#[derive(Debug)]
pub(crate) enum Source {
    FileLog(FileLogSource),
    Syslog(SyslogSource),
    Host(HostSource),
    Prometheus(PrometheusSource),
}

impl Source {
    /// Returns soon after it is told to stop.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        match self {
            Self::FileLog(source) => source.run(intake, stop).await,
            Self::Syslog(source) => source.run(intake, stop).await,
            Self::Host(source) => source.run(intake, stop).await,
            Self::Prometheus(source) => source.run(intake, stop).await,
        }
    }
}

/// The name of this machine, as its kernel has it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
