//! `revoke`: lists are made where the key is, and imported where packages run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;
use sluice_settings::units;

use super::{CommandError, Host, NewStoreArgs, Output, RegistryArgs, cannot, keys, report};
use crate::file;
use crate::key::{KeyId, PrivateKey};
use crate::limits::REVOCATIONS_BYTES;
use crate::name::parse_version;
use crate::oci::{self, Reference};
use crate::policy::Policy;
use crate::revocation::{Revocation, RevocationList, RevokedComponent, RevokedKey, RevokedVersions, SignedRevocations};
use crate::trust::{Trust, TrustedKey};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin revoke acme/demo@1.4.1 --reason 'leaks e-mail addresses'          this version only
  sluice plugin revoke 'acme/demo@>=1.2.0, <1.4.2' --reason 'leaks e-mail addresses' --key acme.key --list revocations.json
  sluice plugin revoke key:6dl… --reason 'stolen' --key operator.key --list revocations.json
  sluice plugin revoke --renew --key acme.key --list revocations.json           the same list, valid for longer
  sluice plugin publish revocations.json oci://registry.example/acme/revocations:latest
  sluice plugin revoke --import oci://registry.example/acme/revocations:latest  on a node, every day
  sluice plugin revoke --import revocations.json

A list holds all that its key ever revoked and has a number that only grows. It is good for as long as --valid says: afterwards a
node installs nothing that the list covers, and goes on with what it has, warning of it.")]
pub struct RevokeArgs {
    /// `NAME`, `NAME@VERSION`, `NAME@RANGE`, `sha256:…` of a component, or `key:ID`
    #[arg(required_unless_present_any = ["renew", "import"])]
    what: Vec<Target>,
    /// Why, for everybody
    #[arg(long, required_unless_present_any = ["renew", "import"])]
    reason: Option<String>,
    /// Sign the list as it is, with a new number and a new end
    #[arg(long, conflicts_with_all = ["what", "import"])]
    renew: bool,
    /// The private key that signs the list; by default the one that `keygen` made in ~/.config/sluice
    #[arg(long, value_name = "FILE", env = "SLUICE_PLUGIN_KEY")]
    key: Option<PathBuf>,
    /// The file of the list: what is in it stays in it
    #[arg(long, value_name = "FILE", default_value = "revocations.json")]
    list: PathBuf,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "30 d", value_parser = units::parse_duration)]
    valid: Duration,
    /// Take a list in: a file, `oci:DIR:TAG` or `oci://HOST/NAME:TAG`
    #[arg(long, value_name = "SOURCE", conflicts_with_all = ["what", "reason"])]
    import: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: NewStoreArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Component(crate::Digest),
    Versions(crate::PackageName, crate::VersionRange),
    Key(KeyId),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn said(error: impl ToString) -> String {
            error.to_string()
        }
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Component).map_err(said);
        }
        if let Some(id) = text.strip_prefix("key:") {
            return id.parse().map(Self::Key).map_err(said);
        }
        let (name, range) = text.split_once('@').unwrap_or((text, "*"));
        // A version alone is that version: a list itself says so with a sign, so that nobody has to guess.
        let range = match parse_version(range.trim()) {
            Ok(version) => format!("={version}"),
            Err(_) => range.to_owned(),
        };
        Ok(Self::Versions(
            name.parse().map_err(said)?,
            range.parse().map_err(said)?,
        ))
    }
}

impl Target {
    fn entry(&self, reason: &str) -> Revocation {
        let reason = reason.to_owned();
        match self.clone() {
            Self::Component(digest) => Revocation::Component(RevokedComponent { digest, reason }),
            Self::Versions(name, versions) => Revocation::Versions(RevokedVersions { name, versions, reason }),
            Self::Key(key) => Revocation::Key(RevokedKey { key, reason }),
        }
    }
}

pub(super) async fn revoke(args: &RevokeArgs, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    match &args.import {
        Some(source) => import(args, source, host, output).await,
        None => issue(args, &host.policy, output),
    }
}

async fn import(args: &RevokeArgs, source: &str, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    let signed = match Reference::is_one(source) {
        true => {
            let reference: Reference = source.parse()?;
            let access = args.registry.access(&reference)?;
            oci::pull_revocations(&reference, &access).await?
        }
        false => {
            let bytes = file::read(Path::new(source), REVOCATIONS_BYTES).map_err(cannot("read", source))?;
            SignedRevocations::parse(&bytes)?
        }
    };
    let key = signed.key;
    let list = args.store.open(host)?.import_revocations(signed)?;
    say(args, output, "imported", &key, &list)
}

/// Adds to the list in the file, which has to be of the same key.
fn issue(args: &RevokeArgs, policy: &Policy, output: &mut Output<'_>) -> Result<(), CommandError> {
    let path = match &args.key {
        Some(path) => path.clone(),
        None => keys::default_key()?,
    };
    let key = PrivateKey::load(&path)?;
    let before = match file::read(&args.list, REVOCATIONS_BYTES) {
        Ok(bytes) => Some(own_list(&bytes, &key, &args.list)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("read", &args.list)(error)),
    };
    if args.renew && before.is_none() {
        return Err(CommandError::Usage(format!(
            "there is no list {} to renew",
            args.list.display()
        )));
    }
    let now = (policy.clock)();
    let (number, mut entries) = before.map_or((0, Vec::new()), |list| (list.number, list.entries));
    let reason = args.reason.as_deref().unwrap_or_default();
    for entry in args.what.iter().map(|what| what.entry(reason)) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    let list = RevocationList {
        number: number + 1,
        issued: now,
        expires: now.after(args.valid),
        entries,
    };
    let signed = SignedRevocations::sign(&key, &list)?;
    let mut aside = args.list.clone().into_os_string();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    fs::write(&aside, signed.to_bytes())
        .and_then(|()| fs::rename(&aside, &args.list))
        .map_err(cannot("write", &args.list))?;
    say(args, output, "made", &key.public().id(), &list)?;
    if !args.json {
        let file = args.list.display();
        writeln!(
            output.notes,
            "nothing is revoked until nodes import it: sluice plugin publish {file} oci://…, or here:"
        )?;
        writeln!(output.notes, "  sluice plugin revoke --import {file}")?;
    }
    Ok(())
}

fn own_list(bytes: &[u8], key: &PrivateKey, path: &Path) -> Result<RevocationList, CommandError> {
    let signed = SignedRevocations::parse(bytes)?;
    let own = key.public().id();
    if signed.key != own {
        let (path, other) = (path.display(), signed.key);
        let text =
            format!("{path} is a list of the key {other}, and this is the key {own}: each key has a list of its own");
        return Err(CommandError::Usage(text));
    }
    let mut trust = Trust::default();
    let own = TrustedKey {
        name: "own".into(),
        key: key.public(),
        names: None,
        capabilities: None,
    };
    trust.add(own).map_err(crate::StoreError::from)?;
    Ok(signed.verify(&trust)?)
}

fn say(
    args: &RevokeArgs,
    output: &mut Output<'_>,
    done: &str,
    key: &KeyId,
    list: &RevocationList,
) -> Result<(), CommandError> {
    if args.json {
        return report::json(output, &json!({ "key": key, "list": list }));
    }
    let entries = list.entries.len();
    writeln!(
        output.out,
        "{done} list {} of the key {key}: {entries} entries, good until {}",
        list.number, list.expires
    )?;
    Ok(())
}
