//! A small disk that others fill.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const FILLER: &str = "filler";
/// So much of the filler is written at a time.
const CHUNK_BYTES: usize = 1 << 20;
const LAST_BYTES: usize = 4096;

/// A file system in memory; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this machine does not let us mount one.
    pub fn mount(folder: &Path, mib: u64) -> io::Result<Option<SmallDisk>> {
        std::fs::create_dir_all(folder)?;
        let option = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(folder)
            .stderr(std::process::Stdio::null())
            .status();
        Ok(mounted
            .is_ok_and(|status| status.success())
            .then(|| SmallDisk(folder.to_owned())))
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) -> io::Result<()> {
        let mut filler = File::options().create(true).append(true).open(self.0.join(FILLER))?;
        for size in [CHUNK_BYTES, LAST_BYTES] {
            let chunk = vec![0x55; size];
            loop {
                match filler.write(&chunk) {
                    Ok(written) if written == size => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes away what filled it.
    pub fn free(&self) -> io::Result<()> {
        match std::fs::remove_file(self.0.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
