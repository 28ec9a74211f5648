//! `keygen` and `trust`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::Subcommand;
use serde_json::json;

use super::{CommandError, Host, NewStoreArgs, Output, StoreArgs, cannot, report};
use crate::file;
use crate::key::{PrivateKey, PublicKey};
use crate::limits::KEY_FILE_BYTES;
use crate::manifest::Capability;
use crate::name::NameRule;
use crate::signature::Signature;
use crate::store::{Store, StoreError};
use crate::trust::TrustedKey;
use crate::verify::Package;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice plugin keygen                                   in ~/.config/sluice/plugin.key, where `sign` looks for it
  sluice plugin keygen acme.key --comment 'acme releases'

Give the `.pub` file to whoever is to take your packages: sluice plugin trust add acme acme.key.pub
Keep the key itself off the nodes. There is no other copy of it.")]
pub struct KeygenArgs {
    /// The file to make; the public key goes beside it, with `.pub` at its end
    file: Option<PathBuf>,
    /// Whose it is, for people
    #[arg(long, default_value = "")]
    comment: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The key that is used where none is named.
pub(super) fn default_key() -> Result<PathBuf, CommandError> {
    let folder = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    let missing = || CommandError::Usage("there is no home folder to keep a key in: say where it is".into());
    Ok(folder.ok_or_else(missing)?.join("sluice/plugin.key"))
}

/// The key that is used where none is named; made now if there is none, and if so, that is told.
pub(super) fn own_key(output: &mut Output<'_>) -> Result<PathBuf, CommandError> {
    let path = default_key()?;
    if !path.exists() {
        let args = KeygenArgs {
            file: None,
            comment: String::new(),
            json: false,
        };
        let mut made = Vec::new();
        let mut quiet = Vec::new();
        keygen(
            &args,
            &mut Output {
                out: &mut made,
                notes: &mut quiet,
            },
        )?;
        writeln!(
            output.notes,
            "made your signing key: {} (keep it secret; there is no other copy)",
            path.display()
        )?;
    }
    Ok(path)
}

/// Pins the key of whoever installs, if that is who signed: they could pin it themselves.
pub(super) fn pin_own(store: &Store, package: &Package, output: &mut Output<'_>) -> Result<(), CommandError> {
    const NAME: &str = "own";
    let Ok(private) = default_key() else {
        return Ok(());
    };
    // Only who has the private key is its owner; a public key can be anybody's.
    let own = PrivateKey::load(&private).map(|key| key.public());
    let signed_by = Signature::parse(&package.signature).map(|signature| signature.key);
    let (Ok(key), Ok(signed_by)) = (own, signed_by) else {
        return Ok(());
    };
    let trust = store.trust()?;
    if key.id() != signed_by
        || trust
            .keys()
            .any(|pinned| pinned.key.id() == signed_by || pinned.name == NAME)
    {
        return Ok(());
    }
    store.add_key(&TrustedKey {
        name: NAME.to_owned(),
        key,
        names: None,
        capabilities: None,
    })?;
    writeln!(
        output.notes,
        "pinned {signed_by} as {NAME}: it is your own key; `sluice plugin trust remove {NAME}` takes it back"
    )?;
    Ok(())
}

pub(super) fn keygen(args: &KeygenArgs, output: &mut Output<'_>) -> Result<(), CommandError> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => {
            let path = default_key()?;
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(cannot("make", folder))?;
            path
        }
    };
    let mut public_path = path.clone().into_os_string();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    if public_path.exists() {
        return Err(crate::key::KeyError::Exists { path: public_path }.into());
    }
    let public = PrivateKey::generate(&path, &args.comment)?.public();
    fs::write(&public_path, format!("{public}\n")).map_err(cannot("write", &public_path))?;
    if args.json {
        let value = json!({ "key": public.id(), "private": path, "public": public_path, "line": public.to_string() });
        return report::json(output, &value);
    }
    writeln!(output.out, "{public}")?;
    writeln!(output.notes, "key      {}", public.id())?;
    writeln!(output.notes, "private  {} (keep it secret)", path.display())?;
    writeln!(output.notes, "public   {}", public_path.display())?;
    writeln!(
        output.notes,
        "next: sluice plugin trust add NAME {}",
        public_path.display()
    )?;
    Ok(())
}

/// Whose packages this node takes
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Pin a key
    #[command(after_help = "\
Examples:
  sluice plugin trust add acme acme.key.pub                         all that this key signs
  sluice plugin trust add acme acme.key.pub --names 'acme/*'        this vendor's packages only
  sluice plugin trust add acme 'sluice-ed25519 6dl…' --capabilities log,match")]
    Add {
        /// What to call it here
        name: String,
        /// The public key: its file, or the line in it
        key: String,
        /// Packages that it may sign: names, or `vendor/*`; by default any
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        names: Vec<NameRule>,
        /// Capabilities that its packages may have; by default all
        #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
        capabilities: Option<Vec<Capability>>,
        #[command(flatten)]
        store: NewStoreArgs,
    },
    /// The keys that are pinned
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Pin a key no more: nothing that it signed is loaded from now on
    Remove {
        /// What it is called here
        name: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

pub(super) fn trust(command: TrustCommand, host: &Host<'_>, output: &mut Output<'_>) -> Result<(), CommandError> {
    match command {
        TrustCommand::Add {
            name,
            key,
            names,
            capabilities,
            store,
        } => {
            let trusted = TrustedKey {
                key: public_key(&key)?,
                names: (!names.is_empty()).then_some(names),
                capabilities: capabilities.map(|some| some.into_iter().collect()),
                name,
            };
            store.open(host)?.add_key(&trusted)?;
            writeln!(output.out, "pinned {} as {}", trusted.key.id(), trusted.name)?;
            if trusted.names.is_none() {
                writeln!(
                    output.notes,
                    "note: it may sign packages of any name; `--names 'vendor/*'` limits a key to a vendor"
                )?;
            }
        }
        TrustCommand::List { json, store } => {
            let trust = store.open(host)?.trust()?;
            if json {
                let keys: Vec<_> = trust.keys().map(as_json).collect();
                return report::json(output, &json!({ "keys": keys }));
            }
            let rows = trust.keys().map(|key| {
                let names = key.names.as_ref().map_or("any".into(), report::joined);
                let capabilities = key.capabilities.as_ref().map_or("any".into(), report::joined);
                vec![
                    key.name.clone(),
                    key.key.id().to_string(),
                    names,
                    capabilities,
                    key.key.comment.clone(),
                ]
            });
            report::table(output, &["NAME", "KEY", "PACKAGES", "CAPABILITIES", "COMMENT"], rows)?;
        }
        TrustCommand::Remove { name, store } => {
            store.open(host)?.remove_key(&name)?;
            writeln!(output.out, "{name} is not pinned any more")?;
        }
    }
    Ok(())
}

fn as_json(key: &TrustedKey) -> serde_json::Value {
    json!({
        "name": key.name, "key": key.key.id(), "comment": key.key.comment,
        "names": key.names, "capabilities": key.capabilities,
    })
}

/// A file, if there is one of that name; or else the line itself.
fn public_key(text: &str) -> Result<PublicKey, CommandError> {
    let path = Path::new(text);
    if !path.is_file() {
        let is_line = text.contains(' ');
        let missing = || StoreError::Io {
            action: "read",
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        return if is_line {
            Ok(text.parse()?)
        } else {
            Err(missing().into())
        };
    }
    let content = file::read_text(path, KEY_FILE_BYTES).map_err(cannot("read", path))?;
    let mut lines = content
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.next().unwrap_or_default().parse()?)
}
