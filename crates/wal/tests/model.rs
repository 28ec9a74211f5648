//! P1, P6: the log against a model, on a disk that forgets what was not synced, with a crash at any step.
//!
//! `SLUICE_MODEL_HISTORIES=10000` asks for the long form. `cargo xtask mutants` shows that a missing sync is found.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod sim;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sim::SimDisk;
use sluice_wal::{Entry, Options, Recovery, Wal, WalError};

#[derive(Clone, Debug)]
enum Op {
    Append { size: usize },
    Sync,
    Roll,
    Trim { percent: u64 },
    Relieve,
    DieAfter { steps: u64, power: bool },
    Die { power: bool },
    FailSync,
    Fill { room: u64 },
    Free,
    Skip { by: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop_oneof![0usize..40, 100usize..400].prop_map(|size| Op::Append { size }),
        6 => Just(Op::Sync),
        1 => Just(Op::Roll),
        2 => (0u64..=100).prop_map(|percent| Op::Trim { percent }),
        1 => Just(Op::Relieve),
        3 => (0u64..12, any::<bool>()).prop_map(|(steps, power)| Op::DieAfter { steps, power }),
        2 => any::<bool>().prop_map(|power| Op::Die { power }),
        1 => Just(Op::FailSync),
        1 => (0u64..600).prop_map(|room| Op::Fill { room }),
        1 => Just(Op::Free),
        1 => (1u64..4).prop_map(|by| Op::Skip { by }),
    ]
}

fn options() -> Options {
    Options {
        segment_bytes: 700,
        max_record_bytes: 1 << 20,
        ballast_bytes: 64,
    }
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    /// What was ever appended at an index; a crash may free an index that was not synced.
    appended: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Indices below this were shown as durable.
    durable: u64,
    /// The content that was shown.
    shown: BTreeMap<u64, Entry>,
    trimmed: u64,
    /// Ends of ranges skipped on purpose, by start.
    skipped: BTreeMap<u64, u64>,
    serial: u64,
}

impl Model {
    fn record(&mut self, size: usize) -> Vec<u8> {
        self.serial += 1;
        let mut record = vec![0x5a; size];
        record.extend_from_slice(&self.serial.to_le_bytes());
        record
    }

    fn is_skipped(&self, index: u64) -> bool {
        self.skipped
            .range(..=index)
            .next_back()
            .is_some_and(|(_, end)| index < *end)
    }

    /// Everything durable is there and equal, nothing is invented; from now on what is seen must stay.
    fn check(&mut self, wal: &Wal, recovery: Option<&Recovery>) {
        let reader = wal.reader();
        assert!(
            reader.synced() >= self.durable,
            "lost the end: {} < {}",
            reader.synced(),
            self.durable
        );
        assert!(
            reader.first() <= self.trimmed,
            "lost the beginning: {} > {}",
            reader.first(),
            self.trimmed
        );
        let mut expected = reader.first();
        let mut entries = BTreeMap::new();
        while expected < reader.synced() {
            let part = reader.read_range(expected, 7, 500).unwrap();
            assert!(!part.is_empty());
            for (index, entry) in part {
                assert_eq!(index, expected, "indices have no gap");
                match &entry {
                    Entry::Record(bytes) => {
                        assert!(
                            self.appended[&index].iter().any(|a| a == bytes),
                            "invented record at {index}"
                        );
                    }
                    Entry::Damaged { what, .. } => {
                        let known = self
                            .shown
                            .get(&index)
                            .is_some_and(|e| matches!(e, Entry::Damaged { .. }));
                        // On a full disk the room of records that nobody needs is given back.
                        let is_let_go = index < self.trimmed;
                        assert!(
                            index >= self.durable || known || self.is_skipped(index) || is_let_go,
                            "lost {index}: {what}"
                        );
                    }
                }
                // That can be undone by a power cut.
                let is_damage = |entry: Option<&Entry>| matches!(entry, Some(Entry::Damaged { .. }));
                let is_hollow = index < self.trimmed && (is_damage(Some(&entry)) || is_damage(self.shown.get(&index)));
                if index < self.durable && !self.is_skipped(index) && !is_hollow {
                    assert_eq!(Some(&entry), self.shown.get(&index), "changed record at {index}");
                }
                entries.insert(index, entry);
                expected = index + 1;
            }
        }
        assert!(reader.read(expected).unwrap().is_none());
        // A marker says what was set with the last record before it, unless that was skipped or of another life.
        for (next, mark) in reader.marks(reader.first()).unwrap() {
            let said = u128::from_le_bytes(mark);
            let is_told = next.checked_sub(1).is_none_or(|last| self.is_skipped(last)) || said == 0;
            assert!(said == u128::from(next) || is_told, "mark {said} at {next}");
        }
        if let Some(recovery) = recovery {
            let noted = recovery
                .note
                .get(..8)
                .map_or(0, |n| u64::from_le_bytes(n.try_into().unwrap()));
            assert!(
                noted >= recovery.first,
                "note {noted} does not cover what was deleted below {}",
                recovery.first
            );
            for gap in &recovery.gaps {
                assert!(gap.clone().all(|i| self.is_skipped(i)), "gap {gap:?} that nobody made");
            }
            for (index, what) in &recovery.damaged {
                assert!(
                    matches!(entries.get(index), Some(Entry::Damaged { .. })),
                    "{index} is not damaged, yet reported: {what}"
                );
            }
        }
        self.durable = reader.synced();
        self.shown = entries;
    }

