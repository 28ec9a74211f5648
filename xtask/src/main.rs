//! What a developer types: `cargo xtask test`, `lint`, `mutants`, `guests`, `demo`, `chaos`, `bench`, `services`.

mod bench;
mod chaos;
mod demo;
mod docs;
mod guests;
mod lint;
mod mutants;
mod run;
mod sdks;
mod services;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What a developer types.", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the plugins: plugins/dist/*.wasm.
    Guests,
    /// Everything that a change must pass: guests, build, all tests, end to end.
    Test(test::Arguments),
    /// Formatting, clippy, links in documents.
    Lint,
    /// Leave out one sync or check of the log at a time: the tests must notice each.
    Mutants,
    /// 200,000 events through a node that is killed three times, or 500,000 through a fleet on real engines, and a count of every one.
    Demo(demo::Arguments),
    /// Kill, stop, fill, damage and cut off real processes by a seed, and count every event.
    Chaos(chaos::Arguments),
    /// Measure, as ratios within one run.
    Bench(bench::Arguments),
    /// Real engines for tests: Kafka, ClickHouse, S3, a registry.
    Services(services::Arguments),
    #[command(hide = true)]
    ServicesKeeper(services::keeper::Arguments),
}

fn main() -> ExitCode {
    let success = |()| ExitCode::SUCCESS;
    let done = match Arguments::parse().task {
        Task::Guests => guests::build().map(success),
        Task::Test(arguments) => test::run(&arguments).map(success),
        Task::Lint => lint::run().map(success),
        Task::Mutants => mutants::check().map(success),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Chaos(arguments) => chaos::run(&arguments).map(success),
        Task::Bench(arguments) => bench::run(&arguments).map(success),
        Task::Services(arguments) => services::run(&arguments),
        Task::ServicesKeeper(arguments) => services::keeper::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
