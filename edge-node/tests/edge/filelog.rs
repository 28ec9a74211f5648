//! Files that grow and are rotated in every way: each line is taken exactly once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use sluice_edge::config::{FileLog, Format, Indented, Multiline, StartAt};
use sluice_edge::link::{AckSink, BatchSource};
use sluice_edge::{EdgeConfig, SourceStatus};

use crate::node::{TestNode, config, eventually};
use crate::rows;

/// Files of a folder, read as a program's configuration would have it.
pub(crate) fn tailing(data: &Path, include: &str) -> EdgeConfig {
    let mut config = config(data);
    config.source.filelog.push(FileLog {
        poll_interval: Duration::from_millis(5),
        last_line_after: Duration::from_millis(50),
        start_at: StartAt::Beginning,
        ..from_toml(&format!("name = \"app\"\ninclude = [\"{include}\"]"))
    });
    config
}

fn from_toml(table: &str) -> FileLog {
    let config = EdgeConfig::from_toml(&format!("[[source.filelog]]\n{table}")).unwrap();
    config.source.filelog.into_iter().next().unwrap()
}

pub(crate) fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn source(node: &TestNode) -> SourceStatus {
    let status = node.status.snapshot();
    status.sources.into_iter().find(|s| s.name == "app").unwrap()
}

fn gauge(node: &TestNode, name: &str) -> u64 {
    detail(&source(node), name)
}

fn detail(source: &SourceStatus, name: &str) -> u64 {
    let either = source.gauges.get(name).or(source.counters.get(name));
    either.copied().unwrap_or(0)
}

fn texts(node: &TestNode) -> Vec<String> {
    rows::logs(&node.spool)
        .iter()
        .map(|log| log.text().to_owned())
        .collect()
}

/// The bodies in their order, once there are as many.
fn wait_for(node: &TestNode, many: usize) -> Vec<String> {
    eventually(&format!("{many} lines are in the spool"), || texts(node).len() >= many);
    texts(node)
}

#[test]
fn p2_lines_are_taken_once_while_files_are_renamed_copied_and_cut_and_the_node_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    // The copies match the pattern, too, and what is compressed does not.
    let config = tailing(&dir.path().join("data"), &format!("{}/*.log*", logs.display()));
    let (a, b) = (logs.join("a.log"), logs.join("b.log"));
    let mut node = TestNode::start(config.clone());
    let mut expected = Vec::new();
    let mut write = |path: &Path, from: usize| {
        let lines: Vec<String> = (from..from + 50)
            .map(|n| format!("{} line {n}", path.display()))
            .collect();
        append(path, &(lines.join("\n") + "\n"));
        expected.extend(lines);
        expected.len()
    };
    for round in 0..6 {
        let from = round * 1000;
        write(&a, from);
        let before = write(&b, from);
        wait_for(&node, before);
        // One is renamed while its writer goes on in the old file; the other is copied and cut to nothing.
        let renamed = logs.join(format!("a.log.{round}"));
        fs::rename(&a, &renamed).unwrap();
        write(&renamed, from + 100);
        write(&a, from + 200);
        write(&b, from + 300);
        if round % 2 == 1 {
            node.crash();
            write(&a, from + 400);
            write(&b, from + 400);
            // Renamed once more while nobody looks.
            fs::rename(&a, logs.join(format!("a.log.{round}.again"))).unwrap();
            write(&a, from + 500);
            node = TestNode::start(config.clone());
        }
        let all = write(&a, from + 600);
        wait_for(&node, all);
        fs::copy(&b, logs.join(format!("b.log.{round}"))).unwrap();
        fs::write(&b, "").unwrap();
        fs::write(logs.join(format!("old{round}.log.gz")), "compressed\n").unwrap();
    }
    write(&b, 90_000);
    let all = write(&a, 90_000);
    let found = wait_for(&node, all);
    assert_same(&expected, &found);
    node.stop();
    // A restart finds nothing new, whatever it finds.
    let node = TestNode::start(config);
    append(&a, "the last one\n");
    expected.push("the last one".to_owned());
    assert_same(&expected, &wait_for(&node, all + 1));
    node.stop();
}

/// Each of these once, and nothing else.
pub(crate) fn assert_same(expected: &[String], found: &[String]) {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    expected.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    found.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    counts.retain(|_, difference| *difference != 0);
    let some: Vec<_> = counts.iter().take(5).collect();
    assert!(
        counts.is_empty(),
        "{} lines are missing (-) or too many (+): {some:?}",
        counts.len()
    );
}

#[test]
fn p2_an_inode_that_is_given_to_another_file_is_not_taken_for_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let config = tailing(&dir.path().join("data"), &format!("{}/*.log", dir.path().display()));
    append(&path, "first of the old\nsecond of the old\n");
    let node = TestNode::start(config.clone());
    wait_for(&node, 2);
    node.stop();
    // The same inode with other bytes, and more of them than were read.
    fs::write(&path, "first of the new\nsecond of the new\nthird of the new\n").unwrap();
    let node = TestNode::start(config);
    let found = wait_for(&node, 5);
    assert_eq!(
        found[2..],
        ["first of the new", "second of the new", "third of the new"]
    );
    assert_eq!(gauge(&node, "rotated_in_place"), 1);
    node.stop();
}

