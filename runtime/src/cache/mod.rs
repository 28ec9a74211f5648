//! Machine code of components, kept between runs (runtime/FORMAT.md). Never believed before its seal was checked; never needed.

mod image;
mod key;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::limits::MAX_IMAGE_BYTES;
pub(crate) use image::ImageName;
use image::Key;

/// Prefix of files that are being written.
const NEW: &str = ".new.";
/// After this time nobody writes such a file any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of images that several processes may share.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: Key,
    max_bytes: u64,
}

/// Machine code whose seal was right. Only this memory is loaded, never the file again.
pub(crate) struct Image {
    file: Vec<u8>,
    code: std::ops::Range<usize>,
}

impl Deref for Image {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.code.clone()]
    }
}

impl Cache {
    /// Makes the folder and its key where they are missing.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> io::Result<Cache> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Cache {
            folder: folder.to_owned(),
            key: key::open(folder)?,
            max_bytes,
        })
    }

    /// The image of this name, if there is one that can be trusted. One that cannot is told in the log and compiled anew.
    pub(crate) fn get(&self, name: ImageName) -> Option<Image> {
        let path = self.folder.join(name.file_name());
        let read = File::open(&path).and_then(|mut file| {
            let most = MAX_IMAGE_BYTES + image::HEADER as u64;
            let mut bytes = Vec::new();
            (&mut file).take(most + 1).read_to_end(&mut bytes)?;
            Ok((file, bytes))
        });
        let (file, bytes) = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "image of a plugin cannot be read; it is compiled anew");
                return None;
            }
        };
        match image::open(&self.key, name, &bytes) {
            Ok(code) => {
                // Only says which image was used last; without it another one is removed first.
                let _ = file.set_modified(SystemTime::now());
                Some(Image { file: bytes, code })
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), %reason, "image of a plugin is not trusted; it is compiled anew");
                None
            }
        }
    }

    /// Keeps an image, and removes those used least recently where there is no room.
    pub(crate) fn put(&self, name: ImageName, code: &[u8]) -> io::Result<()> {
        let head = image::head(&self.key, name, code);
        let path = self.folder.join(name.file_name());
        let new = NewFile::write(&self.folder, &[&head, code])?;
        fs::rename(&new.0, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.make_room(&path)
    }

    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        let mut images: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Another process may have removed it meanwhile.
            let Ok(about) = fs::metadata(&path) else { continue };
            let modified = about.modified()?;
            if name.ends_with(".image") {
                images.push((modified, about.len(), path));
            } else if name.starts_with(NEW) && now.duration_since(modified).is_ok_and(|age| age > ABANDONED) {
                remove(&path)?;
            }
        }
        let mut bytes: u64 = images.iter().map(|(_, bytes, _)| bytes).sum();
        images.sort();
        for (_, length, path) in images.iter().filter(|(_, _, path)| path != newest) {
            if bytes <= self.max_bytes {
                break;
            }
            remove(path)?;
            bytes -= length;
        }
        Ok(())
    }
}

/// It is gone afterwards, whoever removed it.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file on its way to its name; removed if it does not get there.
struct NewFile(PathBuf);

impl NewFile {
    fn write(folder: &Path, parts: &[&[u8]]) -> io::Result<NewFile> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{NEW}{}.{number}", std::process::id()));
        // What an earlier process with this number left behind.
        remove(&path)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let new = NewFile(path);
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        Ok(new)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Fails when it has reached its name.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(n: u8) -> ImageName {
        ImageName::new(&[n; 32], &[0; 32])
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_put_is_there_for_every_process_and_nothing_else_lies_about() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        let (one, two) = (
            Cache::open(&folder, 1 << 20).unwrap(),
            Cache::open(&folder, 1 << 20).unwrap(),
        );
        assert!(one.get(name(1)).is_none());
        one.put(name(1), b"code").unwrap();
        assert_eq!(&*two.get(name(1)).unwrap(), b"code");
        assert!(two.get(name(2)).is_none());
        assert_eq!(names(&folder), [name(1).file_name(), "key".to_owned()]);
    }

    #[test]
    fn many_processes_opening_a_new_cache_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let all = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..16)
                .map(|n| {
                    let folder = folder.path();
                    scope.spawn(move || {
                        let cache = Cache::open(folder, 1 << 20).unwrap();
                        cache.put(name(n), &[n]).unwrap();
                        cache
                    })
                })
                .collect();
            opening
                .into_iter()
                .map(|cache| cache.join().unwrap())
                .collect::<Vec<_>>()
        });
        for cache in all {
            for n in 0..16 {
                assert_eq!(&*cache.get(name(n)).unwrap(), [n]);
            }
        }
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let room_for_three = 3 * (100 + image::HEADER as u64);
        let cache = Cache::open(folder.path(), room_for_three).unwrap();
        let age = |n: u8, seconds: u64| {
            let file = File::open(folder.path().join(name(n).file_name())).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
                .unwrap();
        };
        for n in 0..3 {
            cache.put(name(n), &[n; 100]).unwrap();
            age(n, 100 - u64::from(n));
        }
        // The oldest is used once more, so the second is removed.
        assert!(cache.get(name(0)).is_some());
        let abandoned = folder.path().join(".new.1.1");
        fs::write(&abandoned, b"half").unwrap();
        let hours_ago = SystemTime::now() - 2 * ABANDONED;
        File::open(&abandoned).unwrap().set_modified(hours_ago).unwrap();
        cache.put(name(3), &[3; 100]).unwrap();
        let there: Vec<u8> = (0..4).filter(|n| cache.get(name(*n)).is_some()).collect();
        assert_eq!(there, [0, 2, 3]);
        assert!(!abandoned.exists());
        // One that is larger than all the room stays alone, and is there.
        cache.put(name(4), &[4; 1000]).unwrap();
        assert_eq!(&*cache.get(name(4)).unwrap(), [4; 1000]);
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn an_image_that_somebody_changed_is_not_given_out_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1 << 20).unwrap();
        let path = folder.path().join(name(1).file_name());
        cache.put(name(1), b"code").unwrap();
        let good = fs::read(&path).unwrap();
        let last = good.len() - 1;
        for bad in [&good[..last], b"", &[&good[..last], b"X"].concat()] {
            fs::write(&path, bad).unwrap();
            assert!(cache.get(name(1)).is_none());
            cache.put(name(1), b"code").unwrap();
            assert_eq!(fs::read(&path).unwrap(), good);
        }
        // The image of another component, put in its place.
        cache.put(name(2), b"other").unwrap();
        fs::rename(folder.path().join(name(2).file_name()), &path).unwrap();
        assert!(cache.get(name(1)).is_none());
    }
}
