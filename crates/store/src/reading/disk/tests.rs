#![allow(clippy::unwrap_used)]
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use chrono::DateTime;
use object_store::memory::InMemory;
use object_store::path::Path as Location;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use proptest::prelude::*;

use super::super::objects::Objects;
use super::*;

/// Counts what it is asked for.
#[derive(Debug, Default)]
struct Lake {
    inner: InMemory,
    requests: AtomicUsize,
}

impl std::fmt::Display for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lake")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Lake {
    async fn put_opts(&self, at: &Location, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Location,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    /// As a bucket does, `get_ranges` joins what lies near and comes here.
    async fn get_opts(&self, at: &Location, options: GetOptions) -> Result<GetResult> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, Result<Location>>,
    ) -> futures::stream::BoxStream<'static, Result<Location>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Location>) -> futures::stream::BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Location>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Location, to: &Location, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct Site {
    folder: tempfile::TempDir,
    lake: Arc<Lake>,
    counts: Arc<Counts>,
    known: HashMap<Location, ObjectMeta>,
}

impl Site {
    async fn with(objects: &[(&str, Vec<u8>)]) -> Site {
        let lake = Arc::<Lake>::default();
        let mut known = HashMap::new();
        for (path, bytes) in objects {
            let location = Location::from(*path);
            lake.put(&location, bytes.clone().into()).await.unwrap();
            let meta = ObjectMeta {
                location: location.clone(),
                last_modified: DateTime::default(),
                size: bytes.len() as u64,
                e_tag: None,
                version: None,
            };
            known.insert(location, meta);
        }
        Site {
            folder: tempfile::tempdir().unwrap(),
            lake,
            counts: Arc::default(),
            known,
        }
    }

    /// A process of its own over the folder.
    fn open(&self, most: u64) -> (Arc<Disk>, Objects) {
        let disk = Arc::new(Disk::open(self.folder.path(), most, Arc::clone(&self.counts)).unwrap());
        let lake: Arc<dyn ObjectStore> = Arc::clone(&self.lake) as Arc<dyn ObjectStore>;
        let objects = Objects::new(
            lake,
            "here".into(),
            self.known.clone(),
            Some(Arc::clone(&disk)),
            Arc::clone(&self.counts),
        );
        (disk, objects)
    }

    fn requests(&self) -> usize {
        self.lake.requests.load(Ordering::Relaxed)
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.folder.path().join(FOLDER)).unwrap();
        let folders = folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        folders
            .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
            .collect()
    }
}

fn bytes(length: u64, seed: u64) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(seed + 7) >> 3) as u8).collect()
}

#[tokio::test]
async fn what_is_near_is_asked_for_at_once_and_never_twice() {
    let whole = bytes(10 * BLOCK + 77, 3);
    let site = Site::with(&[("a", whole.clone())]).await;
    let (disk, objects) = site.open(u64::MAX);
    let at = Location::from("a");
    let ranges = [
        5..9,
        BLOCK - 2..BLOCK + 3,
        3 * BLOCK..3 * BLOCK + 1,
        10 * BLOCK + 70..10 * BLOCK + 77,
    ];
    let read = objects.get_ranges(&at, &ranges).await.unwrap();
    for (range, read) in ranges.iter().zip(&read) {
        assert_eq!(read.as_ref(), &whole[range.start as usize..range.end as usize]);
    }
    // The first three lie within a MiB of each other, the last one does not.
    assert_eq!(site.requests(), 2);
    assert_eq!(
        objects.get_range(&at, 2 * BLOCK - 1..2 * BLOCK).await.unwrap(),
        whole[2 * BLOCK as usize - 1..2 * BLOCK as usize]
    );
    assert_eq!(objects.get_ranges(&at, &ranges).await.unwrap(), read);
    assert_eq!(site.requests(), 2, "all of it was there");
    assert_eq!(disk.bytes(), 3 * BLOCK + 77 + 4 * HASH_BYTES as u64);
    // A restart finds it again.
    let (_, objects) = site.open(u64::MAX);
    assert_eq!(objects.get_ranges(&at, &ranges).await.unwrap(), read);
    assert_eq!(site.requests(), 2);
}