#[test]
fn p2_what_was_written_before_a_rename_out_of_sight_is_read_running_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let config = tailing(&dir.path().join("data"), &format!("{}/*.log", dir.path().display()));
    append(&path, "one\n");
    let node = TestNode::start(config.clone());
    wait_for(&node, 1);
    // Neither name matches any more, and the second file is even deleted while its writer still has it.
    fs::rename(&path, dir.path().join("x.log.1")).unwrap();
    append(&dir.path().join("x.log.1"), "two\n");
    append(&path, "three\n");
    wait_for(&node, 3);
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    writer.write_all(b"four\n").unwrap();
    append(&path, "five\n");
    wait_for(&node, 5);
    node.stop();
    append(&path, "six\n");
    fs::rename(&path, dir.path().join("x.log.2")).unwrap();
    append(&path, "seven\n");
    let node = TestNode::start(config);
    let mut found = wait_for(&node, 7);
    found.sort();
    assert_eq!(found, ["five", "four", "one", "seven", "six", "three", "two"]);
    node.stop();
}

#[test]
fn what_was_there_before_the_first_start_is_left_and_what_comes_while_it_is_down_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    let mut config = tailing(&dir.path().join("data"), &format!("{}/*.log", dir.path().display()));
    config.source.filelog[0].start_at = StartAt::End;
    append(&path, "old\n");
    let node = TestNode::start(config.clone());
    eventually("the file is watched", || gauge(&node, "files") == 1);
    node.crash();
    append(&path, "while it was down\n");
    append(&dir.path().join("y.log"), "a new file\n");
    let node = TestNode::start(config);
    let mut found = wait_for(&node, 2);
    found.sort();
    assert_eq!(found, ["a new file", "while it was down"]);
    node.stop();
}

#[test]
fn lines_are_read_by_their_format_and_what_is_not_of_it_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = |name: &str| dir.path().join(name);
    append(
        &log("json.log"),
        "{\"level\":\"error\",\"msg\":\"boom\",\"n\":5}\nnot json\n",
    );
    append(&log("logfmt.log"), "level=warn msg=\"slow query\" took=5ms\n");
    let nginx = "127.0.0.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /pay HTTP/1.1\" 500\n";
    append(&log("regex.log"), nginx);
    append(&log("java.log"), "2023 first\n  at a\n\n  at b\n2023 second\n  at c\n");
    append(&log("start.log"), "[1] one\nmore of one\n[2] two\n");
    append(&log("raw.log"), "caf\u{e9} \n");
    fs::write(log("latin.log"), b"caf\xe9 au lait").unwrap();
    let mut config = config(&dir.path().join("data"));
    let mut add = |name: &str, format: Format, more: &dyn Fn(&mut FileLog)| {
        let mut one = tailing(dir.path(), &log(&format!("{name}.log")).display().to_string());
        let mut source = one.source.filelog.remove(0);
        (source.name, source.format) = (name.to_owned(), format);
        more(&mut source);
        config.source.filelog.push(source);
    };
    add("json", Format::Json, &|s| s.service = Some("shop".to_owned()));
    add("logfmt", Format::Logfmt, &|s| {
        s.attributes.insert("team".to_owned(), "blue".to_owned());
    });
    add("regex", Format::Regex, &|s| {
        s.pattern = Some(r#"^(?<client>\S+) \S+ \S+ \[(?<time>[^\]]+)\] "(?<msg>[^"]*)" (?<status>\d+)"#.to_owned());
    });
    add("java", Format::None, &|s| {
        s.multiline = Some(Multiline::Indented(Indented::Indented))
    });
    add("start", Format::None, &|s| {
        s.multiline = Some(Multiline::Start {
            start: r"^\[\d+\]".to_owned(),
        });
    });
    add("raw", Format::None, &|_| {});
    add("latin", Format::None, &|_| {});
    let node = TestNode::start(config);
    wait_for(&node, 10);
    let logs = rows::logs(&node.spool);
    let of = |name: &str| -> Vec<&rows::Log> {
        let name = format!("{name}.log");
        logs.iter()
            .filter(|log| log.attribute("log.file.name") == name)
            .collect()
    };
    let json = of("json");
    assert_eq!(
        (json[0].text(), json[0].severity, json[0].of("service.name")),
        ("boom", 17, "shop")
    );
    assert_eq!(json[0].attributes["n"], Value::IntValue(5));
    assert_eq!(
        (json[1].text(), json[1].attribute("log.parse_error")),
        ("not json", "json")
    );
    let logfmt = of("logfmt")[0];
    assert_eq!((logfmt.text(), logfmt.severity), ("slow query", 13));
    assert_eq!((logfmt.attribute("took"), logfmt.attribute("team")), ("5ms", "blue"));
    let regex = of("regex")[0];
    assert_eq!(
        (regex.text(), regex.time_ns),
        ("GET /pay HTTP/1.1", 1_700_000_000_000_000_000)
    );
    assert_eq!(
        (regex.attribute("client"), regex.attribute("status")),
        ("127.0.0.1", "500")
    );
    assert_eq!(regex.attribute("log.file.path"), log("regex.log").display().to_string());
    assert!(!regex.of("host.name").is_empty());
    let bodies = |name: &str| -> Vec<&str> { of(name).iter().map(|log| log.text()).collect() };
    assert_eq!(bodies("java"), ["2023 first\n  at a\n\n  at b", "2023 second\n  at c"]);
    assert_eq!(bodies("start"), ["[1] one\nmore of one", "[2] two"]);
    assert_eq!(bodies("raw"), ["caf\u{e9} "]);
    assert_eq!(bodies("latin"), ["caf\u{fffd} au lait"]);
    let sources = node.status.snapshot().sources;
    let gauge = |name: &str, gauge: &str| {
        let source = sources.iter().find(|s| s.name == name).unwrap();
        detail(source, gauge)
    };
    assert_eq!(
        (gauge("json", "unparsed_events"), gauge("latin", "not_utf8_events")),
        (1, 1)
    );
    assert_eq!((gauge("raw", "not_utf8_events"), gauge("json", "unread_bytes")), (0, 0));
    node.stop();
}

