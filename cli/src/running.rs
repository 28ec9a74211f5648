//! Flags of every long-running role.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use sluice_edge::program;

/// The table library tells of every snapshot it reads; whoever wants that names it.
const QUIET: &str = "buoyant_kernel=warn";
/// What roles log when `SLUICE_LOG` does not say: they print what a person needs to know by themselves, but for what an edge takes over
/// while it runs, and for who was given or refused a certificate.
const LOG: &str = "warn,sluice_edge::chain=info,sluice_edge::tap=info,sluice_ingest::audit=info,sluice::ca=info";

/// Flags of every long-running role.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct RunArgs {
    /// Listen elsewhere, such as `otlp-grpc=127.0.0.1:0`; may be given several times
    #[arg(long, value_name = "NAME=ADDR", value_parser = parse_listen)]
    pub(crate) listen: Vec<(String, SocketAddr)>,
    /// Write every bound address to this file, as JSON, once the role can serve
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<PathBuf>,
}

fn parse_listen(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=ADDR, such as otlp-grpc=127.0.0.1:4317"))?;
    let address = address
        .parse()
        .map_err(|_| format!("{address:?} is not an address, such as 127.0.0.1:4317"))?;
    Ok((name.to_owned(), address))
}

impl RunArgs {
    /// The address asked for a door, if one was.
    pub(crate) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.listen
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, address)| *address)
    }

    /// Refuses names that the role does not have.
    pub(crate) fn check_names(&self, known: &[&str]) -> anyhow::Result<()> {
        for (name, _) in &self.listen {
            if !known.contains(&name.as_str()) {
                bail!(
                    "--listen {name}=…: there is no such door here; there are {}",
                    known.join(", ")
                );
            }
        }
        Ok(())
    }
}

pub(crate) fn start_logging() {
    program::start_logging(QUIET, LOG);
}
