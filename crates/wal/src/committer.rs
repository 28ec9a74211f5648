//! Group commit: one thread owns the log, many tasks append and wait until their record is durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::{Mark, Reader, Wal, WalError};

/// Limits of the queue and of a group.
#[derive(Clone, Debug)]
pub struct CommitterOptions {
    /// Requests that may wait in the queue; more wait outside.
    pub queue: usize,
    /// Bytes that may wait in the queue.
    pub queue_bytes: usize,
    /// A group is flushed at this size.
    pub group_bytes: usize,
    /// A group is flushed this long after its first record, even while more keep coming.
    pub group_delay: Duration,
}

impl Default for CommitterOptions {
    fn default() -> Self {
        Self {
            queue: 1024,
            queue_bytes: 64 << 20,
            group_bytes: 1 << 20,
            group_delay: Duration::from_millis(5),
        }
    }
}

/// Gives every record a running total of what the records add, in the order in which they get their places in the log.
pub struct Counting {
    /// Where in each record its total stands, as 8 bytes; records are at least this long.
    pub at: usize,
    /// What the marker says of a total.
    pub mark: Box<dyn Fn(u64) -> Mark + Send>,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("at", &self.at).finish_non_exhaustive()
    }
}

/// A record of a log that is counted, and what it adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub record: Vec<u8>,
    pub adds: u64,
}

/// Handle to the thread that owns a log. The log is closed when the last handle is dropped or [`Committer::close`] is called.
#[derive(Clone, Debug)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    synced: watch::Receiver<u64>,
    reader: Reader,
}

type Reply<T> = oneshot::Sender<Result<T, WalError>>;

#[derive(Debug)]
enum Records {
    Plain(Vec<Bytes>),
    Counted(Vec<Counted>),
}

impl Records {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (plain, counted) = match self {
            Self::Plain(records) => (&records[..], &[][..]),
            Self::Counted(records) => (&[][..], &records[..]),
        };
        let counted = counted.iter().map(|counted| &counted.record[..]);
        plain.iter().map(|record| &record[..]).chain(counted)
    }
}

#[derive(Debug)]
enum Request {
    Append {
        records: Records,
        reply: Reply<u64>,
        _room: OwnedSemaphorePermit,
    },
    Trim {
        below: u64,
        reply: Reply<u64>,
    },
    Relieve {
        below: u64,
        reply: Reply<bool>,
    },
    Note {
        note: Vec<u8>,
        reply: Reply<()>,
    },
    Roll {
        reply: Reply<()>,
    },
    SkipTo {
        index: u64,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Committer {
    pub fn start(wal: Wal, options: CommitterOptions) -> Committer {
        Self::start_with(wal, options, None)
    }

    /// The same for records that carry totals, which begin at zero: see [`Committer::append_counted`].
    pub fn start_counting(wal: Wal, options: CommitterOptions, counting: Counting) -> Committer {
        let tally = Tally {
            counting,
            total: 0,
            synced: 0,
        };
        Self::start_with(wal, options, Some(tally))
    }

    fn start_with(wal: Wal, options: CommitterOptions, tally: Option<Tally>) -> Committer {
        let (sender, receiver) = mpsc::channel(options.queue.max(1));
        let reader = wal.reader();
        let (synced_sender, synced) = watch::channel(reader.synced());
        let room_bytes = options.queue_bytes.clamp(1, u32::MAX as usize);
        let worker = Worker {
            wal,
            requests: receiver,
            synced: synced_sender,
            options,
            tally,
        };
        // Without the thread every request finds the queue closed, which is the right answer.
        if let Err(error) = std::thread::Builder::new()
            .name("wal-commit".to_owned())
            .spawn(move || worker.run())
        {
            tracing::error!(%error, "cannot start the thread of a log");
        }
        Committer {
            requests: sender,
            room: Arc::new(Semaphore::new(room_bytes)),
            room_bytes,
            synced,
            reader,
        }
    }

    /// Adds a record and returns its index once it is durable. When this future is dropped the record may be in the log or
    /// not, as after any lost answer.
    pub async fn append(&self, record: Bytes) -> Result<u64, WalError> {
        self.append_all(vec![record]).await
    }

    /// Adds records side by side and returns the index of the first once all are durable. Whatever happens, also to the
    /// process, all of them are in the log or none is.
    pub async fn append_all(&self, records: Vec<Bytes>) -> Result<u64, WalError> {
        self.enqueue(Records::Plain(records)).await
    }

    /// The same for a log that counts: each record gets the total of what was added up to it. What is not written adds
    /// nothing, so totals never fall and the difference of two is what lies between them.
    pub async fn append_counted(&self, records: Vec<Counted>) -> Result<u64, WalError> {
        self.enqueue(Records::Counted(records)).await
    }

    async fn enqueue(&self, records: Records) -> Result<u64, WalError> {
        let bytes = records.iter().map(<[u8]>::len).fold(0, usize::saturating_add);
        let permits = bytes.min(self.room_bytes) as u32;
        let room = self
            .room
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| WalError::Closed)?;
        self.ask(|reply| Request::Append {
            records,
            reply,
            _room: room,
        })
        .await
    }

    /// Reads what is synced, on the caller's thread.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// See [`Wal::trim_below`].
    pub async fn trim_below(&self, index: u64) -> Result<u64, WalError> {
        self.ask(|reply| Request::Trim { below: index, reply }).await
    }

    /// See [`Wal::relieve`].
    pub async fn relieve(&self, below: u64) -> Result<bool, WalError> {
        self.ask(|reply| Request::Relieve { below, reply }).await
    }

    /// See [`Wal::set_note`]; takes effect between groups.
    pub async fn set_note(&self, note: Vec<u8>) -> Result<(), WalError> {
        self.ask(|reply| Request::Note { note, reply }).await
    }

    /// See [`Wal::roll`].
    pub async fn roll(&self) -> Result<(), WalError> {
        self.ask(|reply| Request::Roll { reply }).await
    }

    /// See [`Wal::skip_to`].
    pub async fn skip_to(&self, index: u64) -> Result<(), WalError> {
        self.ask(|reply| Request::SkipTo { index, reply }).await
    }

    /// The next index that is not synced, as it grows.
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.synced.clone()
    }

