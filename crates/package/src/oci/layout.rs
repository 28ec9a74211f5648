//! An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/`. It goes where no network goes.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::OciError;
use super::artifact::{Artifact, Descriptor, IMAGE_BYTES, IMAGE_TYPE, ImageManifest, MANIFEST_TYPE, PACKAGE_TYPE};
use super::reference::{DEFAULT_TAG, Selector, is_tag};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::file;
use crate::limits::MANIFEST_BYTES;
use crate::manifest::Manifest;

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

    /// What the selector names; where it names nothing, the only artifact of this type.
    pub(super) fn manifest(&self, selector: &Selector, artifact_type: &str) -> Result<Option<Vec<u8>>, OciError> {
        let descriptor = match selector {
            Selector::Digest(digest) => return self.read_blob(digest, IMAGE_BYTES),
            Selector::Tag(tag) => {
                let mut all = self.index()?.map_or(Vec::new(), |index| index.manifests).into_iter();
                all.find(|descriptor| tag_of(descriptor) == Some(tag))
            }
            Selector::Unsaid => self.latest_or_only(artifact_type)?,
        };
        let Some(descriptor) = descriptor else {
            return Ok(None);
        };
        match self.read_blob(&descriptor.digest, IMAGE_BYTES)? {
            Some(bytes) if Digest::of(&bytes) != descriptor.digest => Err(OciError::Corrupt {
                place: self.to_string(),
                digest: descriptor.digest,
            }),
            bytes => Ok(bytes),
        }
    }

    fn latest_or_only(&self, artifact_type: &str) -> Result<Option<Descriptor>, OciError> {
        let there = self.of_type(artifact_type)?;
        let latest = there.iter().find(|descriptor| tag_of(descriptor) == Some(DEFAULT_TAG));
        match (latest, &there[..]) {
            (Some(latest), _) => Ok(Some(latest.clone())),
            (None, []) => Ok(None),
            (None, [first, others @ ..]) if others.iter().all(|other| other.digest == first.digest) => {
                Ok(Some(first.clone()))
            }
            (None, _) => Err(OciError::Several {
                place: self.to_string(),
                there: self.told(artifact_type)?,
            }),
        }
    }

    /// Artifacts of this type, in words: `oci:DIR:TAG` and what a package calls itself, which nobody has verified.
    pub(super) fn told(&self, artifact_type: &str) -> Result<Vec<String>, OciError> {
        let tell = |descriptor: &Descriptor| {
            let which = match tag_of(descriptor) {
                Some(tag) if is_tag(tag) => format!("{self}:{tag}"),
                _ => format!("{self}@{}", descriptor.digest),
            };
            match self.package_name(descriptor) {
                Some(name) => format!("{which}  {name}"),
                None => which,
            }
        };
        Ok(self.of_type(artifact_type)?.iter().map(tell).collect())
    }

    fn package_name(&self, descriptor: &Descriptor) -> Option<String> {
        let image = self.read_blob(&descriptor.digest, IMAGE_BYTES).ok()??;
        let config = ImageManifest::parse(&image, PACKAGE_TYPE).ok()?;
        let config = config.config(MANIFEST_TYPE, MANIFEST_BYTES).ok()?;
        let manifest = Manifest::parse(&self.read_blob(&config.digest, MANIFEST_BYTES).ok()??).ok()?;
        Some(format!("{} {}", manifest.name, manifest.version))
    }

    /// Those of the index that are of this type; where the index does not say, the image manifest does.
    fn of_type(&self, artifact_type: &str) -> Result<Vec<Descriptor>, OciError> {
        let mut found = Vec::new();
        for descriptor in self.index()?.map_or(Vec::new(), |index| index.manifests) {
            let fits = match &descriptor.artifact_type {
                Some(said) => said == artifact_type,
                None => self
                    .read_blob(&descriptor.digest, IMAGE_BYTES)?
                    .is_some_and(|image| ImageManifest::parse(&image, artifact_type).is_ok()),
            };
            if fits {
                found.push(descriptor);
            }
        }
        Ok(found)
    }

    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let missing = || OciError::Missing {
            place: self.to_string(),
            what: descriptor.digest.to_string(),
            there: Vec::new(),
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

fn tag_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(TAG).map(String::as_str)
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci:{}", self.folder.display())
    }
}
