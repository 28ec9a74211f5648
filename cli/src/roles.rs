//! `sluice edge`, `sluice ingest`, `sluice query`: one role each, for a fleet.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use sluice_edge::{EdgeConfig, EdgeError, program};
use sluice_ingest::config::Role;
use sluice_ingest::{IngestConfig, IngestService, WatchedLog};
use sluice_query::config::CacheConfig;
use sluice_query::{QueryConfig, QueryService, Tokens, WorkerService};
use sluice_settings::ConfigError;
use sluice_store::hot::HotStore;
use sluice_store::{
    Caches, ClickHouseHot, EmbeddedHot, Lake, LakeError, LogEnds, S3Options, Stores, Tables, TablesOptions,
};
use sluice_wire::ids::Partition;

use crate::applying::LocalPlugins;
use crate::ca::HttpsAuthority;
use crate::otlp;
use crate::reports::NodeReports;
use crate::running::{self, RunArgs};

/// The code that a process ends with: 3 for a configuration refused, 4 for data on disk refused, 1 for the rest.
pub(crate) fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(edge) = cause.downcast_ref::<EdgeError>() {
            return ExitCode::from(edge.exit_code());
        }
        if let Some(program) = cause.downcast_ref::<program::ProgramError>() {
            return ExitCode::from(program.exit_code());
        }
        if let Some(tool) = cause.downcast_ref::<sluice_edge::tools::ToolError>() {
            return ExitCode::from(tool.exit_code());
        }
        if cause.is::<ConfigError>()
            || cause.is::<sluice_query::BuildError>()
            || cause.is::<sluice_store::hot::clickhouse::ConfigError>()
        {
            return ExitCode::from(3);
        }
        let refused = matches!(cause.downcast_ref(), Some(sluice_ingest::RunError::Refused(_)));
        let refused = refused
            || matches!(
                cause.downcast_ref(),
                Some(LakeError::Location { .. } | LakeError::Unconditional { .. })
            );
        if refused {
            return ExitCode::from(3);
        }
        if let Some(build) = cause.downcast_ref::<sluice_ingest::BuildError>() {
            return ExitCode::from(match build {
                sluice_ingest::BuildError::Log(_) => 4,
                sluice_ingest::BuildError::Kafka(_) => 3,
                sluice_ingest::BuildError::Folder { .. } | sluice_ingest::BuildError::Admin { .. } => 1,
                _ => 3,
            });
        }
    }
    ExitCode::FAILURE
}

/// `sluice edge`.
#[derive(clap::Args)]
pub(crate) struct EdgeArgs {
    /// Settings (deploy/config/edge.toml shows them all)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn edge(args: EdgeArgs) -> anyhow::Result<ExitCode> {
    running::start_logging();
    args.run.check_names(&["otlp-grpc", "otlp-http", "http"])?;
    let mut config = EdgeConfig::load(&args.config)?;
    for (name, address) in &args.run.listen {
        config.listen.set(name, &address.to_string())?;
    }
    program::run(config, Some(args.config), args.run.ready_file).await?;
    Ok(ExitCode::SUCCESS)
}

/// `sluice ingest`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct IngestArgs {
    #[command(subcommand)]
    command: Option<IngestCommand>,
    /// Settings (deploy/config/ingest.toml shows them all)
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Run these parts only
    #[arg(long, value_enum, value_delimiter = ',')]
    role: Vec<RoleArg>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Subcommand)]
enum IngestCommand {
    /// Create the tables of the hot store in ClickHouse, or bring them up to date
    Migrate(MigrateArgs),
    /// Make rows of a time again: hot or cold from the log, or hot from cold
    Replay(crate::replay::ReplayArgs),
    /// Take rows of a tenant out of the tables, at once and for good
    Erase(crate::erase::EraseArgs),
    /// How long rows are kept, and by which time
    Retention(crate::retention::RetentionArgs),
}

/// `sluice ingest migrate`.
#[derive(clap::Args)]
struct MigrateArgs {
    /// Settings of ingest, of which [hot] counts
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the statements and change nothing
    #[arg(long)]
    dry_run: bool,
}

async fn migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let config = sluice_settings::load(&args.config, IngestConfig::from_toml)?;
    let hot = config.hot.open()?;
    let Some(hot) = hot.clickhouse() else {
        println!("hot.store is \"embedded\", which has no tables");
        return Ok(ExitCode::SUCCESS);
    };
    let statements = hot.migrate(args.dry_run).await?;
    if args.dry_run {
        for statement in &statements {
            println!("{statement};\n");
        }
    } else {
        let said = match statements.len() {
            0 => "are up to date".to_owned(),
            n => format!("were brought up to date with {n} statements"),
        };
        println!("the tables in {} {said}", hot.endpoint());
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    Gateway,
    Hot,
    Cold,
    Otlp,
}