    pub fn bytes_on_disk(&self) -> u64 {
        self.reader.bytes_on_disk()
    }

    /// Finishes what waits and ends the thread; the directory's lock is free when it returns.
    pub async fn close(self) {
        let _ = self.ask(|reply| Request::Close { reply }).await;
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, WalError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| WalError::Closed)?;
        answer.await.map_err(|_| WalError::Closed)?
    }
}

struct Worker {
    wal: Wal,
    requests: mpsc::Receiver<Request>,
    synced: watch::Sender<u64>,
    options: CommitterOptions,
    tally: Option<Tally>,
}

/// The running total of a log that counts.
struct Tally {
    counting: Counting,
    /// With the open group, and without it.
    total: u64,
    synced: u64,
}

impl Tally {
    fn count(&mut self, counted: &mut Counted) {
        self.total = self.total.saturating_add(counted.adds);
        if let Some(place) = counted.record.get_mut(self.counting.at..self.counting.at + 8) {
            place.copy_from_slice(&self.total.to_le_bytes());
        }
    }
}

/// Who waits for the open group.
#[derive(Default)]
struct Group {
    waiters: Vec<(u64, Reply<u64>, OwnedSemaphorePermit)>,
    bytes: usize,
}

impl Worker {
    fn run(mut self) {
        while let Some(request) = self.requests.blocking_recv() {
            let mut next = Some(request);
            while let Some(request) = next.take() {
                match request {
                    Request::Append { .. } => next = self.commit_group(request),
                    Request::Trim { below, reply } => answer(reply, self.wal.trim_below(below)),
                    Request::Relieve { below, reply } => answer(reply, self.wal.relieve(below)),
                    Request::Note { note, reply } => {
                        self.wal.set_note(&note);
                        answer(reply, Ok(()));
                    }
                    Request::Roll { reply } => answer(reply, self.wal.roll()),
                    Request::SkipTo { index, reply } => {
                        let result = self.wal.skip_to(index);
                        self.publish();
                        answer(reply, result);
                    }
                    Request::Close { reply } => {
                        drop(self);
                        answer(reply, Ok(()));
                        return;
                    }
                }
            }
        }
    }

    /// Takes appends until the group is large enough, old enough, or nobody else waits; then syncs once for all of them.
    /// Returns a request of another kind that ended the group.
    fn commit_group(&mut self, first: Request) -> Option<Request> {
        let begun = Instant::now();
        let mut group = Group::default();
        let mut request = first;
        let left_over = loop {
            match request {
                Request::Append { records, reply, _room } => match self.append(&mut group, records) {
                    Ok(first) => group.waiters.push((first, reply, _room)),
                    Err(error) => answer(reply, Err(error)),
                },
                other => break Some(other),
            }
            if group.bytes >= self.options.group_bytes || begun.elapsed() >= self.options.group_delay {
                break None;
            }
            match self.requests.try_recv() {
                Ok(next) => request = next,
                Err(_) => break None,
            }
        };
        let result = self.wal.sync();
        if let Some(tally) = &mut self.tally {
            match &result {
                Ok(()) => tally.synced = tally.total,
                Err(_) => tally.total = tally.synced,
            }
        }
        self.publish();
        group.finish(result);
        left_over
    }

    fn append(&mut self, group: &mut Group, mut records: Records) -> Result<u64, WalError> {
        // Before any of them is in the group, which is left as it was.
        records.iter().try_for_each(|record| self.wal.check_size(record))?;
        if let (Records::Counted(list), Some(tally)) = (&mut records, &mut self.tally) {
            list.iter_mut().for_each(|counted| tally.count(counted));
        }
        let first = self.wal.next();
        for record in records.iter() {
            if let Err(error) = self.wal.append(record) {
                // All that was not synced is taken back, what is here of this request with it.
                if let Some(tally) = &mut self.tally {
                    tally.total = tally.synced;
                }
                std::mem::take(group).finish(Err(error.clone()));
                return Err(error);
            }
            group.bytes += record.len();
        }
        if let Some(tally) = &self.tally {
            self.wal.set_mark((tally.counting.mark)(tally.total));
        }
        Ok(first)
    }

    fn publish(&self) {
        let synced = self.wal.reader().synced();
        self.synced
            .send_if_modified(|seen| std::mem::replace(seen, synced) != synced);
    }
}

impl Group {
    fn finish(self, result: Result<(), WalError>) {
        for (index, reply, _) in self.waiters {
            answer(reply, result.clone().map(|()| index));
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, WalError>) {
    // Nobody waits any more: the caller was dropped.
    let _ = reply.send(result);
}
