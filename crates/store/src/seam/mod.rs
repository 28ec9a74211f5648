//! The seam: durable records of who writes hot and of what hot may have deleted.
//!
//! One object per change, `<partition>/<number>`, made by put-if-absent and never changed; the highest number counts. An object
//! holds the whole state as JSON:
//! `{"version":1,"begin":0,"claims":[{"from":0,"generation":1}],"low":17,"endpoint":"embedded"}`, where `begin` is the first offset
//! that the log ever gave this partition, and `low` is absent until hot may delete. TABLES.md says the same.

mod position;
pub mod rule;
mod spans;

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sluice_wire::ids::Partition;

pub use self::position::Position;
pub use self::spans::Span;
use crate::lake::Lake;

const VERSION: u32 = 1;
/// Old records that stay; a writer that was paused for longer than this many changes notices by their number.
const KEPT: u64 = 64;
/// Claims that lie wholly below `low` decide nothing any more; some stay for people who look. So many that decide something are
/// refused: a claim above cold makes all of them idle.
const MAX_CLAIMS: usize = 256;
const MAX_ATTEMPTS: usize = 16;

/// The seam records of one lake. Clones share the store.
#[derive(Clone, Debug)]
pub struct Seam {
    store: Arc<dyn ObjectStore>,
}

/// The state of one partition's seam.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SeamRecord {
    version: u32,
    /// The first offset that the log ever gave this partition.
    pub begin: u64,
    /// In the order they were made; the last one whose `from` is at or below an offset decides which generation counts there.
    pub claims: Vec<Claim>,
    /// Hot may have deleted everything at and below this offset; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<u64>,
    /// Where hot is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The highest generation that was given to a replay; claims get higher ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<u64>,
}

/// From which offset on the rows of which generation count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    pub from: u64,
    pub generation: u64,
}

/// Why a seam record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SeamError {
    #[error("the folder or address of the seam records")]
    Location(#[source] Box<deltalake::DeltaTableError>),
    #[error("reading or writing the seam records")]
    Store(#[from] object_store::Error),
    #[error("seam record {path} cannot be read")]
    Unreadable { path: String, source: serde_json::Error },
    #[error("seam record {path} has version {version}, this program reads up to {VERSION}")]
    Newer { path: String, version: u32 },
    #[error("partition {partition}: other writers kept changing the seam")]
    Contended { partition: Partition },
    #[error("partition {partition}: {MAX_CLAIMS} claims decide something already; claim from the end of cold instead")]
    TooManyClaims { partition: Partition },
    #[error("partition {partition}: `low` would go back from {held} to {asked}")]
    Backwards {
        partition: Partition,
        held: u64,
        asked: u64,
    },
    #[error(
        "partition {partition}: what hot holds begins at offset {begin}, so a replay that ends at {last} would leave a gap: replay up to there"
    )]
    Gap {
        partition: Partition,
        last: u64,
        begin: u64,
    },
    #[error("partition {partition} was claimed meanwhile: replay again")]
    Overtaken { partition: Partition },
    #[error(
        "partition {partition}: offsets {first} to {last} would leave a hole in hot, whose rows begin above {low:?}"
    )]
    Hole {
        partition: Partition,
        first: u64,
        last: u64,
        low: Option<u64>,
    },
}

impl SeamRecord {
    /// The generation of the last claim.
    pub fn generation(&self) -> u64 {
        self.claims.last().map_or(0, |claim| claim.generation)
    }

    /// The highest generation that decides or decided anything: rows of a higher one are of a claim or replay still to come.
    pub fn highest_generation(&self) -> u64 {
        self.claims.iter().map(|claim| claim.generation).max().unwrap_or(0)
    }

    fn next_generation(&self) -> u64 {
        self.highest_generation().max(self.reserved.unwrap_or(0)) + 1
    }

    /// The last claim.
    pub fn last_claim(&self) -> Option<Claim> {
        self.claims.last().copied()
    }

    fn claim(&mut self, partition: Partition, from: u64, endpoint: &str) -> Result<(), SeamError> {
        if self.claims.is_empty() {
            self.begin = from;
        }
        let generation = self.next_generation();
        // A claim that begins no later decides instead of these everywhere.
        self.claims.retain(|claim| claim.from < from);
        self.claims.push(Claim { from, generation });
        while self.claims.len() > MAX_CLAIMS {
            let idle_below = self.claims.get(1).map_or(0, |claim| claim.from);
            if self.low.is_none_or(|low| low + 1 < idle_below) {
                return Err(SeamError::TooManyClaims { partition });
            }
            self.claims.remove(0);
        }
        self.endpoint = Some(endpoint.to_owned());
        Ok(())
    }

