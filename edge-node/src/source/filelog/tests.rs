//! Against a model: whatever happens to files, and whenever the process ends, each line is taken once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proptest::prelude::*;
use prost::Message;

use super::cut::{Cutter, Grouping};
use super::glob::Pattern;
use super::parse::Parser;
use super::tail::{Settings, Tailer};
use crate::config::StartAt;
use crate::source::event::EventLimits;

#[derive(Clone, Debug)]
enum Step {
    /// Whole lines, and perhaps the beginning of another one.
    Write {
        file: usize,
        lines: usize,
        part: bool,
    },
    Rename {
        file: usize,
    },
    /// Copied, then cut to nothing.
    CopyAndCut {
        file: usize,
    },
    /// Something is read and is durable.
    Read,
    /// Something is read, and the process ends before it is durable.
    ReadAndCrash,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..3usize;
    prop_oneof![
        4 => (file.clone(), 0..40usize, any::<bool>()).prop_map(|(file, lines, part)| Step::Write { file, lines, part }),
        2 => file.clone().prop_map(|file| Step::Rename { file }),
        2 => file.prop_map(|file| Step::CopyAndCut { file }),
        6 => Just(Step::Read),
        1 => Just(Step::ReadAndCrash),
        1 => Just(Step::Restart),
    ]
}

struct World {
    folder: PathBuf,
    tailer: Tailer,
    now: Duration,
    /// What is durable of it.
    places: BTreeMap<Vec<u8>, Vec<u8>>,
    found: Vec<String>,
    written: Vec<String>,
    /// Of each file, the line that is begun.
    begun: [String; 3],
    rotations: usize,
    max_open: usize,
}

fn settings(folder: &Path, max_open: usize) -> Settings {
    Settings {
        include: vec![Pattern::new(&format!("{}/*", folder.display()))],
        exclude: Vec::new(),
        start_at: StartAt::Beginning,
        cutter: Cutter {
            grouping: Grouping::Lines,
            max_bytes: 1000,
        },
        parser: Parser::None,
        // Lines that are begun are ended some time.
        last_line_after: Duration::from_secs(1 << 30),
        max_open,
        service: None,
        host: None,
        attributes: Vec::new(),
        event_limits: EventLimits {
            max_attributes: 10,
            max_depth: 10,
        },
        max_rows: 25,
        max_bytes: 1 << 20,
    }
}

impl World {
    fn new(folder: &Path, max_open: usize) -> Self {
        let tailer = Tailer::new(settings(folder, max_open), None, Duration::ZERO);
        Self {
            folder: folder.to_owned(),
            places: tailer.places().into_iter().collect(),
            tailer,
            now: Duration::ZERO,
            found: Vec::new(),
            written: Vec::new(),
            begun: Default::default(),
            rotations: 0,
            max_open,
        }
    }

    fn path(&self, file: usize) -> PathBuf {
        self.folder.join(format!("app{file}.log"))
    }

    fn rotated(&mut self, file: usize) -> PathBuf {
        self.rotations += 1;
        self.folder.join(format!("app{file}.log.{}", self.rotations))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write { file, lines, part } => {
                let mut text = String::new();
                for _ in 0..lines {
                    let line = match std::mem::take(&mut self.begun[file]) {
                        begun if begun.is_empty() => {
                            let line = format!("app{file} line {:06}", self.written.len());
                            text.push_str(&line);
                            line
                        }
                        begun => {
                            text.push_str(" ended");
                            begun + " ended"
                        }
                    };
                    text.push('\n');
                    self.written.push(line);
                }
                if part && self.begun[file].is_empty() {
                    self.begun[file] = format!("app{file} begun {:06}", self.written.len());
                    text.push_str(&self.begun[file]);
                }
                let mut log = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(self.path(file))
                    .unwrap();
                log.write_all(text.as_bytes()).unwrap();
            }
            // Writers are asked for a new file between two lines.
            Step::Rename { file } | Step::CopyAndCut { file }
                if !self.begun[file].is_empty() || !self.path(file).exists() => {}
            Step::Rename { file } => {
                let to = self.rotated(file);
                fs::rename(self.path(file), to).unwrap();
            }
            Step::CopyAndCut { file } => {
                let to = self.rotated(file);
                fs::copy(self.path(file), to).unwrap();
                fs::write(self.path(file), "").unwrap();
            }
            Step::Read => {
                self.read();
            }
            Step::ReadAndCrash => {
                self.now += Duration::from_secs(2);
                let _ = self.tailer.collect(self.now, 1);
                self.restart();
            }
            Step::Restart => self.restart(),
        }
    }

    /// Whether there was anything.
    fn read(&mut self) -> bool {
        self.now += Duration::from_secs(2);
        let collected = self.tailer.collect(self.now, 1);
        for key in self.tailer.forgotten() {
            self.places.remove(&key);
        }
        let Some(collected) = collected else { return false };
        assert!(collected.request.rows() <= 25);
        self.places.extend(collected.places);
        let request = ExportLogsServiceRequest::decode(collected.request.finish()).unwrap();
        for group in request.resource_logs.into_iter().flat_map(|group| group.scope_logs) {
            for record in group.log_records {
                match record.body.unwrap().value.unwrap() {
                    Value::StringValue(text) => self.found.push(text),
                    other => panic!("{other:?}"),
                }
            }
        }
        true
    }

    fn restart(&mut self) {
        let known = self.places.clone().into_iter().collect();
        self.tailer = Tailer::new(settings(&self.folder, self.max_open), Some(known), self.now);
    }

    fn check(mut self) {
        // Longer than a copy may take.
        for _ in 0..30 {
            while self.read() {}
        }
        for file in 0..3 {
            let own = |lines: &[String]| -> Vec<String> {
                lines
                    .iter()
                    .filter(|line| line.starts_with(&format!("app{file} ")))
                    .cloned()
                    .collect()
            };
            let (mut found, mut written) = (own(&self.found), own(&self.written));
            // A rotated file and the one that follows it are read side by side.
            found.sort();
            written.sort();
            assert_eq!(found, written);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn each_line_is_taken_once(steps in proptest::collection::vec(step(), 1..60), max_open in 1usize..6) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), max_open);
        for step in &steps {
            world.step(step);
        }
        world.check();
    }
}
