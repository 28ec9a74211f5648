//! A lake in a folder: a local object store whose writes are on the disk when they return.
//!
//! The local store of `object_store` never syncs: after a power cut an object may exist without its bytes. Here every object is
//! written aside, synced, then linked or renamed into place, and the folder is synced.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltalake::logstore::{LogStoreRef, StorageConfig, logstore_with};
use deltalake::{DeltaTableError, ensure_table_uri};
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use url::Url;

const STORE: &str = "durable local store";

/// Opens a folder, as path or URL. Folders are made when missing.
pub(crate) fn open(location: &str) -> std::result::Result<LogStoreRef, DeltaTableError> {
    let url = match Url::parse(location) {
        Ok(url) if url.scheme() == "file" => {
            let path = url
                .to_file_path()
                .map_err(|()| DeltaTableError::InvalidTableLocation(location.to_owned()))?;
            ensure_table_uri(path.to_string_lossy())?
        }
        _ => ensure_table_uri(location)?,
    };
    if url.scheme() != "file" {
        return Err(DeltaTableError::InvalidTableLocation(location.to_owned()));
    }
    logstore_with(Arc::new(DurableLocal::new()), &url, StorageConfig::default())
}

/// Removes what writers that died left aside in a folder, if it is older than this; says how many files. The store does not list them.
pub(crate) async fn sweep(folder: &Url, age: Duration) -> Result<usize> {
    let Ok(folder) = folder.to_file_path() else {
        return Ok(0);
    };
    blocking(move || sweep_in(&folder, age).map_err(|source| failed(&folder, source))).await
}

fn sweep_in(folder: &FsPath, age: Duration) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            removed += sweep_in(&path, age)?;
        } else if is_aside(&name.to_string_lossy()) {
            // Another one may have put it in place, or removed it.
            let modified = entry.metadata().and_then(|of| of.modified());
            let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|old| old > age));
            removed += usize::from(is_old && fs::remove_file(&path).is_ok());
        }
    }
    Ok(removed)
}

/// Names that end in `#` and digits.
fn is_aside(name: &str) -> bool {
    let end = name.rsplit_once('#').map(|(_, end)| end);
    end.is_some_and(|end| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The local file system from its root, with every write synced.
#[derive(Debug)]
struct DurableLocal {
    inner: Arc<LocalFileSystem>,
}

impl DurableLocal {
    fn new() -> Self {
        Self {
            inner: Arc::new(LocalFileSystem::new()),
        }
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let replace = match opts.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            // The inner store says that it does not do this.
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        blocking(move || {
            place(&path, &payload, replace).map_err(|source| failed(&path, source))?;
            Ok(PutResult {
                e_tag: None,
                version: None,
            })
        })
        .await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let folder = path.parent().map(FsPath::to_owned).unwrap_or_default();
        blocking(move || make_folders(&folder).map_err(|source| failed(&folder, source))).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        let path = self.inner.path_to_filesystem(to)?;
        blocking(move || sync_placed(&path).map_err(|source| failed(&path, source))).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        let path = self.inner.path_to_filesystem(to)?;
        blocking(move || sync_placed(&path).map_err(|source| failed(&path, source))).await
    }
}

/// A large object in parts: synced when it is completed.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || sync_placed(&path).map_err(|source| failed(&path, source))).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::Generic {
            store: STORE,
            source: source.into(),
        })?
}

fn failed(path: &FsPath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists {
            path,
            source: source.into(),
        },
        _ => Error::Generic {
            store: STORE,
            source: format!("{path}: {source}").into(),
        },
    }
}

/// Writes a file aside and puts it in place, whole and durable or not at all.
fn place(path: &FsPath, payload: &PutPayload, replace: bool) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("no parent folder"))?;
    make_folders(folder)?;
    // Names that end in `#` and digits are not listed by the store. Two writers of the same object must never share one: each
    // would put the other's half-written bytes in place.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!("#{}", uuid::Uuid::new_v4().as_u128()));
    let aside = PathBuf::from(aside);
    let placed = write_synced(&aside, payload).and_then(|()| {
        if replace {
            fs::rename(&aside, path)
        } else {
            fs::hard_link(&aside, path)
        }
    });
    if !replace || placed.is_err() {
        // A file that stays behind is hidden and harmless.
        let _ = fs::remove_file(&aside);
    }
    placed?;
    sync_folder(folder)
}

fn write_synced(path: &FsPath, payload: &PutPayload) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    payload.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

fn sync_placed(path: &FsPath) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes missing folders; each new one is synced into its parent.
fn make_folders(folder: &FsPath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &FsPath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn an_object_is_created_once_and_leaves_nothing_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path().join("a/b").to_str().unwrap())
            .unwrap()
            .object_store(None);
        let path = Path::from("x/1");
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "one".into(), create()).await.unwrap();
        let second = store.put_opts(&path, "two".into(), create()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&path, "three".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        assert_eq!(fs::read_dir(folder.path().join("a/b/x")).unwrap().count(), 1);
    }

    /// Of writers that race for one name one wins, and the object is exactly what that one wrote.
    #[tokio::test(flavor = "multi_thread")]
    async fn racing_writers_never_mix_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = Path::from(format!("x/{round}"));
            let race = (0..4usize).map(|writer| {
                let (path, location) = (path.clone(), folder.path().to_str().unwrap().to_owned());
                tokio::spawn(async move {
                    let store = open(&location).unwrap().object_store(None);
                    let text = writer.to_string().repeat(1000 * (writer + 1));
                    store
                        .put_opts(&path, text.clone().into(), PutMode::Create.into())
                        .await
                        .is_ok()
                        .then_some(text)
                })
            });
            let mut won = Vec::new();
            for writer in race.collect::<Vec<_>>() {
                won.extend(writer.await.unwrap());
            }
            let store = open(folder.path().to_str().unwrap()).unwrap().object_store(None);
            assert_eq!(won, [store.get(&path).await.unwrap().bytes().await.unwrap()]);
        }
    }
}