    /// Lets a reserved generation decide from `first` to `last`, and behind it whoever did.
    fn replay(&mut self, partition: Partition, first: u64, last: u64, generation: u64) -> Result<(), SeamError> {
        if self.reserved.is_none_or(|reserved| reserved < generation) || self.highest_generation() >= generation {
            return Err(SeamError::Overtaken { partition });
        }
        let goes_back = self.low.is_some_and(|low| first <= low);
        if last < first || (goes_back && self.low.is_some_and(|low| last < low)) {
            let low = self.low;
            return Err(SeamError::Hole {
                partition,
                first,
                last,
                low,
            });
        }
        let behind = self.generation_at(last + 1);
        if behind.is_none() && !self.claims.is_empty() {
            // Whoever wrote begins further on, and the offsets between would be nobody's.
            return Err(SeamError::Gap {
                partition,
                last,
                begin: self.claims.iter().map(|claim| claim.from).min().unwrap_or(last),
            });
        }
        let mut claims: Vec<Claim> = self.claims.iter().filter(|claim| claim.from < first).copied().collect();
        claims.push(Claim {
            from: first,
            generation,
        });
        if let Some(generation) = behind {
            claims.push(Claim {
                from: last + 1,
                generation,
            });
        }
        claims.extend(self.claims.iter().filter(|claim| claim.from > last + 1));
        if claims.len() > MAX_CLAIMS {
            return Err(SeamError::TooManyClaims { partition });
        }
        self.claims = claims;
        if goes_back {
            self.low = first.checked_sub(1);
        }
        Ok(())
    }

    fn advance(&mut self, partition: Partition, low: u64) -> Result<(), SeamError> {
        match self.low {
            Some(held) if held > low => Err(SeamError::Backwards {
                partition,
                held,
                asked: low,
            }),
            _ => {
                self.low = Some(low);
                Ok(())
            }
        }
    }

    /// The generation whose rows count at an offset.
    pub fn generation_at(&self, offset: u64) -> Option<u64> {
        self.claims
            .iter()
            .rev()
            .find(|claim| claim.from <= offset)
            .map(|claim| claim.generation)
    }
}

impl Seam {
    /// Opens the folder or URL that holds the records.
    pub async fn open(location: &str) -> Result<Self, SeamError> {
        let lake = Lake::at(location).map_err(|error| SeamError::Location(Box::new(error)))?;
        Self::open_in(&lake, "")
    }

    /// Opens the records in a part of a lake.
    pub fn open_in(lake: &Lake, name: &str) -> Result<Self, SeamError> {
        let log_store = lake.part(name).map_err(|error| SeamError::Location(Box::new(error)))?;
        Ok(Self {
            store: log_store.object_store(None),
        })
    }

    /// The newest record of a partition; the default when there is none.
    pub async fn load(&self, partition: Partition) -> Result<SeamRecord, SeamError> {
        Ok(self
            .newest(partition)
            .await?
            .map(|(_, record)| record)
            .unwrap_or_default())
    }

