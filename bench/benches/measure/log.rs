//! The write-ahead log against the bare file under it.

use std::fs::File;
use std::io::Write;

use sluice_bench::corpus::{Corpus, Signal};
use sluice_wal::{Options, Wal};

use crate::{Line, line, per_second, seconds};

pub(crate) fn measure() -> Vec<Line> {
    let folder = tempfile::tempdir().unwrap();
    let record = Corpus::new(1).request(Signal::Log, 1, 200, 0);
    let (mut wal, _) = Wal::open(&folder.path().join("wal"), Options::default()).unwrap();
    let ours = seconds(|| {
        wal.append(&record).unwrap();
        wal.sync().unwrap();
        // The disk holds only what a test of seconds writes.
        if wal.bytes_on_disk() > 512 << 20 {
            wal.trim_below(wal.next()).unwrap();
        }
    });
    let mut file = File::create(folder.path().join("bare")).unwrap();
    let bare = seconds(|| {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    });
    let group = 64;
    let grouped = seconds(|| {
        for _ in 0..group {
            wal.append(&record).unwrap();
        }
        wal.sync().unwrap();
        if wal.bytes_on_disk() > 512 << 20 {
            wal.trim_below(wal.next()).unwrap();
        }
    });
    let kib = record.len() / 1024;
    vec![
        line(
            &format!("log: append {kib} KiB and sync"),
            per_second(1.0, ours, "appends"),
            format!("{:.2} times the time of a bare write and fdatasync", ours / bare),
        ),
        line(
            "log: 64 appends to one sync",
            per_second(f64::from(group), grouped, "appends"),
            format!(
                "{:.1} times as many as with a sync each",
                ours * f64::from(group) / grouped
            ),
        ),
    ]
}
