//! P1, seen from outside by the system calls: what is answered was synced before. A kill cannot show this, because the page
//! cache survives the process.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use sluice_tests::Node;
use sluice_tests::python::must_not_skip;

use crate::otlp::{attribute, one_log, post, text};

const REQUESTS: usize = 5;

/// A system call that has come back, or the start of one, in the order in which strace saw them.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    ok: bool,
}

/// Lines as `strace -f -y` writes them. A call that is interrupted by another thread's counts where it ended.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: HashMap<&str, String> = HashMap::new();
    let mut done = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, begun.to_owned());
            continue;
        }
        let whole = match rest.split_once(" resumed>") {
            Some((_, end)) => open.remove(pid).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        if let Some((name, arguments)) = whole.split_once('(') {
            let ok = arguments
                .rsplit(" = ")
                .next()
                .is_some_and(|value| !value.starts_with('-'));
            done.push(Call {
                name: name.to_owned(),
                arguments: arguments.to_owned(),
                ok,
            });
        }
    }
    done
}

/// F21: between a request and its success lies an fdatasync of the journal that came back, and before the first success
/// the journal's folder was synced too.
#[tokio::test(flavor = "multi_thread")]
async fn p1_the_journal_is_synced_before_a_success_is_sent() {
    let works = Command::new("strace")
        .args(["-D", "-f", "-o", "/dev/null", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        assert!(!must_not_skip(), "strace is needed here, and must be allowed to trace");
        eprintln!("SKIPPED: strace cannot trace here");
        return;
    }
    let mut node = Node::prepare("").unwrap();
    let trace = node.data().with_extension("strace");
    let syscalls = "trace=fdatasync,fsync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";
    // -D: the node is our child, and strace its companion.
    let around = [
        "-D",
        "-f",
        "-y",
        "-s",
        "200",
        "-e",
        syscalls,
        "-o",
        &trace.display().to_string(),
    ];
    node.wrap("strace", &around);
    let mut node = node.started().await.unwrap();
    let url = format!("{}/v1/logs", node.url("otlp-http").unwrap());
    for number in 0..REQUESTS {
        let body = one_log("synced", vec![attribute("mark", text(&number.to_string()))]);
        assert_eq!(post(&url, "application/x-protobuf", None, body).await.status, 200);
    }
    node.stop().await.unwrap();

    let calls = calls(&fs::read_to_string(&trace).unwrap());
    let is_request = |call: &Call| call.arguments.contains("POST /v1/logs");
    let is_success = |call: &Call| call.arguments.contains("\"HTTP/1.1 200") && call.name != "read";
    let synced_file = |call: &Call| call.ok && call.name == "fdatasync" && call.arguments.contains("/journal/");
    let synced_folder = |call: &Call| call.ok && call.name == "fsync" && call.arguments.contains("/journal>");

    let first_success = calls.iter().position(is_success).unwrap();
    assert!(
        calls[..first_success].iter().any(synced_folder),
        "the journal's folder was not synced"
    );
    let mut answered = 0;
    let mut waiting = None;
    for (place, call) in calls.iter().enumerate() {
        if is_request(call) {
            waiting = Some(place);
        } else if let Some(since) = waiting
            && is_success(call)
        {
            assert!(
                calls[since..place].iter().any(synced_file),
                "answer {answered} was sent before the journal was synced:\n{:#?}",
                &calls[since..=place]
            );
            answered += 1;
            waiting = None;
        }
    }
    assert_eq!(answered, REQUESTS, "the trace does not show the requests");
}