    /// After a sync: what it returned for is durable, as it was appended last.
    fn synced(&mut self, wal: &Wal) {
        let next = wal.next();
        for index in self.durable..next {
            if let Some(last) = self.appended.get(&index).and_then(|a| a.last())
                && !self.is_skipped(index)
            {
                self.shown.insert(index, Entry::Record(last.clone().into()));
            }
        }
        self.durable = self.durable.max(next);
    }
}

struct Run {
    disk: SimDisk,
    wal: Option<Wal>,
    model: Model,
    /// How the process will die once the disk stops answering.
    power: bool,
    /// Whether the log carries marks.
    marks: bool,
    seen: Seen,
}

impl Run {
    fn reopen(&mut self) {
        self.wal = None;
        self.disk.set_capacity(None);
        let open = if self.marks { Wal::open_marked_on } else { Wal::open_on };
        let (mut wal, recovery) = open(self.disk.storage(), options()).unwrap();
        self.model.check(&wal, Some(&recovery));
        // Records newer than the newest header say more than its note.
        wal.set_note(&wal.next().to_le_bytes());
        self.wal = Some(wal);
    }

    fn die(&mut self, power: bool) {
        self.wal = None;
        if power {
            self.seen.power_cuts += 1;
            self.disk.power_cut()
        } else {
            self.seen.kills += 1;
            self.disk.kill()
        }
        self.reopen();
    }

    /// Sorts an error: a full disk leaves a good log, anything else ends this life.
    fn failed(&mut self, error: &WalError) {
        if matches!(error, WalError::Full) {
            self.seen.full += 1;
            let wal = self.wal.as_ref().unwrap();
            assert_eq!(
                wal.next(),
                wal.reader().synced(),
                "a full disk takes the whole group back"
            );
            return;
        }
        let text = format!("{error:?}");
        self.seen.died_within += u64::from(text.contains("the process is dead"));
        self.seen.failed_syncs += u64::from(text.contains("sync failed"));
        let wal = self.wal.as_mut().unwrap();
        // A file that cannot be deleted harms nobody; after anything else no one knows what is on disk.
        if !matches!(
            error,
            WalError::Io {
                action: "delete a segment",
                ..
            }
        ) {
            assert!(
                matches!(wal.append(b"x"), Err(WalError::Poisoned)),
                "poison is for ever, after {error:?}"
            );
            assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
        }
        let power = self.power;
        self.die(power);
    }

