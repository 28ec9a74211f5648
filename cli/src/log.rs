//! `sluice log`: what an operator does about records of the log that the writers cannot write.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use sluice_ingest::IngestConfig;
use sluice_store::{EmbeddedHot, Lake, Skip, Stores};
use sluice_wire::ids::Partition;

/// `sluice log`.
#[derive(clap::Subcommand)]
pub(crate) enum LogCommand {
    /// Let the writers pass over records that they cannot write; their events are counted as damaged
    #[command(
        after_help = "A writer that meets such a record stops and names its partition and offset; one whose log has lost its beginning names the\n\
                      range. Both writers read the list when they start, so start ingest again afterwards. What is passed over stays so:\n\
                      there is no way back."
    )]
    Skip(SkipArgs),
    /// Which records are passed over
    Skips(SkipsArgs),
}

#[derive(clap::Args)]
pub(crate) struct SkipArgs {
    /// Partition and offset, such as 0@1234, or the first and the last of several, such as 0@1234-1300
    #[arg(value_name = "PARTITION@OFFSET[-LAST]", value_parser = parse_place)]
    place: (Partition, u64, u64),
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

fn parse_place(text: &str) -> Result<(Partition, u64, u64), String> {
    let wrong = || format!("{text:?} is not PARTITION@OFFSET, such as 0@1234, and not PARTITION@FIRST-LAST");
    let (partition, offsets) = text.split_once('@').ok_or_else(wrong)?;
    let partition = partition.parse().ok().and_then(Partition::from_i64).ok_or_else(wrong)?;
    let (first, last) = offsets.split_once('-').unwrap_or((offsets, offsets));
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((partition, first, last)).ok_or_else(wrong)
}

fn show_place(partition: Partition, first: u64, last: u64) -> String {
    match first == last {
        true => format!("{partition}@{first}"),
        false => format!("{partition}@{first}-{last}"),
    }
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
                for skip in stores.skips_of(partition).await? {
                    println!("{}  {}", show_place(partition, skip.first, skip.last), skip.reason);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn skip(args: SkipArgs) -> anyhow::Result<()> {
    let (partition, first, last) = args.place;
    let place = show_place(partition, first, last);
    let config = sluice_settings::load(&args.of.config, IngestConfig::from_toml)?;
    let stores = stores(&args.of, &config).await?;
    let held = stores.cold.committed().await?.get(&partition).copied();
    if let Some(held) = held.filter(|held| *held >= first) {
        bail!("{place} is in the cold table already, which holds everything up to {held}: nothing was changed");
    }
    let skip = Skip {
        first,
        last,
        reason: args.reason,
    };
    let made = stores.skip(partition, &skip).await;
    if made.with_context(|| format!("{place} is not passed over"))? {
        println!("{place} is passed over from the next start of ingest on");
        return Ok(());
    }
    let known = stores.skips_of(partition).await?;
    let before = known.into_iter().find(|before| before.first == first);
    match before {
        Some(before) if before.last >= last => println!("{place} was passed over before: {}", before.reason),
        before => bail!(
            "a range that begins at {first} is passed over already, up to {}: name the rest alone",
            before.map_or(first, |before| before.last)
        ),
    }
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
        let place = |index, first, last| Ok((Partition { generation: 0, index }, first, last));
        assert_eq!(parse_place("3@17"), place(3, 17, 17));
        assert_eq!(parse_place("3@17-20"), place(3, 17, 20));
        for text in ["", "3", "@", "3@", "@17", "a@1", "-1@1", "3@-1", "3@5-", "3@5-4"] {
            assert!(parse_place(text).is_err(), "{text}");
        }
    }
}
