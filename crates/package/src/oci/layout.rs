//! An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/`. It goes where no network goes.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OciError;
use super::artifact::{Artifact, Descriptor, IMAGE_BYTES, IMAGE_TYPE};
use super::reference::Selector;
use crate::digest::Digest;
use crate::disk::Disk;
use crate::file;

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const TAG: &str = "org.opencontainers.image.ref.name";
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Bytes of `index.json`: some ten thousand artifacts.
const INDEX_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Layout {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Vec<Descriptor>,
    /// What other tools wrote stays.
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Layout {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn manifest(&self, selector: &Selector) -> Result<Option<Vec<u8>>, OciError> {
        let index = self.index()?;
        let descriptor = match selector {
            Selector::Tag(tag) => {
                let mut tagged = index.iter().flat_map(|index| &index.manifests);
                tagged.find(|descriptor| descriptor.annotations.get(TAG) == Some(tag))
            }
            Selector::Digest(digest) => return self.read_blob(digest, IMAGE_BYTES),
        };
        let Some(descriptor) = descriptor else {
            return Ok(None);
        };
        let bytes = self.read_blob(&descriptor.digest, IMAGE_BYTES)?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) != descriptor.digest => Err(OciError::Corrupt {
                place: self.to_string(),
                digest: descriptor.digest,
            }),
            bytes => Ok(bytes),
        }
    }

    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let missing = || OciError::Missing {
            place: self.to_string(),
            what: descriptor.digest.to_string(),
        };
        self.read_blob(&descriptor.digest, descriptor.size)?.ok_or_else(missing)
    }

    pub(super) fn push(&self, artifact: &Artifact, tag: &str) -> Result<(), OciError> {
        let disk = Disk::new(self.folder.clone());
        disk.create_folders(&self.folder)
            .map_err(self.cannot("make", &self.folder))?;
        let lock_path = self.folder.join(".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path);
        let lock = lock.map_err(self.cannot("open", &lock_path))?;
        lock.lock().map_err(self.cannot("lock", &lock_path))?;
        disk.clear_staging().map_err(self.cannot("clear", &self.folder))?;

        let marker = self.folder.join("oci-layout");
        let foreign = !marker.exists() && self.folder.join("index.json").exists();
        if foreign {
            return Err(self.problem("there is an index.json without an oci-layout: this is no OCI layout"));
        }
        let put = |path: &Path, bytes: &[u8]| disk.put_file(path, bytes).map_err(self.cannot("write", path));
        if !marker.exists() {
            put(&marker, LAYOUT)?;
        }
        let mut index = self.index()?.unwrap_or_else(|| Index {
            schema_version: 2,
            media_type: INDEX_TYPE.to_owned(),
            manifests: Vec::new(),
            rest: serde_json::Map::new(),
        });
        for (descriptor, bytes) in &artifact.blobs {
            put(&self.blob_path(&descriptor.digest), bytes)?;
        }
        let mut descriptor = Descriptor::of(IMAGE_TYPE, &artifact.manifest);
        put(&self.blob_path(&descriptor.digest), &artifact.manifest)?;
        descriptor.artifact_type = Some(artifact.artifact_type.to_owned());
        descriptor.annotations.insert(TAG.to_owned(), tag.to_owned());
        index
            .manifests
            .retain(|other| other.annotations.get(TAG).is_none_or(|other| other != tag));
        index.manifests.push(descriptor);
        let bytes = serde_json::to_vec_pretty(&index).map_err(|error| self.problem(&error.to_string()))?;
        put(&self.folder.join("index.json"), &bytes)
    }

    fn index(&self) -> Result<Option<Index>, OciError> {
        let path = self.folder.join("index.json");
        let Some(bytes) = self.read(&path, INDEX_BYTES)? else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .map(Some)
            .map_err(|error| self.problem(&format!("index.json: {error}")))
    }

    fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, OciError> {
        self.read(&self.blob_path(digest), limit)
    }

    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, OciError> {
        match file::read(path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot("read", path)(error)),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn problem(&self, problem: &str) -> OciError {
        OciError::Layout {
            place: self.to_string(),
            problem: problem.to_owned(),
        }
    }

    fn cannot(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OciError + use<> {
        let path = path.to_owned();
        move |source| OciError::Io { action, path, source }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.folder.display())
    }
}
