//! `sign`, `verify`, `publish`, `install`: packages on their way.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{CommandError, Host, NewStoreArgs, Output, Progress, RegistryArgs, StoreArgs, cannot, keys, report};
use crate::file;
use crate::key::PrivateKey;
use crate::limits::{COMPONENT_BYTES, REVOCATIONS_BYTES};
use crate::name::{PackageName, parse_version};
use crate::oci::{self, Reference, Selector};
use crate::revocation::SignedRevocations;
use crate::source::PluginSource;
use crate::store::StoreError;
use crate::verify::{Asked, COMPONENT_FILE, MANIFEST_FILE, Package, Purpose, SIGNATURE_FILE, Verified};
use semver::Version;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin sign                                     in the folder of a plugin, after `build`
  sluice plugin sign dist/demo.wasm --key acme.key --out dist/package

What the component cannot say itself (publisher, name, limits, …) stands in plugin.toml beside the source.")]
pub struct SignArgs {
    /// The component; by default what `build` made
    component: Option<PathBuf>,
    /// The private key; by default your own in ~/.config/sluice, which is made if there is none
    #[arg(long, value_name = "FILE", env = "SLUICE_PLUGIN_KEY")]
    key: Option<PathBuf>,
    /// The plugin's plugin.toml; by default the one here, above or right below
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// The folder to write the package to; by default `dist/package` beside plugin.toml
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn sign(args: &SignArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let source_path = match &args.source {
        Some(path) => path.clone(),
        None => PluginSource::find(Path::new("."))?,
    };
    let source = PluginSource::load(&source_path)?;
    let dist = source_path.parent().unwrap_or(Path::new(".")).join("dist");
    let short = source
        .package
        .name
        .as_str()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let component = args
        .component
        .clone()
        .unwrap_or_else(|| dist.join(format!("{short}.wasm")));
    let out = args.out.clone().unwrap_or_else(|| dist.join("package"));
    let key = match &args.key {
        Some(path) => path.clone(),
        None => keys::own_key(output)?,
    };
    if !key.exists() {
        let text = format!(
            "there is no key {}: `sluice plugin keygen` makes one, --key names another",
            key.display()
        );
        return Err(CommandError::Usage(text));
    }
    let key = PrivateKey::load(&key)?;
    let bytes = file::read(&component, COMPONENT_BYTES).map_err(cannot("read", &component))?;
    let inspected = (host.inspect)(&bytes);
    let facts = inspected.map_err(|why| CommandError::Component(format!("{}: {why}", component.display())))?;
    let manifest = source.manifest(&facts, &bytes, &host.policy)?;
    let package = Package::sign(&manifest, bytes, &key).map_err(crate::source::SourceError::from)?;
    write_package(&package, &out)?;
    if args.json {
        let value = json!({ "folder": out, "key": key.public().id(), "manifest": manifest });
        return report::json(output, &value);
    }
    writeln!(output.out, "{}", out.display())?;
    let (name, version) = (&manifest.name, &manifest.version);
    writeln!(
        output.notes,
        "signed {name} {version} ({}) with {}",
        manifest.digest,
        key.public().id()
    )?;
    let capabilities = report::joined(&manifest.capabilities);
    writeln!(
        output.notes,
        "kind {}, contract {}, capabilities {capabilities}",
        manifest.kind, manifest.contract
    )?;
    writeln!(
        output.notes,
        "next: sluice plugin install, or sluice plugin publish oci://HOST/{name}"
    )?;
    Ok(())
}

fn write_package(package: &Package, folder: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(folder).map_err(cannot("make", folder))?;
    for (name, bytes) in [
        (MANIFEST_FILE, &package.manifest),
        (SIGNATURE_FILE, &package.signature),
        (COMPONENT_FILE, &package.component),
    ] {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(cannot("write", &path))?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin verify                                    what `sign` made
  sluice plugin verify ./acme-demo
  sluice plugin verify oci://registry.example/acme/demo:1.4.0 --json")]
pub struct VerifyArgs {
    #[command(flatten)]
    from: FromArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Where a package comes from and what it must be.
#[derive(Debug, clap::Args)]
struct FromArgs {
    /// A package's folder, `oci:DIR[:TAG]`, `oci://HOST/NAME[:TAG]` or either with `@sha256:…`; by default what `sign` made
    source: Option<String>,
    /// Refuse a package of another name
    #[arg(long)]
    name: Option<PackageName>,
    /// Refuse another version
    #[arg(long, value_parser = parse_version)]
    version: Option<Version>,
}

impl FromArgs {
    fn asked(&self) -> Asked<'_> {
        Asked {
            name: self.name.as_ref(),
            version: self.version.as_ref(),
        }
    }

    async fn package(&self, registry: &RegistryArgs) -> Result<(Package, String), CommandError> {
        let source = match &self.source {
            Some(source) => source.clone(),
            None => signed_here()?.display().to_string(),
        };
        if Reference::is_one(&source) {
            let reference: Reference = source.parse()?;
            let access = registry.access(&reference)?;
            let _word = Progress::on_stderr(format!("fetching {reference}"));
            return Ok((oci::pull(&reference, &access).await?, reference.to_string()));
        }
        let package = Package::read(Path::new(&source));
        let package = package.map_err(|(path, error)| cannot("read", path)(error))?;
        Ok((package, source))
    }
}

fn signed_here() -> Result<PathBuf, CommandError> {
    let source = PluginSource::find(Path::new("."))?;
    Ok(source.parent().unwrap_or(Path::new(".")).join("dist/package"))
}

pub(super) async fn verify(args: &VerifyArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let (package, from) = args.from.package(&args.registry).await?;
    let store = args.store.open(host)?;
    let verified = store.verify(package, Purpose::Install, args.from.asked())?;
    warn(&verified, output)?;
    let manifest = &verified.manifest;
    let facts = (host.inspect)(&verified.component);
    let facts = facts.map_err(|why| CommandError::Component(format!("the component of {from}: {why}")))?;
    manifest.agrees_with(&facts)?;
    if args.json {
        let value = json!({ "manifest": manifest, "key": verified.key, "signer": verified.signer });
        return report::json(output, &value);
    }
    writeln!(
        output.out,
        "{} {} is good: signed by {} ({})",
        manifest.name, manifest.version, verified.signer, verified.key
    )?;
    let expiry = manifest.expires.map_or("never".into(), |expires| expires.to_string());
    let rows = [
        ("publisher", manifest.publisher.clone()),
        ("kind", manifest.kind.to_string()),
        ("capabilities", report::joined(&manifest.capabilities)),
        ("reads", report::joined(&manifest.reads)),
        ("writes", report::joined(&manifest.writes)),
        ("contract", manifest.contract.to_string()),
        ("minimum host", manifest.minimum_host.to_string()),
        ("expires", expiry),
        ("digest", manifest.digest.to_string()),
    ];
    for (key, value) in rows {
        writeln!(output.out, "{key:<12}  {value}")?;
    }
    Ok(())
}

fn warn(verified: &Verified, output: &mut Output<'_>) -> Result<(), CommandError> {
    for warning in &verified.warnings {
        writeln!(output.notes, "warning: {warning}")?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin publish oci://registry.example/acme/demo         what `sign` made, under its version
  sluice plugin publish oci:usb-stick/plugins                    into an OCI layout folder, for a site without a network
  sluice plugin publish revocations.json oci://registry.example/acme/revocations:latest")]
pub struct PublishArgs {
    /// [WHAT] WHERE: what is a package's folder (by default what `sign` made) or the file of a revocation list, where is
    /// `oci:DIR` or `oci://HOST/NAME`
    #[arg(value_name = "[WHAT] WHERE", num_args = 1..=2, required = true)]
    what_and_where: Vec<String>,
    /// Let the tag `latest` name this version
    #[arg(long)]
    latest: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn publish(args: &PublishArgs, output: &mut Output<'_>) -> Result<(), CommandError> {
    let (what, place) = match &args.what_and_where[..] {
        [place] => (signed_here()?, place),
        [what, place, ..] => (PathBuf::from(what), place),
        [] => return Err(CommandError::Usage("say where to publish to".into())),
    };
    let reference: Reference = place.parse()?;
    let access = args.registry.access(&reference)?;
    if what.is_file() {
        let bytes = file::read(&what, REVOCATIONS_BYTES).map_err(cannot("read", &what))?;
        let list = SignedRevocations::parse(&bytes)?;
        let digest = oci::push_revocations(&list, &reference, &access).await?;
        return published(args, output, &reference, &digest.to_string());
    }
    let package = Package::read(&what).map_err(|(path, error)| cannot("read", path)(error))?;
    // Only to learn the tag: whoever installs it verifies it.
    let manifest = crate::Manifest::parse(&package.manifest).map_err(crate::source::SourceError::from)?;
    let version = manifest.version.to_string();
    match reference.selector() {
        Selector::Digest(_) => {
            return Err(CommandError::Usage(
                "a package is published under its version, not a digest".into(),
            ));
        }
        Selector::Tag(tag) if tag != oci::DEFAULT_TAG && *tag != version => {
            let text = format!("a package is published under its version: this is {version}, not {tag}");
            return Err(CommandError::Usage(text));
        }
        Selector::Tag(_) | Selector::Unsaid => {}
    }
    let digest = oci::push(&package, &reference, &version, &access).await?;
    if args.latest {
        oci::point(&package, &reference, oci::DEFAULT_TAG, &access).await?;
    }
    published(
        args,
        output,
        &reference.with(Selector::Tag(version)),
        &digest.to_string(),
    )
}

fn published(args: &PublishArgs, output: &mut Output<'_>, place: &Reference, digest: &str) -> Result<(), CommandError> {
    if args.json {
        return report::json(output, &json!({ "place": place.to_string(), "digest": digest }));
    }
    writeln!(output.out, "published {place}\n{digest}")?;
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin install                                        what `sign` made, on this machine
  sluice plugin install oci:usb-stick/plugins                  the package in an OCI layout folder, if it is the only one
  sluice plugin install oci://registry.example/acme/demo:1.4.0
  sluice plugin install oci://registry.example/acme/demo@sha256:… --name acme/demo
  sluice plugin install ./acme-demo --inactive                 to run in the shadow first: sluice plugin shadow

Its key has to be pinned: sluice plugin trust add; your own, in ~/.config/sluice, is pinned on the way. A running edge takes the new version over by itself.")]
pub struct InstallArgs {
    #[command(flatten)]
    from: FromArgs,
    /// Take it in, and leave the version that runs
    #[arg(long)]
    inactive: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: NewStoreArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) async fn install(args: &InstallArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let (package, from) = args.from.package(&args.registry).await?;
    let store = args.store.open(host)?;
    keys::pin_own(&store, &package, output)?;
    let checked = store.verify(package.clone(), Purpose::Install, args.from.asked())?;
    // A signed manifest may still be wrong about its component; a component that is none is refused before it is here.
    let facts = (host.inspect)(&checked.component);
    let facts = facts.map_err(|why| CommandError::Component(format!("the component of {from}: {why}")))?;
    checked.manifest.agrees_with(&facts)?;
    warn(&checked, output)?;
    let installed = store.install(package, args.from.asked(), !args.inactive)?;
    let manifest = &installed.manifest;
    let folder = store.package_folder(&manifest.name, &manifest.version);
    if args.json {
        let value = json!({
            "manifest": manifest, "signer": installed.signer, "folder": folder,
            "activated": installed.activated, "replaced": installed.replaced.map(|version| version.to_string()),
        });
        return report::json(output, &value);
    }
    let (name, version) = (&manifest.name, &manifest.version);
    writeln!(output.out, "installed {name} {version}, signed by {}", installed.signer)?;
    match (&installed.replaced, installed.activated) {
        (Some(before), _) => writeln!(
            output.notes,
            "it runs instead of {before}; back: sluice plugin rollback {name}"
        )?,
        (None, true) => writeln!(output.notes, "it runs where the chain of an edge names {name}")?,
        (None, false) => writeln!(
            output.notes,
            "it does not run yet: sluice plugin shadow {name} {version} --share 10%, or sluice plugin promote {name} {version}"
        )?,
    }
    if is_disabled(&store, name)? {
        writeln!(
            output.notes,
            "note: {name} is disabled; sluice plugin enable {name} lets it run"
        )?;
    }
    if env::var_os("SLUICE_DATA").is_none() && args.store.node.data.is_none() {
        writeln!(output.notes, "store: {}", store.root().display())?;
    }
    Ok(())
}

fn is_disabled(store: &crate::Store, name: &PackageName) -> Result<bool, StoreError> {
    Ok(store
        .state()?
        .plugins
        .get(name)
        .is_some_and(|plugin| plugin.disabled.is_some()))
}
