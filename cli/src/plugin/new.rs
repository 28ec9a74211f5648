//! `sluice plugin new`: a plugin that builds, with its tests.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use super::assets;
use super::building;
use super::project::{self, Language, Project};

/// Make the folder of a new plugin: source, fixtures, manifest
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin new drop-health                 a filter in Rust, in the folder drop-health
  sluice plugin new drop-health --lang python
  sluice plugin new acme/drop-health --dir work/drop-health

Then, in that folder: sluice plugin build, test, bench, preview, sign.")]
pub(crate) struct Args {
    /// Its name, or publisher/name.
    name: String,
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// The folder to make; by default the plugin's name.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (publisher, name) = args.name.split_once('/').unwrap_or(("local", &args.name));
    project::check_name(publisher).context("publisher")?;
    project::check_name(name)?;
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} is there and not empty: choose another name or --dir",
            folder.display()
        );
    }
    let template = format!("plugins/templates/{}", args.lang.as_str());
    let mut written = Vec::new();
    for (path, bytes) in assets::below(&template) {
        let text = std::str::from_utf8(bytes).with_context(|| format!("template {path}"))?;
        let text = text
            .replace("{{name}}", name)
            .replace("{{crate}}", &name.replace('-', "_"))
            .replace("{{publisher}}", publisher);
        ensure!(
            !text.contains("{{"),
            "template {path} has a placeholder that nobody fills"
        );
        // Files that tools of this repository would take for their own have another name here.
        let path = path.strip_suffix(".template").unwrap_or(path);
        assets::write(&folder.join(path), text.as_bytes())?;
        written.push(path.to_owned());
    }
    ensure!(
        !written.is_empty(),
        "this program was built without the template for {}",
        args.lang.as_str()
    );
    building::write_sdk(&Project::find(&folder)?)?;
    written.sort();
    println!("made {}:", folder.display());
    for path in &written {
        println!("  {path}");
    }
    println!(
        "\nnext:\n  cd {}\n  sluice plugin build    make the component\n  sluice plugin test     run the fixtures through it\n  \
         sluice plugin bench    what it costs\n  sluice plugin preview  before and after, on your own data\n  \
         sluice plugin sign     a package of it, for `install` and `publish`",
        folder.display()
    );
    Ok(ExitCode::SUCCESS)
}
