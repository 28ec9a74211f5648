//! Metrics of this machine, read from the kernel's texts at an interval. Names are those of OpenTelemetry's conventions.

mod cpu;
mod disk;
mod files;
mod memory;
mod network;

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::Signal;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::deliver::{Delivered, Delivery, deliver};
use super::export::{Attributes, Metric, Number, Request, Times};
use super::host_name;
use super::stats::SourceStats;
use crate::config::HostMetrics;
use crate::intake::Intake;
use crate::sealer::blocking;
use crate::status::now_ns;
use files::{Files, Machine};

const SCOPE: &str = "sluice.host";

/// `[source.host]`
#[derive(Debug)]
pub(crate) struct HostSource {
    files: Files,
    interval: Duration,
    stats: Arc<SourceStats>,
}

impl HostSource {
    pub(crate) fn build(config: &HostMetrics) -> (Self, Arc<SourceStats>) {
        let stats = SourceStats::new("host", "host");
        let source = Self {
            files: Files::new(&config.root),
            interval: config.interval,
            stats: stats.clone(),
        };
        (source, stats)
    }

    /// Measures until it is told to stop. What is not taken before it is time for the next measurement is left out and counted.
    pub(crate) async fn run(self, intake: Arc<Intake>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stop.cancelled() => return,
            }
            let files = self.files.clone();
            let (request, missing) = blocking(move || {
                let machine = files.read();
                (request(&machine, now_ns()), machine.missing)
            })
            .await;
            let is_well = missing.is_empty();
            self.stats
                .problem((!is_well).then(|| format!("cannot be read: {}", missing.join(", "))));
            let delivery = Delivery {
                signal: Signal::Metric,
                rows: request.rows() as u64,
                body: request.finish(),
                positions: Vec::new(),
            };
            if deliver(&intake, &self.stats, &delivery, Some(self.interval), &stop).await == Delivered::Stopped {
                return;
            }
        }
    }
}

/// All that a machine says of itself at one time.
fn request(machine: &Machine, now_ns: u64) -> Request {
    let times = Times {
        // What the kernel counts it counts since it started.
        start_ns: cpu::boot_seconds(&machine.stat).map_or(0, |s| s.saturating_mul(1_000_000_000)),
        time_ns: now_ns,
    };
    let mut resource = Attributes::default();
    if let Some(name) = &machine.host_name {
        resource.text("host.name", name);
    }
    resource.text("os.type", "linux");
    let mut request = Request::new(SCOPE);
    let metrics = [
        cpu::metrics(machine, times),
        memory::metrics(machine, times),
        disk::metrics(machine, times),
        network::metrics(machine, times),
    ];
    for metric in metrics.iter().flatten() {
        request.push_metric(&resource, metric);
    }
    request
}

/// Adds a whole number with attributes of texts.
fn put(metric: &mut Metric, times: Times, value: u64, attributes: &[(&str, &str)]) {
    let value = Number::Int(i64::try_from(value).unwrap_or(i64::MAX));
    metric.number(times, value, &texts(attributes), None);
}

fn put_double(metric: &mut Metric, times: Times, value: f64, attributes: &[(&str, &str)]) {
    metric.number(times, Number::Double(value), &texts(attributes), None);
}

fn texts(attributes: &[(&str, &str)]) -> Attributes {
    let mut set = Attributes::default();
    attributes.iter().for_each(|(key, value)| set.text(key, value));
    set
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
