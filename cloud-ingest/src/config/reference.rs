//! A secret by reference: `{ env = "NAME" }` or `{ file = "PATH" }`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a secret is { env = \"NAME\" } or { file = \"PATH\" }")]
pub enum Reference {
    Env(Env),
    File(File),
}

/// In the environment of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Env {
    pub env: String,
}

/// In a file, which may end with a line break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub file: PathBuf,
}

impl Reference {
    /// What is there now.
    pub(crate) fn value(&self) -> Result<String, String> {
        match self {
            Reference::Env(Env { env }) => {
                std::env::var(env).map_err(|error| format!("the variable {env} cannot be used: {error}"))
            }
            Reference::File(File { file }) => std::fs::read_to_string(file)
                .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
                .map_err(|error| format!("{} cannot be read: {error}", file.display())),
        }
    }
}
