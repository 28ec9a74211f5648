//! A node inside the test's process, on its own runtime, so that it can be dropped as a crash would drop it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_edge::spool::{Spool, SpoolError};
use sluice_edge::{EdgeConfig, EdgeError, EdgeNode, NodeOptions, StatusHandle};
use sluice_runtime::{COMPILE_COMMAND, Compiler};
use sluice_wal::WalError;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct TestNode {
    pub(crate) runtime: Runtime,
    pub(crate) spool: Arc<Spool>,
    pub(crate) status: StatusHandle,
    listen: Vec<(&'static str, SocketAddr)>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), EdgeError>>,
}

/// This process is a test and no compiler of plugins; the program is.
pub(crate) fn options() -> NodeOptions {
    let mut options = NodeOptions::default();
    options.compiler = Compiler::new(env!("CARGO_BIN_EXE_sluice-edge"), [COMPILE_COMMAND]);
    options
}

/// Everything on free ports, batches sealed quickly.
pub(crate) fn config(data: &Path) -> EdgeConfig {
    let mut config = EdgeConfig {
        data_dir: data.to_owned(),
        ..EdgeConfig::default()
    };
    for name in ["otlp-grpc", "otlp-http", "http"] {
        config.listen.set(name, "127.0.0.1:0").unwrap();
    }
    config.seal.offline_age = Duration::from_millis(50);
    config
}

impl TestNode {
    pub(crate) fn start(config: EdgeConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut built = None;
        eventually("the data folder is free", || {
            match runtime.block_on(EdgeNode::build_with(config.clone(), options())) {
                // Tests beside this one start processes, and for a moment a new process holds all our locks.
                Err(EdgeError::Spool(SpoolError::Log(WalError::Locked)) | EdgeError::Journal(WalError::Locked)) => {
                    false
                }
                result => {
                    built = Some(result.unwrap());
                    true
                }
            }
        });
        let node = built.unwrap();
        let (spool, status, listen) = (node.spool(), node.status(), node.listen());
        let shutdown = CancellationToken::new();
        let task = runtime.spawn(node.run(shutdown.clone()));
        assert!(runtime.block_on(status.serving()));
        Self {
            runtime,
            spool,
            status,
            listen,
            shutdown,
            task,
        }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.listen.iter().find(|(n, _)| *n == name).unwrap().1
    }

    /// SIGTERM.
    pub(crate) fn stop(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.task).unwrap().unwrap();
        self.runtime.shutdown_timeout(Duration::from_secs(30));
    }

    /// Ends every task where it stands.
    pub(crate) fn crash(self) {
        self.task.abort();
        self.runtime.shutdown_timeout(Duration::from_secs(30));
    }
}

/// Waits for a condition, and fails loudly when it does not come.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A test that this machine cannot run. Where changes are judged it must run: there it fails.
pub(crate) fn skipped(why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "this test must not be left out here: {why}"
    );
    eprintln!("skipped: {why}");
}