pub(crate) async fn ingest(args: IngestArgs) -> anyhow::Result<ExitCode> {
    running::start_logging();
    match args.command {
        Some(IngestCommand::Migrate(args)) => return migrate(args).await,
        Some(IngestCommand::Replay(args)) => return crate::replay::run(args).await,
        Some(IngestCommand::Erase(args)) => return crate::erase::run(args).await,
        Some(IngestCommand::Retention(args)) => return crate::retention::run(args).await,
        None => {}
    }
    let file = args.config.context("--config FILE is missing")?;
    let mut config = sluice_settings::load(&file, IngestConfig::from_toml)?;
    if !args.role.is_empty() {
        let role = |arg: &RoleArg| match arg {
            RoleArg::Gateway => Role::Gateway,
            RoleArg::Hot => Role::Hot,
            RoleArg::Cold => Role::Cold,
            RoleArg::Otlp => Role::Otlp,
        };
        config.roles = args.role.iter().map(role).collect();
    }
    if config.roles.contains(&Role::Otlp) {
        return otlp::run(config, args.run).await;
    }
    args.run.check_names(&["link", "http"])?;
    config.gateway.listen = args.run.address("link").unwrap_or(config.gateway.listen);
    if let Some(address) = args.run.address("http") {
        config.admin.listen = address.to_string();
    }
    let (shutdown, mut hangups) = (program::shutdown_on_signal()?, program::hangups()?);
    let lake = Lake::open(&config.lake, &config.s3.options()?).await?;
    let stores = Stores::open_in(&lake, config.hot.open()?).await?;
    let authority = HttpsAuthority::of(&config.gateway)?.map(|authority| Arc::new(authority) as _);
    let service = IngestService::build_with(config, stores, authority)?;
    let look_again = service.look_again();
    let following = tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            if let Some(gateway) = &look_again {
                gateway.notify_one();
            }
        }
    });
    if let Some(path) = &args.run.ready_file {
        program::write_ready_file(path, service.listen(), None)?;
    }
    let ended = service.run(shutdown).await;
    following.abort();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// `sluice query`.
#[derive(clap::Args)]
#[command(
    after_help = "It reads the cold table of the lake, and hot when that is a ClickHouse server (hot.store = \"clickhouse\"). The rows of\n\
    the embedded hot store live in the memory of the process that runs ingest, so they are seen through `sluice up` only. With --ingest it\n\
    finds lake, bucket, hot and a log in Kafka as ingest does, and answers say what of the log is not stored yet; else they say that\n\
    the end of the log is not known.\n\n\
    With --worker it computes parts of the queries of other nodes, which name it in scale.workers: scans of cold files with what can be\n\
    done beside them. It reads the lake that is named here and no other, needs neither hot, tokens nor a log, and answers only those who\n\
    show the secret in scale.secret_file and are of the same build. A worker that goes costs speed or an error, never a wrong answer."
)]
pub(crate) struct QueryArgs {
    /// Settings (deploy/config/query.toml shows them all)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Settings of the ingest whose stores are read, of which `lake`, [s3], [log] and [hot] count; [hot] of --config does not then
    #[arg(long, value_name = "FILE")]
    ingest: Option<PathBuf>,
    /// Folder or URL of the lake, if it is another than --ingest says, or than sluice-data/lake without that; a bucket
    /// (s3://bucket/prefix) is reached as [s3] of --ingest and the variables AWS_… say
    #[arg(long, value_name = "LAKE")]
    lake: Option<String>,
    /// Compute parts of the queries of other nodes, and nothing else; of --config, [worker], [scale], [tls], [limits] and [cache] count
    #[arg(long)]
    worker: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Nobody here knows where the log ends.
struct UnknownEnds;

impl LogEnds for UnknownEnds {
    fn end(&self, _: Partition) -> Option<u64> {
        None
    }

