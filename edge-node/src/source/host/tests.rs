//! Texts as kernels write them, and what becomes of them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value as Number};
use proptest::prelude::*;
use prost::Message;
use sluice_wire::otlp::{DecodeLimits, Decoder};

use super::files::{Mount, Volume, mounts};
use super::*;

const STAT: &str = "cpu  30 2 40 500 6 0 7 8 9 0
cpu0 10 1 20 250 3 0 4 5 6 0
cpu1 20 1 20 250 3 0 3 3 3 0
intr 12345 0 0
ctxt 99
btime 1700000000
processes 4321
procs_running 3
procs_blocked 1
softirq 5 1
";
const MEMINFO: &str = "MemTotal:        8000 kB
MemFree:         1000 kB
MemAvailable:    5000 kB
Buffers:          500 kB
Cached:          2000 kB
SwapCached:        10 kB
SReclaimable:     300 kB
SUnreclaim:       200 kB
SwapTotal:       4000 kB
SwapFree:        3500 kB
HugePages_Total:    0
";
const DISKSTATS: &str = "   8       0 sda 100 5 2000 300 200 6 4000 500 2 700 800 0 0 0 0
   8       1 sda1 90 5 1900 290 190 6 3900 490 0 690 780
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0
 259       0 short
";
const NET_DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0:12345678901 20 1 2 0 0 0 0 3000 30 3 4 0 0 0 0
";

fn machine() -> Machine {
    Machine {
        host_name: Some("box".to_owned()),
        stat: STAT.to_owned(),
        loadavg: "0.50 1.25 2.00 1/234 5678\n".to_owned(),
        uptime: "1234.56 999.00\n".to_owned(),
        meminfo: MEMINFO.to_owned(),
        vmstat: "pswpin 3\npswpout 4\npgfault 100\npgmajfault 7\n".to_owned(),
        diskstats: DISKSTATS.to_owned(),
        net_dev: NET_DEV.to_owned(),
        volumes: vec![Volume {
            mount: Mount {
                device: "/dev/sda1".to_owned(),
                point: "/".to_owned(),
                kind: "ext4".to_owned(),
                read_only: false,
            },
            block_bytes: 4096,
            blocks: 100,
            free: 60,
            available: 50,
            inodes: 1000,
            free_inodes: 900,
        }],
        disks: ["sda".to_owned(), "loop0".to_owned()].into(),
        missing: Vec::new(),
    }
}

/// `name{a=b,…}` and the value of every point.
fn points(machine: &Machine) -> BTreeMap<String, f64> {
    let body = request(machine, 1_700_000_100_000_000_000).finish();
    let decoded = Decoder::new(DecodeLimits::default())
        .decode(Signal::Metric, &body, 1)
        .unwrap();
    assert_eq!(decoded.rejected, 0);
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let mut found = BTreeMap::new();
    for metric in &request.resource_metrics[0].scope_metrics[0].metrics {
        let (points, cumulative) = match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => (&gauge.data_points, false),
            Data::Sum(sum) => (&sum.data_points, true),
            other => panic!("{other:?}"),
        };
        for point in points {
            assert_eq!(point.time_unix_nano, 1_700_000_100_000_000_000);
            assert_eq!(point.start_time_unix_nano > 0, cumulative);
            let attributes: Vec<String> = point
                .attributes
                .iter()
                .map(|pair| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
                    Value::StringValue(text) => text.clone(),
                    Value::IntValue(number) => number.to_string(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let value = match point.value.unwrap() {
                Number::AsDouble(value) => value,
                Number::AsInt(value) => value as f64,
            };
            found.insert(format!("{} {}", metric.name, attributes.join(" ")), value);
        }
    }
    found
}

#[test]
fn what_the_kernel_says_becomes_metrics() {
    let points = points(&machine());
    for (point, value) in [
        ("system.cpu.time user 0", 0.1),
        ("system.cpu.time softirq 1", 0.03),
        ("system.cpu.logical.count ", 2.0),
        ("system.process.count running", 3.0),
        ("system.process.created ", 4321.0),
        ("system.cpu.load_average.5m ", 1.25),
        ("system.uptime ", 1234.56),
        ("system.memory.usage used", 4200.0 * 1024.0),
        ("system.memory.usage cached", 2300.0 * 1024.0),
        ("system.memory.utilization free", 0.125),
        ("system.linux.memory.available ", 5000.0 * 1024.0),
        ("system.paging.usage used", 500.0 * 1024.0),
        ("system.paging.faults minor", 93.0),
        ("system.paging.operations out", 4.0),
        ("system.disk.io sda read", 2000.0 * 512.0),
        ("system.disk.operations sda write", 200.0),
        ("system.disk.operation_time sda write", 0.5),
        ("system.disk.io_time sda", 0.7),
        ("system.disk.pending_operations sda", 2.0),
        ("system.network.io eth0 receive", 12_345_678_901.0),
        ("system.network.packet.dropped eth0 transmit", 4.0),
        ("system.network.errors eth0 receive", 1.0),
        ("system.filesystem.usage /dev/sda1 / ext4 rw used", 40.0 * 4096.0),
        ("system.filesystem.usage /dev/sda1 / ext4 rw reserved", 10.0 * 4096.0),
        ("system.filesystem.utilization /dev/sda1 / ext4 rw", 40.0 / 90.0),
        ("system.filesystem.inodes.usage /dev/sda1 / ext4 rw free", 900.0),
    ] {
        assert_eq!(points.get(point), Some(&value), "{point}");
    }
    assert!(!points.keys().any(|p| p.contains("sda1 read") || p.contains("loop0")));
}

#[test]
fn what_is_missing_is_left_out() {
    assert_eq!(request(&Machine::default(), 1).rows(), 0);
}

#[test]
fn mounts_are_those_that_hold_files() {
    let table = "proc /proc proc rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
/dev/sdb1 /mnt/my\\040disk xfs ro,noatime 0 0
server:/x /nfs nfs4 rw 0 0
portal /run/user/0/doc fuse.portal rw 0 0
short line
";
    let found: Vec<_> = mounts(table).map(|m| (m.point, m.read_only)).collect();
    assert_eq!(found, [("/".to_owned(), false), ("/mnt/my disk".to_owned(), true)]);
}

proptest! {
    #[test]
    fn any_texts_are_harmless(text in "[a-z0-9 :\\n./-]{0,200}", cut in 0usize..400) {
        let cut_at = |text: &str| text.chars().take(cut).collect::<String>();
        let machine = Machine {
            stat: cut_at(STAT) + &text,
            meminfo: cut_at(MEMINFO) + &text,
            diskstats: cut_at(DISKSTATS) + &text,
            net_dev: cut_at(NET_DEV) + &text,
            loadavg: text.clone(),
            uptime: text.clone(),
            vmstat: text.clone(),
            ..Machine::default()
        };
        let _ = request(&machine, 1).finish();
        let _ = mounts(&text).count();
    }
}