    fn apply(&mut self, op: &Op) {
        let wal = self.wal.as_mut().unwrap();
        let result = match op {
            Op::Append { size } => {
                let record = self.model.record(*size);
                wal.set_note(&(wal.next() + 1).to_le_bytes());
                wal.append(&record).map(|index| {
                    wal.set_mark(u128::from(index + 1).to_le_bytes());
                    self.model.appended.entry(index).or_default().push(record);
                })
            }
            Op::Sync => wal.sync(),
            Op::Roll => wal.roll(),
            Op::Trim { percent } => {
                let below = wal.reader().synced() * percent / 100;
                self.model.trimmed = self.model.trimmed.max(below);
                wal.trim_below(below).map(drop)
            }
            Op::Relieve => {
                // Between groups, as whoever deletes does it; the note says so before anything is deleted.
                wal.sync().and_then(|()| {
                    self.model.synced(wal);
                    self.model.trimmed = wal.next();
                    wal.set_note(&wal.next().to_le_bytes());
                    wal.relieve(wal.next()).map(drop)
                })
            }
            Op::DieAfter { steps, power } => {
                self.power = *power;
                self.disk.die_after(*steps);
                Ok(())
            }
            Op::Die { power } => return self.die(*power),
            Op::FailSync => {
                self.disk.fail_next_sync();
                Ok(())
            }
            Op::Fill { room } => {
                self.disk.set_capacity(Some(wal.bytes_on_disk() + room));
                Ok(())
            }
            Op::Free => {
                self.disk.set_capacity(None);
                Ok(())
            }
            Op::Skip { by } => wal.sync().and_then(|()| {
                self.model.synced(wal);
                let from = wal.next();
                self.model.skipped.insert(from, from + by);
                wal.set_note(&(from + by).to_le_bytes());
                // If it fails, whether the new segment is there is open; the indices stay excused.
                wal.skip_to(from + by)
            }),
        };
        match result {
            Ok(()) if matches!(op, Op::Sync | Op::Roll | Op::Relieve | Op::Skip { .. }) => {
                let wal = self.wal.take().unwrap();
                self.model.synced(&wal);
                self.model.check(&wal, None);
                self.wal = Some(wal);
            }
            Ok(()) => {}
            Err(error) => self.failed(&error),
        }
    }
}

/// What happened in all histories. A run in which something never happened would show nothing about it.
#[derive(Debug, Default)]
struct Seen {
    histories: u64,
    steps: u64,
    synced: u64,
    kills: u64,
    power_cuts: u64,
    /// The process died in the middle of a step.
    died_within: u64,
    failed_syncs: u64,
    full: u64,
    trimmed: u64,
    hollowed: u64,
    torn: u64,
    never_synced: u64,
}

impl Seen {
    fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("histories", self.histories),
            ("steps", self.steps),
            ("records synced", self.synced),
            ("kills", self.kills),
            ("power cuts", self.power_cuts),
            ("deaths within a step", self.died_within),
            ("failed syncs", self.failed_syncs),
            ("full disks", self.full),
            ("segments deleted", self.trimmed),
            ("segments hollowed", self.hollowed),
            ("un-synced changes torn", self.torn),
            ("un-synced changes lost", self.never_synced),
        ]
    }
}

fn histories() -> u32 {
    let asked = std::env::var("SLUICE_MODEL_HISTORIES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(2000)
}

#[test]
fn p1_p6_what_a_sync_returned_for_survives_and_nothing_is_invented() {
    let seen = RefCell::new(Seen::default());
    let config = ProptestConfig {
        cases: histories(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let histories = (any::<u64>(), any::<bool>(), proptest::collection::vec(op(), 1..60));
    let result = TestRunner::new(config).run(&histories, |(seed, marks, ops)| {
        let mut run = Run {
            disk: SimDisk::new(seed),
            wal: None,
            model: Model::default(),
            power: true,
            marks,
            seen: std::mem::take(&mut seen.borrow_mut()),
        };
        run.reopen();
        for op in &ops {
            run.apply(op);
        }
        run.die(true);
        run.seen.histories += 1;
        run.seen.steps += ops.len() as u64;
        run.seen.synced += run.model.durable;
        let faults = run.disk.faults();
        run.seen.torn += faults.torn;
        run.seen.never_synced += faults.lost;
        run.seen.hollowed += faults.punched;
        run.seen.trimmed += faults.removed;
        seen.replace(run.seen);
        Ok(())
    });
    let counts = seen.into_inner().counts();
    let lines: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("{}", lines.join(", "));
    if let Err(error) = result {
        panic!("{error}");
    }
    for (what, count) in counts {
        assert!(count > 0, "the run shows nothing: no {what}");
    }
}
