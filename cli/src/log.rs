//! `sluice log`: what an operator does about records of the log that the writers cannot write.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sluice_ingest::IngestConfig;
use sluice_store::{EmbeddedHot, Lake, Stores};
use sluice_wire::ids::Partition;

/// `sluice log`.
#[derive(clap::Subcommand)]
pub(crate) enum LogCommand {
    /// Let the writers pass over a record that they cannot write; its events are counted as damaged
    #[command(
        after_help = "A writer that meets such a record stops and names its partition and offset. Both writers read the list when they\n\
                      start, so start ingest again afterwards. What is passed over stays so: there is no way back."
    )]
    Skip(SkipArgs),
    /// Which records are passed over
    Skips(SkipsArgs),
}

#[derive(clap::Args)]
pub(crate) struct SkipArgs {
    /// Partition and offset, such as 0@1234
    #[arg(value_name = "PARTITION@OFFSET", value_parser = parse_place)]
    place: (Partition, u64),
    /// Why, for those who look at the ledger later
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    of: SkipsArgs,
}

#[derive(clap::Args)]
pub(crate) struct SkipsArgs {
    /// Settings of ingest, which say where the lake is
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Another lake than the settings say
    #[arg(long, value_name = "LAKE")]
    lake: Option<String>,
}

fn parse_place(text: &str) -> Result<(Partition, u64), String> {
    let wrong = || format!("{text:?} is not PARTITION@OFFSET, such as 0@1234");
    let (partition, offset) = text.split_once('@').ok_or_else(wrong)?;
    let partition = partition.parse().ok().and_then(Partition::from_i64).ok_or_else(wrong)?;
    Ok((partition, offset.parse().map_err(|_| wrong())?))
}

pub(crate) async fn run(command: LogCommand) -> anyhow::Result<ExitCode> {
    match command {
        LogCommand::Skip(args) => skip(args).await?,
        LogCommand::Skips(args) => {
            let config = sluice_settings::load(&args.config, IngestConfig::from_toml)?;
            let stores = stores(&args, &config).await?;
            for index in 0..config.log.partitions {
                let generation = config.log.generation;
                let partition = Partition { generation, index };
                for (offset, reason) in stores.skips.all(&partition.to_string()).await? {
                    println!("{partition}@{offset}  {}", String::from_utf8_lossy(&reason));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn skip(args: SkipArgs) -> anyhow::Result<()> {
    let (partition, offset) = args.place;
    let config = sluice_settings::load(&args.of.config, IngestConfig::from_toml)?;
    let stores = stores(&args.of, &config).await?;
    let held = stores.cold.committed().await?.get(&partition).copied();
    if let Some(held) = held.filter(|held| *held >= offset) {
        bail!(
            "{partition}@{offset} is in the cold table already, which holds everything up to {held}: nothing was changed"
        );
    }
    let reason = args.reason.clone().into_bytes();
    let made = stores.skips.make(&partition.to_string(), offset, reason).await;
    let made = made.with_context(|| format!("{partition}@{offset} is not passed over"))?;
    if made != args.reason.as_bytes() {
        let before = String::from_utf8_lossy(&made);
        println!("{partition}@{offset} was passed over before: {before}");
        return Ok(());
    }
    println!("{partition}@{offset} is passed over from the next start of ingest on");
    Ok(())
}

async fn stores(args: &SkipsArgs, config: &IngestConfig) -> anyhow::Result<Stores> {
    let location = args.lake.as_deref().unwrap_or(&config.lake);
    let lake = Lake::open(location, &config.s3.options()?).await?;
    Ok(Stores::open_in(&lake, EmbeddedHot::new(0).into()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        let place = |index, offset| Ok((Partition { generation: 0, index }, offset));
        assert_eq!(parse_place("3@17"), place(3, 17));
        for text in ["", "3", "@", "3@", "@17", "a@1", "-1@1", "3@-1"] {
            assert!(parse_place(text).is_err(), "{text}");
        }
    }
}
