//! What a process says of itself over HTTP: the status of the parts it runs, looked at once a second.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_query::StatusSource;
use tokio_util::sync::CancellationToken;

/// Ingest asks its cold table, so a look is not made for every request.
const EVERY: Duration = Duration::from_secs(1);

/// The parts that are asked.
pub(crate) struct NodeReports {
    edge: Option<sluice_edge::StatusHandle>,
    ingest: Option<sluice_ingest::StatusHandle>,
    latest: Arc<Latest>,
}

#[derive(Default)]
struct Latest(RwLock<Report>);

#[derive(Clone, Default)]
struct Report {
    status: Value,
    metrics: String,
    ready: bool,
}

impl NodeReports {
    pub(crate) fn new(edge: Option<sluice_edge::StatusHandle>, ingest: Option<sluice_ingest::StatusHandle>) -> Self {
        Self {
            edge,
            ingest,
            latest: Arc::default(),
        }
    }

    /// What the HTTP door hands on.
    pub(crate) fn source(&self) -> Arc<dyn StatusSource> {
        Arc::clone(&self.latest) as Arc<dyn StatusSource>
    }

    /// Looks until told to stop.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        loop {
            let report = self.look().await;
            *self.latest.0.write().unwrap_or_else(PoisonError::into_inner) = report;
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(EVERY) => {} }
        }
    }

    async fn look(&self) -> Report {
        let mut report = Report {
            status: json!({}),
            metrics: String::new(),
            ready: true,
        };
        if let Some(edge) = &self.edge {
            let status = edge.snapshot();
            report.metrics += &status.metrics();
            report.status["edge"] = json!(status);
            report.status["degraded"] = json!(edge.degraded());
            report.ready &= edge.is_ready();
        }
        if let Some(ingest) = &self.ingest {
            let status = ingest.snapshot().await;
            report.metrics += &status.metrics();
            report.ready &= status.log_trouble.is_none();
            report.status["ingest"] = json!(status);
        }
        report
    }
}

impl StatusSource for Latest {
    fn status(&self) -> Value {
        self.0.read().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    fn metrics(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).metrics.clone()
    }

    fn ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).ready
    }
}
