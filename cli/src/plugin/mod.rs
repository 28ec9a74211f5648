//! `sluice plugin`: write, try, sign, publish, install, replace.

mod assets;
mod bench;
mod building;
mod new;
mod packages;
mod preview;
mod project;
mod sandbox;
mod test;
mod trial;

use std::process::ExitCode;

use anyhow::Result;

#[derive(Debug, clap::Subcommand)]
#[command(after_help = sluice_package::command::EXIT_CODES)]
pub(crate) enum Command {
    New(new::Args),
    Build(building::Args),
    Test(test::Args),
    Bench(bench::Args),
    Preview(preview::Args),
    #[command(flatten)]
    Packages(sluice_package::command::PackageCommand),
}

pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::New(args) => new::run(&args),
        Command::Build(args) => building::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Preview(args) => preview::run(args).await,
        Command::Packages(command) => packages::run(command).await,
    }
}
