//! Where the lake is: a folder, or a bucket of S3 or of something that speaks like it.
//!
//! Everything in the lake rests on one thing: of two that make the same object, one is told that it was there already. Who is asked to
//! open a bucket whose endpoint does not do that refuses it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deltalake::DeltaTableError;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use url::Url;

use crate::durable;

/// How long a request may take until the endpoint counts as silent.
const REQUEST: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request is tried again; then whoever asked decides.
const RETRIES: Duration = Duration::from_secs(30);
const MAX_RETRIES: usize = 6;
/// What an endpoint without regions expects.
const ANY_REGION: &str = "us-east-1";

/// How a bucket is reached. What is not said here comes from the environment (`AWS_…`), a web identity, or the machine's role.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Of a server that is not Amazon's, such as `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `bucket.endpoint` instead of `endpoint/bucket`.
    pub virtual_hosts: bool,
    /// Lets an endpoint be reached without TLS.
    pub allow_http: bool,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A lake that can be opened. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Lake {
    location: String,
    bucket: Option<Arc<AmazonS3>>,
}

/// Why a lake cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("{location} is no place for a lake: a folder, or s3://bucket/prefix")]
    Location { location: String },
    #[error("the settings of the bucket {location}")]
    Settings { location: String, source: Error },
    #[error("the bucket {location} cannot be written")]
    Reach { location: String, source: Error },
    #[error(
        "the endpoint of {location} lets two writers make the same object (it ignores If-None-Match); rows would be lost or stored \
         twice. Use an S3 that honours conditional writes"
    )]
    Unconditional { location: String },
}

impl Lake {
    /// A folder or URL. Of a bucket, tries whether it does what is needed of it.
    pub async fn open(location: &str, options: &S3Options) -> Result<Lake, LakeError> {
        let location = location.trim_end_matches('/').to_owned();
        let bucket = match Url::parse(&location) {
            Ok(url) if url.scheme() == "s3" => Some(bucket(&url, &location, options)?),
            _ => None,
        };
        let lake = Lake { location, bucket };
        lake.probe().await?;
        Ok(lake)
    }

    /// A folder, or a URL whose settings are all in the environment; nothing is tried.
    pub(crate) fn at(location: &str) -> Result<Lake, DeltaTableError> {
        let location = location.trim_end_matches('/').to_owned();
        let bucket = match Url::parse(&location) {
            Ok(url) if url.scheme() == "s3" => {
                let made = bucket(&url, &location, &S3Options::default());
                Some(made.map_err(|error| DeltaTableError::GenericError { source: error.into() })?)
            }
            _ => None,
        };
        Ok(Lake { location, bucket })
    }

    /// It is a bucket.
    pub(crate) fn is_remote(&self) -> bool {
        self.bucket.is_some()
    }

    /// The part of the lake with a name; the whole when that is empty.
    pub(crate) fn part(&self, name: &str) -> Result<LogStoreRef, DeltaTableError> {
        let location = match name {
            "" => self.location.clone(),
            name => format!("{}/{name}", self.location),
        };
        let Some(bucket) = &self.bucket else {
            return durable::open(&location);
        };
        let url = Url::parse(&format!("{location}/")).map_err(|_| DeltaTableError::InvalidTableLocation(location))?;
        let root: Arc<dyn ObjectStore> = Arc::clone(bucket) as Arc<dyn ObjectStore>;
        let config = StorageConfig::default();
        let prefixed = config.decorate_store(Arc::clone(&root), &url)?;
        Ok(default_logstore(Arc::from(prefixed), root, &url, &config))
    }

    async fn probe(&self) -> Result<(), LakeError> {
        if self.bucket.is_none() {
            return Ok(());
        }
        let location = || self.location.clone();
        let part = self
            .part("probe")
            .map_err(|_| LakeError::Location { location: location() })?;
        let (store, path) = (part.object_store(None), Path::from(uuid::Uuid::new_v4().to_string()));
        let put = || {
            store.put_opts(
                &path,
                PutPayload::from_static(b"probe"),
                PutOptions::from(PutMode::Create),
            )
        };
        let reach = |source| LakeError::Reach {
            location: location(),
            source,
        };
        put().await.map_err(reach)?;
        let second = put().await;
        // One that stays is an empty promise of a few bytes.
        let removed = store.delete(&path).await;
        if let Err(error) = removed {
            tracing::debug!(%error, "a probe stays in the lake");
        }
        match second {
            Err(Error::AlreadyExists { .. }) => Ok(()),
            Ok(_) | Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                Err(LakeError::Unconditional { location: location() })
            }
            Err(source) => Err(reach(source)),
        }
    }
}

fn bucket(url: &Url, location: &str, options: &S3Options) -> Result<Arc<AmazonS3>, LakeError> {
    let name = url.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| LakeError::Location {
        location: location.to_owned(),
    })?;
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: MAX_RETRIES,
        retry_timeout: RETRIES,
    };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_retry(retry);
    if options.region.is_some()
        || std::env::var_os("AWS_REGION")
            .or_else(|| std::env::var_os("AWS_DEFAULT_REGION"))
            .is_none()
    {
        builder = builder.with_region(options.region.as_deref().unwrap_or(ANY_REGION));
    }
    // One by one, so that what the environment says of the others stays.
    for (key, patience) in [
        (ClientConfigKey::Timeout, REQUEST),
        (ClientConfigKey::ConnectTimeout, CONNECT),
    ] {
        let patience = format!("{} s", patience.as_secs());
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), patience);
    }
    if options.allow_http {
        builder = builder.with_allow_http(true);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if options.virtual_hosts {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if let Some(key) = &options.access_key {
        builder = builder.with_access_key_id(key);
    }
    if let Some(key) = &options.secret_key {
        builder = builder.with_secret_access_key(key);
    }
    let made = builder.build().map_err(|source| LakeError::Settings {
        location: location.to_owned(),
        source,
    })?;
    Ok(Arc::new(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_bucket_is_said() {
        let nowhere = Lake::open("s3:///prefix", &S3Options::default()).await;
        assert!(matches!(nowhere, Err(LakeError::Location { .. })), "{nowhere:?}");
    }

    #[test]
    fn a_key_never_stands_in_a_message() {
        let options = S3Options {
            secret_key: Some("hidden".to_owned()),
            access_key: Some("hidden".to_owned()),
            ..S3Options::default()
        };
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
