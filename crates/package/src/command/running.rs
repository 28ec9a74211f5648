//! What is installed and what runs of it: `list`, `rollback`, `shadow`, `promote`, `remove`.

use semver::Version;
use serde_json::json;

use super::{CommandError, Host, Output, StoreArgs, report};
use crate::name::{PackageName, parse_version};
use crate::store::{Mark, PluginState, StateError, Store, StoreError, VersionText};
use crate::verify::Warning;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every package is verified while it is listed, as it is at every load: a file that was changed shows here.")]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// One line of `list`.
struct Line {
    name: PackageName,
    /// `None`: it is not installed, and was stopped all the same.
    version: Option<Version>,
    publisher: Option<String>,
    signer: Option<String>,
    /// `current`, `previous`, `shadow 10%`, `disabled`, `bad: …`, `refused: …`
    states: Vec<String>,
    expires: Option<String>,
    warnings: Vec<Warning>,
}

pub(super) fn list(args: &ListArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let store = args.store.open(host)?;
    let state = store.state()?;
    let mut lines = Vec::new();
    for (name, plugin) in &state.plugins {
        for version in plugin.versions.keys().rev() {
            lines.push(line(&store, name, plugin, version));
        }
        if let (true, Some(mark)) = (plugin.versions.is_empty(), &plugin.disabled) {
            lines.push(Line::not_installed(name, mark));
        }
    }
    if args.json {
        let plugins: Vec<_> = lines.iter().map(as_json).collect();
        let value = json!({ "generation": state.generation, "plugins": plugins });
        return report::json(output, &value);
    }
    let rows = lines.iter().map(|line| {
        let publisher = match (&line.publisher, &line.signer) {
            (Some(publisher), Some(signer)) => format!("{publisher} ({signer})"),
            _ => "?".into(),
        };
        let expires = line.expires.clone().unwrap_or_else(|| "never".into());
        vec![
            line.name.to_string(),
            line.version.as_ref().map_or("-".into(), ToString::to_string),
            publisher,
            expires,
            line.states.join(", "),
        ]
    });
    report::table(
        output,
        &["NAME", "VERSION", "PUBLISHER (KEY)", "EXPIRES", "STATE"],
        rows,
    )?;
    let mut warnings: Vec<String> = lines
        .iter()
        .flat_map(|line| &line.warnings)
        .map(ToString::to_string)
        .collect();
    warnings.dedup();
    for warning in warnings {
        writeln!(output.notes, "warning: {warning}")?;
    }
    Ok(())
}

impl Line {
    fn not_installed(name: &PackageName, mark: &Mark) -> Self {
        Self {
            name: name.clone(),
            version: None,
            publisher: None,
            signer: None,
            states: vec![format!("disabled since {}: {}", mark.at, mark.reason)],
            expires: None,
            warnings: Vec::new(),
        }
    }
}

fn line(store: &Store, name: &PackageName, plugin: &PluginState, version: &VersionText) -> Line {
    let mut states = Vec::new();
    if plugin.current.as_ref() == Some(version) {
        states.push("current".to_owned());
    }
    if plugin.previous.as_ref() == Some(version) {
        states.push("previous".to_owned());
    }
    if let Some(shadow) = plugin.shadow.as_ref().filter(|shadow| shadow.version == *version) {
        states.push(format!("shadow {}", percent(shadow.share)));
    }
    if let Some(mark) = &plugin.disabled {
        states.push(format!("disabled since {}: {}", mark.at, mark.reason));
    }
    if let Some(mark) = plugin
        .versions
        .get(version)
        .and_then(|installed| installed.bad.as_ref())
    {
        states.push(format!("bad since {}: {}", mark.at, mark.reason));
    }
    let mut line = Line {
        name: name.clone(),
        version: Some(version.0.clone()),
        publisher: None,
        signer: None,
        states,
        expires: None,
        warnings: Vec::new(),
    };
    match store.verify_installed(name, &version.0) {
        Ok(verified) => {
            line.publisher = Some(verified.manifest.publisher);
            line.signer = Some(verified.signer);
            line.expires = verified.manifest.expires.map(|expires| expires.to_string());
            line.warnings = verified.warnings;
        }
        Err(StoreError::Refused { refusal, .. }) => line.states.push(format!("refused: {refusal}")),
        Err(error) => line.states.push(format!("refused: {error}")),
    }
    if line.states.is_empty() {
        line.states.push("installed".to_owned());
    }
    line
}

