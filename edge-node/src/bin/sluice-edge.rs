//! `sluice-edge`: the edge node as one small program.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sluice_edge::tools::{self, SpoolCommand};
use sluice_edge::{EdgeConfig, NodeOptions, PluginCheck, check_plugins, program};
use sluice_package::Policy;
use sluice_package::command::{self, EXIT_CODES, Host, Output, PackageCommand, Progress};
use sluice_runtime::{Host as Sandbox, HostOptions};
use sluice_settings::readable;

const FAILED: u8 = 1;
const CONFIG_REFUSED: u8 = 3;

/// Takes telemetry in over OTLP, runs plugins over it, keeps it on disk and sends it to a Sluice gateway.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-edge",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration refused, 4 data on disk refused."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node until SIGTERM or ctrl-c. SIGHUP reads the configuration anew: the plugin chain, the sources, and whether the tap is open.
    Run {
        /// Configuration; without it every key has its default.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Overrides an address: otlp-grpc, otlp-http or http. Port 0 takes any free one.
        #[arg(long, value_name = "NAME=ADDR")]
        listen: Vec<String>,
        /// Overrides `data_dir`.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Written as JSON when the node can serve: addresses and process id.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
    },
    /// Ask a running node how it is.
    Status {
        /// Its HTTP address.
        #[arg(long, default_value = "http://127.0.0.1:7080")]
        url: String,
        /// The whole answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file and its plugins, and print every key with its value and where it comes from.
    ///
    /// Each plugin is loaded as a start would load it: its file or package, its component, what it may use, its configuration.
    #[command(
        after_help = "Exit codes: 0 a node starts with it, 1 the file has a mistake, 3 a plugin in it is refused; the message says where and what to do."
    )]
    Check {
        file: PathBuf,
        /// Overrides `data_dir`, where installed packages are looked for.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Look into the data folder of a node, check it, take events out of it.
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// Packages of plugins: sign, publish, install, replace, stop.
    #[command(subcommand, after_help = EXIT_CODES)]
    Plugin(PackageCommand),
}

fn main() -> ExitCode {
    if sluice_runtime::called_as_compiler() {
        return sluice_runtime::compile_command();
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error.into()),
    };
    runtime.block_on(async {
        match cli.command {
            Command::Run {
                config,
                listen,
                data,
                ready_file,
            } => run(config.as_deref(), &listen, data, ready_file).await,
            Command::Status { url, json } => match status(&url, json).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(FAILED, &error),
            },
            Command::Check { file, data, json } => check(&file, data, json),
            Command::Spool(command) => spool(&command),
            Command::Plugin(command) => plugin(command).await,
        }
    })
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("sluice-edge: {error:#}");
    ExitCode::from(code)
}

async fn run(path: Option<&Path>, listen: &[String], data: Option<PathBuf>, ready_file: Option<PathBuf>) -> ExitCode {
    program::start_logging("", "info");
    let mut config = match path.map_or_else(|| Ok(EdgeConfig::default()), EdgeConfig::load) {
        Ok(config) => config,
        Err(error) => return fail(CONFIG_REFUSED, &error.into()),
    };
    for entry in listen {
        let Some((name, address)) = entry.split_once('=') else {
            return fail(2, &anyhow!("--listen {entry}: write NAME=ADDR"));
        };
        if let Err(error) = config.listen.set(name, address) {
            return fail(2, &error.into());
        }
    }
    if let Some(data) = data {
        config.data_dir = data;
    }
    match program::run(config, path.map(Path::to_owned), ready_file).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error.into()),
    }
}

