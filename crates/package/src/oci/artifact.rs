//! The image manifest that holds a package or a revocation list together.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::revocation::SignedRevocations;
use crate::verify::Package;

pub(super) const IMAGE_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const PACKAGE_TYPE: &str = "application/vnd.sluice.plugin.v1";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.sluice.plugin.manifest.v1+json";
pub(super) const COMPONENT_TYPE: &str = "application/wasm";
pub(super) const SIGNATURE_TYPE: &str = "application/vnd.sluice.plugin.signature.v1+json";
pub(super) const REVOCATIONS_TYPE: &str = "application/vnd.sluice.revocations.v1";
pub(super) const REVOCATIONS_LAYER_TYPE: &str = "application/vnd.sluice.revocations.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// What the OCI image specification gives as the content of a config that there is none of.
const EMPTY: &[u8] = b"{}";

/// Bytes of an image manifest: ours have 700; registries take up to 4 MiB.
pub(super) const IMAGE_BYTES: u64 = 64 * 1024;

/// Foreign tools add annotations and the like: what we do not know of an image manifest does not matter, because the
/// signature covers everything that does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageManifest {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

/// What is to be pushed.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) artifact_type: &'static str,
    /// The bytes of the image manifest.
    pub(super) manifest: Vec<u8>,
    /// What it refers to.
    pub(super) blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Descriptor {
    pub(super) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
        }
    }
}

impl ImageManifest {
    pub(super) fn parse(bytes: &[u8], artifact_type: &str) -> Result<Self, String> {
        let image: Self = serde_json::from_slice(bytes).map_err(|error| format!("its manifest: {error}"))?;
        if image.media_type != IMAGE_TYPE {
            return Err(format!("its manifest is of the type {:?}", shown(&image.media_type)));
        }
        if image.artifact_type != artifact_type {
            return Err(format!(
                "it is of the type {:?}, not {artifact_type:?}",
                shown(&image.artifact_type)
            ));
        }
        Ok(image)
    }

    pub(super) fn config(&self, media_type: &str, limit: u64) -> Result<Descriptor, String> {
        match self.config.media_type == media_type {
            true => within(&self.config, limit),
            false => Err(format!(
                "its config is of the type {:?}",
                shown(&self.config.media_type)
            )),
        }
    }

    pub(super) fn layer(&self, media_type: &str, limit: u64) -> Result<Descriptor, String> {
        let mut layers = self.layers.iter().filter(|layer| layer.media_type == media_type);
        match (layers.next(), layers.next()) {
            (Some(layer), None) => within(layer, limit),
            (None, _) => Err(format!("it has no layer of the type {media_type}")),
            _ => Err(format!("it has several layers of the type {media_type}")),
        }
    }
}

fn within(descriptor: &Descriptor, limit: u64) -> Result<Descriptor, String> {
    match descriptor.size <= limit {
        true => Ok(descriptor.clone()),
        false => Err(format!(
            "its {} has {} bytes, and {limit} are allowed",
            descriptor.media_type, descriptor.size
        )),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

impl Artifact {
    pub(super) fn of_package(package: &Package) -> Self {
        let blob = |media_type, bytes: &[u8]| (Descriptor::of(media_type, bytes), bytes.to_vec());
        let config = blob(MANIFEST_TYPE, &package.manifest);
        let component = blob(COMPONENT_TYPE, &package.component);
        let signature = blob(SIGNATURE_TYPE, &package.signature);
        Self::new(PACKAGE_TYPE, config, vec![component, signature])
    }

    pub(super) fn of_revocations(list: &SignedRevocations) -> Self {
        let bytes = list.to_bytes();
        let config = (Descriptor::of(EMPTY_TYPE, EMPTY), EMPTY.to_vec());
        let layer = (Descriptor::of(REVOCATIONS_LAYER_TYPE, &bytes), bytes);
        Self::new(REVOCATIONS_TYPE, config, vec![layer])
    }

    fn new(artifact_type: &'static str, config: (Descriptor, Vec<u8>), layers: Vec<(Descriptor, Vec<u8>)>) -> Self {
        let image = ImageManifest {
            schema_version: 2,
            media_type: IMAGE_TYPE.to_owned(),
            artifact_type: artifact_type.to_owned(),
            config: config.0.clone(),
            layers: layers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        };
        Self {
            artifact_type,
            // Texts and numbers: there is nothing in it that JSON could not hold.
            manifest: serde_json::to_vec(&image).unwrap_or_default(),
            blobs: std::iter::once(config).chain(layers).collect(),
        }
    }
}
