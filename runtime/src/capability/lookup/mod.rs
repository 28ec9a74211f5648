//! Tables that the operator gave a plugin: CSV files and MaxMind databases.
//!
//! A file is read whole and shared by all plugins of a host that look into it. When it changes it is read again, aside, and
//! swapped; a new version that is broken leaves the old one in its place and is told once.

mod csv_table;
mod database;
mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use super::TableSource;
use crate::lock;
use file::TableFile;
pub use file::TableStatus;

/// Keys of one call between two looks at the time; some 100 µs.
const KEYS_PER_LOOK: usize = 256;

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("two tables are called `{0}`; give one of them another name")]
    Twice(String),
    #[error("table `{table}`, {path}: {what}")]
    File { table: String, path: PathBuf, what: String },
}

/// What a table is read from.
type Origin = (PathBuf, Option<String>);

/// The tables of a host. Plugins that look into the same file share it; one that nobody looks into any more is forgotten.
#[derive(Debug, Default)]
pub struct Tables {
    files: Mutex<BTreeMap<Origin, Weak<TableFile>>>,
}

impl Tables {
    /// Reads the tables that a plugin was granted, unless another plugin did. Blocks.
    pub fn grant(&self, sources: &[TableSource]) -> Result<GrantedTables, TableError> {
        let mut granted = BTreeMap::new();
        for source in sources {
            let file = self.file(source)?;
            if granted.insert(source.name.clone(), file).is_some() {
                return Err(TableError::Twice(source.name.clone()));
            }
        }
        Ok(GrantedTables { tables: granted })
    }

    fn file(&self, source: &TableSource) -> Result<Arc<TableFile>, TableError> {
        let origin = (source.path.clone(), source.key.clone());
        // Held while reading, so that two plugins that start at once read a file once.
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&origin).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = TableFile::open(source.path.clone(), source.key.clone());
        let file = Arc::new(file.map_err(|what| TableError::File {
            table: source.name.clone(),
            path: source.path.clone(),
            what,
        })?);
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(origin, Arc::downgrade(&file));
        Ok(file)
    }
}

/// The tables of one plugin, by the names that it knows. Cheap to clone; an instance has its own.
#[derive(Clone, Debug, Default)]
pub struct GrantedTables {
    tables: BTreeMap<String, Arc<TableFile>>,
}

impl GrantedTables {
    pub fn names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    /// Names of the fields of a table; empty for a database, in which any path may be asked for.
    pub fn fields(&self, table: &str) -> Result<Vec<String>, String> {
        Ok(self.table(table)?.current().fields())
    }

    /// The fields of each key: first all fields of the first key, then those of the second. All of them are of one version
    /// of the file. The texts together may have `limit_bytes`.
    pub fn find<K: AsRef<str>, F: AsRef<str>>(
        &self,
        table: &str,
        keys: &[K],
        fields: &[F],
        limit_bytes: usize,
        time_is_over: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<String>>, String> {
        let version = self.table(table)?.current();
        let fields: Vec<&str> = fields.iter().map(AsRef::as_ref).collect();
        let finder = version
            .finder(&fields)
            .map_err(|what| format!("table `{table}` {what}"))?;
        // A text that is not there takes room in the answer, too.
        let mut room =
            limit_bytes.checked_sub(keys.len().saturating_mul(fields.len()).saturating_mul(size_of::<u64>()));
        let mut values = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            if place % KEYS_PER_LOOK == 0 && time_is_over() {
                return Err("there was no time left to look all keys up".to_owned());
            }
            let first = values.len();
            finder
                .find(key.as_ref(), &mut values)
                .map_err(|what| format!("table `{table}`, key `{}`: {what}", key.as_ref()))?;
            let bytes = values[first..].iter().flatten().map(String::len).sum();
            room = room.and_then(|room| room.checked_sub(bytes));
            if room.is_none() {
                return Err(format!(
                    "the answer has more than {limit_bytes} bytes; look up fewer keys at once"
                ));
            }
        }
        Ok(values)
    }

    /// How each table is, by name.
    pub fn status(&self) -> Vec<(String, TableStatus)> {
        let statuses = self.tables.iter().map(|(name, file)| (name.clone(), file.status()));
        statuses.collect()
    }

    fn table(&self, name: &str) -> Result<&Arc<TableFile>, String> {
        self.tables
            .get(name)
            .ok_or_else(|| match self.tables.keys().cloned().collect::<Vec<_>>() {
                names if names.is_empty() => format!("there is no table `{name}`; the plugin was granted none"),
                names => format!("there is no table `{name}`; there are {}", names.join(", ")),
            })
    }
}

#[cfg(test)]
mod tests;
