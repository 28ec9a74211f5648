//! The sources of the configuration at work, and their exchange while the node runs: those whose settings stay go on undisturbed, those
//! that changed or are gone end after what they read is safe, and the others begin.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Source;
use super::filelog::FileLogSource;
use super::host::HostSource;
use super::prometheus::PrometheusSource;
use super::stats::{SourceStats, Sources};
use super::syslog::SyslogSource;
use crate::config::{FileLog, HostMetrics, Prometheus, SourceSettings, Syslog};
use crate::intake::Intake;

/// One source as it is configured. Two that are equal do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    FileLog(FileLog),
    Syslog(Syslog),
    Host(HostMetrics),
    Prometheus(Prometheus),
}

impl Wanted {
    fn all(settings: &SourceSettings) -> Vec<Self> {
        let filelog = settings.filelog.iter().cloned().map(Self::FileLog);
        let syslog = settings.syslog.iter().cloned().map(Self::Syslog);
        let host = Some(settings.host.clone()).filter(|host| host.enabled).map(Self::Host);
        let prometheus = settings.prometheus.iter().cloned().map(Self::Prometheus);
        filelog.chain(syslog).chain(host).chain(prometheus).collect()
    }

    fn name(&self) -> &str {
        match self {
            Self::FileLog(config) => &config.name,
            Self::Syslog(config) => &config.name,
            Self::Host(_) => "host",
            Self::Prometheus(config) => &config.name,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::FileLog(_) => "filelog",
            Self::Syslog(_) => "syslog",
            Self::Host(_) => "host",
            Self::Prometheus(_) => "prometheus",
        }
    }

    /// The source with its sockets.
    async fn build(&self) -> Result<(Source, Arc<SourceStats>), SourceRefused> {
        let fail = |source| SourceRefused {
            name: self.name().to_owned(),
            source,
        };
        Ok(match self {
            Self::FileLog(config) => {
                let built = FileLogSource::build(config).map_err(std::io::Error::other);
                let (source, stats) = built.map_err(fail)?;
                (Source::FileLog(source), stats)
            }
            Self::Syslog(config) => {
                let (source, stats) = SyslogSource::build(config).await.map_err(fail)?;
                (Source::Syslog(source), stats)
            }
            Self::Host(config) => {
                let (source, stats) = HostSource::build(config);
                (Source::Host(source), stats)
            }
            Self::Prometheus(config) => {
                let (source, stats) = PrometheusSource::build(config).map_err(fail)?;
                (Source::Prometheus(source), stats)
            }
        })
    }
}

/// A source that cannot be made: its address is in use, its file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {source}")]
pub(crate) struct SourceRefused {
    pub(crate) name: String,
    pub(crate) source: std::io::Error,
}

/// Every source of a configuration with its sockets; none does anything yet.
#[derive(Debug)]
pub(crate) struct Built {
    ready: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    wanted: Wanted,
    source: Source,
    stats: Arc<SourceStats>,
}

impl Built {
    pub(crate) async fn of(settings: &SourceSettings) -> Result<Self, SourceRefused> {
        Ok(Self {
            ready: build_all(Wanted::all(settings)).await?,
        })
    }

    pub(crate) fn stats(&self) -> Vec<Arc<SourceStats>> {
        self.ready.iter().map(|ready| ready.stats.clone()).collect()
    }

    /// Runs them, and those that take their place when `settings` change, until it is told to stop. It returns before only if one of
    /// them failed.
    pub(crate) async fn run(
        self,
        intake: Arc<Intake>,
        mut settings: watch::Receiver<SourceSettings>,
        stop: CancellationToken,
    ) {
        let mut at_work = AtWork {
            stop: stop.clone(),
            sources: intake.sources.clone(),
            intake,
            entries: Vec::new(),
        };
        self.ready.into_iter().for_each(|ready| at_work.start(ready));
        // They may have changed since these were built.
        settings.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = settings.changed() => match changed {
                    Ok(()) => {
                        let settings = settings.borrow_and_update().clone();
                        at_work.exchange(Wanted::all(&settings)).await;
                    }
                    Err(_) => stop.cancelled().await,
                },
                () = at_work.any_ended() => return,
            }
        }
        at_work.end(|_| true).await;
    }
}

