//! What an edge node costs while nothing happens.

use std::path::Path;
use std::time::Duration;

use sluice_bench::process::Start;

use crate::{Line, line};

/// Allocations of the start are over by then.
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(10);

pub(crate) fn measure(edge: &Path) -> Vec<Line> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (memory, cpu) = runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let start = Start::edge(edge, &folder.path().join("data"));
        let process = start.spawn().await.unwrap();
        tokio::time::sleep(SETTLE).await;
        let before = process.cpu_seconds().unwrap();
        tokio::time::sleep(WATCHED).await;
        (process.memory().unwrap().0, process.cpu_seconds().unwrap() - before)
    });
    vec![line(
        "sluice-edge, idle, no plugins",
        format!("{:.1} MiB resident", memory as f64 / f64::from(1 << 20)),
        format!("{:.1} % of a core", 100.0 * cpu / WATCHED.as_secs_f64()),
    )]
}