    /// The partitions that have records.
    pub async fn partitions(&self) -> Result<Vec<Partition>, SeamError> {
        let listed = self.store.list_with_delimiter(None).await?;
        let numbers = listed
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename()?.parse().ok());
        Ok(numbers.filter_map(Partition::from_i64).collect())
    }

    /// Takes a partition over: from `from` on only rows of the new generation count. Hot holds everything between L and `from`, or
    /// `from` is the log's first offset.
    pub async fn claim(&self, partition: Partition, from: u64, endpoint: &str) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| record.claim(partition, from, endpoint))
            .await
    }

    /// The same, but only if nobody has claimed the partition since its record said this generation.
    pub async fn claim_after(
        &self,
        partition: Partition,
        generation: u64,
        from: u64,
        endpoint: &str,
    ) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| match record.generation() == generation {
            true => record.claim(partition, from, endpoint),
            false => Err(SeamError::Contended { partition }),
        })
        .await
    }

    /// Takes a partition over without anything that hot holds: cold holds everything up to `low`, and hot begins above it.
    pub async fn claim_above(&self, partition: Partition, low: u64, endpoint: &str) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| {
            record.advance(partition, low)?;
            record.claim(partition, low + 1, endpoint)
        })
        .await
    }

    /// Says durably that hot may delete everything at and below `low`, which cold must already hold.
    pub async fn advance(&self, partition: Partition, low: u64) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| record.advance(partition, low)).await
    }

    /// The same, but only if nothing has changed since the record was read: what was decided by it may be wrong by now.
    pub async fn advance_after(
        &self,
        partition: Partition,
        known: &SeamRecord,
        low: u64,
    ) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| match record == known {
            true => record.advance(partition, low),
            false => Err(SeamError::Contended { partition }),
        })
        .await
    }

    /// Gives out a generation that no claim will get; its rows count once [`Seam::replay`] says so.
    pub async fn reserve(&self, partition: Partition) -> Result<u64, SeamError> {
        let reserved = self.change(partition, |record| {
            record.reserved = Some(record.next_generation());
            Ok(())
        });
        Ok(reserved.await?.reserved.unwrap_or(0))
    }

    /// What the record would be with a reserved generation that decides from `first` to `last`.
    pub fn with_replay(
        record: &SeamRecord,
        partition: Partition,
        (first, last): (u64, u64),
        generation: u64,
    ) -> Result<SeamRecord, SeamError> {
        let mut record = record.clone();
        record.replay(partition, first, last, generation)?;
        Ok(record)
    }

    /// From now on rows of a reserved generation count from `first` to `last`; hot holds all of them. Refused when somebody claimed
    /// the partition since it was reserved.
    pub async fn replay(
        &self,
        partition: Partition,
        (first, last): (u64, u64),
        generation: u64,
    ) -> Result<SeamRecord, SeamError> {
        self.change(partition, |record| record.replay(partition, first, last, generation))
            .await
    }

    async fn change(
        &self,
        partition: Partition,
        edit: impl Fn(&mut SeamRecord) -> Result<(), SeamError>,
    ) -> Result<SeamRecord, SeamError> {
        for _ in 0..MAX_ATTEMPTS {
            let (number, mut record) = self.newest(partition).await?.unwrap_or_default();
            let before = record.clone();
            edit(&mut record)?;
            if record == before {
                return Ok(record);
            }
            record.version = VERSION;
            let path = record_path(partition, number + 1);
            let text = serde_json::to_vec(&record).map_err(|source| SeamError::Unreadable {
                path: path.to_string(),
                source,
            })?;
            let options = PutOptions::from(PutMode::Create);
            match self.store.put_opts(&path, PutPayload::from(text), options).await {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            // A writer that slept while the others moved far on may have filled a number that was cleaned up.
            let newest = self.numbers(partition).await?.into_iter().max().unwrap_or_default();
            if newest < number + 1 + KEPT / 2 {
                self.clean(partition, newest).await;
                return Ok(record);
            }
        }
        Err(SeamError::Contended { partition })
    }

    async fn newest(&self, partition: Partition) -> Result<Option<(u64, SeamRecord)>, SeamError> {
        // Between listing and reading, the record may be cleaned up only if many newer ones came.
        let Some(number) = self.numbers(partition).await?.into_iter().max() else {
            return Ok(None);
        };
        let path = record_path(partition, number);
        let bytes = self.store.get(&path).await?.bytes().await?;
        let unreadable = |source| SeamError::Unreadable {
            path: path.to_string(),
            source,
        };
        let record: SeamRecord = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if record.version > VERSION {
            return Err(SeamError::Newer {
                path: path.to_string(),
                version: record.version,
            });
        }
        Ok(Some((number, record)))
    }

    async fn numbers(&self, partition: Partition) -> Result<Vec<u64>, SeamError> {
        let folder = Path::from(partition.to_string());
        let listed = self.store.list(Some(&folder));
        let numbers =
            listed.try_filter_map(async |meta| Ok(meta.location.filename().and_then(|n| n.parse::<u64>().ok())));
        Ok(numbers.try_collect().await?)
    }

    /// Removes records that nobody reads any more; what fails stays for the next time.
    async fn clean(&self, partition: Partition, newest: u64) {
        let Ok(numbers) = self.numbers(partition).await else {
            return;
        };
        for number in numbers.into_iter().filter(|n| n + KEPT < newest) {
            if let Err(error) = self.store.delete(&record_path(partition, number)).await {
                tracing::debug!(%partition, number, %error, "old seam record stays");
            }
        }
    }
}

