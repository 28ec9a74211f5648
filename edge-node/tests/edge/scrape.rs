//! Sources that ask: pages of metrics from real HTTP servers, and what this machine says of itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use sluice_edge::{EdgeConfig, SourceStatus};

use crate::node::{TestNode, config, eventually};
use crate::rows;

/// A server that answers every request with what it is told to, and keeps what it was asked.
#[derive(Clone)]
struct Server {
    at: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            at: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let this = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                this.asked.lock().unwrap().push(String::from_utf8(head).unwrap());
                let answer = this.answer.lock().unwrap().clone();
                let _ = stream.write_all(&answer);
            }
        });
        server
    }

    fn says(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn page(kind: &str, text: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n");
    format!("{head}content-length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

fn scraping(data: &Path, more: &str) -> EdgeConfig {
    let mut config = config(data);
    let table = format!("[[source.prometheus]]\nname = \"shop\"\ninterval = \"1 s\"\ntimeout = \"1 s\"\n{more}");
    config.source.prometheus = EdgeConfig::from_toml(&table).unwrap().source.prometheus;
    config
}

fn source(node: &TestNode, name: &str) -> SourceStatus {
    let status = node.status.snapshot();
    status.sources.into_iter().find(|s| s.name == name).unwrap()
}

/// The values of a metric of one number, oldest first.
fn values(node: &TestNode, name: &str) -> Vec<f64> {
    let metrics = rows::metrics(&node.spool);
    let of = metrics.iter().filter(|(_, metric)| metric.name == name);
    of.flat_map(|(_, metric)| rows::numbers(metric))
        .map(|(_, value)| value)
        .collect()
}

#[test]
fn pages_become_metrics_of_their_target() {
    let dir = tempfile::tempdir().unwrap();
    let text = "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\njobs_total{queue=\"a\"} 7\n\
                # TYPE latency_seconds histogram\nlatency_seconds_bucket{le=\"0.1\"} 3\nlatency_seconds_bucket{le=\"+Inf\"} 5\n\
                latency_seconds_sum 2.5\nlatency_seconds_count 5\nload 0.5\n";
    let server = Server::start(page("text/plain; version=0.0.4", text));
    let token = dir.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let more = format!(
        "targets = [\"http://{}\"]\ntoken_file = \"{}\"\nlabels = {{ region = \"eu\" }}",
        server.at,
        token.display()
    );
    let node = TestNode::start(scraping(&dir.path().join("data"), &more));
    eventually("a page is in the spool", || values(&node, "up").contains(&1.0));
    let metrics = rows::metrics(&node.spool);
    let find = |name: &str| metrics.iter().find(|(_, metric)| metric.name == name).unwrap();
    let (resource, jobs) = find("jobs_total");
    let text = |value: &str| opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(value.to_owned());
    assert_eq!(resource["service.name"], text("shop"));
    assert_eq!(resource["service.instance.id"], text(&server.at.to_string()));
    assert_eq!(resource["region"], text("eu"));
    assert!(matches!(&jobs.data, Some(Data::Sum(sum)) if sum.is_monotonic));
    assert_eq!(jobs.description, "Jobs done.");
    let points = rows::numbers(jobs);
    assert_eq!((&points[0].0["queue"], points[0].1), (&text("a"), 7.0));
    let Some(Data::Histogram(latency)) = &find("latency_seconds").1.data else {
        panic!()
    };
    assert_eq!(latency.data_points[0].bucket_counts, [3, 2]);
    assert_eq!(rows::numbers(&find("load").1)[0].1, 0.5);
    assert!(values(&node, "scrape_samples_scraped").contains(&6.0));
    let asked = server.asked.lock().unwrap()[0].to_lowercase();
    assert!(asked.starts_with("get /metrics http/1.1"), "{asked}");
    assert!(
        asked.contains("authorization: bearer secret") && asked.contains("application/openmetrics-text"),
        "{asked}"
    );
    eventually("one is up", || source(&node, "shop").gauges["targets_up"] == 1);
    node.stop();
}

#[test]
fn p15_a_target_that_is_down_lies_or_sends_too_much_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let good = Server::start(page("text/plain", "load 0.5\n"));
    let bad = Server::start(b"HTTP/1.1 500 Oops\r\nconnection: close\r\n\r\n".to_vec());
    let more = format!(
        "targets = [\"http://{}/metrics\", \"http://{}/bad\"]\nmax_page_bytes = \"4 KiB\"",
        good.at, bad.at
    );
    let node = TestNode::start(scraping(dir.path(), &more));
    // Without a length, so that only reading tells how much it is.
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    endless.extend(std::iter::repeat_n(&b"load 0.5\n"[..], 1000).flatten());
    for (answer, says) in [
        (None, "answers 500"),
        (Some(endless), "larger than 4096 bytes"),
        (
            Some(page("text/plain", &"load 0.5\n".repeat(1000))),
            "larger than 4096 bytes",
        ),
        (Some(page("text/html", "<html>")), "line 1: has no name"),
        (Some(b"nonsense".to_vec()), ""),
    ] {
        if let Some(answer) = answer {
            bad.says(answer);
        }
        let failed = || source(&node, "shop").refused.get("scrape_failed").copied().unwrap_or(0);
        // One may be under way with the answer before.
        let before = failed();
        eventually("it was asked again", || failed() > before + 1);
        eventually(&format!("it is told: {says}"), || {
            source(&node, "shop")
                .problem
                .is_some_and(|p| p.starts_with(&bad.at.to_string()) && p.contains(says))
        });
    }
    eventually("one is up", || source(&node, "shop").gauges["targets_up"] == 1);
    bad.says(page(
        "application/openmetrics-text; version=1.0.0",
        "load 0.25 1700000000.5\n# EOF\n",
    ));
    eventually("it is well again", || source(&node, "shop").problem.is_none());
    eventually("its page is in the spool", || values(&node, "load").contains(&0.25));
    let up = values(&node, "up");
    assert!(up.contains(&0.0) && up.contains(&1.0));
    let (_, metric) = rows::metrics(&node.spool)
        .into_iter()
        .find(|(_, m)| rows::numbers(m)[0].1 == 0.25)
        .unwrap();
    let Some(Data::Gauge(gauge)) = metric.data else {
        panic!()
    };
    assert_eq!(gauge.data_points[0].time_unix_nano, 1_700_000_000_500_000_000);
    node.stop();
}

#[test]
fn this_machine_tells_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.source.host.enabled = true;
    config.source.host.interval = Duration::from_secs(1);
    let node = TestNode::start(config);
    let names = || -> std::collections::BTreeSet<String> {
        rows::metrics(&node.spool)
            .into_iter()
            .map(|(_, metric)| metric.name)
            .collect()
    };
    eventually("it was measured twice", || values(&node, "system.uptime").len() >= 2);
    let names = names();
    for name in [
        "system.cpu.time",
        "system.memory.usage",
        "system.filesystem.usage",
        "system.network.io",
    ] {
        assert!(names.contains(name), "{name} of {names:?}");
    }
    let memory = values(&node, "system.memory.utilization");
    assert!(memory.iter().all(|share| (0.0..=1.0).contains(share)));
    assert!(source(&node, "host").accepted > 20);
    node.stop();
}
