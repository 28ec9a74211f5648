//! Network interfaces: `/proc/net/dev`.

use super::files::Machine;
use super::put;
use crate::source::export::{Metric, Times};

pub(super) fn metrics(machine: &Machine, times: Times) -> Vec<Metric> {
    let mut io = Metric::counter("system.network.io", "By", "Bytes received and sent.");
    let mut packets = Metric::counter("system.network.packet.count", "{packet}", "Packets received and sent.");
    let mut errors = Metric::counter("system.network.errors", "{error}", "Packets that failed.");
    let mut dropped = Metric::counter("system.network.packet.dropped", "{packet}", "Packets dropped.");
    // Two lines of headings.
    for line in machine.net_dev.lines().skip(2) {
        let Some((interface, numbers)) = line.split_once(':') else {
            continue;
        };
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        let [received, sent] = [0, 8].map(|from| numbers.get(from..from + 4));
        for (direction, counts) in [("receive", received), ("transmit", sent)] {
            let Some([bytes, count, failed, lost]) = counts else {
                continue;
            };
            let attributes = [
                ("network.interface.name", interface.trim()),
                ("network.io.direction", direction),
            ];
            put(&mut io, times, *bytes, &attributes);
            put(&mut packets, times, *count, &attributes);
            put(&mut errors, times, *failed, &attributes);
            put(&mut dropped, times, *lost, &attributes);
        }
    }
    vec![io, packets, errors, dropped]
}
