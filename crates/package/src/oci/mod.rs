//! How packages travel: as OCI artifacts, through a folder or a registry. Nothing that comes this way is trusted for it; what
//! arrives is bytes, and [`Store::install`](crate::Store::install) decides.

mod artifact;
mod credentials;
mod layout;
mod reference;
mod registry;

use std::path::PathBuf;

pub use credentials::{Credentials, CredentialsError};
pub use reference::{DEFAULT_TAG, Reference, ReferenceError, Selector};
pub use registry::{Access, RegistryError};

use crate::digest::Digest;
use crate::limits::{COMPONENT_BYTES, MANIFEST_BYTES, REVOCATIONS_BYTES, SIGNATURE_BYTES};
use crate::revocation::{RevocationError, SignedRevocations};
use crate::verify::Package;
use artifact::{Artifact, Descriptor, ImageManifest};
use layout::Layout;
use registry::Registry;

#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{place} holds no Sluice {wanted}: {problem}")]
    Foreign {
        place: String,
        wanted: &'static str,
        problem: String,
    },
    #[error(
        "{place}: what came is not what its digest {digest} says: fetch it again, and if it stays so, do not use this place"
    )]
    Corrupt { place: String, digest: Digest },
    #[error("{place} has nothing named {what}{}", listed(.there))]
    Missing {
        place: String,
        what: String,
        /// What could have been asked for, where that is known.
        there: Vec<String>,
    },
    #[error("{place} holds several: say which{}", listed(.there))]
    Several { place: String, there: Vec<String> },
    #[error("{place}: {problem}")]
    Layout { place: String, problem: String },
    #[error(
        "{place} has the version {tag} already, with other bytes: a version is published once; give the new bytes a new version"
    )]
    Taken { place: String, tag: String },
    #[error(transparent)]
    Revocations(#[from] RevocationError),
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Names that are told of a place with many.
const NAMED: usize = 20;

fn listed(there: &[String]) -> String {
    let mut text = String::new();
    for name in there.iter().take(NAMED) {
        text.push_str("\n  ");
        text.push_str(name);
    }
    if there.len() > NAMED {
        text.push_str(&format!("\n  … and {} more", there.len() - NAMED));
    }
    text
}

/// Either place, behind the three things that are asked of it.
enum Place {
    Layout(Layout),
    Registry(Box<Registry>),
}

impl Place {
    fn open(reference: &Reference, access: &Access) -> Result<Self, OciError> {
        Ok(match reference {
            Reference::Layout { folder, .. } => Self::Layout(Layout::new(folder.clone())),
            Reference::Registry { host, repository, .. } => {
                Self::Registry(Box::new(Registry::new(host, repository, access)?))
            }
        })
    }

    /// The bytes of the image manifest; `None` if there is none of this name.
    async fn manifest(&self, selector: &Selector, artifact_type: &str) -> Result<Option<Vec<u8>>, OciError> {
        let found = match self {
            Self::Layout(layout) => layout.manifest(selector, artifact_type)?,
            Self::Registry(registry) => registry.manifest(selector).await?,
        };
        match (found, selector) {
            (Some(bytes), Selector::Digest(digest)) if Digest::of(&bytes) != *digest => Err(OciError::Corrupt {
                place: self.to_string(),
                digest: *digest,
            }),
            (found, _) => Ok(found),
        }
    }

    /// The bytes that the descriptor names; of its size, at most `limit`, and of its digest.
    async fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, OciError> {
        let bytes = match self {
            Self::Layout(layout) => layout.blob(descriptor)?,
            Self::Registry(registry) => registry.blob(descriptor).await?,
        };
        if bytes.len() as u64 != descriptor.size || Digest::of(&bytes) != descriptor.digest {
            let (place, digest) = (self.to_string(), descriptor.digest);
            return Err(OciError::Corrupt { place, digest });
        }
        Ok(bytes)
    }

    async fn push(&self, artifact: &Artifact, tag: &str) -> Result<Digest, OciError> {
        match self {
            Self::Layout(layout) => layout.push(artifact, tag)?,
            Self::Registry(registry) => registry.push(artifact, tag).await?,
        }
        Ok(Digest::of(&artifact.manifest))
    }

    async fn image(
        &self,
        selector: &Selector,
        artifact_type: &str,
        wanted: &'static str,
    ) -> Result<ImageManifest, OciError> {
        let Some(bytes) = self.manifest(selector, artifact_type).await? else {
            let there = match self {
                Self::Layout(layout) => layout.told(artifact_type)?,
                Self::Registry(_) => Vec::new(),
            };
            return Err(OciError::Missing {
                place: self.to_string(),
                what: selector.to_string(),
                there,
            });
        };
        ImageManifest::parse(&bytes, artifact_type).map_err(|problem| self.foreign(wanted, problem))
    }

    fn foreign(&self, wanted: &'static str, problem: String) -> OciError {
        OciError::Foreign {
            place: self.to_string(),
            wanted,
            problem,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout(layout) => layout.fmt(f),
            Self::Registry(registry) => registry.fmt(f),
        }
    }
}

const PACKAGE: &str = "plugin";
const REVOCATIONS: &str = "revocation list";

/// Fetches a package. Its sizes are looked at before its bytes.
pub async fn pull(reference: &Reference, access: &Access) -> Result<Package, OciError> {
    let place = Place::open(reference, access)?;
    let image = place
        .image(reference.selector(), artifact::PACKAGE_TYPE, PACKAGE)
        .await?;
    let part = |found: Result<Descriptor, String>| found.map_err(|problem| place.foreign(PACKAGE, problem));
    let manifest = part(image.config(artifact::MANIFEST_TYPE, MANIFEST_BYTES))?;
    let signature = part(image.layer(artifact::SIGNATURE_TYPE, SIGNATURE_BYTES))?;
    let component = part(image.layer(artifact::COMPONENT_TYPE, COMPONENT_BYTES))?;
    Ok(Package {
        manifest: place.blob(&manifest).await?,
        signature: place.blob(&signature).await?,
        component: place.blob(&component).await?,
    })
}

/// Lets the tag name a package that is published, whatever it named before.
pub async fn point(package: &Package, reference: &Reference, tag: &str, access: &Access) -> Result<(), OciError> {
    let place = Place::open(reference, access)?;
    place.push(&Artifact::of_package(package), tag).await.map(drop)
}

/// Publishes a package under the tag; returns the digest that it can be fetched by. A tag that names other bytes is left alone.
pub async fn push(package: &Package, reference: &Reference, tag: &str, access: &Access) -> Result<Digest, OciError> {
    let place = Place::open(reference, access)?;
    let artifact = Artifact::of_package(package);
    let selector = Selector::Tag(tag.to_owned());
    match place.manifest(&selector, artifact::PACKAGE_TYPE).await? {
        Some(there) if there == artifact.manifest => Ok(Digest::of(&there)),
        Some(_) => Err(OciError::Taken {
            place: place.to_string(),
            tag: tag.to_owned(),
        }),
        None => place.push(&artifact, tag).await,
    }
}

pub async fn pull_revocations(reference: &Reference, access: &Access) -> Result<SignedRevocations, OciError> {
    let place = Place::open(reference, access)?;
    let image = place
        .image(reference.selector(), artifact::REVOCATIONS_TYPE, REVOCATIONS)
        .await?;
    let list = image.layer(artifact::REVOCATIONS_LAYER_TYPE, REVOCATIONS_BYTES);
    let list = list.map_err(|problem| place.foreign(REVOCATIONS, problem))?;
    Ok(SignedRevocations::parse(&place.blob(&list).await?)?)
}

/// Publishes a revocation list; the tag names the newest one from now on.
pub async fn push_revocations(
    list: &SignedRevocations,
    reference: &Reference,
    access: &Access,
) -> Result<Digest, OciError> {
    let place = Place::open(reference, access)?;
    let tag = match reference.selector() {
        Selector::Tag(tag) => tag,
        Selector::Unsaid => DEFAULT_TAG,
        Selector::Digest(_) => return Err(ReferenceError::TagNeeded.into()),
    };
    place.push(&Artifact::of_revocations(list), tag).await
}

#[cfg(test)]
mod tests;
