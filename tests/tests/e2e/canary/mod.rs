//! P11: what a mask that fails should have hidden is nowhere: not in the journal, the spool, the log, the stores, nor in
//! what the process says.

mod events;
mod search;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sluice_bench::corpus::Signal;
use sluice_tests::{Node, eventually, plugins};

use self::events::Canaries;
use crate::otlp::{one_log, post};

/// Every way in which the guest made for this can fail; `plugins/faulty` has them.
const MODES: [&str; 23] = [
    "loop",
    "memory",
    "recurse",
    "trap",
    "error",
    "huge_output",
    "huge_list",
    "more_rows",
    "no_rows",
    "other_type",
    "other_new_type",
    "undeclared",
    "protected",
    "no_such_column",
    "weight_nan",
    "twice",
    "garbage",
    "truncated",
    "bad_offsets",
    "bad_utf8",
    "selection_short",
    "drops_uncounted",
    "bad_reason",
];

fn path(signal: Signal) -> &'static str {
    signal.http_path()
}

async fn send(node: &Node, signal: Signal, body: Vec<u8>) -> (u16, String) {
    let url = format!("{}{}", node.url("otlp-http").unwrap(), path(signal));
    let answer = post(&url, "application/x-protobuf", None, body).await;
    (
        answer.status.as_u16(),
        String::from_utf8_lossy(&answer.body).into_owned(),
    )
}

/// The folders of a node in which events can be, by what they are.
fn places(data: &Path) -> [(&'static str, PathBuf); 4] {
    [
        ("journal", data.join("edge/journal")),
        ("spool", data.join("edge/spool")),
        ("log", data.join("log")),
        ("lake", data.join("lake")),
    ]
}

/// The search finds everything in every place when nothing masks it. Without this the other test would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn p11_without_a_mask_every_canary_is_found_in_every_place() {
    // Nothing is sealed until the node is told to end, so that all of it is in the journal first.
    let config = "[edge.seal]\nfreshness = \"1 h\"\noffline_age = \"1 h\"\n";
    let mut node = Node::prepare(config).unwrap().started().await.unwrap();
    let mut sent = Vec::new();
    for signal in Signal::ALL {
        let mut canaries = Canaries::new(signal.as_str());
        let body = canaries.request(signal, None);
        assert_eq!(send(&node, signal, body).await.0, 200, "{signal:?}");
        sent.extend(canaries.made().iter().cloned());
    }
    let all: BTreeSet<String> = sent.iter().cloned().collect();
    assert!(all.len() >= 100, "{} canaries", all.len());
    let [journal, spool, log, lake] = places(&node.data());
    let missing = |place: &(&str, PathBuf)| -> Vec<String> {
        let found = search::found_below(&place.1, &sent);
        all.difference(&found).cloned().collect()
    };
    node.kill().unwrap();
    assert_eq!(missing(&journal), Vec::<String>::new(), "{journal:?}");
    // The next start seals what the journal holds, and ends as soon as that is on disk.
    let _ = node.start_with(&[("SLUICE_CRASH_AT", "edge.spool.synced")]).await;
    eventually("the spool holds all", || async {
        let missing = missing(&spool);
        missing.is_empty().then_some(()).ok_or_else(|| format!("{missing:?}"))
    })
    .await
    .unwrap();
    let _ = node.kill();
    node.start_again().await.unwrap();
    for place in [&log, &lake] {
        eventually(place.0, || async {
            let missing = missing(place);
            missing.is_empty().then_some(()).ok_or_else(|| format!("{missing:?}"))
        })
        .await
        .unwrap();
    }
    let shown = node.rows("SELECT 1 FROM events", 3).await.unwrap();
    assert_eq!(shown.rows.len(), 3);
}

/// One mask for every way to fail; each fails on the record that is made for it. Then masks that fail on everything.
#[tokio::test(flavor = "multi_thread")]
async fn p11_no_canary_gets_anywhere_past_a_mask_that_fails() {
    let dist = plugins().unwrap();
    let mask = |name: &str, mode: &str, more: &str, signals: &str| {
        format!(
            "[[edge.plugin]]\nname = \"{name}\"\npath = '{}/faulty_mask.wasm'\nunsigned = true\nconfig = {{ mode = \"{mode}\"{more} }}\n\
             signals = [{signals}]\n\n",
            dist.display()
        )
    };
    let mut config = String::from("[edge.seal]\nfreshness = \"100 ms\"\n\n");
    let only = |mode: &str| format!("canary.{mode}.body@example.com");
    for mode in MODES {
        config.push_str(&mask(mode, mode, &format!(", only = \"{}\"", only(mode)), "\"log\""));
    }
    config.push_str(&mask("always", "trap", "", "\"span\", \"metric\""));
    let mut node = Node::prepare(&config).unwrap().started().await.unwrap();
    let mut sent = Vec::new();
    for mode in MODES {
        let mut canaries = Canaries::new(mode);
        let body = only(mode);
        let request = canaries.request(Signal::Log, Some(&body));
        let (status, answer) = send(&node, Signal::Log, request).await;
        assert_eq!(status, 422, "{mode}: {answer}");
        assert!(answer.contains(mode), "{mode}: who refused is told: {answer}");
        sent.extend(canaries.made().iter().cloned().chain([body]));
        assert_eq!(
            search::found_in(answer.as_bytes(), &sent).count(),
            0,
            "{mode}: {answer}"
        );
    }
    // Until the breaker opens and after: 422 for events that made it fail, 503 while it is switched off.
    let mut statuses = BTreeSet::new();
    for round in 0..8 {
        for signal in [Signal::Span, Signal::Metric] {
            let mut canaries = Canaries::new(&format!("always-{round}-{}", signal.as_str()));
            let request = canaries.request(signal, None);
            statuses.insert(send(&node, signal, request).await.0);
            sent.extend(canaries.made().iter().cloned());
        }
    }
    assert_eq!(statuses, BTreeSet::from([422, 503]));
    // Beside them everything else goes on: what no mask fails on is accepted and stored.
    for n in 0..3 {
        let (status, answer) = send(&node, Signal::Log, one_log(&format!("harmless {n}"), Vec::new())).await;
        assert_eq!(status, 200, "{answer}");
    }
    node.rows("SELECT 1 FROM events WHERE body LIKE 'harmless%'", 3)
        .await
        .unwrap();
    let committed = vec!["harmless 0".to_owned()];
    let lake = places(&node.data())[3].1.clone();
    eventually("what is harmless is in the lake", || async {
        (!search::found_below(&lake, &committed).is_empty())
            .then_some(())
            .ok_or_else(|| "not yet".to_owned())
    })
    .await
    .unwrap();
    let said = node.process().unwrap().log_tail();
    assert_eq!(
        search::found_in(said.as_bytes(), &sent).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    let refused = format!(
        "SELECT 1 FROM ledger WHERE bucket = 'refused' HAVING sum(\"rows\") = {}",
        MODES.len() + 16
    );
    node.rows(&refused, 1).await.unwrap();
    let status = node.stop().await.unwrap();
    assert!(status.success(), "{status}");
    let found = search::found_below(&node.data(), &sent);
    assert_eq!(found, BTreeSet::new());
    assert!(sent.len() > 1_000, "{}", sent.len());
}
