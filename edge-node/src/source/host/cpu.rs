//! Cores, load, processes: `/proc/stat`, `/proc/loadavg`, `/proc/uptime`.

use super::files::Machine;
use super::{put, put_double, texts};
use crate::source::export::{Metric, Number, Times, Value};

/// The kernel tells times in hundredths of a second, whatever its own clock is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// In the order of `/proc/stat`. What guests used is part of `user` and `nice`.
const MODES: [&str; 8] = [
    "user",
    "nice",
    "system",
    "idle",
    "iowait",
    "interrupt",
    "softirq",
    "steal",
];

pub(super) fn metrics(machine: &Machine, times: Times) -> Vec<Metric> {
    let mut time = Metric::counter("system.cpu.time", "s", "Seconds each logical CPU spent in each mode.");
    let mut cores = 0;
    for (core, ticks) in cores_of(&machine.stat) {
        cores += 1;
        for (mode, ticks) in MODES.iter().zip(ticks) {
            let mut attributes = texts(&[("cpu.mode", mode)]);
            attributes.push("cpu.logical_number", Value::Int(core));
            time.number(
                times,
                Number::Double(ticks as f64 / TICKS_PER_SECOND),
                &attributes,
                None,
            );
        }
    }
    let mut count = Metric::up_down("system.cpu.logical.count", "{cpu}", "Logical CPUs.");
    if cores > 0 {
        put(&mut count, times, cores, &[]);
    }
    let mut processes = Metric::up_down(
        "system.process.count",
        "{process}",
        "Processes that run, and that wait for a disk.",
    );
    for (key, state) in [("procs_running", "running"), ("procs_blocked", "blocked")] {
        if let Some(many) = number_of(&machine.stat, key) {
            put(&mut processes, times, many, &[("process.state", state)]);
        }
    }
    let mut created = Metric::counter("system.process.created", "{process}", "Processes created.");
    if let Some(many) = number_of(&machine.stat, "processes") {
        put(&mut created, times, many, &[]);
    }
    let mut all = vec![time, count, processes, created];
    let loads = machine.loadavg.split_ascii_whitespace();
    for (name, load) in ["1m", "5m", "15m"].iter().zip(loads) {
        let mut metric = Metric::gauge(
            &format!("system.cpu.load_average.{name}"),
            "{thread}",
            "Threads that run or wait to.",
        );
        if let Ok(load) = load.parse() {
            put_double(&mut metric, times, load, &[]);
        }
        all.push(metric);
    }
    let mut uptime = Metric::gauge("system.uptime", "s", "Time since the machine started.");
    if let Some(seconds) = machine
        .uptime
        .split_ascii_whitespace()
        .next()
        .and_then(|t| t.parse().ok())
    {
        put_double(&mut uptime, times, seconds, &[]);
    }
    all.push(uptime);
    all
}

/// When the machine started, in seconds since 1970.
pub(super) fn boot_seconds(stat: &str) -> Option<u64> {
    number_of(stat, "btime")
}

fn number_of(stat: &str, key: &str) -> Option<u64> {
    let line = stat.lines().find(|line| line.split(' ').next() == Some(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Number and ticks of each core.
fn cores_of(stat: &str) -> impl Iterator<Item = (i64, Vec<u64>)> {
    stat.lines().filter_map(|line| {
        let mut fields = line.strip_prefix("cpu")?.split_ascii_whitespace();
        // The line without a number is the sum of the others.
        let core = line.as_bytes().get(3).filter(|b| b.is_ascii_digit());
        let core = core.and_then(|_| fields.next()?.parse().ok())?;
        Some((core, fields.map_while(|field| field.parse().ok()).collect()))
    })
}
