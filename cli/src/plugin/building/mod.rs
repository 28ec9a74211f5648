//! `sluice plugin build`: from source to component, by the language's own tools.

mod js;
mod python;
mod rust;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sluice_package::command::Progress;
use sluice_package::{Policy, SourceError};

use super::assets;
use super::project::{Language, Project};
use super::sandbox;

/// Make the component
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The component goes to dist/NAME.wasm. What is needed: cargo (Rust), node and npm (JavaScript), python3 (Python); everything
else is fetched by their own package clients into the plugin's folder.")]
pub(crate) struct Args {
    /// The plugin's folder; by default this one, one above or the only one below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// Show what the tools print.
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::find(&args.project)?;
    let began = Instant::now();
    let tools = Tools { verbose: args.verbose };
    write_sdk(&project)?;
    let component = match project.language {
        Language::Rust => rust::build(&project, &tools)?,
        Language::Js => js::build(&project, &tools)?,
        Language::Python => python::build(&project, &tools)?,
    };
    let info = sluice_runtime::inspect(&component).context("the component cannot be used")?;
    fits(&project, &component)?;
    let path = project.component();
    // Also where nothing changed: its time says that it is of this source.
    let folder = path.parent().unwrap_or(&project.root);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, &component))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!(
        "{}  {} KiB, contract {}, {}, in {:.1} s",
        path.strip_prefix(&project.root).unwrap_or(&path).display(),
        component.len().div_ceil(1024),
        info.contract,
        match info.capabilities.len() {
            0 => "imports nothing".to_owned(),
            _ => format!(
                "uses {}",
                info.capabilities
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        },
        began.elapsed().as_secs_f64(),
    );
    Ok(ExitCode::SUCCESS)
}

/// Refuses a component of which `sign` could make no package: what it says of itself and plugin.toml must agree.
fn fits(project: &Project, component: &[u8]) -> Result<()> {
    let facts = {
        let host = sandbox::host()?;
        let _word = sandbox::compiling(&project.name, component);
        sluice_edge::component_facts(component, &host).map_err(anyhow::Error::msg)
    };
    let facts = facts.context("the component cannot be used")?;
    match project.source.manifest(&facts, component, &Policy::default()) {
        Ok(_) => Ok(()),
        Err(SourceError::Version { component, source_says }) => {
            let file = project.language.version_file();
            bail!(
                "the version stands in two places and differs: {file} says {component}, plugin.toml {source_says}\n  make them the \
                 same, or remove `version` from plugin.toml: then that of {file} counts"
            )
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs the tools of a language.
struct Tools {
    verbose: bool,
}

impl Tools {
    /// Runs a step to its end. What it prints is shown if it fails, or if someone asked for it.
    fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        if self.verbose {
            eprintln!("{what} …");
            let status = command.status().with_context(|| missing(command))?;
            if !status.success() {
                bail!("{what} failed: {status}");
            }
            return Ok(());
        }
        let word = Progress::on_stderr(what);
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| missing(command))?;
        drop(word);
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            bail!("{what} failed: {}", output.status);
        }
        Ok(())
    }
}

impl Tools {
    /// Refuses a tool that is missing or too old.
    fn version(&self, program: &str, arguments: &[&str], least: (u32, u32), need: &str) -> Result<()> {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = command.output().with_context(|| missing(&command))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let mut parts = digits.split('.').map(|part| part.parse().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if found < least {
            bail!("{need}; {program} here says {text:?}");
        }
        Ok(())
    }
}

fn missing(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let hint = match program.as_str() {
        "cargo" | "rustup" => "install Rust from https://rustup.rs",
        "node" | "npm" => "install Node.js 20 or newer, with npm",
        "python3" => "install Python 3.10 or newer, with venv",
        _ => "is it installed?",
    };
    format!("cannot run {program}: {hint}")
}

/// The SDK of an interpreted language with the contract, as `.sluice/sdk` beside the source.
fn write_interpreted_sdk(project: &Project, folder: &str) -> Result<()> {
    let sdk = project.kit().join("sdk");
    assets::write_below(folder, &sdk)?;
    let contract = assets::file("wit/plugin.wit").context("this program was built without the contract")?;
    assets::write(&sdk.join("wit/plugin.wit"), contract)?;
    let fixtures = assets::file("plugins/sdk/FIXTURES.md").context("this program was built without the SDK")?;
    assets::write(&sdk.join("FIXTURES.md"), fixtures)
}

/// The SDK for a project, of this program's version. Source can refer to it before anything is built.
pub(super) fn write_sdk(project: &Project) -> Result<()> {
    match project.language {
        Language::Rust => rust::write_sdk(project),
        Language::Js => write_interpreted_sdk(project, "plugins/js"),
        Language::Python => write_interpreted_sdk(project, "plugins/python"),
    }
}
