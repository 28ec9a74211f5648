//! `sluice ca`: the certificate authority of a fleet, from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use sluice_edge::program;
use sluice_settings::readable::span;
use sluice_settings::units::{parse_duration, show_duration};
use sluice_wire::ids::{NodeId, TenantId};

use super::config::CaConfig;
use super::serve::Door;
use crate::ca::{self, Role};
use crate::running::{self, RunArgs};

/// The certificate authority of a fleet.
#[derive(clap::Args)]
#[command(
    after_help = "A fleet in five lines:\n  sluice ca init\n  sluice ca issue --gateway ingest.example.com\n  \
    sluice ca issue --tenant acme --node site-7\n  sluice ca serve --listen ca=10.0.0.5:7444\n  sluice ca revoke acme/site-7\n\n\
    Edges live on short certificates (14 days) that they renew over the link, also when one expired while a site was offline: gateways pass \
    their requests on to `sluice ca serve`, which `[gateway] authority` in ingest.toml names. Without it, issue new ones by hand.\n\n\
    The folder's `ca.key` signs everything: keep it off the gateways. Gateways need `ca.pem` and `deny`, edges `ca.pem`."
)]
pub(crate) struct Args {
    /// The authority's folder [default: ./sluice-ca]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
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
        /// How long it is valid, such as "14 d" [default: 14 d for an edge, 90 d for a gateway]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        life: Option<Duration>,
    },
    /// Revoke by serial number, by `tenant/node`, or by a gateway's hosts: cut off within a minute, and never renewed again
    Revoke { which: String },
    /// Everything that was issued: until when it is valid, and who had it issued
    List,
    /// Renew certificates of edges, for gateways that pass their requests on
    Serve {
        /// Settings (deploy/config/ca.toml shows them all)
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        run: RunArgs,
    },
}

const FOLDER: &str = "./sluice-ca";

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (given, json) = (args.dir, args.json);
    let dir = given.clone().unwrap_or_else(|| PathBuf::from(FOLDER));
    match args.command {
        Command::Serve { config, run } => return serve(given, config, run).await,
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
            life,
        } => {
            let role = match (tenant, node) {
                (Some(tenant), Some(node)) => Role::Edge {
                    tenant: TenantId::new(&tenant)?,
                    node: NodeId::new(&node)?,
                },
                _ => Role::Gateway { hosts: gateway },
            };
            let life = life.unwrap_or(role.usual_life());
            let issued = ca::issue(&dir, &role, &out, life)?;
            say(json, &serde_json::to_value(&issued)?, || {
                format!(
                    "certificate  {}\nkey          {}\nauthority    {}\nserial       {}\nvalid for    {}",
                    issued.certificate.display(),
                    issued.key.display(),
                    issued.ca.display(),
                    issued.serial,
                    show_duration(life)
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
            let now = ca::now()?;
            say(json, &serde_json::to_value(&entries)?, || {
                entries
                    .iter()
                    .map(|entry| line(entry, now))
                    .collect::<Vec<_>>()
                    .join("\n")
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One certificate, until when, and who had it issued.
fn line(entry: &ca::Entry, now: u64) -> String {
    let far = span(entry.not_after.abs_diff(now).saturating_mul(1_000));
    let until = match (entry.revoked, entry.not_after > now) {
        (true, _) => "revoked".to_owned(),
        (false, true) => format!("valid for {far}"),
        (false, false) => format!("expired {far} ago"),
    };
    let by = if entry.by.is_empty() {
        String::new()
    } else {
        format!("  {}", entry.by)
    };
    format!("{}  {:<8} {:<24} {until:<24}{by}", entry.serial, entry.role, entry.name)
        .trim_end()
        .to_owned()
}

async fn serve(dir: Option<PathBuf>, file: Option<PathBuf>, run: RunArgs) -> anyhow::Result<ExitCode> {
    running::start_logging();
    run.check_names(&["ca"])?;
    let mut config = match &file {
        Some(file) => sluice_settings::load(file, CaConfig::from_toml)?,
        None => CaConfig::default(),
    };
    config.dir = dir.unwrap_or(config.dir);
    config.listen = run.address("ca").unwrap_or(config.listen);
    let shutdown = program::shutdown_on_signal()?;
    let door = Door::bind(config).await?;
    if let Some(path) = &run.ready_file {
        program::write_ready_file(path, [("ca", door.address())], None)?;
    }
    println!("the authority answers at https://{}", door.address());
    door.serve(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

fn say(json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) {
    if json {
        println!("{value:#}")
    } else {
        println!("{}", text())
    }
}