#[tokio::test]
async fn a_damaged_part_is_dropped_and_read_again() {
    let whole = bytes(2 * BLOCK, 5);
    let site = Site::with(&[("a", whole.clone())]).await;
    let at = Location::from("a");
    let read = async |objects: &Objects| objects.get_range(&at, 0..2 * BLOCK).await.unwrap();
    let (_, objects) = site.open(u64::MAX);
    assert_eq!(read(&objects).await, whole);
    // A bit, the end, everything, and the bytes of another part.
    type Damage = fn(&[PathBuf]);
    let damages: [Damage; 4] = [
        |files| {
            let mut bytes = fs::read(&files[0]).unwrap();
            bytes[100] ^= 1;
            fs::write(&files[0], bytes).unwrap();
        },
        |files| {
            let bytes = fs::read(&files[0]).unwrap();
            fs::write(&files[0], &bytes[..bytes.len() / 2]).unwrap();
        },
        |files| fs::write(&files[0], b"").unwrap(),
        |files| {
            fs::copy(&files[1], &files[0]).unwrap();
        },
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        assert_eq!(site.files().len(), 2);
        damage(&site.files());
        let (_, objects) = site.open(u64::MAX);
        let before = site.requests();
        assert_eq!(read(&objects).await, whole, "damage {at}");
        assert_eq!(site.requests(), before + 1, "damage {at}");
        assert_eq!(site.counts.disk_damaged.load(Ordering::Relaxed), at as u64 + 1);
        assert_eq!(read(&objects).await, whole);
        assert_eq!(site.requests(), before + 1, "damage {at}");
    }
    // What a crash left aside goes away.
    fs::write(site.folder.path().join(FOLDER).join("new-1-1"), b"half").unwrap();
    let (disk, _) = site.open(u64::MAX);
    assert!(!site.folder.path().join(FOLDER).join("new-1-1").exists());
    assert_eq!(disk.bytes(), 2 * (BLOCK + HASH_BYTES as u64));
}

#[tokio::test]
async fn the_same_name_elsewhere_or_of_another_size_is_another_file() {
    let site = Site::with(&[("a", bytes(100, 1))]).await;
    let (disk, objects) = site.open(u64::MAX);
    objects.get_range(&Location::from("a"), 0..9).await.unwrap();
    for other in [
        Object::new("there", "a", 100),
        Object::new("here", "a", 99),
        Object::new("her", "ea", 100),
    ] {
        assert_eq!(
            disk.look(other, std::slice::from_ref(&(0..9)))
                .await
                .unwrap()
                .missing
                .len(),
            1
        );
    }
    assert_eq!(
        disk.look(Object::new("here", "a", 100), std::slice::from_ref(&(0..9)))
            .await
            .unwrap()
            .missing
            .len(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is asked, through restarts and with little room: the bytes are those of the lake, and the cap holds.
    #[test]
    fn reads_are_the_lakes_and_the_cap_holds(
        most in prop_oneof![Just(0u64), Just(BLOCK), Just(3 * BLOCK)],
        asked in proptest::collection::vec((0usize..3, 0u64..4 * BLOCK, 0u64..2 * BLOCK, any::<bool>()), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let sizes = [0, BLOCK - 1, 3 * BLOCK + 5];
            let all: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(seed, size)| bytes(*size, seed as u64)).collect();
            let names = ["a", "b/c", "d"];
            let objects: Vec<_> = names.iter().copied().zip(all.iter().cloned()).collect();
            let site = Site::with(&objects).await;
            let (mut disk, mut objects) = site.open(most);
            for (which, start, length, restart) in asked {
                let range = start.min(sizes[which])..(start + length).min(sizes[which]);
                if range.is_empty() {
                    continue;
                }
                let read = objects.get_ranges(&Location::from(names[which]), std::slice::from_ref(&range)).await.unwrap();
                assert_eq!(read[0].as_ref(), &all[which][range.start as usize..range.end as usize]);
                let held: u64 = site.files().iter().map(|file| file.metadata().unwrap().len()).sum();
                assert_eq!(disk.bytes(), held);
                assert!(held <= most);
                if restart {
                    (disk, objects) = site.open(most);
                }
            }
        });
    }
}
