//! What is done to the processes, and when: a pure function of scenario, seed and length.

use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::action::{Action, Files, Flip, Region, Step, Who};
use crate::relay::Weather;

const DAY_S: i64 = 86_400;

/// Every named point between two durable steps, the processes that pass it, and up to which passage a process is let live.
pub(super) const CRASH_POINTS: [(&str, &[Who], u32); 19] = [
    ("cursor.after_rename", &[Who::Edge, Who::Cloud], 3),
    ("cursor.before_rename", &[Who::Edge, Who::Cloud], 3),
    ("edge.acked", &[Who::Edge], 4),
    ("edge.after_decode", &[Who::Edge], 100),
    ("edge.cursor.saved", &[Who::Edge], 3),
    ("edge.journal.synced", &[Who::Edge], 100),
    ("edge.sealed", &[Who::Edge], 4),
    ("edge.spool.synced", &[Who::Edge], 4),
    ("gw.after_append", &[Who::Cloud], 4),
    ("gw.before_append", &[Who::Cloud], 4),
    ("wal.after_sync", &[Who::Edge, Who::Cloud], 40),
    ("wal.after_write", &[Who::Edge, Who::Cloud], 40),
    ("wal.before_dir_sync", &[Who::Edge, Who::Cloud], 1),
    ("wal.before_unlink", &[Who::Edge, Who::Cloud], 1),
    ("wal.new_segment_header", &[Who::Edge, Who::Cloud], 1),
    ("writer.after_snapshot", &[Who::Cloud], 2),
    ("writer.cold.after_commit", &[Who::Cloud], 2),
    ("writer.cold.before_commit", &[Who::Cloud], 2),
    ("writer.seam.advanced", &[Who::Cloud], 1),
];

/// Points that only a process with more around it passes: what an end-to-end test of its own hits.
#[cfg(test)]
const HIT_ELSEWHERE: [&str; 11] = [
    "link.certificate.after_rename",
    "link.certificate.before_rename",
    "link.certificate.half_written",
    // Of commands.
    "replay.cold.before_swap",
    "replay.hot.before_audit",
    "replay.hot.before_swap",
    // With a hot store on a server.
    "writer.hot.after_claim",
    "writer.hot.after_insert",
    "writer.hot.after_position",
    "writer.hot.before_insert",
    "writer.hot.before_position",
];

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    CrashPoints,
    Kills,
    Pause,
    Clock,
    Full,
    Flips,
    Relay,
    Mixed,
}

/// Not the name of a scenario.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no scenario; there are crash-points, kills, pause, clock, full, flips, relay and mixed")]
pub struct UnknownScenario(String);

impl FromStr for Scenario {
    type Err = UnknownScenario;

    fn from_str(text: &str) -> Result<Scenario, UnknownScenario> {
        let found = Scenario::ALL.into_iter().find(|s| s.name() == text);
        found.ok_or_else(|| UnknownScenario(text.to_owned()))
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Short,
    Long,
}

/// What the world of a scenario is like before anything is done to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    pub events_per_second: f64,
    /// Share of traces that the plugin `sample` keeps, if it is in the chain.
    pub sample: Option<f64>,
    pub spool_mib: u64,
    pub commit_every: Duration,
    pub weather: Weather,
    pub with_clock: bool,
    /// Processes whose data lie on a disk of so many MiB.
    pub small_disks: &'static [(Who, u64)],
}