#[test]
fn p15_a_line_without_an_end_is_cut_and_a_small_file_waits_for_no_large_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tailing(&dir.path().join("data"), &format!("{}/*.log", dir.path().display()));
    config.source.filelog[0].max_event_bytes = 1000;
    // More files than may be open at once.
    config.source.filelog[0].max_open_files = 4;
    append(&dir.path().join("endless.log"), &("x".repeat(8 << 20) + "\nafter it\n"));
    let large: String = (0..100_000)
        .map(|n| format!("large {n:06} with some text behind it\n"))
        .collect();
    append(&dir.path().join("large.log"), &large);
    for n in 0..20 {
        append(&dir.path().join(format!("small{n}.log")), "small\n");
    }
    let node = TestNode::start(config);
    let found = wait_for(&node, 100_022);
    assert_eq!(found.len(), 100_022);
    // Each file has its turn before any of them has a second one, and a turn is 256 KiB at most.
    let last_small = found.iter().rposition(|text| text == "small").unwrap();
    assert!(last_small < 10_000, "{last_small}");
    let in_order: Vec<&String> = found.iter().filter(|text| text.starts_with("large")).collect();
    assert!(in_order.is_sorted() && in_order.len() == 100_000);
    let cut: Vec<_> = rows::logs(&node.spool)
        .into_iter()
        .filter(|log| log.attributes.contains_key("log.truncated"))
        .collect();
    assert_eq!((cut.len(), cut[0].text().len()), (1, 1000));
    assert!(found.iter().any(|text| text == "after it"));
    assert_eq!(gauge(&node, "cut_events"), 1);
    node.stop();
}

#[test]
fn p5_a_full_spool_stops_the_reading_and_loses_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = tailing(&dir.path().join("data"), &format!("{}/*.log", dir.path().display()));
    config.source.filelog[0].format = Format::Json;
    config.spool.max_bytes = 8 << 20;
    config.seal.zstd_level = 0;
    config.accept.retry_after = Duration::from_millis(20);
    let filler = "0123456789abcdef".repeat(512);
    let lines = 2000;
    for n in 0..lines {
        append(
            &dir.path().join("x.log"),
            &format!("{{\"evt.id\":\"f-{n}\",\"msg\":\"{n} {filler}\"}}\n"),
        );
    }
    let node = TestNode::start(config);
    eventually("the source waits", || gauge(&node, "waits") > 2);
    assert!(gauge(&node, "unread_bytes") > 4 << 20);
    assert!(source(&node).problem.unwrap().contains("full"));
    // What is delivered is let go of, and the rest follows.
    let mut cloud = crate::cloud::Cloud::default();
    let mut at = 0;
    eventually("every line has arrived", || {
        while let Some((index, bytes)) = node.spool.next_from(at).unwrap() {
            cloud.receive(bytes);
            node.spool.acked(index);
            at = index + 1;
        }
        cloud.events.len() == lines
    });
    assert!(cloud.events.values().all(|many| *many == 1));
    eventually("all is well again", || source(&node).problem.is_none());
    let page = node.status.snapshot().metrics();
    for line in [
        "sluice_edge_source_unread_bytes{source=\"app\",kind=\"filelog\"} 0\n",
        "TYPE sluice_edge_source_waits_total counter\n",
    ] {
        assert!(page.contains(line), "{page}");
    }
    node.stop();
}
