//! Finds texts in files whatever holds them: bytes as they are, whatever of them is a zstd frame, decompressed, and whatever of them is an
//! envelope, unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_wire::envelope::Envelope;
use sluice_wire::layout::{IpcLimits, to_ipc};

/// How every zstd frame begins.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Far above what the test writes; a chance find of the four bytes must not fill the memory.
const MOST: u64 = 64 << 20;

/// Which of these texts are somewhere below a folder.
pub(super) fn found_below(folder: &Path, texts: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files(folder) {
        let bytes = match fs::read(&file) {
            // A file beside another, until it takes its name.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.unwrap(),
        };
        for layer in std::iter::once(bytes.clone())
            .chain(frames(&bytes))
            .chain(envelopes(&bytes))
        {
            found.extend(found_in(&layer, texts).cloned());
        }
    }
    found
}

pub(super) fn found_in<'a>(bytes: &[u8], texts: &'a [String]) -> impl Iterator<Item = &'a String> {
    // Escapes of `@` are the one way in which stores may write these texts differently.
    let text = String::from_utf8_lossy(bytes)
        .replace("\\u0040", "@")
        .replace("%40", "@");
    texts.iter().filter(move |wanted| text.contains(wanted.as_str()))
}

fn frames(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let starts = bytes.windows(4).enumerate().filter(|(_, window)| *window == FRAME);
    starts.map(|(at, _)| {
        let mut plain = Vec::new();
        if let Ok(decoder) = zstd::stream::read::Decoder::new(&bytes[at..]) {
            // What comes before the first mistake counts: the frame may end in the middle of the file.
            let _ = decoder.take(MOST).read_to_end(&mut plain);
        }
        plain
    })
}

/// The rows of every envelope, as an Arrow stream that nothing is done to.
fn envelopes(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let starts = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"SLCB");
    starts.filter_map(|(at, _)| {
        let number =
            |from: usize| Some(u32::from_le_bytes(bytes.get(at + from..at + from + 4)?.try_into().ok()?) as usize);
        let end = at + 20 + number(8)? + number(12)? + 32;
        let envelope = Envelope::parse(Bytes::copy_from_slice(bytes.get(at..end)?)).ok()?;
        let rows = envelope.rows(&IpcLimits::default()).unwrap()?;
        Some(to_ipc(&rows).unwrap())
    })
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
