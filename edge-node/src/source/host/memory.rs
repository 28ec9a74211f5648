//! Memory and swap: `/proc/meminfo`, `/proc/vmstat`.

use super::files::Machine;
use super::{put, put_double};
use crate::source::export::{Metric, Times};

pub(super) fn metrics(machine: &Machine, times: Times) -> Vec<Metric> {
    let of = |key: &str| kibibytes(&machine.meminfo, key);
    let mut limit = Metric::up_down("system.memory.limit", "By", "Memory of the machine.");
    let mut usage = Metric::up_down("system.memory.usage", "By", "Memory by state.");
    let mut share = Metric::gauge("system.memory.utilization", "1", "Share of the memory by state.");
    if let (Some(total), Some(free)) = (of("MemTotal"), of("MemFree")) {
        let buffers = of("Buffers").unwrap_or(0);
        // What the kernel gives back when it is asked for counts as cache.
        let cached = of("Cached").unwrap_or(0) + of("SReclaimable").unwrap_or(0);
        let used = total.saturating_sub(free + buffers + cached);
        put(&mut limit, times, total, &[]);
        for (state, bytes) in [("used", used), ("free", free), ("buffers", buffers), ("cached", cached)] {
            put(&mut usage, times, bytes, &[("system.memory.state", state)]);
            put_double(
                &mut share,
                times,
                bytes as f64 / total.max(1) as f64,
                &[("system.memory.state", state)],
            );
        }
    }
    let mut available = Metric::up_down(
        "system.linux.memory.available",
        "By",
        "Memory that programs can have without swapping.",
    );
    if let Some(bytes) = of("MemAvailable") {
        put(&mut available, times, bytes, &[]);
    }
    let mut slab = Metric::up_down(
        "system.linux.memory.slab.usage",
        "By",
        "Memory of the kernel's objects.",
    );
    for (key, state) in [("SReclaimable", "reclaimable"), ("SUnreclaim", "unreclaimable")] {
        if let Some(bytes) = of(key) {
            put(&mut slab, times, bytes, &[("linux.memory.slab.state", state)]);
        }
    }
    let mut swap = Metric::up_down("system.paging.usage", "By", "Swap by state.");
    if let (Some(total), Some(free)) = (of("SwapTotal"), of("SwapFree")) {
        for (state, bytes) in [("used", total.saturating_sub(free)), ("free", free)] {
            put(&mut swap, times, bytes, &[("system.paging.state", state)]);
        }
    }
    let count = |key: &str| field(&machine.vmstat, key, ' ')?.parse::<u64>().ok();
    let mut faults = Metric::counter("system.paging.faults", "{fault}", "Page faults.");
    if let (Some(all), Some(major)) = (count("pgfault"), count("pgmajfault")) {
        put(&mut faults, times, major, &[("system.paging.type", "major")]);
        put(
            &mut faults,
            times,
            all.saturating_sub(major),
            &[("system.paging.type", "minor")],
        );
    }
    let mut operations = Metric::counter("system.paging.operations", "{operation}", "Pages swapped.");
    for (key, direction) in [("pswpin", "in"), ("pswpout", "out")] {
        if let Some(many) = count(key) {
            put(&mut operations, times, many, &[("system.paging.direction", direction)]);
        }
    }
    vec![limit, usage, share, available, slab, swap, faults, operations]
}

fn field<'a>(text: &'a str, key: &str, end: char) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(end))
        .map(str::trim)
}

fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let value = field(meminfo, key, ':')?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
