//! What an operator may set for a lake in a bucket.

use serde::{Deserialize, Serialize};
use sluice_settings::ConfigError;
use sluice_store::S3Options;

use super::reference::Reference;

/// How the bucket of the lake is reached. What is left out comes from the environment, or from the role of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Settings {
    /// Of a server that is not Amazon's; empty: Amazon.
    pub endpoint: String,
    /// Empty: `AWS_REGION`, else us-east-1.
    pub region: String,
    /// `bucket.endpoint` instead of `endpoint/bucket`.
    pub virtual_hosts: bool,
    /// Lets an endpoint be reached without TLS.
    pub allow_http: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<Reference>,
}

impl S3Settings {
    /// With the secrets that it refers to.
    pub fn options(&self) -> Result<S3Options, ConfigError> {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let secret = |key: &str, reference: &Option<Reference>| match reference {
            None => Ok(None),
            Some(reference) => reference
                .value()
                .map(Some)
                .map_err(|why| ConfigError::value("", &format!("s3.{key}"), why)),
        };
        Ok(S3Options {
            endpoint: text(&self.endpoint),
            region: text(&self.region),
            virtual_hosts: self.virtual_hosts,
            allow_http: self.allow_http,
            access_key: secret("access_key", &self.access_key)?,
            secret_key: secret("secret_key", &self.secret_key)?,
        })
    }
}
