//! The power goes, in tests: after any number of steps, and with it everything that was not synced.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What a crash undoes.
#[derive(Debug)]
enum Loose {
    /// Content that is only in memory.
    File(PathBuf),
    /// A name that is only in memory: what was moved, and what stood where it went.
    Rename {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<Vec<u8>>,
    },
}

#[derive(Debug, Default)]
struct Power {
    /// Steps until it goes; `None`: it stays.
    left: Option<u32>,
    loose: Vec<Loose>,
}

thread_local! {
    static POWER: RefCell<Power> = RefCell::default();
}

/// Runs `work` with power for `steps` steps. Whether it was cut off; if so, what was not synced is lost where `lose` says so
/// (a disk may have written it in time all the same).
pub(crate) fn with_power_for<T>(steps: u32, lose: bool, work: impl FnOnce() -> T) -> (T, bool) {
    POWER.set(Power {
        left: Some(steps),
        loose: Vec::new(),
    });
    let result = work();
    let power = POWER.take();
    let cut = power.left == Some(0);
    if cut && lose {
        for loose in power.loose.into_iter().rev() {
            undo(loose);
        }
    }
    (result, cut)
}

fn undo(loose: Loose) {
    match loose {
        Loose::File(path) if path.is_file() => {
            let half = fs::read(&path).map(|bytes| bytes[..bytes.len() / 2].to_vec());
            half.and_then(|half| fs::write(&path, half))
                .expect("a file loses its end");
        }
        Loose::File(_) => {}
        Loose::Rename { from, to, replaced } => {
            // It may have gone on, or been removed, since.
            if fs::symlink_metadata(&to).is_ok() {
                fs::rename(&to, &from).expect("a name goes back");
            }
            if let Some(bytes) = replaced {
                fs::write(&to, bytes).expect("what was replaced is back");
            }
        }
    }
}

pub(crate) fn step() -> io::Result<()> {
    POWER.with_borrow_mut(|power| match power.left {
        Some(0) => Err(io::Error::other("the power is gone")),
        Some(left) => {
            power.left = Some(left - 1);
            Ok(())
        }
        None => Ok(()),
    })
}

pub(crate) fn written(path: &Path) {
    POWER.with_borrow_mut(|power| {
        if power.left.is_some() {
            power.loose.push(Loose::File(path.to_owned()));
        }
    });
}

/// A synced file keeps its content, a synced folder the names in it. The real disk is spared: what is lost is decided here.
pub(crate) fn sync(_: &File, path: &Path) -> io::Result<()> {
    POWER.with_borrow_mut(|power| {
        power.loose.retain(|loose| match loose {
            Loose::File(file) => file != path,
            Loose::Rename { to, .. } => to.parent() != Some(path),
        });
    });
    Ok(())
}

pub(crate) fn renaming(from: &Path, to: &Path) {
    POWER.with_borrow_mut(|power| {
        if power.left.is_some() {
            // What is not synced in a file is not synced under its new name either.
            for loose in &mut power.loose {
                if let Loose::File(path) = loose
                    && let Ok(rest) = path.strip_prefix(from)
                {
                    *path = match rest.as_os_str().is_empty() {
                        true => to.to_owned(),
                        false => to.join(rest),
                    };
                }
            }
            let replaced = fs::read(to).ok();
            power.loose.push(Loose::Rename {
                from: from.to_owned(),
                to: to.to_owned(),
                replaced,
            });
        }
    });
}