async fn status(url: &str, json: bool) -> anyhow::Result<()> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("{}/v1/status", url.trim_end_matches('/'))
        .parse()
        .context("--url")?;
    let response = client
        .get(uri)
        .await
        .with_context(|| format!("no node answers at {url}"))?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        return Err(anyhow!("{url} answers {code}"));
    }
    if json {
        println!("{}", String::from_utf8_lossy(&body));
        return Ok(());
    }
    let status: serde_json::Value = serde_json::from_slice(&body)?;
    let at = |path: &str| status.pointer(path).cloned().unwrap_or_default();
    let count = |path: &str| readable::count(at(path).as_u64().unwrap_or(0));
    let size = |path: &str| readable::bytes(at(path).as_u64().unwrap_or(0));
    println!(
        "node       {}/{}  {}",
        text(&at("/tenant")),
        text(&at("/node")),
        text(&at("/phase"))
    );
    println!(
        "accepted   {} logs, {} spans, {} data points",
        count("/accepted/log"),
        count("/accepted/span"),
        count("/accepted/metric")
    );
    for source in at("/sources").as_array().into_iter().flatten() {
        let refused = source["refused"].as_object().into_iter().flatten();
        let refused: Vec<String> = refused.map(|(reason, many)| format!("{many} {reason}")).collect();
        let problem = source["problem"].as_str();
        if source["accepted"] == 0 && refused.is_empty() && problem.is_none() {
            continue;
        }
        println!(
            "source     {} ({}): {} events{}{}",
            text(&source["name"]),
            text(&source["kind"]),
            source["accepted"],
            if refused.is_empty() {
                String::new()
            } else {
                format!(", refused {}", refused.join(", "))
            },
            problem.map_or(String::new(), |problem| format!("; {problem}")),
        );
    }
    println!(
        "spool      {} batches, {} of {}",
        count("/spool/batches"),
        size("/spool/bytes"),
        size("/spool/max_bytes")
    );
    match at("/link") {
        serde_json::Value::Null => println!("link       none"),
        link => println!("link       {} {}", text(&link["phase"]), text(&link["gateway"])),
    }
    for plugin in at("/plugins").as_array().into_iter().flatten() {
        println!(
            "plugin     {} {} ({}), {}: {} of {} rows left, {} faults",
            text(&plugin["name"]),
            text(&plugin["version"]),
            text(&plugin["kind"]),
            text(&plugin["state"]),
            plugin["rows_out"],
            plugin["rows_in"],
            plugin["faults"]
        );
    }
    for warning in at("/chain/warnings").as_array().into_iter().flatten() {
        println!("warning    {}", text(warning));
    }
    if let Some(why) = at("/chain/refused/why").as_str() {
        println!("refused    the plugin chain: {why}");
    }
    for dropped in at("/dropped").as_array().into_iter().flatten() {
        println!(
            "dropped    {} by {} ({})",
            dropped["rows"],
            text(&dropped["plugin"]),
            text(&dropped["reason"])
        );
    }
    for (reason, requests) in at("/refused").as_object().into_iter().flatten() {
        println!("refused    {requests} requests ({reason})");
    }
    Ok(())
}

fn spool(command: &SpoolCommand) -> ExitCode {
    let mut output = tools::Output {
        out: &mut std::io::stdout(),
        notes: &mut std::io::stderr(),
        is_watched: std::io::stderr().is_terminal(),
    };
    match tools::run(command, &mut output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(error.exit_code(), &error.into()),
    }
}

async fn plugin(command: PackageCommand) -> ExitCode {
    let inspect = |component: &[u8]| {
        let _word = Progress::on_stderr(format!(
            "compiling the component ({})",
            readable::bytes(component.len() as u64)
        ));
        let sandbox = Sandbox::new(HostOptions::default()).map_err(|error| error.to_string())?;
        sluice_edge::component_facts(component, &sandbox)
    };
    let host = Host {
        inspect: &inspect,
        policy: Policy::default(),
        data: EdgeConfig::default().data_dir,
        standard: &sluice_edge::standard_kind,
        ask: &command::ask_on_terminal,
    };
    let mut output = Output {
        out: &mut std::io::stdout(),
        notes: &mut std::io::stderr(),
    };
    match command::run(command, &host, &mut output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.exit_code(), &error.into()),
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn check(file: &Path, data: Option<PathBuf>, json: bool) -> ExitCode {
    let explained = sluice_settings::load(file, |text| {
        Ok(sluice_settings::explain(&EdgeConfig::from_toml(text)?, text))
    });
    let (settings, mut config) = match explained.and_then(|settings| Ok((settings, EdgeConfig::load(file)?))) {
        Ok(both) => both,
        Err(error) => return fail(FAILED, &error.into()),
    };
    config.data_dir = data.unwrap_or(config.data_dir);
    let plugins = check_plugins(&config, &NodeOptions::default());
    if json {
        println!("{}", PluginCheck::beside(&settings, &plugins));
    } else {
        for setting in settings {
            println!("{} = {}  # {}", setting.key, setting.value, setting.origin);
        }
        for plugin in plugins.iter().filter(|plugin| plugin.refused.is_none()) {
            println!("# {plugin}");
        }
    }
    let mut code = ExitCode::SUCCESS;
    for plugin in plugins.iter().filter(|plugin| plugin.refused.is_some()) {
        code = fail(CONFIG_REFUSED, &anyhow!("{}: {plugin}", file.display()));
    }
    code
}