fn as_json(line: &Line) -> serde_json::Value {
    json!({
        "name": line.name, "version": line.version.as_ref().map(ToString::to_string), "publisher": line.publisher, "signer": line.signer,
        "states": line.states, "expires": line.expires,
        "warnings": line.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin rollback acme/demo            to the version that ran before
  sluice plugin rollback acme/demo 1.3.0      to an older one that is installed here; the only way below the highest version")]
pub struct RollbackArgs {
    /// The package
    name: PackageName,
    /// By default the version that ran before
    #[arg(value_parser = parse_version)]
    version: Option<Version>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn rollback(args: &RollbackArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let to = args.store.open(host)?.rollback(&args.name, args.version.as_ref())?;
    writeln!(output.out, "{} {to} runs again", args.name)?;
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin install oci://registry.example/acme/demo:1.4.0 --inactive
  sluice plugin shadow acme/demo 1.4.0 --share 10%
  sluice plugin promote acme/demo                              when the edge's status shows that it does what it should
  sluice plugin shadow acme/demo --off                         or when it does not")]
pub struct ShadowArgs {
    /// The package
    name: PackageName,
    /// The version; it has to be installed
    #[arg(value_parser = parse_version, required_unless_present = "off", conflicts_with = "off")]
    version: Option<Version>,
    /// Of the batches, as `10%` or `0.1`
    #[arg(long, value_parser = parse_share, default_value = "10%")]
    share: f64,
    /// No shadow any more
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    store: StoreArgs,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().map(|number| number / scale).ok();
    let fits = share.filter(|share| *share > 0.0 && *share <= 1.0);
    fits.ok_or_else(|| format!("{text:?} is no share: write `10%` or `0.1`, above 0 and at most 100%"))
}

/// To a hundredth, which is more than anybody means.
fn percent(share: f64) -> String {
    format!("{}%", (share * 10_000.0).round() / 100.0)
}

pub(super) fn shadow(args: &ShadowArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let store = args.store.open(host)?;
    match &args.version {
        Some(version) => {
            store.set_shadow(&args.name, version, args.share)?;
            let share = percent(args.share);
            writeln!(
                output.out,
                "{} {version} runs in the shadow on {share} of the batches",
                args.name
            )?;
        }
        None => {
            store.clear_shadow(&args.name)?;
            writeln!(output.out, "{} has no shadow", args.name)?;
        }
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub struct PromoteArgs {
    /// The package
    name: PackageName,
    /// By default the version in the shadow
    #[arg(value_parser = parse_version)]
    version: Option<Version>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn promote(args: &PromoteArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let store = args.store.open(host)?;
    let version = match &args.version {
        Some(version) => version.clone(),
        None => {
            let state = store.state()?;
            let not_here = || {
                StoreError::from(StateError::NotInstalled {
                    name: args.name.clone(),
                })
            };
            let plugin = state.plugins.get(&args.name).ok_or_else(not_here)?;
            let none = || CommandError::Usage(format!("{} has no shadow: say which version to promote", args.name));
            plugin
                .shadow
                .as_ref()
                .map(|shadow| shadow.version.0.clone())
                .ok_or_else(none)?
        }
    };
    store.promote(&args.name, &version)?;
    writeln!(output.out, "{} {version} runs", args.name)?;
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The highest version ever installed is remembered: an older one does not come back in by installing."
)]
pub struct RemoveArgs {
    /// The package
    name: PackageName,
    /// By default all versions, also the one that runs
    #[arg(value_parser = parse_version)]
    version: Option<Version>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn remove(args: &RemoveArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    for version in args.store.open(host)?.remove(&args.name, args.version.as_ref())? {
        writeln!(output.out, "removed {} {version}", args.name)?;
    }
    Ok(())
}
