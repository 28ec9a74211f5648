//! The table's files as a thread that computes sees them: it asks for ranges, hands out what it has encoded, and waits for the answer.
//! So whatever is read or written takes memory for some ranges and parts, and not for whole files.
//!
//! Whoever started the thread answers. If that one gives up, nobody does: the next request fails, and the thread ends with it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::DeltaTableError;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use parquet::errors::ParquetError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::files::EncodeError;
use super::{ColdError, ColdTable, CommitError};

/// Bytes of one part of a file that is written; a smaller file is written by one request. S3 wants at least 5 MiB, and has at most 10,000.
pub(super) const PART_BYTES: usize = 6 << 20;
/// Parts on their way at once, while the next one is encoded.
const PARTS_AT_ONCE: usize = 1;

/// What a thread asks through.
#[derive(Clone, Debug)]
pub(super) struct Door {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Read {
        path: Path,
        ranges: Vec<Range<u64>>,
        answer: oneshot::Sender<Vec<Bytes>>,
    },
    /// The next part of a file; all but the last one are as large as a part is.
    Write {
        path: Path,
        part: Bytes,
        last: bool,
        answer: oneshot::Sender<()>,
    },
}

/// What failed is known to whoever started the thread.
#[derive(Debug, thiserror::Error)]
#[error("files are not read and written any more")]
pub(super) struct Unanswered;

impl From<Unanswered> for ParquetError {
    fn from(error: Unanswered) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<Unanswered> for EncodeError {
    fn from(error: Unanswered) -> Self {
        Self::Parquet(error.into())
    }
}

impl Door {
    /// Ranges of a file.
    pub(super) fn read(&self, path: &Path, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Unanswered> {
        let (path, (answer, answered)) = (path.clone(), oneshot::channel());
        self.ask(Request::Read { path, ranges, answer }, answered)
    }

    /// Returns when the part is on its way; for the last one, when the file is durable.
    pub(super) fn write(&self, path: &Path, part: Bytes, last: bool) -> Result<(), Unanswered> {
        let (path, (answer, answered)) = (path.clone(), oneshot::channel());
        let request = Request::Write {
            path,
            part,
            last,
            answer,
        };
        self.ask(request, answered)
    }

    fn ask<T>(&self, request: Request, answered: oneshot::Receiver<T>) -> Result<T, Unanswered> {
        self.requests.blocking_send(request).map_err(|_| Unanswered)?;
        answered.blocking_recv().map_err(|_| Unanswered)
    }
}

impl ColdTable {
    /// Runs what computes on a thread for that. Files that it wrote stay if it succeeds, and are for the caller to name.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Door) -> Result<T, EncodeError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let (requests, mut asked) = mpsc::channel(1);
        let door = Door { requests };
        let task = tokio::task::spawn_blocking(move || work(&door));
        let mut written = Written::new(self.store());
        let mut failure = None;
        while let Some(request) = asked.recv().await {
            if let Err(error) = written.answer(request).await {
                failure = Some(error);
                break;
            }
        }
        drop(asked);
        let done = task.await;
        let error: CommitError = match (done, failure) {
            (Ok(Ok(result)), None) => {
                written.keep();
                return Ok(result);
            }
            // The thread knows which file it was, and this side why.
            (Ok(Err(EncodeError::Unreadable { input, .. })), Some(error)) => {
                let source = Box::new(error);
                EncodeError::Unreadable { input, source }.into()
            }
            (_, Some(error)) => error.into(),
            (Ok(Err(error)), None) => error.into(),
            (Err(error), None) => died(error).into(),
        };
        written.discard().await;
        Err(error)
    }
}

fn died(error: JoinError) -> ColdError {
    ColdError::from(DeltaTableError::GenericError { source: error.into() })
}

/// Files that a thread has written, and those that it is about to. Removed when this is dropped, unless they are kept.
struct Written {
    store: Arc<dyn ObjectStore>,
    files: Vec<Path>,
    uploads: HashMap<Path, Upload>,
}

struct Upload {
    parts: Box<dyn MultipartUpload>,
    sent: JoinSet<object_store::Result<()>>,
}

impl Written {
    fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            files: Vec::new(),
            uploads: HashMap::new(),
        }
    }

    async fn answer(&mut self, request: Request) -> object_store::Result<()> {
        // A thread that does not wait any more has failed by itself.
        match request {
            Request::Read { path, ranges, answer } => {
                let _ = answer.send(self.store.get_ranges(&path, &ranges).await?);
            }
            Request::Write {
                path,
                part,
                last,
                answer,
            } => {
                self.write(path, part, last).await?;
                let _ = answer.send(());
            }
        }
        Ok(())
    }

    async fn write(&mut self, path: Path, part: Bytes, last: bool) -> object_store::Result<()> {
        let part = PutPayload::from(part);
        if last && !self.uploads.contains_key(&path) {
            self.files.push(path.clone());
            self.store.put(&path, part).await?;
            return Ok(());
        }
        if !self.uploads.contains_key(&path) {
            let parts = self.store.put_multipart(&path).await?;
            let sent = JoinSet::new();
            self.uploads.insert(path.clone(), Upload { parts, sent });
        }
        let Some(upload) = self.uploads.get_mut(&path) else {
            return Ok(());
        };
        upload.wait_until_below(PARTS_AT_ONCE).await?;
        upload.sent.spawn(upload.parts.put_part(part));
        if last {
            upload.wait_until_below(1).await?;
            self.files.push(path.clone());
            upload.parts.complete().await?;
            self.uploads.remove(&path);
        }
        Ok(())
    }

    fn keep(&mut self) {
        self.files.clear();
    }

    async fn discard(mut self) {
        let (store, files) = (Arc::clone(&self.store), std::mem::take(&mut self.files));
        remove(store, files, std::mem::take(&mut self.uploads)).await;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.files.is_empty() && self.uploads.is_empty() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let (files, uploads) = (std::mem::take(&mut self.files), std::mem::take(&mut self.uploads));
            runtime.spawn(remove(Arc::clone(&self.store), files, uploads));
        }
    }
}

/// What stays, the janitor removes after days.
async fn remove(store: Arc<dyn ObjectStore>, files: Vec<Path>, uploads: HashMap<Path, Upload>) {
    for (path, mut upload) in uploads {
        upload.sent.shutdown().await;
        if let Err(error) = upload.parts.abort().await {
            tracing::debug!(%path, %error, "parts of a file that was not finished stay");
        }
    }
    for path in files {
        if let Err(error) = store.delete(&path).await {
            tracing::debug!(%path, %error, "a file that no version names stays");
        }
    }
}

impl Upload {
    async fn wait_until_below(&mut self, parts: usize) -> object_store::Result<()> {
        while self.sent.len() >= parts {
            match self.sent.join_next().await {
                Some(done) => done??,
                None => break,
            }
        }
        Ok(())
    }
}