impl Scenario {
    pub const ALL: [Scenario; 8] = [
        Scenario::CrashPoints,
        Scenario::Kills,
        Scenario::Pause,
        Scenario::Clock,
        Scenario::Full,
        Scenario::Flips,
        Scenario::Relay,
        Scenario::Mixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Scenario::CrashPoints => "crash-points",
            Scenario::Kills => "kills",
            Scenario::Pause => "pause",
            Scenario::Clock => "clock",
            Scenario::Full => "full",
            Scenario::Flips => "flips",
            Scenario::Relay => "relay",
            Scenario::Mixed => "mixed",
        }
    }

    /// Actions where nobody says how many.
    pub fn rounds(self, length: Length) -> usize {
        match (self, length) {
            (Scenario::CrashPoints, _) => 1,
            (Scenario::Kills, Length::Short) => 8,
            (Scenario::Kills, Length::Long) => 200,
            (Scenario::Pause, Length::Short) => 2,
            (Scenario::Pause, Length::Long) => 4,
            (Scenario::Clock, Length::Short) => 6,
            (Scenario::Clock, Length::Long) => 24,
            (Scenario::Full, Length::Short) => 2,
            (Scenario::Full, Length::Long) => 16,
            (Scenario::Flips, Length::Short) => 6,
            (Scenario::Flips, Length::Long) => 50,
            (Scenario::Relay, Length::Short) => 4,
            (Scenario::Relay, Length::Long) => 12,
            (Scenario::Mixed, Length::Short) => 10,
            (Scenario::Mixed, Length::Long) => 120,
        }
    }

    pub fn setup(self, length: Length, seed: u64) -> Setup {
        let usual = Setup {
            events_per_second: 2_000.0,
            sample: None,
            spool_mib: 32,
            commit_every: Duration::from_secs(1),
            weather: Weather::CLEAR,
            with_clock: false,
            small_disks: &[],
        };
        let bad = Weather {
            lost: 5,
            repeated: 3,
            late: 5,
            both_ways: true,
            seed,
            ..Weather::THIN
        };
        let usual = match (self, length) {
            // A run of minutes must not have more events than one answer of SQL may hold.
            (Scenario::Kills | Scenario::Mixed | Scenario::Flips, Length::Long) => Setup {
                events_per_second: 1_000.0,
                ..usual
            },
            _ => usual,
        };
        match self {
            Scenario::CrashPoints | Scenario::Pause => usual,
            Scenario::Kills => Setup {
                sample: Some(0.5),
                ..usual
            },
            Scenario::Clock => Setup {
                with_clock: true,
                ..usual
            },
            Scenario::Full => Setup {
                small_disks: &[(Who::Edge, 40), (Who::Cloud, 64)],
                ..usual
            },
            // What the log alone holds is what can be lost there.
            Scenario::Flips => Setup {
                commit_every: Duration::from_secs(30),
                ..usual
            },
            Scenario::Relay => Setup {
                weather: bad,
                spool_mib: 512,
                events_per_second: match length {
                    Length::Short => 1_000.0,
                    Length::Long => 250.0,
                },
                ..usual
            },
            Scenario::Mixed => Setup {
                weather: bad,
                with_clock: true,
                sample: Some(0.5),
                spool_mib: 128,
                events_per_second: usual.events_per_second / 2.0,
                ..usual
            },
        }
    }

    /// The schedule. `rounds` overrides how many actions there are.
    pub fn plan(self, seed: u64, length: Length, rounds: Option<usize>) -> Vec<Step> {
        let rounds = rounds.unwrap_or_else(|| self.rounds(length));
        let mut random = StdRng::seed_from_u64(seed ^ ((self as u64) << 56));
        let random = &mut random;
        let actions: Vec<Action> = match self {
            Scenario::CrashPoints => (0..rounds).flat_map(|_| crash_points(random)).collect(),
            // One that is sure to have its batch come twice: the log has it, and the edge is not told.
            Scenario::Kills => std::iter::once(Action::CrashAt {
                who: Who::Cloud,
                point: "gw.after_append",
                passage: 1,
            })
            .chain((0..rounds).map(|_| kill(random)))
            .collect(),
            Scenario::Pause => {
                let ms = match length {
                    Length::Short => 3_000,
                    Length::Long => 60_000,
                };
                turns(random, rounds).map(|who| Action::Pause { who, ms }).collect()
            }
            Scenario::Clock => clocks(random, rounds),
            Scenario::Full => turns(random, rounds).map(|who| fill(random, who)).collect(),
            Scenario::Flips => (0..rounds).map(|round| Action::Flip(flip(random, round))).collect(),
            Scenario::Relay => (0..rounds).map(|round| relay(random, round, length)).collect(),
            Scenario::Mixed => (0..rounds).map(|_| mixed(random)).collect(),
        };
        let step = |action| Step {
            after_events: random.random_range(100..1_200),
            then_ms: random.random_range(0..60),
            action,
        };
        actions.into_iter().map(step).collect()
    }
}

fn kill(random: &mut StdRng) -> Action {
    match random.random_range(0..8) {
        0 => Action::KillAll,
        _ => Action::Kill(anyone(random)),
    }
}

fn anyone(random: &mut StdRng) -> Who {
    Who::PAIR[usize::from(random.random_bool(0.4))]
}

/// Each in turn, whoever is first.
fn turns(random: &mut StdRng, rounds: usize) -> impl Iterator<Item = Who> + use<> {
    let first = usize::from(random.random_bool(0.5));
    (0..rounds).map(move |round| Who::PAIR[(first + round) % 2])
}

fn crash_points(random: &mut StdRng) -> Vec<Action> {
    let mut actions = Vec::new();
    for (point, passers, last) in CRASH_POINTS {
        for who in passers {
            actions.push(Action::CrashAt {
                who: *who,
                point,
                passage: random.random_range(1..=last),
            });
        }
    }
    actions
}

/// A day there, back, a day behind, back: at either side, and a start while the clock is wrong.
fn clocks(random: &mut StdRng, rounds: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    for round in 0..rounds {
        let who = Who::PAIR[round % 2];
        let seconds = match round % 6 {
            0 | 1 => DAY_S,
            2 | 3 => 1 - DAY_S,
            _ => 0,
        };
        actions.push(Action::Clock { who, seconds });
        if round % 6 < 4 && random.random_bool(0.5) {
            actions.push(Action::Kill(anyone(random)));
        }
    }
    actions
}

