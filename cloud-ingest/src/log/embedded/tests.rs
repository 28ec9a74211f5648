//! The log on a real disk: what comes back after reopening, after damage, and from a log of the first version.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sluice_wal::storage::{Directory, Storage, StorageFile};
use sluice_wire::counts::Counts;
use sluice_wire::envelope::Kind;
use sluice_wire::ids::{BatchId, Epoch, NodeId, StreamId, TenantId};

use super::*;

fn head(n: u8) -> Head {
    let stream = StreamId {
        tenant: TenantId::new("acme").unwrap(),
        node: NodeId::new("site-1").unwrap(),
        spool: [1; 16],
    };
    let epoch = Epoch { number: 1, random: 7 };
    Head {
        id: BatchId {
            stream,
            epoch,
            seq: u64::from(n),
        },
        kind: Kind::Data,
        counts: Counts {
            accepted: 2,
            stored: 2,
            ..Counts::default()
        },
    }
}

fn options(partitions: u16) -> EmbeddedOptions {
    EmbeddedOptions {
        generation: 1,
        partitions,
        segment_bytes: 500,
        max_envelope_bytes: 1000,
        ballast_bytes: 0,
    }
}

#[tokio::test]
async fn p4_what_append_returned_for_is_there_after_reopening_with_its_offset_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
    let [a, b] = log.partitions()[..] else {
        panic!("two partitions")
    };
    for n in 0..30u8 {
        let partition = if n % 3 == 0 { a } else { b };
        log.append(partition, &head(n), Bytes::from(vec![n; 40]), i64::from(n))
            .await
            .unwrap();
    }
    let too_large = log.append(a, &head(0), Bytes::from(vec![0; 1001]), 0).await;
    assert!(matches!(too_large, Err(LogError::TooLarge { bytes: 1001, max: 1000 })));
    log.close().await;
    drop(log);
    let log = EmbeddedLog::open(dir.path(), &options(2)).unwrap();
    assert_eq!((log.end(a), log.end(b)), (10, 20));
    log.wait_beyond(b, 19).await;
    let mut offsets = Vec::new();
    while (offsets.len() as u64) < log.end(a) {
        for record in log.read(a, offsets.len() as u64, 100).await.unwrap() {
            assert_eq!(record.ingested_at_us, 3 * record.offset as i64);
            assert_eq!(record.envelope, vec![3 * record.offset as u8; 40]);
            assert_eq!(record.head, Some(head(3 * record.offset as u8)));
            offsets.push(record.offset);
        }
    }
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    log.trim(a, 10).await.unwrap();
    assert!(matches!(
        log.read(a, 0, 100).await,
        Err(LogError::Trimmed { wanted: 0, .. })
    ));
}

async fn all(log: &EmbeddedLog, partition: Partition) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while (records.len() as u64) < log.end(partition) {
        records.extend(log.read(partition, records.len() as u64, 1 << 20).await.unwrap());
    }
    records
}

/// P3, P6: whatever of a record is damaged, its neighbours are whole; and as long as its head is, so are identity, counts and time.
#[tokio::test]
async fn p3_a_damaged_record_leaves_its_identity_and_counts() {
    let content = |n: u8| vec![b'a' + n; 50];
    // The envelope; the name of the stream before it; the frame around the record.
    #[derive(Clone, Copy)]
    enum Hit {
        Envelope,
        Name,
        Frame,
    }
    let envelopes = [0u8, 4, 9].map(|victim| (victim, Hit::Envelope, true));
    let frames = [0u8, 4, 9, 11].map(|victim| (victim, Hit::Frame, true));
    let cases = envelopes.into_iter().chain(frames).chain([(4, Hit::Name, false)]);
    for (victim, hit, has_head) in cases {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
        let [p] = log.partitions()[..] else {
            panic!("one partition")
        };
        for n in 0..12 {
            log.append(p, &head(n), Bytes::from(content(n)), 100 + i64::from(n))
                .await
                .unwrap();
        }
        log.close().await;
        drop(log);
        let mut hits = 0;
        for segment in std::fs::read_dir(dir.path().join("g1-p0")).unwrap() {
            let path = segment.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(50).position(|w| w == content(victim));
            if let Some(envelope) = found {
                let record = bytes[..envelope].windows(6).rposition(|w| w == b"SLLREC").unwrap();
                let at = match hit {
                    Hit::Envelope => envelope + 10,
                    Hit::Name => envelope - 20,
                    Hit::Frame => record - 15,
                };
                bytes[at] ^= 4;
                std::fs::write(&path, bytes).unwrap();
                hits += 1;
            }
        }
        assert_eq!(hits, 1);
        let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
        let records = all(&log, p).await;
        assert_eq!(records.len(), 12);
        for (n, record) in (0u8..).zip(&records) {
            let is_damaged = n == victim;
            let known = !is_damaged || has_head;
            assert_eq!(record.damaged.is_some(), is_damaged, "{record:?}");
            assert_eq!(record.head, known.then(|| head(n)));
            assert_eq!(record.ingested_at_us, if known { 100 + i64::from(n) } else { 0 });
            assert_eq!(record.envelope, if is_damaged { vec![] } else { content(n) });
        }
    }
}

/// A folder of which some offsets cannot be read for so many attempts.
#[derive(Debug)]
struct Disk {
    folder: Directory,
    unreadable: std::ops::Range<u64>,
    failures: Arc<AtomicU64>,
}

#[derive(Debug)]
struct File {
    file: Arc<dyn StorageFile>,
    unreadable: std::ops::Range<u64>,
    failures: Arc<AtomicU64>,
}

