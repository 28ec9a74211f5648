//! Disks and file systems: `/proc/diskstats`, and what `statvfs` says of mounts.

use super::files::Machine;
use super::{put, put_double};
use crate::source::export::{Metric, Times};

/// `/proc/diskstats` counts in these, whatever the disk does.
const SECTOR_BYTES: u64 = 512;

pub(super) fn metrics(machine: &Machine, times: Times) -> Vec<Metric> {
    let mut all = disks(machine, times);
    all.extend(volumes(machine, times));
    all
}

fn disks(machine: &Machine, times: Times) -> Vec<Metric> {
    let mut io = Metric::counter("system.disk.io", "By", "Bytes read and written.");
    let mut operations = Metric::counter("system.disk.operations", "{operation}", "Reads and writes.");
    let mut merged = Metric::counter(
        "system.disk.merged",
        "{operation}",
        "Reads and writes that became part of others.",
    );
    let mut spent = Metric::counter(
        "system.disk.operation_time",
        "s",
        "Time that reads and writes took, summed.",
    );
    let mut busy = Metric::counter("system.disk.io_time", "s", "Time in which a disk was busy.");
    let mut pending = Metric::up_down(
        "system.disk.pending_operations",
        "{operation}",
        "Reads and writes under way.",
    );
    for line in machine.diskstats.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let Some(device) = fields.next() else { continue };
        let numbers: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        let [
            reads,
            reads_merged,
            read_sectors,
            read_ms,
            writes,
            writes_merged,
            written_sectors,
            write_ms,
            under_way,
            busy_ms,
            ..,
        ] = numbers[..]
        else {
            continue;
        };
        let is_part = !machine.disks.is_empty() && !machine.disks.contains(device);
        let is_idle = reads == 0 && writes == 0;
        if is_part || (is_idle && (device.starts_with("loop") || device.starts_with("ram"))) {
            continue;
        }
        let seconds = |ms: u64| ms as f64 / 1000.0;
        for (direction, count, merges, sectors, ms) in [
            ("read", reads, reads_merged, read_sectors, read_ms),
            ("write", writes, writes_merged, written_sectors, write_ms),
        ] {
            let attributes = [("system.device", device), ("disk.io.direction", direction)];
            put(&mut io, times, sectors.saturating_mul(SECTOR_BYTES), &attributes);
            put(&mut operations, times, count, &attributes);
            put(&mut merged, times, merges, &attributes);
            put_double(&mut spent, times, seconds(ms), &attributes);
        }
        put_double(&mut busy, times, seconds(busy_ms), &[("system.device", device)]);
        put(&mut pending, times, under_way, &[("system.device", device)]);
    }
    vec![io, operations, merged, spent, busy, pending]
}

fn volumes(machine: &Machine, times: Times) -> Vec<Metric> {
    let mut usage = Metric::up_down("system.filesystem.usage", "By", "Space of a file system by state.");
    let mut share = Metric::gauge("system.filesystem.utilization", "1", "Share of the space that is used.");
    let mut inodes = Metric::up_down("system.filesystem.inodes.usage", "{inode}", "Inodes by state.");
    for volume in &machine.volumes {
        let mount = &volume.mount;
        let of = |state: &'static str| {
            vec![
                ("system.device", mount.device.as_str()),
                ("system.filesystem.mountpoint", mount.point.as_str()),
                ("system.filesystem.type", mount.kind.as_str()),
                ("system.filesystem.mode", if mount.read_only { "ro" } else { "rw" }),
                ("system.filesystem.state", state),
            ]
        };
        let used = volume.blocks.saturating_sub(volume.free);
        let reserved = volume.free.saturating_sub(volume.available);
        for (state, blocks) in [("used", used), ("free", volume.available), ("reserved", reserved)] {
            put(&mut usage, times, blocks.saturating_mul(volume.block_bytes), &of(state));
        }
        // As `df` has it: of what whoever is not root can have.
        let reachable = used + volume.available;
        put_double(
            &mut share,
            times,
            used as f64 / reachable.max(1) as f64,
            &of("used")[..4],
        );
        if volume.inodes > 0 {
            let used = volume.inodes.saturating_sub(volume.free_inodes);
            put(&mut inodes, times, used, &of("used"));
            put(&mut inodes, times, volume.free_inodes, &of("free"));
        }
    }
    vec![usage, share, inodes]
}
