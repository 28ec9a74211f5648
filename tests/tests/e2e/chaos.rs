//! The short forms of `cargo xtask chaos`: an edge and a cloud as processes of their own, under a schedule that a seed chooses, and an
//! observer that counts every event. What it must see is told in `sluice_bench::chaos`.

use sluice_bench::chaos::{self, Ended, Length, Options, Programs, Scenario};
use sluice_tests::python::must_not_skip;
use sluice_tests::{binary, program};
use tokio::sync::Semaphore;

const SEED: u64 = 20_261_121;
/// Each has two processes and a load; more of them at once show how slow a machine is.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

async fn holds(scenario: Scenario, rounds: Option<usize>) {
    let _turn = AT_ONCE.acquire().await.unwrap();
    let options = Options {
        programs: Programs {
            sluice: binary().unwrap(),
            edge: program("sluice-edge").unwrap(),
        },
        scenario,
        seed: SEED,
        length: Length::Short,
        rounds,
    };
    match chaos::run(&options, &|line| eprintln!("{}: {line}", scenario.name()))
        .await
        .unwrap()
    {
        Ended::Held(judgement) => eprintln!("{}:\n{judgement}", scenario.name()),
        Ended::Skipped(why) => {
            assert!(!must_not_skip(), "{why}");
            eprintln!("SKIPPED: {why}");
        }
        Ended::Failed {
            problems,
            schedule,
            folder,
            judgement,
        } => panic!(
            "{} with seed {SEED}:\n{}\nschedule:\n{}\n{}\nkept in {}",
            scenario.name(),
            problems.join("\n"),
            schedule.join("\n"),
            judgement.map(|judgement| judgement.to_string()).unwrap_or_default(),
            folder.display()
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_when_edge_and_cloud_are_killed_at_random_moments() {
    holds(Scenario::Kills, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_when_edge_and_cloud_stand_still() {
    holds(Scenario::Pause, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_p7_clocks_that_jump_a_day_delete_and_reorder_nothing() {
    holds(Scenario::Clock, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_full_disks_lose_nothing_and_all_goes_on_by_itself() {
    holds(Scenario::Full, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_flipped_bits_are_counted_and_everything_starts() {
    holds(Scenario::Flips, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_over_a_bad_link() {
    holds(Scenario::Relay, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_holds_under_several_troubles_at_once() {
    holds(Scenario::Mixed, Some(5)).await;
}
