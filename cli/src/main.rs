//! `sluice`: the one command. Each subcommand is a module; this file only chooses.

mod applying;
mod ca;
mod check;
mod erase;
#[path = "gen.rs"]
mod gen_load;
mod http_client;
mod key;
mod log;
mod otlp;
mod plugin;
mod quarantine;
mod replay;
mod reports;
mod retention;
mod roles;
mod running;
mod spool;
mod sql;
mod status;
mod tenant;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "sluice",
    version,
    about = "Telemetry from places with bad networks, into a lakehouse you can query while it arrives",
    after_help = "Start with `sluice up`: everything in one process, nothing else installed. It prints where to send and how to ask.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration refused, 4 data on disk refused."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in one process on embedded defaults
    Up(up::Args),
    /// Run an edge node: OpenTelemetry in, plugins, spool, uplink
    Edge(roles::EdgeArgs),
    /// Run cloud ingest: gateway, log, writers
    Ingest(roles::IngestArgs),
    /// Run the query layer over the stores of an ingest that is not running here
    Query(roles::QueryArgs),
    /// Ask a question in SQL, or open a prompt
    Sql(sql::Args),
    /// What a running node says of itself
    Status(status::Args),
    /// Look into the data folder of an edge, check it, take events out of it
    #[command(subcommand)]
    Spool(sluice_edge::tools::SpoolCommand),
    /// Events that a plugin failed on, and batches that ingest set aside: what there is, and sending it in again
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Records of the log that the writers cannot write
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Check a configuration file and print every key with its value
    Check(check::Args),
    /// Make load: distinct events, the same seed gives the same bytes
    Gen(gen_load::Args),
    /// The certificate authority of a fleet
    Ca(ca::command::Args),
    /// Tenants of a cloud: who is served, and what each may use
    Tenant(tenant::Args),
    /// API keys of tenants: for what speaks OTLP to the cloud, and for who asks
    Key(key::Args),
    /// Plugins: write, try, sign, publish, install, replace
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Print a completion script for your shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Whoever reads our output may have seen enough (`| head`): that is no failure, and no reason for a backtrace.
fn end_quietly_when_nobody_reads() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.contains("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(0);
        }
        others(panic);
    }));
}

fn main() -> ExitCode {
    if sluice_runtime::called_as_compiler() {
        return sluice_runtime::compile_command();
    }
    serve()
}

#[tokio::main]
async fn serve() -> ExitCode {
    end_quietly_when_nobody_reads();
    let cli = Cli::parse();
    match run(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            roles::exit_code_of(&error)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Edge(args) => roles::edge(args).await,
        Command::Ingest(args) => roles::ingest(args).await,
        Command::Query(args) => roles::query(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Spool(command) => spool::run(command).await,
        Command::Quarantine(command) => quarantine::run(command).await,
        Command::Log(command) => log::run(command).await,
        Command::Check(args) => check::run(args),
        Command::Gen(args) => gen_load::run(args).await,
        Command::Ca(args) => ca::command::run(args).await,
        Command::Tenant(args) => tenant::run(args),
        Command::Key(args) => key::run(args),
        Command::Plugin(command) => plugin::run(command).await,
        Command::Completions { shell } => {
            use clap::CommandFactory;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}
