//! The deny list: serial numbers of certificates that are revoked.

use std::collections::HashSet;
use std::path::Path;

/// Revoked serial numbers, in the form that [`canonical_serial`] gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyList {
    serials: HashSet<String>,
}

/// Why a deny list is not used. The one before it stays in force.
#[derive(Debug, thiserror::Error)]
pub enum DenyError {
    #[error("deny list {path} cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("deny list {path}, line {line}: {text:?} is not a serial number in hex")]
    Line { path: String, line: usize, text: String },
}

impl DenyList {
    /// One serial number per line; `#` begins a comment. A file that does not exist is an error: an empty one is how
    /// nothing is revoked.
    pub fn load(path: &Path) -> Result<Self, DenyError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| DenyError::Read {
            path: shown.clone(),
            source,
        })?;
        let mut serials = HashSet::new();
        for (at, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let serial = canonical_serial(entry).ok_or_else(|| DenyError::Line {
                path: shown.clone(),
                line: at + 1,
                text: entry.to_owned(),
            })?;
            serials.insert(serial);
        }
        Ok(Self { serials })
    }

    /// `serial` in any spelling.
    pub fn contains(&self, serial: &str) -> bool {
        canonical_serial(serial).is_some_and(|s| self.serials.contains(&s))
    }

    pub fn len(&self) -> usize {
        self.serials.len()
    }

    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }
}

/// Lower-case hex without separators and leading zeros; `None` if it is no hex number.
pub(super) fn canonical_serial(text: &str) -> Option<String> {
    let digits: String = text
        .chars()
        .filter(|c| *c != ':')
        .collect::<String>()
        .to_ascii_lowercase();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let trimmed = digits.trim_start_matches('0');
    Some(if trimmed.is_empty() {
        "0".to_owned()
    } else {
        trimmed.to_owned()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn p14_a_serial_is_found_in_any_spelling_and_a_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deny");
        std::fs::write(&path, "# stolen\n00:AB:cd\n\n1f # old\n").unwrap();
        let list = DenyList::load(&path).unwrap();
        assert!(list.contains("abcd") && list.contains("00ABCD") && list.contains("1F"));
        assert!(!list.contains("abce") && !list.contains("not hex"));
        std::fs::write(&path, "1f\nnode-7\n").unwrap();
        assert!(matches!(DenyList::load(&path), Err(DenyError::Line { line: 2, .. })));
        assert!(matches!(
            DenyList::load(&dir.path().join("none")),
            Err(DenyError::Read { .. })
        ));
    }
}
