//! How events come in. Doors take requests within limits and answer in the manner of their protocol; the other sources read or
//! listen by themselves. All hand export requests to the intake, and none goes on before what it handed over is on disk.

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

use crate::config::SourceSettings;
use crate::intake::Intake;
use crate::node::EdgeError;
use filelog::FileLogSource;
use host::HostSource;
use prometheus::PrometheusSource;
use stats::SourceStats;
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

/// Makes every source of the configuration, with its sockets.
pub(crate) async fn build(settings: &SourceSettings) -> Result<(Vec<Source>, Vec<Arc<SourceStats>>), EdgeError> {
    let (mut sources, mut all) = (Vec::new(), Vec::new());
    let mut add = |(source, stats)| {
        sources.push(source);
        all.push(stats);
    };
    let fail = |name: &str| {
        let name = name.to_owned();
        move |source| EdgeError::Source { name, source }
    };
    for config in &settings.filelog {
        let built = FileLogSource::build(config).map_err(std::io::Error::other);
        let (source, stats) = built.map_err(fail(&config.name))?;
        add((Source::FileLog(source), stats));
    }
    for config in &settings.syslog {
        let (source, stats) = SyslogSource::build(config).await.map_err(fail(&config.name))?;
        add((Source::Syslog(source), stats));
    }
    if settings.host.enabled {
        let (source, stats) = HostSource::build(&settings.host);
        add((Source::Host(source), stats));
    }
    for config in &settings.prometheus {
        let (source, stats) = PrometheusSource::build(config).map_err(fail(&config.name))?;
        add((Source::Prometheus(source), stats));
    }
    Ok((sources, all))
}

/// The name of this machine, as its kernel has it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
