//! A registry for packages of plugins: the reference implementation of the OCI distribution protocol, built from its Go module.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{self, Cache, Recipe};
use super::engine::Launch;
use super::ports::free_ports;
use super::probe;

/// `go install` compares what it gets with Go's checksum database, unless the developer has turned that off.
const MODULE: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0";
const USER: &str = "sluice";
const PASSWORD: &str = "sluice-secret";
/// The password's bcrypt hash, which is all the registry wants to know.
const HTPASSWD: &str = "sluice:$2b$05$jEO/zs8All8BKtcwbHHWqOWLB2QbsiIdzoNGa7ro/oFLyKkqDTC5S\n";

pub(super) fn recipe() -> Recipe<'static> {
    Recipe {
        name: "registry-3.0.0".into(),
        inputs: &[MODULE],
        proof: "registry",
    }
}

pub(super) async fn installed(cache: &Cache) -> Result<PathBuf> {
    cache
        .get(&recipe(), async |folder| {
            let what = "building the registry from its Go module, 2 to 5 minutes on two cores, once";
            cache::go_install("registry", what, MODULE, &["-ldflags=-s -w"], folder).await
        })
        .await
}

pub(super) fn launch(installed: &Path, data: &Path) -> Result<Launch> {
    let [address] = free_ports()?;
    let (htpasswd, config) = (data.join("htpasswd"), data.join("config.yml"));
    fs::write(&htpasswd, HTPASSWD).context("cannot write the registry's user")?;
    let settings = format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
         http: {{addr: \"{address}\"}}\n\
         auth: {{htpasswd: {{realm: sluice, path: {:?}}}}}\n",
        data.join("blobs"),
        htpasswd
    );
    fs::write(&config, settings).context("cannot write the registry's settings")?;
    let mut command = Command::new(installed.join("registry"));
    // Settings for another registry of the developer's are not for this one.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("REGISTRY_") || name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(config);
    Ok(Launch {
        command,
        address,
        probe: probe::registry,
        variables: vec![
            ("SLUICE_TEST_REGISTRY", address.to_string()),
            ("SLUICE_TEST_REGISTRY_USER", USER.into()),
            ("SLUICE_TEST_REGISTRY_PASSWORD", PASSWORD.into()),
        ],
    })
}
