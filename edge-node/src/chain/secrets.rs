//! Secrets in the configuration of a plugin stand elsewhere: `{ env = "NAME" }` and `{ file = "PATH" }` are replaced by the text
//! that they name when the plugin gets its configuration, and nowhere else.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Bytes of a secret: a key in PEM has 2 KiB.
const MAX_SECRET_BYTES: u64 = 64 << 10;
/// Shorter ones are too common to be found in a message without mangling it.
const MIN_REDACTED_BYTES: usize = 4;

/// Why the configuration of a plugin cannot be made whole.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment has no `{name}`, which `{key}` names: set it where the node is started")]
    Env { key: String, name: String },
    #[error("the file {}, which `{key}` names, cannot be read", .path.display())]
    File {
        key: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}, which `{key}` names, is longer than {MAX_SECRET_BYTES} bytes")]
    TooLong { key: String, what: String },
    #[error("{what}, which `{key}` names, is no text")]
    NotText { key: String, what: String },
    #[error("the configuration is not plain data")]
    Data(#[from] serde_json::Error),
}

/// What was put into a configuration; it must not come out again.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// A message without them: a plugin that refuses its configuration may quote it.
    pub(super) fn redact(&self, text: &str) -> String {
        self.0
            .iter()
            .filter(|secret| secret.len() >= MIN_REDACTED_BYTES)
            .fold(text.to_owned(), |text, secret| {
                text.replace(secret.as_str(), "[secret]")
            })
    }
}

/// The configuration as the plugin gets it.
pub(super) fn resolve(config: &toml::Table) -> Result<(Value, Secrets), SecretError> {
    let mut value = serde_json::to_value(config)?;
    let mut secrets = Secrets::default();
    walk(&mut value, "config", &mut secrets)?;
    Ok((value, secrets))
}

fn walk(value: &mut Value, key: &str, secrets: &mut Secrets) -> Result<(), SecretError> {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = Reference::of(fields) {
                let secret = reference.read(key)?;
                secrets.0.push(secret.clone());
                *value = Value::String(secret);
                return Ok(());
            }
            for (name, field) in fields.iter_mut() {
                walk(field, &format!("{key}.{name}"), secrets)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| walk(item, key, secrets)),
        _ => Ok(()),
    }
}

/// A table with this one key and a text is always a reference.
enum Reference {
    Env(String),
    File(PathBuf),
}

impl Reference {
    fn of(fields: &serde_json::Map<String, Value>) -> Option<Reference> {
        if fields.len() != 1 {
            return None;
        }
        match (fields.get("env"), fields.get("file")) {
            (Some(Value::String(name)), None) => Some(Reference::Env(name.clone())),
            (None, Some(Value::String(path))) => Some(Reference::File(PathBuf::from(path))),
            _ => None,
        }
    }

    fn read(self, key: &str) -> Result<String, SecretError> {
        let key = || key.to_owned();
        match self {
            Reference::Env(name) => match std::env::var(&name) {
                Ok(secret) if secret.len() as u64 <= MAX_SECRET_BYTES => Ok(secret),
                Ok(_) => Err(SecretError::TooLong { key: key(), what: name }),
                Err(std::env::VarError::NotPresent) => Err(SecretError::Env { key: key(), name }),
                Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::NotText { key: key(), what: name }),
            },
            Reference::File(path) => {
                let what = path.display().to_string();
                let bytes = read_bounded(&path).map_err(|source| SecretError::File {
                    key: key(),
                    path,
                    source,
                })?;
                if bytes.len() as u64 > MAX_SECRET_BYTES {
                    return Err(SecretError::TooLong { key: key(), what });
                }
                let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { key: key(), what })?;
                // The line end that every editor adds belongs to nobody's secret.
                Ok(text.trim_end_matches(['\n', '\r']).to_owned())
            }
        }
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes the paths of `{ file = … }` relative to a folder.
pub(crate) fn resolve_paths(config: &mut toml::Table, folder: &Path) {
    for value in config.iter_mut().map(|(_, value)| value) {
        resolve_in(value, folder);
    }
}

fn resolve_in(value: &mut toml::Value, folder: &Path) {
    match value {
        toml::Value::Table(table) => match (table.len(), table.get_mut("file")) {
            (1, Some(toml::Value::String(path))) => *path = folder.join(&*path).display().to_string(),
            _ => resolve_paths(table, folder),
        },
        toml::Value::Array(items) => items.iter_mut().for_each(|item| resolve_in(item, folder)),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_what_they_gave_is_taken_out_of_messages() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "hunter2 and more\n").unwrap();
        let mut config: toml::Table = toml::from_str(
            r#"
            salt = { file = "key" }
            list = [ { file = "key" }, { file = 1 } ]
            plain = { file = "stays", env = "too" }
            path = { env = "PATH" }
            "#,
        )
        .unwrap();
        resolve_paths(&mut config, dir.path());
        let (value, secrets) = resolve(&config).unwrap();
        assert_eq!(value["salt"], "hunter2 and more");
        assert_eq!(value["list"][0], "hunter2 and more");
        assert_eq!(value["list"][1]["file"], 1);
        assert_eq!(value["plain"]["file"], "stays");
        assert_eq!(value["path"], std::env::var("PATH").unwrap());
        assert_eq!(secrets.redact("no `hunter2 and more` here"), "no `[secret]` here");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_key() {
        let refused = |text: &str| resolve(&toml::from_str(text).unwrap()).err().unwrap().to_string();
        let text = refused("a.b = { env = \"SLUICE_NO_SUCH_VARIABLE\" }");
        assert!(
            text.contains("config.a.b") && text.contains("SLUICE_NO_SUCH_VARIABLE"),
            "{text}"
        );
        let text = refused("k = { file = \"/nowhere/key\" }");
        assert!(text.contains("config.k") && text.contains("/nowhere/key"), "{text}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        std::fs::write(&path, vec![b'x'; MAX_SECRET_BYTES as usize + 1]).unwrap();
        assert!(refused(&format!("k = {{ file = {path:?} }}")).contains("longer"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(refused(&format!("k = {{ file = {path:?} }}")).contains("no text"));
    }
}
