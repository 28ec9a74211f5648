//! `sluice tenant`: who is served, and what each may use.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use sluice_settings::readable;
use sluice_settings::units::{parse_duration, parse_size, show_duration, show_size};
use sluice_tenants::folder::{read_keys, read_tenants};
use sluice_tenants::{Folder, Key, State, Tenant, Tenants};
use sluice_wire::ids::TenantId;

use crate::key;

/// Where the folder is, and how answers are written.
#[derive(clap::Args, Debug)]
pub(crate) struct FolderArgs {
    /// The folder of tenants and keys, which `[tenants] dir` of ingest.toml and `tenants` of query.toml name
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "SLUICE_TENANTS",
        default_value = "./sluice-tenants"
    )]
    pub(crate) dir: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Tenants: who is served, and what each may use.
#[derive(clap::Args)]
#[command(
    after_help = "A tenant in four lines:\n  sluice tenant add acme --events-per-second 20000 --bytes-per-day \"200 GiB\"\n  \
    sluice ca issue --tenant acme --node site-7              # its edges connect with certificates\n  \
    sluice key create --tenant acme --name collector --scope write   # what speaks OTLP comes with keys\n  \
    sluice key create --tenant acme --name grafana --scope read      # and so do people who ask\n\n\
    Gateways, the OTLP role and the query role that name this folder act on a change within seconds, or at SIGHUP. They serve the tenants in\n\
    it and no others. Over a limit a batch is told to come later: nothing is lost, its edge keeps it. `suspend` cuts a tenant\n\
    off and deletes nothing."
)]
pub(crate) struct Args {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a new tenant
    Add {
        tenant: String,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// All tenants with their limits
    List,
    /// One tenant with its limits and keys
    Show { tenant: String },
    /// Change limits: those that are named, the others stay
    Limit {
        tenant: String,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Take nothing of a tenant any more and answer none of its questions, until `resume`; its edges keep what they have
    Suspend { tenant: String },
    /// Serve a suspended tenant again
    Resume { tenant: String },
    /// Serve a tenant no more, and forget its keys. What is stored of it stays stored
    Remove { tenant: String },
}

#[derive(clap::Args, Debug, Default)]
struct LimitArgs {
    /// Events in a second, averaged over the burst; 0: any number
    #[arg(long, value_name = "N")]
    events_per_second: Option<u64>,
    /// Bytes in a second as they travel, such as "8 MiB"; "0 B": any number
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    bytes_per_second: Option<u64>,
    /// Bytes from midnight to midnight, UTC, such as "200 GiB"; "0 B": any number
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    bytes_per_day: Option<u64>,
    /// What was not used so far back may be used at once, such as "10 s"
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    burst: Option<Duration>,
}

impl LimitArgs {
    fn apply(&self, tenant: &mut Tenant) {
        tenant.events_per_second = self.events_per_second.unwrap_or(tenant.events_per_second);
        tenant.bytes_per_second = self.bytes_per_second.unwrap_or(tenant.bytes_per_second);
        tenant.bytes_per_day = self.bytes_per_day.unwrap_or(tenant.bytes_per_day);
        tenant.burst = self.burst.unwrap_or(tenant.burst);
    }

    fn is_empty(&self) -> bool {
        self.events_per_second.is_none()
            && self.bytes_per_second.is_none()
            && self.bytes_per_day.is_none()
            && self.burst.is_none()
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let FolderArgs { dir, json } = args.folder;
    match args.command {
        Command::Add { tenant, limits } => {
            let id = TenantId::new(&tenant)?;
            let added = change(&dir, |tenants| {
                ensure!(
                    tenants.get(&id).is_none(),
                    "tenant {id} is served already: `sluice tenant limit` changes it"
                );
                let mut tenant = Tenant::default();
                limits.apply(&mut tenant);
                tenants.insert(id.clone(), tenant.clone());
                Ok(tenant)
            })?;
            say(json, &value(&id, &added)?, || {
                format!(
                    "added {}\nnext: sluice key create --tenant {id} --name NAME --scope write",
                    line(&id, &added)
                )
            });
        }
        Command::Limit { tenant, limits } => {
            ensure!(
                !limits.is_empty(),
                "no limit is named: such as --events-per-second 20000"
            );
            alter(&dir, &tenant, json, "limited", |tenant| limits.apply(tenant))?;
        }
        Command::Suspend { tenant } => {
            alter(&dir, &tenant, json, "suspended", |tenant| {
                tenant.state = State::Suspended
            })?;
        }
        Command::Resume { tenant } => {
            alter(&dir, &tenant, json, "resumed", |tenant| tenant.state = State::Active)?;
        }
        Command::Remove { tenant } => {
            let id = TenantId::new(&tenant)?;
            let folder = Folder::lock(&dir)?;
            let mut tenants = folder.tenants()?;
            if tenants.remove(&id).is_none() {
                return Err(unknown(&dir, &id));
            }
            // First the keys: if this ends in between, none of them opens a tenant of that name that is added again.
            let mut keys = folder.keys()?;
            let forgotten = keys.forget(&id);
            if forgotten > 0 {
                folder.save_keys(&keys)?;
            }
            folder.save_tenants(&tenants)?;
            say(
                json,
                &json!({ "tenant": id.to_string(), "keys_forgotten": forgotten }),
                || {
                    format!(
                        "removed {id} and {forgotten} keys; what is stored of it stays, its certificates stay good until `sluice ca revoke`"
                    )
                },
            );
        }
        Command::List => {
            let tenants = read(&dir)?;
            let values: Vec<Value> = tenants
                .iter()
                .map(|(id, tenant)| value(id, tenant))
                .collect::<Result<_, _>>()?;
            say(json, &values.into(), || {
                let lines: Vec<_> = tenants.iter().map(|(id, tenant)| line(id, tenant)).collect();
                match lines.is_empty() {
                    true => "no tenant: sluice tenant add NAME".to_owned(),
                    false => lines.join("\n"),
                }
            });
        }
        Command::Show { tenant } => {
            let id = TenantId::new(&tenant)?;
            let tenants = read(&dir)?;
            let found = tenants.get(&id).ok_or_else(|| unknown(&dir, &id))?;
            let keys = read_keys(&dir)?;
            let keys: Vec<&Key> = keys.iter().filter(|key| key.tenant == id.as_str()).collect();
            let mut whole = value(&id, found)?;
            whole["keys"] = keys.iter().map(|key| key::value(key)).collect();
            let now_s = crate::ca::now()?;
            say(json, &whole, || {
                let keys = keys.iter().map(|key| format!("  {}", key::line(key, now_s)));
                std::iter::once(line(&id, found))
                    .chain(keys)
                    .collect::<Vec<_>>()
                    .join("\n")
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads, changes and writes under the folder's lock.
fn change<T>(dir: &Path, change: impl FnOnce(&mut Tenants) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let folder = Folder::lock(dir)?;
    let mut tenants = folder.tenants()?;
    let changed = change(&mut tenants)?;
    folder.save_tenants(&tenants)?;
    Ok(changed)
}

fn alter(dir: &Path, tenant: &str, json: bool, done: &str, alter: impl FnOnce(&mut Tenant)) -> anyhow::Result<()> {
    let id = TenantId::new(tenant)?;
    let altered = change(dir, |tenants| {
        let tenant = tenants.get_mut(&id).ok_or_else(|| unknown(dir, &id))?;
        alter(tenant);
        Ok(tenant.clone())
    })?;
    say(json, &value(&id, &altered)?, || {
        format!("{done} {}", line(&id, &altered))
    });
    Ok(())
}

pub(crate) fn read(dir: &Path) -> anyhow::Result<Tenants> {
    if !dir.join(sluice_tenants::TENANTS_FILE).exists() {
        bail!(
            "{} holds no tenants: `sluice tenant add NAME` begins, --dir DIR looks elsewhere",
            dir.display()
        );
    }
    read_tenants(dir).context("tenants")
}

pub(crate) fn unknown(dir: &Path, id: &TenantId) -> anyhow::Error {
    anyhow::anyhow!(
        "there is no tenant {id} in {}: `sluice tenant list` shows them, `sluice tenant add {id}` adds it",
        dir.display()
    )
}

fn value(id: &TenantId, tenant: &Tenant) -> anyhow::Result<Value> {
    // What a script reads is exact: numbers, and not texts with units.
    Ok(json!({
        "tenant": id.to_string(),
        "state": serde_json::to_value(tenant.state)?,
        "events_per_second": tenant.events_per_second,
        "bytes_per_second": tenant.bytes_per_second,
        "bytes_per_day": tenant.bytes_per_day,
        "burst_ms": u64::try_from(tenant.burst.as_millis()).unwrap_or(u64::MAX),
    }))
}

fn line(id: &TenantId, tenant: &Tenant) -> String {
    let size = |bytes: u64, per: &str| match bytes {
        0 => format!("any bytes/{per}"),
        bytes => format!("{}/{per}", show_size(bytes)),
    };
    let events = match tenant.events_per_second {
        0 => "any events/s".to_owned(),
        events => format!("{} events/s", readable::count(events)),
    };
    let state = match tenant.state {
        State::Active => "active",
        State::Suspended => "suspended",
    };
    format!(
        "{id}  {state}  {events}  {}  {}  burst {}",
        size(tenant.bytes_per_second, "s"),
        size(tenant.bytes_per_day, "day"),
        show_duration(tenant.burst)
    )
}

pub(crate) fn say(json: bool, value: &Value, text: impl FnOnce() -> String) {
    match json {
        true => println!("{value:#}"),
        false => println!("{}", text()),
    }
}
