//! The bytes of this day, kept over restarts: a small file that is replaced whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_wire::ids::TenantId;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    /// Days since 1970.
    day: u64,
    bytes: BTreeMap<String, u64>,
}

const VERSION: u32 = 1;

/// Nothing where there is no file or one that cannot be used: a quota of a day is no reason not to start.
pub(super) fn load(path: &Path) -> (u64, BTreeMap<TenantId, u64>) {
    let file = fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
    let Some(file) = file.filter(|file| file.version == VERSION) else {
        return (0, BTreeMap::new());
    };
    let named = |(name, bytes): (String, u64)| Some((TenantId::new(&name).ok()?, bytes));
    (file.day, file.bytes.into_iter().filter_map(named).collect())
}

/// Not synced: after a power cut the file of before counts.
pub(super) fn save(path: &Path, (day, bytes): (u64, BTreeMap<TenantId, u64>)) -> io::Result<()> {
    let file = File {
        version: VERSION,
        day,
        bytes: bytes.into_iter().map(|(who, bytes)| (who.to_string(), bytes)).collect(),
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    fs::write(&beside, serde_json::to_vec(&file)?)?;
    fs::rename(&beside, path)
}