    fn oldest_unread_us(&self, _: Partition, _: u64) -> Option<i64> {
        None
    }
}

/// Refuses a query role whose queries may outlive what hot keeps for them.
fn check_limits(query: &QueryConfig, ingest: &IngestConfig, file: &std::path::Path) -> Result<(), ConfigError> {
    let (longest, kept) = (query.limits.max_timeout, ingest.hot.clickhouse.query_limit);
    if ingest.hot.store == HotStore::ClickHouse && longest > kept {
        let why = format!(
            "is {}, longer than hot.clickhouse.query_limit ({}) in {}: hot may delete what such a query still reads",
            sluice_settings::units::show_duration(longest),
            sluice_settings::units::show_duration(kept),
            file.display()
        );
        return Err(ConfigError::value("", "limits.max_timeout", why));
    }
    Ok(())
}

/// A role with a folder of tenants may do without tokens: keys are enough.
fn open_tokens(config: &QueryConfig) -> anyhow::Result<Tokens> {
    let has_tenants = !config.tenants.as_os_str().is_empty();
    let tokens = match config.tokens.exists() || !has_tenants {
        true => Tokens::open(&config.tokens).with_context(|| "the query layer needs a token file")?,
        false => Tokens::from_entries(&[])?,
    };
    match has_tenants {
        true => Ok(tokens.with_tenants(&config.tenants)?),
        false => Ok(tokens),
    }
}

/// What queries keep of cold files, with what an earlier process left on disk.
pub(crate) fn open_caches(config: &CacheConfig) -> anyhow::Result<Caches> {
    let why = || format!("{} cannot keep parts of cold files (`cache.dir`)", config.dir.display());
    Caches::open(&config.options()).with_context(why)
}

/// `sluice query --worker`.
async fn worker(args: QueryArgs) -> anyhow::Result<ExitCode> {
    args.run.check_names(&["worker"])?;
    let mut config = sluice_settings::load(&args.config, QueryConfig::from_toml)?;
    config.worker.listen = args.run.address("worker").unwrap_or(config.worker.listen);
    let shutdown = program::shutdown_on_signal()?;
    let ingest = args
        .ingest
        .as_ref()
        .map(|file| sluice_settings::load(file, IngestConfig::from_toml))
        .transpose()?;
    let lake = open_lake(args.lake.as_deref(), ingest.as_ref()).await?;
    // Hot rows never come here.
    let stores = Stores::open_in(&lake, EmbeddedHot::new(0).into()).await?;
    let caches = open_caches(&config.cache)?;
    let tables = Tables::with_caches(stores, Arc::new(UnknownEnds), TablesOptions::default(), caches);
    let service = WorkerService::build(config, tables).await?;
    if let Some(path) = &args.run.ready_file {
        program::write_ready_file(path, service.listen(), None)?;
    }
    service.run(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// The lake that is named, or that of ingest, or the one of a machine that has nothing else.
async fn open_lake(named: Option<&str>, ingest: Option<&IngestConfig>) -> anyhow::Result<Lake> {
    let (lake, bucket) = match ingest {
        Some(ingest) => (ingest.lake.as_str(), ingest.s3.options()?),
        None => ("sluice-data/lake", S3Options::default()),
    };
    Ok(Lake::open(named.unwrap_or(lake), &bucket).await?)
}

pub(crate) async fn query(args: QueryArgs) -> anyhow::Result<ExitCode> {
    running::start_logging();
    if args.worker {
        return worker(args).await;
    }
    args.run.check_names(&["http", "flight", "pg"])?;
    let mut config = sluice_settings::load(&args.config, QueryConfig::from_toml)?;
    config.listen = args.run.address("http").unwrap_or(config.listen);
    config.pg = args.run.address("pg").unwrap_or(config.pg);
    config.flight = args.run.address("flight").unwrap_or(config.flight);
    let tokens = open_tokens(&config)?;
    let shutdown = program::shutdown_on_signal()?;
    let ingest = match &args.ingest {
        Some(file) => {
            let ingest = sluice_settings::load(file, IngestConfig::from_toml)?;
            check_limits(&config, &ingest, file)?;
            (config.hot.store, config.hot.clickhouse) = (ingest.hot.store, ingest.hot.clickhouse.server());
            Some(ingest)
        }
        None => None,
    };
    let hot = match config.hot.store {
        HotStore::Embedded => EmbeddedHot::new(0).into(),
        HotStore::ClickHouse => ClickHouseHot::new(&config.hot.clickhouse)?.into(),
    };
    let lake = open_lake(args.lake.as_deref(), ingest.as_ref()).await?;
    let stores = Stores::open_in(&lake, hot).await?;
    let log = ingest.as_ref().map(WatchedLog::open).transpose()?.flatten();
    let ends = log
        .as_ref()
        .map_or_else(|| Arc::new(UnknownEnds) as _, WatchedLog::ends);
    let caches = open_caches(&config.cache)?;
    let tables = Tables::with_caches(stores, ends, TablesOptions::default(), caches);
    if let Some(log) = log {
        tables.watch(&log.partitions());
        tokio::spawn(log.run(shutdown.clone()));
    }
    let reports = NodeReports::new(None, None);
    let plugins = config.plugins.clone();
    let mut service = QueryService::build(config, tables, tokens)
        .await?
        .with_status(reports.source());
    if !plugins.folder.as_os_str().is_empty() {
        service = service.with_plugins(LocalPlugins::new(plugins.folder, plugins.strict_revocations));
    }
    let reporting = tokio::spawn(reports.keep(shutdown.clone()));
    if let Some(path) = &args.run.ready_file {
        program::write_ready_file(path, service.listen(), None)?;
    }
    service.run(shutdown).await?;
    drop(reporting.await);
    Ok(ExitCode::SUCCESS)
}
