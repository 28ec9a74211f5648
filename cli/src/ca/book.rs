//! What an authority remembers: every certificate that it issued, as lines of JSON, and the deny list that gateways obey.
//!
//! Several processes may write at once, such as `sluice ca serve` and `sluice ca revoke`: whoever writes holds the lock of the folder.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::DENY_LIST;

const ISSUED: &str = "issued.jsonl";
const LOCK: &str = "lock";

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) serial: String,
    /// `edge` or `gateway`.
    pub(crate) role: String,
    /// `tenant/node`, or the hosts.
    pub(crate) name: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub(crate) issued_at: u64,
    pub(crate) not_after: u64,
    #[serde(default)]
    pub(crate) revoked: bool,
    /// Who had it issued: a command, or a gateway that passed an edge's request on.
    #[serde(default)]
    pub(crate) by: String,
    /// Where it was renewed: the serial number of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<String>,
}

/// Held by whoever writes.
pub(super) struct Lock {
    dir: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for others, who are quick.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let open = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            Ok::<_, io::Error>(file)
        };
        let file = open().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
            _file: file,
        })
    }

    /// Durable when it returns.
    pub(super) fn add(&self, entry: &Entry) -> Result<()> {
        let path = self.dir.join(ISSUED);
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(&path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            // What a crash left of a line is no line.
            let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::Start(whole as u64))?;
            file.write_all(&line)?;
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    fn save(&self, entries: &[Entry]) -> Result<()> {
        let mut text = String::new();
        for entry in entries {
            text.push_str(&serde_json::to_string(entry)?);
            text.push('\n');
        }
        replace(&self.dir.join(ISSUED), text.as_bytes(), 0o644)
    }
}

/// Forgets what expired before a moment: nobody can use it for anything any more. The deny list stays as it is.
pub(crate) fn forget(dir: &Path, expired_before_s: u64) -> Result<()> {
    let lock = Lock::take(dir)?;
    let mut entries = list(dir)?;
    let all = entries.len();
    entries.retain(|entry| entry.not_after >= expired_before_s);
    match entries.len() < all {
        true => lock.save(&entries),
        false => Ok(()),
    }
}

/// Everything that was issued and is not forgotten, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(ISSUED);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(at, line)| serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), at + 1));
    whole
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.is_empty())
        .map(parse)
        .collect()
}

/// The serial numbers that no gateway lets in.
pub(super) fn denied(dir: &Path) -> Result<HashSet<String>> {
    let path = dir.join(DENY_LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let serials = text
        .lines()
        .filter_map(|line| canonical(line.split('#').next().unwrap_or_default().trim()));
    Ok(serials.collect())
}

/// Revokes by serial number, or every certificate of a `tenant/node` or of a gateway's hosts. Returns what was revoked.
pub(crate) fn revoke(dir: &Path, which: &str) -> Result<Vec<Entry>> {
    let lock = Lock::take(dir)?;
    let mut entries = list(dir)?;
    let serial = canonical(which);
    let matches = |e: &Entry| Some(&e.serial) == serial.as_ref() || e.name == which;
    let mut revoked: Vec<_> = entries.iter().filter(|e| matches(e)).cloned().collect();
    if revoked.is_empty() {
        // A serial number that is not remembered may still be worth denying: the list of issued ones can be lost.
        let Some(serial) = serial else {
            bail!("no certificate has the serial number or the name {which:?}")
        };
        revoked.push(Entry {
            serial,
            role: "unknown".to_owned(),
            name: String::new(),
            issued_at: 0,
            not_after: 0,
            revoked: true,
            by: String::new(),
            replaces: None,
        });
    }
    // The deny list is what gateways obey, so it comes first.
    let known = denied(dir)?;
    let path = dir.join(DENY_LIST);
    let mut text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in &mut revoked {
        entry.revoked = true;
        if !known.contains(&entry.serial) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&format!("{} # {}\n", entry.serial, entry.name));
        }
    }
    replace(&path, text.as_bytes(), 0o644)?;
    for entry in &mut entries {
        entry.revoked |= revoked.iter().any(|r| r.serial == entry.serial);
    }
    lock.save(&entries)?;
    Ok(revoked)
}

/// Lower-case hex without colons and leading zeros.
fn canonical(serial: &str) -> Option<String> {
    let digits = serial.replace(':', "").to_ascii_lowercase();
    let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| digits.trim_start_matches('0').to_owned())
}

pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whole or not at all, also for readers at the same moment.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().context("not a file name")?.to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot remove {}", fresh.display()));
        }
        _ => {}
    }
    write_new(&fresh, bytes, mode)?;
    fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)
            .and_then(|d| d.sync_all())
            .with_context(|| format!("cannot sync {}", parent.display()))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_none_and_the_next_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |serial: &str| Entry {
            serial: serial.to_owned(),
            role: "edge".to_owned(),
            name: "acme/site-1".to_owned(),
            issued_at: 1,
            not_after: 2,
            revoked: false,
            by: "test".to_owned(),
            replaces: None,
        };
        let add = |serial| Lock::take(dir.path()).unwrap().add(&entry(serial)).unwrap();
        add("41");
        let path = dir.path().join(ISSUED);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"serial\":\"4");
        fs::write(&path, torn).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [entry("41")]);
        add("42");
        assert_eq!(list(dir.path()).unwrap(), [entry("41"), entry("42")]);
        forget(dir.path(), 2).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        forget(dir.path(), 3).unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
        // What builds before renewal wrote.
        fs::write(
            &path,
            "{\"serial\":\"43\",\"role\":\"edge\",\"name\":\"acme/x\",\"not_after\":9}\n",
        )
        .unwrap();
        assert_eq!(list(dir.path()).unwrap()[0].by, "");
    }
}
