//! Fetches pages of metrics from targets at an interval, as Prometheus does.

mod convert;
mod fetch;
mod parse;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use sluice_wire::Signal;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::deliver::{Delivered, Delivery, deliver};
use super::export::{Attributes, Metric, Number, Request, Times};
use super::stats::SourceStats;
use crate::config::Prometheus;
use crate::intake::Intake;
use crate::sealer::blocking;
use crate::status::now_ns;
use fetch::{Fetcher, Page};

/// Pages in memory at once, of one source.
const AT_ONCE: usize = 2;
/// One request holds no more, unless a single metric does.
const REQUEST_ROWS: usize = 8192;
const REQUEST_BYTES: usize = 1 << 20;
const SCOPE: &str = "sluice.prometheus";

/// A `[[source.prometheus]]`.
#[derive(Debug)]
pub(crate) struct PrometheusSource {
    config: Prometheus,
    targets: Vec<Url>,
    fetcher: Fetcher,
    stats: Arc<SourceStats>,
}

impl PrometheusSource {
    pub(crate) fn build(config: &Prometheus) -> Result<(Self, Arc<SourceStats>), std::io::Error> {
        let stats = SourceStats::new(&config.name, "prometheus");
        let mut targets = Vec::new();
        for text in &config.targets {
            let mut url = Url::parse(text).map_err(std::io::Error::other)?;
            if url.path() == "/" {
                url.set_path("/metrics");
            }
            targets.push(url);
        }
        let source = Self {
            fetcher: Fetcher::new(config, &targets)?,
            targets,
            config: config.clone(),
            stats: stats.clone(),
        };
        stats.gauge("targets", source.targets.len() as u64);
        Ok((source, stats))
    }

    /// Fetches until it is told to stop.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let up = tokio::sync::Mutex::new(BTreeMap::new());
        let (source, at_once, up) = (&self, &at_once, &up);
        let targets = self.targets.iter().map(|url| {
            let (intake, stop) = (intake.clone(), stop.clone());
            async move {
                let target = Target::new(source, url);
                let mut interval = tokio::time::interval_at(target.first_at(), source.config.interval);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = interval.tick() => {}
                        () = stop.cancelled() => return,
                    }
                    let Ok(_turn) = at_once.acquire().await else {
                        return;
                    };
                    let scraped = tokio::select! {
                        scraped = target.scrape(&intake) => scraped,
                        () = stop.cancelled() => return,
                    };
                    let mut up = up.lock().await;
                    up.insert(target.instance.clone(), scraped.problem.clone());
                    source.tell(&up);
                    drop(up);
                    for delivery in scraped.deliveries {
                        let patience = Some(source.config.interval);
                        if deliver(&intake, &source.stats, &delivery, patience, &stop).await == Delivered::Stopped {
                            return;
                        }
                    }
                }
            }
        });
        futures::future::join_all(targets).await;
    }

    fn tell(&self, targets: &BTreeMap<String, Option<String>>) {
        let up = targets.values().filter(|problem| problem.is_none()).count();
        self.stats.gauge("targets_up", up as u64);
        let down = targets
            .iter()
            .find_map(|(target, problem)| Some((target, problem.as_ref()?)));
        self.stats
            .problem(down.map(|(target, problem)| format!("{target}: {problem}")));
    }
}

struct Target<'a> {
    source: &'a PrometheusSource,
    url: &'a Url,
    /// Host and port.
    instance: String,
    resource: Attributes,
}

/// What one look at a target brought.
struct Scraped {
    deliveries: Vec<Delivery>,
    problem: Option<String>,
}

impl<'a> Target<'a> {
    fn new(source: &'a PrometheusSource, url: &'a Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(0).to_string();
        let instance = format!("{host}:{port}");
        let mut resource = Attributes::default();
        for (key, value) in [
            ("service.name", source.config.name.as_str()),
            ("service.instance.id", &instance),
            ("server.address", host),
            ("server.port", &port),
            ("url.scheme", url.scheme()),
        ] {
            resource.text(key, value);
        }
        for (key, value) in &source.config.labels {
            resource.text(key, value);
        }
        Self {
            source,
            url,
            instance,
            resource,
        }
    }

