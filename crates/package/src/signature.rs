//! `manifest.sig`: who vouches for a manifest and the component that belongs to it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::{KeyId, PrivateKey, PublicKey};

const SCHEMA: u32 = 1;
/// No other message that a key of ours signs begins with this.
const DOMAIN: &[u8] = b"sluice plugin package v1\0";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    schema: u32,
    algorithm: Algorithm,
    pub key: KeyId,
    /// Of the component that was signed with the manifest.
    pub component: Digest,
    signature: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Ed25519,
}

impl Signature {
    pub fn sign(key: &PrivateKey, manifest: &[u8], component: &[u8]) -> Self {
        let component = Digest::of(component);
        Self {
            schema: SCHEMA,
            algorithm: Algorithm::Ed25519,
            key: key.public().id(),
            component,
            signature: BASE64.encode(key.sign(&message(manifest, &component))),
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let signature: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match signature.schema {
            SCHEMA => Ok(signature),
            other => Err(format!(
                "it has schema {other}, and this host reads {SCHEMA}: update the host"
            )),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and a number: there is nothing in it that JSON could not hold.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Whether the key signed this manifest together with the component of the digest `component`.
    #[must_use]
    pub fn verifies(&self, key: &PublicKey, manifest: &[u8]) -> bool {
        let Ok(signature) = BASE64.decode(&self.signature) else {
            return false;
        };
        key.id() == self.key && key.verifies(&message(manifest, &self.component), &signature)
    }
}

fn message(manifest: &[u8], component: &Digest) -> Vec<u8> {
    let mut message = DOMAIN.to_vec();
    message.extend((manifest.len() as u64).to_le_bytes());
    message.extend(manifest);
    message.extend(component.bytes());
    message
}