fn fill(random: &mut StdRng, who: Who) -> Action {
    Action::Fill {
        who,
        hold_ms: random.random_range(500..3_000),
        kill: random.random_bool(0.5),
    }
}

fn flip(random: &mut StdRng, round: usize) -> Flip {
    const SEGMENTS: [Files; 3] = [Files::Spool, Files::Journal, Files::Log];
    let file = match round % 8 {
        6 => Files::EdgeState,
        7 => Files::CloudState,
        n => SEGMENTS[n % 3],
    };
    let regions: &[Region] = match file {
        Files::EdgeState | Files::CloudState => &[Region::Any, Region::Any, Region::Gone],
        // The first of each are sure to meet events.
        _ if round < SEGMENTS.len() => &[Region::Payload],
        _ => &[
            Region::Header,
            Region::Note,
            Region::FrameHead,
            Region::RecordHead,
            Region::Payload,
            Region::Marker,
            Region::Gone,
        ],
    };
    Flip {
        file,
        region: *regions.choose(random).unwrap_or(&Region::Payload),
        place: random.random(),
    }
}

fn relay(random: &mut StdRng, round: usize, length: Length) -> Action {
    let ms = match length {
        Length::Short => random.random_range(3_000..6_000),
        // One of ten minutes; with the others a run takes half an hour.
        Length::Long if round == 1 => 600_000,
        Length::Long => random.random_range(5_000..60_000),
    };
    match round % 4 {
        0 => Action::Rebind,
        2 => Action::Narrow,
        _ => Action::Outage { ms, kill: None },
    }
}

fn mixed(random: &mut StdRng) -> Action {
    match random.random_range(0..100) {
        0..35 => kill(random),
        35..50 => Action::Pause {
            who: anyone(random),
            ms: random.random_range(200..4_000),
        },
        50..65 => Action::Clock {
            who: anyone(random),
            seconds: *[DAY_S, 1 - DAY_S, 0, 3_600].choose(random).unwrap_or(&0),
        },
        65..80 => Action::Outage {
            ms: random.random_range(500..5_000),
            kill: random.random_bool(0.5).then(|| anyone(random)),
        },
        80..90 => Action::Rebind,
        _ => {
            let (point, passers, last) = *CRASH_POINTS.choose(random).unwrap_or(&CRASH_POINTS[0]);
            Action::CrashAt {
                who: *passers.choose(random).unwrap_or(&passers[0]),
                point,
                passage: random.random_range(1..=last),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_one_another() {
        for scenario in Scenario::ALL {
            for length in [Length::Short, Length::Long] {
                let plan = |seed| scenario.plan(seed, length, None);
                assert_eq!(plan(7), plan(7), "{scenario:?}");
                assert_ne!(plan(7), plan(8), "{scenario:?}");
                assert!(plan(7).len() >= scenario.rounds(length), "{scenario:?}");
            }
            assert_eq!(scenario.name().parse::<Scenario>().unwrap(), scenario);
        }
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    /// A point that is added to the code and not to the plan would never be hit.
    #[test]
    fn every_crash_point_of_the_code_is_in_the_plan() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for folder in [
            "crates/wal/src",
            "crates/store/src",
            "edge-node/src",
            "cloud-ingest/src",
            "query/src",
            "cli/src",
        ] {
            sources(&root.join(folder), &mut files);
        }
        let call = concat!("crash_", "point(\"");
        let mut in_code = BTreeSet::new();
        for file in files {
            let text = std::fs::read_to_string(file).unwrap();
            let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            in_code.extend(names.map(str::to_owned));
        }
        let planned: BTreeSet<String> = CRASH_POINTS.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        let elsewhere: BTreeSet<String> = HIT_ELSEWHERE.map(str::to_owned).into();
        assert_eq!(in_code, &planned | &elsewhere);
        let mut tests = Vec::new();
        sources(&root.join("tests/tests/e2e"), &mut tests);
        let tests: String = tests
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect();
        for point in HIT_ELSEWHERE {
            assert!(tests.contains(&format!("\"{point}\"")), "no test hits {point}");
        }
        let hit: BTreeSet<(Who, String)> = Scenario::CrashPoints
            .plan(1, Length::Short, None)
            .into_iter()
            .filter_map(|step| match step.action {
                Action::CrashAt { who, point, .. } => Some((who, point.to_owned())),
                _ => None,
            })
            .collect();
        let all = CRASH_POINTS.iter().map(|(_, passers, _)| passers.len()).sum::<usize>();
        assert_eq!(hit.len(), all);
    }

    #[test]
    fn a_long_run_damages_nearly_every_region_of_every_file() {
        let mut met = BTreeSet::new();
        for step in Scenario::Flips.plan(1, Length::Long, None) {
            if let Action::Flip(flip) = step.action {
                met.insert(format!("{:?} {:?}", flip.file, flip.region));
            }
        }
        // Seven regions of three logs, two kinds of damage to two sets of small files.
        assert!(met.len() >= 20, "{met:?}");
    }
}
