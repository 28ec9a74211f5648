//! `sluice ingest erase`: rows of a tenant that nobody may see any more.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use sluice_ingest::IngestConfig;
use sluice_store::erase::Place;
use sluice_store::{EmbeddedHot, Lake, Rule, Stores};
use sluice_wire::ids::TenantId;

use crate::replay::parse_time;

/// `sluice ingest erase`.
#[derive(clap::Args)]
#[command(
    after_help = "What was taken in until now is erased, and nothing that comes later. Queries that begin a second later do not see the rows. The cold\n\
    writer takes them out of the lake at its next turns (cold.compact_every), and vacuum removes the old files (cold.vacuum_after); then they leave\n\
    hot, once its writer is behind them. Batches of the tenant that are set aside and may hold such rows leave, too. The log forgets them after\n\
    log.replay_window, and a replay leaves them out. Counts stay: the ledger says how many were erased. There is no way back."
)]
pub(crate) struct EraseArgs {
    /// Settings of ingest, which say where the lake is
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Whose rows
    #[arg(long, required_unless_present = "list")]
    tenant: Option<String>,
    /// Only rows whose `time` is this or later, such as 2026-11-21T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<i64>,
    /// Only rows whose `time` is before this
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<i64>,
    /// Do it; without this, only tell what would be erased
    #[arg(long)]
    yes: bool,
    /// What was erased so far, and where it is gone
    #[arg(long, conflicts_with_all = ["tenant", "from", "to", "yes"])]
    list: bool,
}

pub(crate) async fn run(args: EraseArgs) -> Result<ExitCode> {
    let config = sluice_settings::load(&args.config, IngestConfig::from_toml)?;
    let lake = Lake::open(&config.lake, &config.s3.options()?).await?;
    let stores = Stores::open_in(&lake, EmbeddedHot::new(0).into()).await?;
    if args.list {
        return list(&stores).await;
    }
    let tenant = TenantId::new(args.tenant.as_deref().unwrap_or_default())?;
    let nanos = |us: i64| us.saturating_mul(1000);
    let (from, to) = (args.from.map(nanos), args.to.map(nanos));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        bail!("--from is not before --to");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rule = Rule::new(&tenant, i64::try_from(now.as_micros()).unwrap_or(i64::MAX), from, to);
    let what = match (from, to) {
        (None, None) => format!("all rows of {tenant}"),
        _ => format!("the rows of {tenant} of that time"),
    };
    if !args.yes {
        println!("{what} that are there now would be erased, for good; say --yes");
        return Ok(ExitCode::SUCCESS);
    }
    let number = stores.erase(&rule).await?;
    println!("{what} are erased (rule {number}); `sluice ingest erase --list` says when they are gone from the stores");
    Ok(ExitCode::SUCCESS)
}

async fn list(stores: &Stores) -> Result<ExitCode> {
    let rules = stores.rules().await?;
    let (cold, hot) = (
        stores.rules_done(Place::Cold).await?,
        stores.rules_done(Place::Hot).await?,
    );
    if rules.is_empty() {
        println!("nothing was erased");
    }
    for (number, rule) in rules {
        let gone = match (cold.contains_key(&number), hot.contains_key(&number)) {
            (true, true) => "gone from the stores",
            (true, false) => "gone from cold",
            _ => "invisible",
        };
        let time = |ns: Option<i64>, else_: &str| {
            ns.map_or_else(|| else_.to_owned(), |ns| crate::replay::show_time(ns / 1000))
        };
        println!(
            "{number:>4}  {}  time {} to {}, taken in before {}: {gone}",
            rule.tenant,
            time(rule.from_ns, "the beginning"),
            time(rule.to_ns, "the end"),
            crate::replay::show_time(rule.before_us),
        );
    }
    Ok(ExitCode::SUCCESS)
}