impl Disk {
    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(File {
            file,
            unreadable: self.unreadable.clone(),
            failures: self.failures.clone(),
        })
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.folder.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(self.folder.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.file(self.folder.open(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.folder.rename(from, to)
    }
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.folder.allocate(name, bytes)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.folder.sync_dir()
    }
}

impl StorageFile for File {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = offset + buf.len() as u64;
        let hits = offset < self.unreadable.end && end > self.unreadable.start;
        let fails = |left: u64| left.checked_sub(1);
        if hits && self.failures.fetch_update(Relaxed, Relaxed, fails).is_ok() {
            // EIO
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// P6: twelve records of 3,000 bytes, read while a sector fails so often; the offsets that are damaged.
async fn damaged_while(failures: u64, is_away: bool) -> Result<Vec<u64>, LogError> {
    let dir = tempfile::tempdir().unwrap();
    let (id, path) = (
        Partition {
            generation: 1,
            index: 0,
        },
        dir.path().join("g1-p0"),
    );
    let left = Arc::new(AtomicU64::new(0));
    let disk = Disk {
        folder: Directory::lock(&path).unwrap(),
        unreadable: 16_384..20_480,
        failures: left.clone(),
    };
    let (wal, recovery) = Wal::open_on(Arc::new(disk), Options::default()).unwrap();
    let log = EmbeddedLog {
        partitions: vec![PartitionLog::start(id, path.clone(), wal, recovery)],
        max_envelope_bytes: 1 << 20,
    };
    for n in 0..12u8 {
        let envelope = Bytes::from(vec![n; 3000]);
        log.append(id, &head(n), envelope, 100 + i64::from(n)).await.unwrap();
    }
    if is_away {
        std::fs::create_dir(path.join(PROBE)).unwrap();
    }
    left.store(failures, Relaxed);
    let mut records = Vec::new();
    while (records.len() as u64) < log.end(id) {
        records.extend(log.read(id, records.len() as u64, 1 << 20).await?);
    }
    for record in &records {
        let n = record.offset as u8;
        assert!(record.damaged.is_some() || record.envelope == vec![n; 3000]);
        assert_eq!(record.head, Some(head(n)));
    }
    Ok(records
        .iter()
        .filter(|r| r.damaged.is_some())
        .map(|r| r.offset)
        .collect())
}

#[tokio::test]
async fn p6_an_unreadable_sector_costs_the_records_in_it_and_the_log_is_read_on() {
    let damaged = damaged_while(u64::MAX, false).await.unwrap();
    assert!((1..=3).contains(&damaged.len()), "{damaged:?}");
    assert_eq!(
        damaged_while(2, false).await.unwrap(),
        [] as [u64; 0],
        "a mood of the disk"
    );
    let away = damaged_while(u64::MAX, true).await;
    assert!(matches!(away, Err(LogError::Failed { .. })), "{away:?}");
}

/// A log as the first version wrote it stays readable, goes on with records of the second, and is then refused by the first.
#[tokio::test]
async fn records_of_the_first_version_are_read_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    std::fs::write(&meta, "{\"version\":1,\"generation\":1,\"partitions\":1}").unwrap();
    let (mut wal, _) = Wal::open(&dir.path().join("g1-p0"), Options::default()).unwrap();
    let old = [&1_763_700_000_000_000i64.to_le_bytes()[..], b"SLCB envelope"].concat();
    wal.append(&old).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let log = EmbeddedLog::open(dir.path(), &options(1)).unwrap();
    let [p] = log.partitions()[..] else {
        panic!("one partition")
    };
    log.append(p, &head(1), Bytes::from_static(b"new"), 5).await.unwrap();
    let records = all(&log, p).await;
    let shown: Vec<_> = records
        .iter()
        .map(|r| (r.ingested_at_us, &r.envelope[..], r.head.is_some()))
        .collect();
    assert_eq!(
        shown,
        [
            (1_763_700_000_000_000, &b"SLCB envelope"[..], false),
            (5, &b"new"[..], true)
        ]
    );
    assert!(std::fs::read_to_string(&meta).unwrap().contains("\"version\":2"));
    log.close().await;
    drop(log);
    std::fs::write(&meta, "{\"version\":3,\"generation\":1,\"partitions\":1}").unwrap();
    let newer = EmbeddedLog::open(dir.path(), &options(1));
    assert!(matches!(newer, Err(OpenError::Newer { version: 3, .. })));
}

#[tokio::test]
async fn another_number_of_partitions_or_generation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    EmbeddedLog::open(dir.path(), &options(2)).unwrap().close().await;
    let refused = EmbeddedLog::open(dir.path(), &options(3)).unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Mismatch {
                found_partitions: 2,
                partitions: 3,
                ..
            }
        ),
        "{refused}"
    );
    let other = EmbeddedOptions {
        generation: 2,
        ..options(2)
    };
    assert!(matches!(
        EmbeddedLog::open(dir.path(), &other),
        Err(OpenError::Mismatch { .. })
    ));
}

/// P6: whatever bit of it flips, the partitions that are there are those of the configuration, and the log opens.
#[tokio::test]
async fn p6_a_damaged_meta_file_keeps_no_log_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let meta = dir.path().join("meta.json");
    EmbeddedLog::open(dir.path(), &options(2)).unwrap().close().await;
    let whole = std::fs::read(&meta).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&meta, bytes).unwrap();
        match EmbeddedLog::open(dir.path(), &options(2)) {
            Ok(log) => log.close().await,
            // What a later program wrote cannot be told from this.
            Err(OpenError::Newer { .. }) => {}
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    std::fs::write(&meta, "{").unwrap();
    assert!(matches!(
        EmbeddedLog::open(dir.path(), &options(3)),
        Err(OpenError::MetaContent { .. })
    ));
}