    /// Targets have their turns at different times, each always at the same one, so that not all are asked at once.
    fn first_at(&self) -> tokio::time::Instant {
        let mut hasher = DefaultHasher::new();
        self.url.as_str().hash(&mut hasher);
        let interval = self.source.config.interval.as_millis().max(1) as u64;
        tokio::time::Instant::now() + Duration::from_millis(hasher.finish() % interval)
    }

    async fn scrape(&self, intake: &Intake) -> Scraped {
        let begun = Instant::now();
        let read_ns = now_ns();
        let limits = &intake.limits.decode;
        let (rows, bytes) = (
            REQUEST_ROWS.min(limits.max_rows),
            REQUEST_BYTES.min(limits.max_bytes / 4),
        );
        let page = self.source.fetcher.fetch(self.url).await;
        let (max_samples, resource) = (limits.max_rows, self.resource.clone());
        let stats = self.source.stats.clone();
        blocking(move || {
            let mut packer = Packer::new(resource, rows, bytes);
            let read = page.and_then(|page| read(&page, max_samples, read_ns));
            let (problem, samples) = match read {
                Ok((metrics, samples)) => {
                    metrics.iter().for_each(|metric| packer.push(metric));
                    (None, samples)
                }
                Err(problem) => {
                    stats.refused("scrape_failed", 1);
                    (Some(problem), 0)
                }
            };
            let took = begun.elapsed().as_secs_f64();
            let up = if problem.is_none() { 1.0 } else { 0.0 };
            for (name, unit, help, value) in [
                ("up", "", "1 if the target answered with a page that could be read.", up),
                ("scrape_duration_seconds", "s", "How long the page took.", took),
                ("scrape_samples_scraped", "", "Samples on the page.", samples as f64),
            ] {
                let times = Times {
                    start_ns: 0,
                    time_ns: read_ns,
                };
                let mut metric = Metric::gauge(name, unit, help);
                metric.number(times, Number::Double(value), &Attributes::default(), None);
                packer.push(&metric);
            }
            Scraped {
                deliveries: packer.finish(),
                problem,
            }
        })
        .await
    }
}

/// The metrics of a page, and of how many samples.
fn read(page: &Page, max_samples: usize, read_ns: u64) -> Result<(Vec<Metric>, usize), String> {
    let text = String::from_utf8_lossy(&page.bytes);
    let families = parse::parse(&text, page.is_open_metrics, max_samples).map_err(|error| error.to_string())?;
    let samples = families.iter().map(|family| family.samples.len()).sum();
    Ok((convert::convert(&families, read_ns), samples))
}

/// Puts metrics into requests, none much larger than it should be.
struct Packer {
    resource: Attributes,
    max_rows: usize,
    max_bytes: usize,
    request: Request,
    done: Vec<Delivery>,
}

impl Packer {
    fn new(resource: Attributes, max_rows: usize, max_bytes: usize) -> Self {
        Self {
            resource,
            max_rows,
            max_bytes,
            request: Request::new(SCOPE),
            done: Vec::new(),
        }
    }

    fn push(&mut self, metric: &Metric) {
        if self.request.rows() + metric.points() > self.max_rows || self.request.bytes() >= self.max_bytes {
            self.close();
        }
        self.request.push_metric(&self.resource, metric);
    }

    fn close(&mut self) {
        let request = std::mem::replace(&mut self.request, Request::new(SCOPE));
        if request.rows() > 0 {
            self.done.push(Delivery {
                signal: Signal::Metric,
                rows: request.rows() as u64,
                body: request.finish(),
                positions: Vec::new(),
            });
        }
    }

    fn finish(mut self) -> Vec<Delivery> {
        self.close();
        self.done
    }
}
