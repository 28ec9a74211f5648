//! What is done to a fleet, and when: a pure function of seed, number of events and rounds.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::super::action::{Action, Step, Who};
use crate::engines::Engine;
use crate::fleet::Part;

/// The processes of the fleet that is put through it.
pub(super) const PARTS: [Part; 8] = [
    Part::Edge(1),
    Part::Edge(2),
    Part::Gateway(1),
    Part::Gateway(2),
    Part::Hot(1),
    Part::Hot(2),
    Part::Cold,
    Part::Query,
];
/// Steps after which hot, cold and gateway are killed on purpose, between what they do and what they say of it.
const POINTS: [(Part, &str, u32); 5] = [
    (Part::Gateway(1), "gw.after_append", 3),
    (Part::Hot(1), "writer.hot.after_insert", 1),
    (Part::Hot(2), "writer.hot.before_position", 1),
    (Part::Cold, "writer.cold.before_commit", 1),
    (Part::Cold, "writer.cold.after_commit", 1),
];
/// A hot writer that stands still for longer than its group waits for it is a zombie when it wakes.
const ZOMBIE_MS: u64 = 14_000;

/// In each round every process is killed and every engine goes away once, and some process is hit at a worse moment.
pub fn plan(seed: u64, events: u64, rounds: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed ^ (0xf1ee7 << 40));
    let random = &mut random;
    let mut actions = Vec::new();
    for round in 0..rounds.max(1) {
        let mut of_round: Vec<Action> = PARTS.into_iter().map(|part| Action::Kill(Who::Of(part))).collect();
        for engine in Engine::ALL {
            of_round.push(Action::Away {
                engine,
                ms: random.random_range(200..3_000),
                kill: random
                    .random_bool(0.5)
                    .then(|| Who::Of(PARTS[random.random_range(0..PARTS.len())])),
            });
        }
        let (part, point, last) = POINTS[(round + seed as usize) % POINTS.len()];
        of_round.push(Action::CrashAt {
            who: Who::Of(part),
            point,
            passage: random.random_range(1..=last),
        });
        if round == 0 {
            // One that is sure to have a batch come twice: the log has it, and the edge is not told.
            of_round.push(Action::CrashAt {
                who: Who::Of(Part::Gateway(2)),
                point: "gw.after_append",
                passage: 1,
            });
            of_round.push(Action::Pause {
                who: Who::Of(Part::Hot(random.random_range(1..=2))),
                ms: ZOMBIE_MS,
            });
        }
        of_round.shuffle(random);
        actions.extend(of_round);
    }
    // The last tenth of the events comes in peace.
    let share = (events * 9 / 10 / actions.len() as u64).max(1);
    let step = |action| Step {
        after_events: random.random_range(share / 2..=share + share / 2),
        then_ms: random.random_range(0..120),
        action,
    };
    actions.into_iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_blows_and_every_one_is_hit() {
        for seed in 0..50 {
            let steps = plan(seed, 500_000, 2);
            assert_eq!(steps, plan(seed, 500_000, 2));
            assert_ne!(steps, plan(seed + 1, 500_000, 2));
            let count = |wanted: &dyn Fn(&Action) -> bool| steps.iter().filter(|step| wanted(&step.action)).count();
            for part in PARTS {
                assert_eq!(
                    count(&|action| *action == Action::Kill(Who::Of(part))),
                    2,
                    "{part} with seed {seed}"
                );
            }
            for wanted in Engine::ALL {
                let is_it = |action: &Action| matches!(action, Action::Away { engine, .. } if *engine == wanted);
                assert_eq!(count(&is_it), 2, "{wanted} with seed {seed}");
            }
        }
    }
}
