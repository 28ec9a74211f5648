//! `sluice plugin test`: the fixtures through the component, as an edge would run it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sluice_plugin_fixture::{Actual, Fixture, Layout, batch};
use sluice_runtime::{Call, Hints, Host, TableSource};
use sluice_wire::Signal;

use super::project::Project;
use super::sandbox::{self, Candidate};
use super::trial::Trial;

/// Run the fixtures through the component
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A fixture is a file fixtures/NAME.json: a configuration, rows, and what should become of them:

  {\"config\": {}, \"rows\": [{\"body\": \"hello\", \"severity\": 9}], \"expect\": {\"rows\": [], \"drops\": {\"filtered\": 1}}}

The SDK's FIXTURES.md has every key. Each fixture is run twice, with texts in plain columns and in dictionaries.")]
pub(crate) struct Args {
    /// The plugin's folder; by default this one, one above or the only one below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    project: PathBuf,
    /// Only fixtures whose name contains this.
    filter: Option<String>,
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let project = Project::find(&args.project)?;
    let host = sandbox::host()?;
    let folder = project.root.join("fixtures");
    let fixtures = fixtures(&folder, args.filter.as_deref().unwrap_or(""))?;
    let candidate = Candidate::of_project(&project)?;
    let mut failed = 0;
    let mut all = Vec::new();
    for path in &fixtures {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let differences = check(&host, &candidate, path).unwrap_or_else(|error| vec![format!("{error:#}")]);
        failed += usize::from(!differences.is_empty());
        if args.json {
            all.push(json!({"fixture": name, "ok": differences.is_empty(), "differences": differences}));
            continue;
        }
        println!("{name:<40} {}", if differences.is_empty() { "ok" } else { "FAILED" });
        for difference in &differences {
            println!("    {}", difference.replace('\n', "\n    "));
        }
    }
    if args.json {
        println!("{:#}", json!({"fixtures": all, "failed": failed}));
    } else {
        println!("\n{} passed, {failed} failed", fixtures.len() - failed);
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn fixtures(folder: &Path, filter: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter(|path| {
            path.file_stem()
                .is_some_and(|name| name.to_string_lossy().contains(filter))
        })
        .collect();
    found.sort();
    if found.is_empty() {
        bail!(
            "{} holds no fixture{}",
            folder.display(),
            if filter.is_empty() { "" } else { " with such a name" }
        );
    }
    Ok(found)
}

/// What differs, in every form that a batch may have.
fn check(host: &Host, candidate: &Candidate<'_>, path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).context("cannot read it")?;
    let fixture = Fixture::parse(&text).map_err(anyhow::Error::msg)?;
    let signal: Signal = match fixture.signal.as_str() {
        "span" => Signal::Span,
        "metric" => Signal::Metric,
        _ => Signal::Log,
    };
    let folder = tables(&fixture)?;
    let sources: Vec<TableSource> = fixture
        .tables
        .keys()
        .map(|name| TableSource {
            name: name.clone(),
            path: folder.0.join(format!("{name}.csv")),
            key: None,
        })
        .collect();
    let mut differences = Vec::new();
    for (layout, name) in [(Layout::Plain, "plain columns"), (Layout::Dictionary, "dictionaries")] {
        let actual = match candidate.load(host, fixture.config.clone(), sources.clone()) {
            Ok(plugin) => {
                let rows = batch(&fixture.rows, &fixture.defaults(), layout).map_err(anyhow::Error::msg)?;
                // State outlives plugins; of each run it is another tenant's.
                let tenant = format!("{} {name}", path.display());
                let call = Call {
                    hints: Hints {
                        share: fixture.share,
                        row_bytes: fixture.row_bytes,
                    },
                    ..Call::new(signal, u64::try_from(fixture.now).unwrap_or_default(), &tenant)
                };
                Trial::run(&plugin, &rows, &call)?.actual()
            }
            Err(error) => Actual {
                error: Some(format!("{error:#}")),
                ..Actual::default()
            },
        };
        let found = fixture.expect.differences(&actual);
        differences.extend(found.into_iter().map(|difference| format!("with {name}: {difference}")));
    }
    Ok(differences)
}

/// The tables of a fixture as files, which go when this goes.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tables(fixture: &Fixture) -> Result<Folder> {
    let folder = std::env::temp_dir().join(format!("sluice-fixture-{}", uuid::Uuid::new_v4()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = Folder(folder);
    for (name, table) in &fixture.tables {
        let named = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if name.is_empty() || !name.chars().all(named) {
            bail!("table {name:?}: a name has letters, digits, `_` and `-`");
        }
        fs::write(folder.0.join(format!("{name}.csv")), table.csv()).context("cannot write a table")?;
    }
    Ok(folder)
}
