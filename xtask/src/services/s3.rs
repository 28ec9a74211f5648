//! S3: a MinIO server, built from its Go module.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{self, Cache, Recipe};
use super::engine::Launch;
use super::ports::free_ports;
use super::probe;

/// What `@latest` was on 2026-11-21. MinIO's release tags (`RELEASE.…`) are no versions in Go's sense, and a module proxy need not serve
/// them. `go install` compares what it gets with Go's checksum database, unless the developer has turned that off.
const MODULE: &str = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c";
const ACCESS_KEY: &str = "sluice";
const SECRET_KEY: &str = "sluice-secret";
const REGION: &str = "us-east-1";
/// There from the start: Rust's object stores cannot make one.
const BUCKET: &str = "sluice-test";

pub(super) fn recipe() -> Recipe<'static> {
    Recipe {
        name: "minio-20260212".into(),
        inputs: &[MODULE],
        proof: "minio",
    }
}

pub(super) async fn installed(cache: &Cache) -> Result<PathBuf> {
    cache
        .get(&recipe(), async |folder| {
            let what = "building MinIO from its Go module, 2 to 5 minutes on two cores, once";
            cache::go_install("s3", what, MODULE, &[], folder).await
        })
        .await
}

pub(super) fn launch(installed: &Path, data: &Path) -> Result<Launch> {
    let [address, console] = free_ports()?;
    // A folder in the data of a single server is a bucket.
    fs::create_dir_all(data.join(BUCKET)).context("cannot make the bucket")?;
    let mut command = Command::new(installed.join("minio"));
    // Settings for another server of the developer's are not for this one.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MINIO_") {
            command.env_remove(&name);
        }
    }
    command
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
        .env("MINIO_REGION", REGION)
        .env("MINIO_BROWSER", "off")
        .env("MINIO_UPDATE", "off")
        .args(["server", "--quiet", "--address", &address.to_string()])
        .args(["--console-address", &console.to_string()])
        .arg(data);
    Ok(Launch {
        command,
        address,
        probe: probe::s3,
        variables: vec![
            ("SLUICE_TEST_S3_ENDPOINT", format!("http://{address}")),
            ("SLUICE_TEST_S3_ACCESS_KEY", ACCESS_KEY.into()),
            ("SLUICE_TEST_S3_SECRET_KEY", SECRET_KEY.into()),
            ("SLUICE_TEST_S3_REGION", REGION.into()),
            ("SLUICE_TEST_S3_BUCKET", BUCKET.into()),
        ],
    })
}
