//! `sluice ca`: the certificate authority of a fleet, from the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use sluice_wire::ids::{NodeId, TenantId};

use crate::ca::{self, Role};

/// The certificate authority of a fleet.
#[derive(clap::Args)]
#[command(
    after_help = "A fleet in four lines:\n  sluice ca init\n  sluice ca issue --gateway ingest.example.com\n  \
    sluice ca issue --tenant acme --node site-7\n  sluice ca revoke acme/site-7\n\n\
    The folder's `ca.key` signs everything: keep it off the gateways. Gateways need `ca.pem` and `deny`, edges `ca.pem`."
)]
pub(crate) struct Args {
    /// The authority's folder
    #[arg(long, value_name = "DIR", default_value = "./sluice-ca", global = true)]
    dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the authority
    Init,
    /// Issue a certificate with a new key, for an edge or a gateway
    Issue {
        /// Tenant of the edge
        #[arg(long, requires = "node", required_unless_present = "gateway")]
        tenant: Option<String>,
        /// Name of the edge
        #[arg(long, requires = "tenant")]
        node: Option<String>,
        /// Host name or address of a gateway, as edges call it; may be given several times
        #[arg(long, conflicts_with = "tenant", value_name = "HOST")]
        gateway: Vec<String>,
        /// Where the certificate and its key go
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
        /// Days until it expires
        #[arg(long, default_value_t = ca::DEFAULT_DAYS)]
        days: u32,
    },
    /// Revoke by serial number, by `tenant/node`, or by a gateway's hosts
    Revoke { which: String },
    /// Everything that was issued
    List,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (dir, json) = (args.dir, args.json);
    match args.command {
        Command::Init => {
            let certificate = ca::init(&dir)?;
            say(json, &serde_json::json!({ "certificate": certificate }), || {
                format!(
                    "made the authority {}\nnext: sluice ca issue --tenant T --node N",
                    certificate.display()
                )
            });
        }
        Command::Issue {
            tenant,
            node,
            gateway,
            out,
            days,
        } => {
            let role = match (tenant, node) {
                (Some(tenant), Some(node)) => Role::Edge {
                    tenant: TenantId::new(&tenant)?,
                    node: NodeId::new(&node)?,
                },
                _ => Role::Gateway { hosts: gateway },
            };
            let issued = ca::issue(&dir, &role, &out, days)?;
            say(json, &serde_json::to_value(&issued)?, || {
                format!(
                    "certificate  {}\nkey          {}\nauthority    {}\nserial       {}",
                    issued.certificate.display(),
                    issued.key.display(),
                    issued.ca.display(),
                    issued.serial
                )
            });
        }
        Command::Revoke { which } => {
            let revoked = ca::revoke(&dir, &which)?;
            say(json, &serde_json::to_value(&revoked)?, || {
                let lines: Vec<_> = revoked
                    .iter()
                    .map(|e| format!("revoked {} {}", e.serial, e.name))
                    .collect();
                format!(
                    "{}\ngateways that read {} act on it within a minute",
                    lines.join("\n"),
                    dir.join(ca::DENY_LIST).display()
                )
            });
        }
        Command::List => {
            let entries = ca::list(&dir)?;
            say(json, &serde_json::to_value(&entries)?, || {
                let line = |e: &ca::Entry| {
                    let state = if e.revoked { "  revoked" } else { "" };
                    format!("{}  {:<8} {}{state}", e.serial, e.role, e.name)
                };
                entries.iter().map(line).collect::<Vec<_>>().join("\n")
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) {
    if json {
        println!("{value:#}")
    } else {
        println!("{}", text())
    }
}
