//! The objects of one scan: counted, and read from this machine's disk where that has them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Counts;
use super::disk::{Disk, Object};

/// Reads only.
pub(super) struct Objects {
    inner: Arc<dyn ObjectStore>,
    /// Where the table is: files of other tables have other names on disk.
    place: String,
    known: HashMap<Path, ObjectMeta>,
    disk: Option<Arc<Disk>>,
    counts: Arc<Counts>,
}

impl Objects {
    pub(super) fn new(
        inner: Arc<dyn ObjectStore>,
        place: String,
        known: HashMap<Path, ObjectMeta>,
        disk: Option<Arc<Disk>>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            inner,
            place,
            known,
            disk,
            counts,
        }
    }

    /// The disk, and how it knows an object. What the scan does not know is read from the lake.
    fn kept(&self, location: &Path) -> Option<(&Arc<Disk>, Object, &ObjectMeta)> {
        let meta = self.known.get(location)?;
        let disk = self.disk.as_ref()?;
        Some((disk, Object::new(&self.place, meta.location.as_ref(), meta.size), meta))
    }

    /// What the disk does not have is asked of the lake at once, which joins what lies near and asks in parallel.
    async fn through(
        &self,
        disk: &Arc<Disk>,
        object: Object,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let found = disk.look(object, ranges).await?;
        let missing = found.missing();
        let fetched = match missing.is_empty() {
            true => Vec::new(),
            false => self.lake_ranges(location, &missing).await?,
        };
        disk.keep(object, found, fetched, ranges).await
    }

    async fn lake_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = self.inner.get_ranges(location, ranges).await?;
        Counts::add(&self.counts.lake_reads, 1);
        Counts::add(
            &self.counts.lake_bytes,
            read.iter().map(|bytes| bytes.len() as u64).sum(),
        );
        Ok(read)
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

fn read_only(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "the files of a scan, which are only read".to_owned(),
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("put"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range
            && !options.head
            && let Some((disk, object, meta)) = self.kept(location)
        {
            let range = range.start.min(meta.size)..range.end.min(meta.size);
            let mut read = self
                .through(disk, object, location, std::slice::from_ref(&range))
                .await?;
            let bytes = read.pop().unwrap_or_default();
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed()),
                meta: meta.clone(),
                range,
                attributes: Attributes::default(),
            });
        }
        let head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        Counts::add(&self.counts.lake_reads, 1);
        if !head {
            Counts::add(&self.counts.lake_bytes, result.range.end - result.range.start);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.kept(location) {
            Some((disk, object, _)) => self.through(disk, object, location, ranges).await,
            None => self.lake_ranges(location, ranges).await,
        }
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only("delete")) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}
