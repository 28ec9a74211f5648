//! Who a fleet's processes are to each other: certificates of an authority of its own, and a token for whoever asks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sluice_query::tokens::{self, Reach};
use sluice_wire::ids::TenantId;

use super::{SERVER_NAME, TENANT};
use crate::process::ca;

/// Where the certificates lie.
pub(super) struct Keys {
    folder: PathBuf,
}

impl Keys {
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(super) fn gateway(&self) -> [PathBuf; 2] {
        self.pair(&format!("gateway-{SERVER_NAME}"))
    }

    /// Certificate and key.
    fn pair(&self, name: &str) -> [PathBuf; 2] {
        ["pem", "key"].map(|kind| self.folder.join(format!("{name}.{kind}")))
    }

    pub(super) fn edge(&self, number: u8) -> [PathBuf; 2] {
        self.pair(&format!("{TENANT}.site-{number}"))
    }
}

/// An authority, and certificates of it, as an operator makes them.
pub(super) fn certificates(sluice: &Path, folder: &Path, edges: u8) -> Result<Keys> {
    let keys = Keys {
        folder: folder.join("certificates"),
    };
    fs::create_dir_all(&keys.folder)?;
    let out = keys.folder.display().to_string();
    let mut commands = vec![vec!["init".to_owned()]];
    let issue = |words: &[&str]| {
        let all = [&["issue"], words, &["--out", &out]].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    commands.push(issue(&["--gateway", SERVER_NAME]));
    for number in 1..=edges {
        commands.push(issue(&["--tenant", TENANT, "--node", &format!("site-{number}")]));
    }
    let authority = folder.join("ca");
    for words in commands {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ca(sluice, &authority, &words)?;
    }
    fs::copy(authority.join("ca.pem"), keys.authority())?;
    Ok(keys)
}

/// A token for all rows, and the file that lets the query process know it.
pub(super) fn token(folder: &Path) -> Result<(String, PathBuf)> {
    let file = folder.join("tokens.json");
    let (token, entry) = tokens::mint(rand::random(), "fleet", &TenantId::new(TENANT)?, Reach::Operator);
    tokens::save(&file, &[entry])?;
    Ok((token, file))
}
