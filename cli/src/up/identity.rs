//! What `sluice up` makes for itself on the first start: an authority, two certificates and a token.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sluice_query::tokens::{self, Reach, Tokens};
use sluice_wire::ids::{NodeId, TenantId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ca::{self, Issued, Policy, Role};

/// The tenant that all rows of one machine belong to until someone names another.
pub(super) const TENANT: &str = "default";
/// The name of the edge inside.
pub(super) const NODE: &str = "local";
/// The name that the inner edge expects of the inner gateway.
pub(super) const GATEWAY: &str = "localhost";
/// How often it is looked at whether the gateway's certificate is old, where it does not live very short.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// Where the parts find their secrets.
pub(super) struct Identity {
    pub(super) gateway: Issued,
    pub(super) edge: Issued,
    /// The authority's folder.
    pub(super) authority: PathBuf,
    pub(super) deny_list: PathBuf,
    pub(super) token_file: PathBuf,
    pub(super) tokens: Tokens,
}

impl Identity {
    /// Reads what an earlier start made, and makes what is missing.
    pub(super) fn open(data: &Path, life: Duration) -> anyhow::Result<Identity> {
        let authority = data.join("ca");
        if !ca::exists(&authority) {
            // Without its key a half-made authority has signed nothing: start again from nothing.
            if authority.exists() {
                std::fs::remove_dir_all(&authority)
                    .with_context(|| format!("cannot remove the unfinished {}", authority.display()))?;
            }
            ca::init(&authority)?;
        }
        let edge = Role::Edge {
            tenant: TenantId::new(TENANT)?,
            node: NodeId::new(NODE)?,
        };
        let (token_file, tokens) = open_tokens(data)?;
        Ok(Identity {
            gateway: ensure(&authority, &gateway(), &data.join("certificates/gateway"), life)?,
            edge: ensure(&authority, &edge, &data.join("certificates/edge"), life)?,
            deny_list: authority.join(ca::DENY_LIST),
            authority,
            token_file,
            tokens,
        })
    }
}

fn gateway() -> Role {
    Role::Gateway {
        hosts: vec![GATEWAY.to_owned(), "127.0.0.1".to_owned()],
    }
}

/// Makes the gateway's certificate anew in time, for as long as the process runs, and has the gateway look at it. The edge's is renewed
/// over the link.
pub(super) async fn keep(
    data: PathBuf,
    authority: PathBuf,
    policy: Policy,
    gateway_looks: Option<Arc<Notify>>,
    stop: CancellationToken,
) {
    let life = policy.life;
    let every = (life / 10).min(LOOK_EVERY);
    loop {
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(every) => {} }
        let (authority, out) = (authority.clone(), data.join("certificates/gateway"));
        let policy = policy.clone();
        let made = tokio::task::spawn_blocking(move || {
            ca::forget_old(&authority, &policy)?;
            ensure(&authority, &gateway(), &out, life)
        });
        let made = made.await;
        match made {
            Ok(Ok(_)) => gateway_looks.iter().for_each(|gateway| gateway.notify_one()),
            Ok(Err(error)) => tracing::error!("the gateway's certificate is not renewed: {error:#}"),
            Err(error) => tracing::error!(%error, "the gateway's certificate is not renewed"),
        }
    }
}

/// The certificate of before until two thirds of its life are over, else a new one. Beside it stands what was issued, whole or not at all.
fn ensure(authority: &Path, role: &Role, out: &Path, life: Duration) -> anyhow::Result<Issued> {
    let memo = out.join("issued.json");
    if let Ok(text) = std::fs::read(&memo) {
        let issued: Issued = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged: remove it, and a new certificate is made",
                memo.display()
            )
        })?;
        let now = ca::now()?;
        let is_young = |e: &ca::Entry| e.not_after > now + e.not_after.saturating_sub(e.issued_at) / 3;
        let lives = ca::list(authority)?
            .iter()
            .any(|e| e.serial == issued.serial && !e.revoked && is_young(e));
        if lives && issued.certificate.exists() && issued.key.exists() {
            return Ok(issued);
        }
    }
    let issued = ca::issue(authority, role, out, life)?;
    write_private(&memo, &serde_json::to_vec_pretty(&issued)?)?;
    Ok(issued)
}

/// The hashed list that the query layer checks, and beside it the one token in clear that the owner of this folder asks with.
fn open_tokens(data: &Path) -> anyhow::Result<(PathBuf, Tokens)> {
    let (list, clear) = (data.join("tokens.json"), data.join("token"));
    if !list.exists() || !clear.exists() {
        let (token, entry) = tokens::mint(rand::random(), "sluice up", &TenantId::new(TENANT)?, Reach::Operator);
        // The clear token first: a list without it would lock the owner out.
        write_private(&clear, format!("{token}\n").as_bytes())?;
        tokens::save(&list, &[entry])?;
    }
    Ok((clear, Tokens::open(&list)?))
}

/// Whole or not at all, for the owner's eyes only.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let staged = path.with_extension("new");
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&staged, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
