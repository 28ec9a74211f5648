//! Reads what can be read of a file of which some sectors cannot: those come back as zeros, which no checksum takes for
//! what stood there. So an unreadable sector is damage like any other: isolated, counted, and no end of the rest.

use std::io;

use rustix::io::Errno;

use crate::segment::Source;

/// What a disk loses at a time, and the page that its failure costs.
const SECTOR_BYTES: u64 = 4096;
/// Attempts at one sector before it is given up; each follows those of the disk itself.
const SECTOR_ATTEMPTS: usize = 3;

/// Whether this is what a disk, or a file system with checksums, says of a sector that cannot be read.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    const SAYS_SO: [Errno; 5] = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA, Errno::ILSEQ];
    Errno::from_io_error(error).is_some_and(|errno| SAYS_SO.contains(&errno))
}

/// A source whose unreadable sectors are zeros.
#[derive(Debug)]
pub(crate) struct Salvaged<'a, S: ?Sized>(pub(crate) &'a S);

impl<S: Source + ?Sized> Source for Salvaged<'_, S> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read_at(offset, buf) {
            Err(error) if is_unreadable(&error) => sectors(self.0, offset, buf),
            other => other,
        }
    }
}

fn sectors<S: Source + ?Sized>(source: &S, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let rest = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(usize::MAX);
        let end = buf.len().min(done.saturating_add(rest));
        match sector(source, at, &mut buf[done..end])? {
            Some(found) if found < end - done => return Ok(done + found),
            Some(_) => {}
            None => buf[done..end].fill(0),
        }
        done = end;
    }
    Ok(done)
}

/// `None` if it cannot be read.
pub(crate) fn sector<S: Source + ?Sized>(source: &S, at: u64, buf: &mut [u8]) -> io::Result<Option<usize>> {
    for _ in 0..SECTOR_ATTEMPTS {
        match source.read_at(at, buf) {
            Err(error) if is_unreadable(&error) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// Where each sector of a range begins and ends.
pub(crate) fn pieces(from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
    let next = move |at: u64| to.min(at - at % SECTOR_BYTES + SECTOR_BYTES);
    let first = (from < to).then(|| (from, next(from)));
    std::iter::successors(first, move |(_, end)| (*end < to).then(|| (*end, next(*end))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Bytes of which one sector fails so many times.
    struct Disk {
        bytes: Vec<u8>,
        bad: u64,
        failures: Cell<usize>,
        errno: Errno,
    }

    impl Source for Disk {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            let (from, to) = (self.bad * SECTOR_BYTES, (self.bad + 1) * SECTOR_BYTES);
            if offset < to && offset + buf.len() as u64 > from && self.failures.get() > 0 {
                self.failures.set(self.failures.get() - 1);
                return Err(self.errno.into());
            }
            self.bytes[..].read_at(offset, buf)
        }
    }

    fn disk(failures: usize, errno: Errno) -> Disk {
        Disk {
            bytes: vec![7; 5 * SECTOR_BYTES as usize],
            bad: 2,
            failures: Cell::new(failures),
            errno,
        }
    }

    #[test]
    fn p6_only_the_sector_that_cannot_be_read_is_zeros() {
        let disk = disk(usize::MAX, Errno::IO);
        let mut buf = vec![1u8; 4 * SECTOR_BYTES as usize];
        assert_eq!(Salvaged(&disk).read_at(100, &mut buf).unwrap(), buf.len());
        let bad = 2 * SECTOR_BYTES as usize - 100..3 * SECTOR_BYTES as usize - 100;
        for (at, byte) in buf.iter().enumerate() {
            assert_eq!(*byte, if bad.contains(&at) { 0 } else { 7 }, "byte {at}");
        }
        // The end of the file is still its end.
        let mut long = vec![1u8; 9 * SECTOR_BYTES as usize];
        assert_eq!(Salvaged(&disk).read_at(0, &mut long).unwrap(), disk.bytes.len());
    }

    #[test]
    fn p6_a_sector_that_fails_once_or_twice_costs_nothing() {
        let mut buf = vec![0u8; 5 * SECTOR_BYTES as usize];
        let disk = disk(SECTOR_ATTEMPTS, Errno::IO);
        assert_eq!(Salvaged(&disk).read_at(0, &mut buf).unwrap(), buf.len());
        assert_eq!(buf, disk.bytes);
    }

    #[test]
    fn an_error_that_is_not_about_a_sector_is_passed_on() {
        let disk = disk(usize::MAX, Errno::BADF);
        assert!(Salvaged(&disk).read_at(0, &mut [0; 20_000]).is_err());
    }

    #[test]
    fn pieces_are_sectors() {
        let list: Vec<_> = pieces(4000, 8200).collect();
        assert_eq!(list, [(4000, 4096), (4096, 8192), (8192, 8200)]);
        assert_eq!(pieces(5, 5).count(), 0);
    }
}
