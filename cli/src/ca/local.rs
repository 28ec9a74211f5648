//! An authority whose folder is here: for `sluice up`, where everything is in one process.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_ingest::gateway::{Authority, AuthorityError, RenewalRequest};
use tokio::sync::Semaphore;

use super::policy::{self, Policy};

/// Requests that may wait for the folder's lock.
const MAX_WAITING: usize = 32;

/// Signs with the key in a folder.
#[derive(Clone)]
pub(crate) struct LocalAuthority {
    dir: Arc<PathBuf>,
    policy: Arc<Policy>,
    places: Arc<Semaphore>,
}

impl LocalAuthority {
    pub(crate) fn new(dir: PathBuf, policy: Policy) -> Self {
        Self {
            dir: Arc::new(dir),
            policy: Arc::new(policy),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// `via` is who passed the request on, and the serial number of its certificate.
    pub(super) async fn renew_via(
        &self,
        request: RenewalRequest,
        via: (String, Option<String>),
    ) -> Result<Vec<Bytes>, AuthorityError> {
        let this = self.clone();
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| AuthorityError::Later("many ask at once".to_owned()))?;
        let renew = move || {
            let _place = place;
            let now_s = super::now().map_err(|error| AuthorityError::Away(error.to_string()))?;
            policy::renew(&this.dir, &this.policy, &request, (&via.0, via.1.as_deref()), now_s)
        };
        let renewed = tokio::task::spawn_blocking(renew).await;
        renewed.unwrap_or_else(|error| Err(AuthorityError::Away(error.to_string())))
    }
}

#[async_trait]
impl Authority for LocalAuthority {
    async fn renew(&self, request: RenewalRequest) -> Result<Vec<Bytes>, AuthorityError> {
        self.renew_via(request, ("the gateway beside it".to_owned(), None))
            .await
    }
}

impl fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAuthority")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
