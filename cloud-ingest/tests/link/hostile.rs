//! P15: a hundred hostile batches at the door of the gateway, from a peer whose certificate is good. Each is refused with its reason,
//! none reaches the log, memory stays bounded, and the next good batch is taken.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use bytes::Bytes;
use sluice_wire::envelope::{self, Compression};
use sluice_wire::session::frame::{Frame, Verdict};

use crate::peer::{batch, header, preamble, rows};
use crate::{World, site_1};

/// Above what the process had before.
const MEMORY_BOUND_KIB: u64 = 256 << 10;
const SEQ: u64 = 7;

/// What a peer may send as one batch, and what it is.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let good = batch(site_1(), SEQ).to_vec();
    let mut all = Vec::new();
    for cut in (0..good.len()).step_by(good.len() / 40) {
        all.push((format!("cut at {cut}"), good[..cut].to_vec()));
    }
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        all.push((format!("flipped at {at}"), flipped));
    }
    for length in [1usize, 7, 100, 4_096, 1 << 20] {
        for byte in [0u8, 0xff, 0x53] {
            all.push((format!("{length} times {byte:#x}"), vec![byte; length]));
        }
    }
    all.push(("twice".to_owned(), [&good[..], &good[..]].concat()));
    let sealed = |rows: &RecordBatch| {
        envelope::seal(&header(site_1(), SEQ, 3), Some(rows), Compression::default())
            .unwrap()
            .to_vec()
    };
    all.push(("no time".to_owned(), sealed(&rows(3, "no such column"))));
    all.push(("too many columns".to_owned(), sealed(&wide(6_000))));
    all.push(("a bomb".to_owned(), sealed(&bomb())));
    all
}

/// A few rows of very many columns.
fn wide(columns: usize) -> RecordBatch {
    let few = rows(3, "time");
    let mut all: Vec<(String, ArrayRef, bool)> = vec![
        ("signal".to_owned(), few.column(0).clone(), false),
        ("time".to_owned(), few.column(1).clone(), false),
    ];
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"; 3]));
    all.extend((0..columns).map(|n| (format!("attrs:s:k{n}"), text.clone(), true)));
    RecordBatch::try_from_iter_with_nullable(all).unwrap()
}

/// Some kilobytes that would be hundreds of megabytes.
fn bomb() -> RecordBatch {
    let few = rows(3, "time");
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(60 << 20); 3]));
    let all = [
        ("signal", few.column(0).clone(), false),
        ("time", few.column(1).clone(), false),
        ("body", text, true),
    ];
    RecordBatch::try_from_iter_with_nullable(all).unwrap()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn p15_a_hundred_hostile_batches_are_refused_one_by_one() {
    let world = World::new();
    let hostile = hostile();
    assert!(hostile.len() >= 100, "only {}", hostile.len());
    // Making the bomb took more memory than it may take.
    let before = peak_kib();
    let (mut peer, mut session) = world.good_session().await;
    for (what, bytes) in &hostile {
        session.send_raw(&preamble(SEQ, bytes.len()), bytes).await;
        match session.frame().await {
            Ok(Frame::Nack(nack)) => {
                // What only a limit refuses, which can be raised, is held.
                let refused = matches!(nack.verdict, Verdict::Permanent | Verdict::Hold { .. });
                assert!(refused, "{what}: {:?} {}", nack.verdict, nack.reason);
                assert!(nack.reason.len() > 10, "{what}: {:?}", nack.reason);
            }
            // What breaks the protocol ends the session; it says why, or its closing does.
            Ok(Frame::Refused(refused)) => {
                assert!(refused.reason.len() > 5, "{what}: {:?}", refused.reason);
                (peer, session) = world.good_session().await;
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(world.log.records().is_empty());
    let good: Bytes = batch(site_1(), SEQ);
    session.send(&good).await;
    assert!(matches!(session.frame().await.unwrap(), Frame::Ack(ack) if ack.seq == SEQ));
    assert_eq!(world.log.records().len(), 1);
    assert!(peak_kib() < before + MEMORY_BOUND_KIB, "{before} to {}", peak_kib());
    drop(peer);
}
