//! Changes that are there as a whole or not at all, whenever the power goes: written aside, synced, renamed, folder synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Names what is being written apart within this process; the lock keeps other processes away.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The folder of a store, and where in it things are written before they count.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    root: PathBuf,
}

/// A file or folder with what is to stand in it.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) bytes: &'a [u8],
}

impl Disk {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Removes what an interrupted change left. Only for whoever holds the lock.
    pub(crate) fn clear_staging(&self) -> io::Result<()> {
        self.create_folders(&self.staging())?;
        for entry in fs::read_dir(self.staging())? {
            remove(&entry?.path())?;
        }
        Ok(())
    }

    /// Makes or replaces a file.
    pub(crate) fn put_file(&self, to: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = self.aside();
        write_synced(&aside, bytes)?;
        self.move_in(&aside, to)
    }

    /// Makes a folder with these files. What stands there already is moved away first: nothing that counts may name it.
    pub(crate) fn put_folder(&self, to: &Path, files: &[NewFile<'_>]) -> io::Result<()> {
        let aside = self.aside();
        fs::create_dir(&aside)?;
        for file in files {
            write_synced(&aside.join(file.name), file.bytes)?;
        }
        sync_folder(&aside)?;
        self.take_away(to)?;
        self.move_in(&aside, to)
    }

    /// Removes a file or a folder; it is gone as a whole first and cleared away then.
    pub(crate) fn take_away(&self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        let aside = self.aside();
        rename(path, &aside)?;
        sync_folder(parent(path)?)?;
        remove(&aside)
    }

    fn move_in(&self, aside: &Path, to: &Path) -> io::Result<()> {
        self.create_folders(parent(to)?)?;
        rename(aside, to)?;
        sync_folder(parent(to)?)
    }

    /// Makes a folder below the root and those above it, each of them synced into its parent.
    pub(crate) fn create_folders(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if folder != self.root {
            self.create_folders(parent(folder)?)?;
        } else if let Some(above) = folder.parent() {
            fs::create_dir_all(above)?;
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| sync_folder(parent(folder)?)),
        }
    }

    fn aside(&self) -> PathBuf {
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.staging().join(name)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(parent.unwrap_or(Path::new(".")))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    step()?;
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
    written(path);
    file.write_all(bytes)?;
    step()?;
    sync(&file, path)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    renaming(from, to);
    fs::rename(from, to)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    step()?;
    sync(&File::open(folder)?, folder)
}

fn remove(path: &Path) -> io::Result<()> {
    step()?;
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
use crash::{renaming, step, sync, written};
#[cfg(not(test))]
use real::{renaming, step, sync, written};

#[cfg(not(test))]
mod real {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    /// Between any two steps the power may go; tests make it go.
    pub(super) fn step() -> io::Result<()> {
        Ok(())
    }
    pub(super) fn written(_: &Path) {}
    pub(super) fn sync(file: &File, _: &Path) -> io::Result<()> {
        file.sync_all()
    }
    pub(super) fn renaming(_: &Path, _: &Path) {}
}

#[cfg(test)]
pub(crate) mod crash;
