//! Small objects beside the table in which the writers keep what they know, so that another process can go on with it.
//!
//! Each has a name and a number that grows; the highest number counts. A process that slept and saves an older state hides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::lake::Lake;

/// Older objects that stay, for whoever is just reading one.
const KEPT: usize = 2;

/// The state objects of one lake. Clones share the store.
#[derive(Clone, Debug)]
pub struct StateObjects {
    store: Arc<dyn ObjectStore>,
}

/// Why a state was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the folder or address of the state objects")]
    Location(#[source] Box<deltalake::DeltaTableError>),
    #[error("{name} in the lake cannot be understood: a newer program wrote it, or it is damaged")]
    Unreadable { name: String },
    #[error("reading or writing {name}")]
    Store { name: String, source: object_store::Error },
}

impl StateObjects {
    /// Opens the objects in a part of a lake.
    pub fn open(lake: &Lake, part: &str) -> Result<Self, StateError> {
        let part = lake.part(part).map_err(|error| StateError::Location(Box::new(error)))?;
        Ok(Self {
            store: part.object_store(None),
        })
    }

    /// Objects of no lake: there are none.
    pub(crate) fn nowhere() -> Self {
        Self {
            store: Arc::new(object_store::memory::InMemory::new()),
        }
    }

    /// Puts the state `number` of something; durable when it returns.
    pub async fn save(&self, name: &str, number: u64, bytes: Vec<u8>) -> Result<(), StateError> {
        let put = self.store.put(&path(name, number), PutPayload::from(bytes)).await;
        put.map_err(|source| StateError::Store {
            name: name.to_owned(),
            source,
        })?;
        self.prune(name).await;
        Ok(())
    }

    async fn prune(&self, name: &str) {
        if let Ok(mut numbers) = self.numbers(name).await {
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            for old in numbers.into_iter().skip(1 + KEPT) {
                if let Err(error) = self.store.delete(&path(name, old)).await {
                    tracing::debug!(name, old, %error, "an old state stays");
                }
            }
        }
    }

    /// As [`Self::append`], for what is saved often: older ones are removed but for a few.
    pub async fn append_and_prune(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StateError> {
        let made = self.append(name, bytes).await?;
        if made {
            self.prune(name).await;
        }
        Ok(made)
    }

    /// Puts the state that comes after the newest one; false: somebody else put one there first.
    pub async fn append(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StateError> {
        let newest = self.numbers(name).await?.into_iter().max();
        self.create(name, newest.map_or(1, |number| number + 1), bytes).await
    }

    /// Makes the object `number` of something, which never changes; returns what stands there afterwards, whoever made it.
    pub async fn make(&self, name: &str, number: u64, bytes: Vec<u8>) -> Result<Bytes, StateError> {
        let failed = |source| StateError::Store {
            name: name.to_owned(),
            source,
        };
        let (path, content) = (path(name, number), Bytes::from(bytes));
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(&path, PutPayload::from(content.clone()), options)
            .await
        {
            Ok(_) => Ok(content),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let got = self.store.get(&path).await.map_err(failed)?;
                got.bytes().await.map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes the object `number` of something, which never changes; false: it is there already.
    pub async fn create(&self, name: &str, number: u64, bytes: Vec<u8>) -> Result<bool, StateError> {
        let options = PutOptions::from(PutMode::Create);
        let path = path(name, number);
        match self.store.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(StateError::Store {
                name: name.to_owned(),
                source,
            }),
        }
    }

    /// All objects of something, by number.
    pub async fn all(&self, name: &str) -> Result<BTreeMap<u64, Bytes>, StateError> {
        let failed = |source| StateError::Store {
            name: name.to_owned(),
            source,
        };
        let mut all = BTreeMap::new();
        for number in self.numbers(name).await? {
            let got = self.store.get(&path(name, number)).await.map_err(failed)?;
            all.insert(number, got.bytes().await.map_err(failed)?);
        }
        Ok(all)
    }

    /// The state with the highest number.
    pub async fn newest(&self, name: &str) -> Result<Option<Bytes>, StateError> {
        let failed = |source| StateError::Store {
            name: name.to_owned(),
            source,
        };
        let Some(number) = self.numbers(name).await?.into_iter().max() else {
            return Ok(None);
        };
        let got = self.store.get(&path(name, number)).await.map_err(failed)?;
        Ok(Some(got.bytes().await.map_err(failed)?))
    }

    async fn numbers(&self, name: &str) -> Result<Vec<u64>, StateError> {
        let folder = Path::from(name);
        let listed = self.store.list(Some(&folder));
        let numbers =
            listed.try_filter_map(async |meta| Ok(meta.location.filename().and_then(|n| n.parse::<u64>().ok())));
        numbers.try_collect().await.map_err(|source| StateError::Store {
            name: name.to_owned(),
            source,
        })
    }
}

/// Numbers are padded, so that names sort as numbers do.
fn path(name: &str, number: u64) -> Path {
    Path::from(format!("{name}/{number:020}"))
}
