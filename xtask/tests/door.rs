//! The HTTP interface before the embedded ClickHouse: its tests are written in its own language and run from here.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A person may go without; the machine that guards the main line may not.
fn skip(why: &str) -> Result<()> {
    if env::var_os("CI").is_some() {
        bail!("{why}");
    }
    eprintln!("skipped: {why}");
    Ok(())
}

fn python(script: &[&str]) -> Result<Option<bool>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/clickhouse");
    let mut python = Command::new("python3");
    if !python
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
    {
        skip("there is no python3")?;
        return Ok(None);
    }
    let status = Command::new("python3")
        .current_dir(folder)
        .arg("-B")
        .args(script)
        .status()
        .context("python3")?;
    Ok(Some(status.success()))
}

#[test]
fn statements_and_data_are_told_apart() -> Result<()> {
    assert_ne!(python(&["-m", "unittest", "test_statement"])?, Some(false));
    Ok(())
}

/// `cargo xtask services clickhouse -- cargo test -p xtask`; with a real server's address it tests the tests.
#[test]
fn clients_find_what_a_server_has() -> Result<()> {
    if env::var_os("SLUICE_TEST_CLICKHOUSE_URL").is_none() {
        return skip("SLUICE_TEST_CLICKHOUSE_URL is not set; `cargo xtask services clickhouse -- …` sets it");
    }
    assert_ne!(python(&["test_door.py"])?, Some(false));
    Ok(())
}