/// Numbers are padded, so that names sort as numbers do.
fn record_path(partition: Partition, number: u64) -> Path {
    Path::from(format!("{partition}/{number:020}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const P: Partition = Partition {
        generation: 0,
        index: 3,
    };

    #[tokio::test]
    async fn generations_rise_and_low_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = || async { Seam::open(folder.path().join("seam").to_str().unwrap()).await.unwrap() };
        let seam = open().await;
        assert_eq!(seam.load(P).await.unwrap(), SeamRecord::default());
        assert_eq!(seam.claim(P, 5, "a").await.unwrap().generation(), 1);
        seam.advance(P, 9).await.unwrap();
        let record = open().await.claim(P, 10, "b").await.unwrap();
        assert_eq!((record.begin, record.low, record.generation()), (5, Some(9), 2));
        assert_eq!(
            (
                record.generation_at(4),
                record.generation_at(9),
                record.generation_at(10)
            ),
            (None, Some(1), Some(2))
        );
        assert!(matches!(
            seam.advance(P, 8).await,
            Err(SeamError::Backwards { held: 9, asked: 8, .. })
        ));
        assert_eq!(seam.load(P).await.unwrap(), record);
        assert_eq!(seam.partitions().await.unwrap(), vec![P]);
    }

    #[tokio::test]
    async fn a_claim_that_others_came_before_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let seam = Seam::open(folder.path().join("seam").to_str().unwrap()).await.unwrap();
        let known = seam.claim(P, 0, "a").await.unwrap().generation();
        let theirs = seam.claim_above(P, 8, "b").await.unwrap();
        assert_eq!((theirs.low, theirs.last_claim().unwrap().from), (Some(8), 9));
        assert!(matches!(
            seam.claim_after(P, known, 3, "a").await,
            Err(SeamError::Contended { .. })
        ));
        assert_eq!(seam.load(P).await.unwrap(), theirs);
        assert_eq!(
            seam.claim_after(P, theirs.generation(), 12, "a")
                .await
                .unwrap()
                .generation(),
            known + 2
        );
    }

    /// Whoever moves L by an older record does not undo a replay that moved it back.
    #[tokio::test]
    async fn l_is_not_moved_by_a_record_that_is_not_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let seam = Seam::open(folder.path().join("seam").to_str().unwrap()).await.unwrap();
        seam.claim(P, 0, "a").await.unwrap();
        let known = seam.advance(P, 9).await.unwrap();
        let generation = seam.reserve(P).await.unwrap();
        let replayed = seam.replay(P, (3, 12), generation).await.unwrap();
        assert_eq!(replayed.low, Some(2));
        let stale = seam.advance_after(P, &known, 12).await;
        assert!(matches!(stale, Err(SeamError::Contended { .. })), "{stale:?}");
        assert_eq!(seam.load(P).await.unwrap(), replayed);
        let moved = seam.advance_after(P, &replayed, 4).await.unwrap();
        assert_eq!(moved.low, Some(4));
    }

    /// Every claim gets a generation of its own, whoever races; old records are cleaned up.
    #[tokio::test(flavor = "multi_thread")]
    async fn racing_claims_never_share_a_generation() {
        let folder = tempfile::tempdir().unwrap();
        let seam = Seam::open(folder.path().join("seam").to_str().unwrap()).await.unwrap();
        let claims = (0..3).map(|task| {
            let seam = seam.clone();
            tokio::spawn(async move {
                let mut generations = Vec::new();
                for i in 0..30 {
                    if let Ok(record) = seam.claim(P, i, &format!("task {task}")).await {
                        generations.push(record.generation());
                    }
                }
                generations
            })
        });
        let mut all = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            all.extend(claim.await.unwrap());
        }
        all.sort_unstable();
        let made = all.len();
        all.dedup();
        assert_eq!(all.len(), made);
        assert!(
            made >= 60 && seam.numbers(P).await.unwrap().len() <= KEPT as usize + 2,
            "{made}"
        );
    }
}