async fn build_all(wanted: Vec<Wanted>) -> Result<Vec<Ready>, SourceRefused> {
    let mut ready = Vec::new();
    for wanted in wanted {
        let (source, stats) = wanted.build().await?;
        ready.push(Ready { wanted, source, stats });
    }
    Ok(ready)
}

/// One that runs.
struct Entry {
    wanted: Wanted,
    stats: Arc<SourceStats>,
    stop: CancellationToken,
    /// None where it could not be started again.
    task: Option<JoinHandle<()>>,
}

/// Without it a source whose node was dropped would go on.
impl Drop for Entry {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

struct AtWork {
    intake: Arc<Intake>,
    sources: Arc<Sources>,
    stop: CancellationToken,
    entries: Vec<Entry>,
}

impl AtWork {
    fn start(&mut self, ready: Ready) {
        let stop = self.stop.child_token();
        self.entries.push(Entry {
            wanted: ready.wanted,
            stats: ready.stats,
            task: Some(tokio::spawn(ready.source.run(self.intake.clone(), stop.clone()))),
            stop,
        });
    }

    /// Sources end when they are told to. One that did so by itself has failed.
    async fn any_ended(&mut self) {
        let tasks = self.entries.iter_mut().filter_map(|entry| entry.task.as_mut());
        let tasks: Vec<_> = tasks.collect();
        if tasks.is_empty() {
            std::future::pending::<()>().await;
        }
        if let (Err(error), ..) = futures::future::select_all(tasks).await {
            tracing::error!(%error, "a source failed");
        }
    }

    /// Ends those that this is true of. What they have read is safe then.
    async fn end(&mut self, which: impl Fn(&Wanted) -> bool) {
        let (mut ending, staying): (Vec<_>, Vec<_>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| which(&entry.wanted));
        self.entries = staying;
        ending.iter().for_each(|entry| entry.stop.cancel());
        for task in ending.iter_mut().filter_map(|entry| entry.task.as_mut()) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a source failed");
            }
        }
        ending.iter_mut().for_each(|entry| entry.task = None);
    }

    /// Takes over a new configuration whole, or nothing of it: a socket that cannot be bound leaves everything as it was.
    async fn exchange(&mut self, wanted: Vec<Wanted>) {
        // What could not be started again is tried anew.
        self.entries.retain(|entry| entry.task.is_some());
        let before: Vec<Wanted> = self.entries.iter().map(|entry| entry.wanted.clone()).collect();
        let begin: Vec<Wanted> = wanted.iter().filter(|one| !before.contains(one)).cloned().collect();
        let ended: Vec<Wanted> = before.iter().filter(|one| !wanted.contains(one)).cloned().collect();
        if begin.is_empty() && ended.is_empty() {
            return;
        }
        // The old ones first: a new one may want the same address.
        self.end(|one| ended.contains(one)).await;
        let change = format!(
            "{} begin, {} end, {} go on",
            names(&begin),
            names(&ended),
            self.entries.len()
        );
        match build_all(begin).await {
            Ok(ready) => {
                ready.into_iter().for_each(|ready| self.start(ready));
                tracing::info!("sources reloaded: {change}");
            }
            Err(error) => {
                tracing::error!(%error, "sources are not changed, refused was: {change}");
                self.restore(ended).await;
            }
        }
        let order = |name: &str| wanted.iter().position(|one| one.name() == name);
        self.entries.sort_by_key(|entry| order(entry.wanted.name()));
        let stats = self.entries.iter().map(|entry| entry.stats.clone()).collect();
        self.sources.configure(stats);
    }

    /// Starts again what was ended.
    async fn restore(&mut self, ended: Vec<Wanted>) {
        for wanted in ended {
            match wanted.build().await {
                Ok((source, stats)) => self.start(Ready { wanted, source, stats }),
                Err(error) => {
                    let stats = SourceStats::new(wanted.name(), wanted.kind());
                    stats.problem(Some(format!(
                        "could not be started again: {error}; mend it and send SIGHUP"
                    )));
                    self.entries.push(Entry {
                        wanted,
                        stats,
                        stop: self.stop.child_token(),
                        task: None,
                    });
                }
            }
        }
    }
}

fn names(wanted: &[Wanted]) -> String {
    match wanted {
        [] => "none".to_owned(),
        some => some.iter().map(Wanted::name).collect::<Vec<_>>().join(", "),
    }
}
