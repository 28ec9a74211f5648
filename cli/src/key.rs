//! `sluice key`: API keys that stand for a tenant.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use sluice_settings::readable::span;
use sluice_settings::units::parse_duration;
use sluice_tenants::folder::read_keys;
use sluice_tenants::{Folder, Key, Scope};
use sluice_wire::ids::TenantId;

use crate::tenant::{FolderArgs, say, unknown};

/// For people; longer ones are typing errors.
const MAX_NAME: usize = 64;
/// How long a key that opens nothing is kept, so that whoever still comes with it is told from one who made a key up: longer than a
/// sender that was forgotten goes unnoticed.
const DEAD_FOR: Duration = Duration::from_secs(90 * 86_400);

/// API keys: what speaks OTLP to the cloud, and who asks, comes with one.
#[derive(clap::Args)]
#[command(
    after_help = "A key is shown once, when it is made; only its hash is kept. Senders say `authorization: Bearer KEY` or `x-api-key: KEY`;\n\
    with OpenTelemetry SDKs: OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Bearer KEY\". Who asks uses a key of scope read in place of\n\
    a token: `sluice sql --token-file FILE`, or as the password of the Postgres wire.\n\
    Replace a key by making a second one, changing the sender, then revoking the first."
)]
pub(crate) struct Args {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key and show it, once
    Create {
        #[arg(long)]
        tenant: String,
        /// What it is for, such as the sender's name
        #[arg(long)]
        name: String,
        /// `write` sends events to the OTLP door, `read` asks
        #[arg(long, value_enum)]
        scope: ScopeArg,
        /// How long it is good, such as "90 d"; without it until it is revoked
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// All keys, without their secrets
    List {
        /// Of this tenant only
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revoke by id, or by TENANT/NAME all of that name: refused within seconds
    Revoke { which: String },
    /// Forget keys that were revoked or expired long ago; whoever makes a key does so, too
    Prune {
        /// For how long they have opened nothing, such as "0 s"
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "90 d")]
        dead_for: Duration,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    Write,
    Read,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let FolderArgs { dir, json } = args.folder;
    let now_s = crate::ca::now()?;
    match args.command {
        Command::Create {
            tenant,
            name,
            scope,
            expires,
        } => {
            let id = TenantId::new(&tenant)?;
            ensure!(
                !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control),
                "a name has 1 to {MAX_NAME} characters"
            );
            let scope = match scope {
                ScopeArg::Write => Scope::Write,
                ScopeArg::Read => Scope::Read,
            };
            let folder = Folder::lock(&dir)?;
            if folder.tenants()?.get(&id).is_none() {
                return Err(unknown(&dir, &id));
            }
            let mut keys = folder.keys()?;
            keys.prune(now_s, DEAD_FOR.as_secs());
            let end = expires.map(|life| now_s.saturating_add(life.as_secs()));
            let (secret, key) = Key::mint(rand::random(), rand::random(), &id, &name, scope, (now_s, end));
            keys.add(key.clone()).map_err(anyhow::Error::msg)?;
            folder.save_keys(&keys)?;
            let mut shown = value(&key);
            shown["key"] = secret.as_str().into();
            say(json, &shown, || {
                format!(
                    "{secret}\n\n{}\nIt is not shown again: keep it where its sender finds it.",
                    line(&key, now_s)
                )
            });
        }
        Command::List { tenant } => {
            let wanted = tenant.map(|tenant| TenantId::new(&tenant)).transpose()?;
            let keys = read_keys(&dir)?;
            let is_wanted = |key: &&Key| wanted.as_ref().is_none_or(|wanted| wanted.as_str() == key.tenant);
            let keys: Vec<&Key> = keys.iter().filter(is_wanted).collect();
            say(json, &keys.iter().map(|key| value(key)).collect(), || {
                match keys.is_empty() {
                    true => "no key: sluice key create --tenant T --name N --scope write".to_owned(),
                    false => keys.iter().map(|key| line(key, now_s)).collect::<Vec<_>>().join("\n"),
                }
            });
        }
        Command::Revoke { which } => {
            let folder = Folder::lock(&dir)?;
            let mut keys = folder.keys()?;
            let is_meant = |key: &Key| key.id == which || format!("{}/{}", key.tenant, key.name) == which;
            let revoked = keys.revoke(now_s, is_meant);
            if revoked.is_empty() {
                bail!("no key has the id or the TENANT/NAME {which:?}: `sluice key list` shows them");
            }
            folder.save_keys(&keys)?;
            say(json, &revoked.iter().map(value).collect(), || {
                let lines = revoked.iter().map(|key| format!("revoked {}", line(key, now_s)));
                lines.collect::<Vec<_>>().join("\n")
            });
        }
        Command::Prune { dead_for } => {
            let folder = Folder::lock(&dir)?;
            let mut keys = folder.keys()?;
            let forgotten = keys.prune(now_s, dead_for.as_secs());
            if forgotten > 0 {
                folder.save_keys(&keys)?;
            }
            let left = keys.iter().count();
            say(json, &json!({ "forgotten": forgotten, "left": left }), || {
                format!("forgot {forgotten} keys that opened nothing any more, {left} are left")
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Without the hash.
pub(crate) fn value(key: &Key) -> Value {
    json!({
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scope": key.scope.to_string(),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    })
}

pub(crate) fn line(key: &Key, now_s: u64) -> String {
    let state = match (key.is_revoked(), key.expires_at) {
        (true, _) => "revoked".to_owned(),
        (false, None) => "good until it is revoked".to_owned(),
        (false, Some(end)) if now_s >= end => "expired".to_owned(),
        (false, Some(end)) => format!("good for {}", span((end - now_s).saturating_mul(1_000))),
    };
    format!("{}  {}/{}  {}  {state}", key.id, key.tenant, key.name, key.scope)
}
