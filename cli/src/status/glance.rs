//! How a node is, on one screen of 80 to 100 columns: headlines, then a few lines for each of its parts.

use serde_json::Value;
use sluice_settings::readable::{bytes, count, span};

use super::news::{self, wrapped};
use super::paint::Paint;
use super::{ago, number, plugins, several, words};

/// Labels stand in a column of this width, what they say beside it.
const LABEL: usize = 10;
const WIDTH: usize = 100;
/// Changes of the chain that are told.
const CHANGES: usize = 3;
/// Partitions that are told to be behind.
const BEHIND: usize = 5;

pub(super) fn render(status: &Value, now_ms: u64, paint: Paint) -> String {
    let mut page = Page {
        paint,
        out: news::headlines(status, now_ms, paint),
    };
    if !status["edge"].is_null() {
        page.edge(&status["edge"], now_ms);
    }
    if !status["ingest"].is_null() {
        page.ingest(&status["ingest"]);
    }
    if !status["queries"].is_null() {
        let (running, waiting) = (number(status, "/queries/running"), number(status, "/queries/waiting"));
        page.part("queries", &format!("{running} running, {waiting} waiting"));
    }
    page.out
}

struct Page {
    paint: Paint,
    out: String,
}

impl Page {
    fn part(&mut self, name: &str, said: &str) {
        let line = match said.is_empty() {
            true => self.paint.title(name),
            false => format!("{}  {said}", self.paint.title(&format!("{name:<LABEL$}"))),
        };
        self.out.push_str(&format!("\n{line}\n"));
    }

    fn line(&mut self, label: &str, said: &str) {
        let indent = " ".repeat(LABEL + 2);
        let label = self.paint.quiet(&format!("  {label:<width$}", width = LABEL - 2));
        let said = wrapped(said, WIDTH - LABEL - 2, &indent);
        self.out.push_str(&format!("{label}  {said}\n"));
    }

    fn edge(&mut self, edge: &Value, now_ms: u64) {
        let name = format!(
            "{}/{}",
            words(edge, "/tenant").unwrap_or_default(),
            words(edge, "/node").unwrap_or_default()
        );
        let version = words(edge, "/version").unwrap_or_default();
        let up = span(number(edge, "/uptime_ms"));
        self.part("edge", &format!("{name}, up for {up}, version {version}"));

        let [logs, spans, points] = ["log", "span", "metric"].map(|kind| number(edge, &format!("/accepted/{kind}")));
        let events = several(logs.saturating_add(spans).saturating_add(points), "event");
        let requests = several(number(edge, "/requests"), "request");
        let (logs, spans, points) = (
            several(logs, "log"),
            several(spans, "span"),
            several(points, "data point"),
        );
        self.line(
            "accepted",
            &format!("{events} in {requests}: {logs}, {spans}, {points}"),
        );
        let dropped = edge["dropped"].as_array().into_iter().flatten().map(|dropped| {
            let (plugin, reason) = (words(dropped, "/plugin"), words(dropped, "/reason"));
            let rows = count(number(dropped, "/rows"));
            format!(
                "{rows} by {} ({})",
                plugin.unwrap_or_default(),
                reason.unwrap_or_default()
            )
        });
        let dropped: Vec<String> = dropped.collect();
        if !dropped.is_empty() {
            self.line("dropped", &dropped.join(", "));
        }
        self.waiting(edge, now_ms);
        self.link(&edge["link"], now_ms);
        self.changes(&edge["chain"], now_ms);
        let plugins = edge["plugins"].as_array().map_or(&[][..], Vec::as_slice);
        if plugins.is_empty() {
            self.line("plugins", "none");
        } else {
            self.out.push('\n');
            self.out.push_str(&plugins::table(plugins, "  ", self.paint));
        }
    }

    /// What is on disk here and not acknowledged by a gateway.
    fn waiting(&mut self, edge: &Value, now_ms: u64) {
        let (records, unsealed) = (
            number(edge, "/journal/unsealed_records"),
            number(edge, "/journal/unsealed_bytes"),
        );
        let mut said = Vec::new();
        if records > 0 {
            said.push(format!(
                "{} ({}) to be sealed",
                several(records, "record"),
                bytes(unsealed)
            ));
        }
        match number(edge, "/spool/batches") {
            0 => said.push("nothing to be sent".to_owned()),
            batches => {
                let since = edge.pointer("/spool/oldest_sealed_unix_ms").and_then(Value::as_u64);
                let since = since.map_or(String::new(), |at| format!(", the oldest sealed {}", ago(at, now_ms)));
                said.push(format!(
                    "{} to be sent or acknowledged{since}",
                    several(batches, "batch")
                ));
            }
        }
        let (used, most) = (number(edge, "/spool/bytes"), number(edge, "/spool/max_bytes"));
        said.push(format!("spool {} of {}", bytes(used), bytes(most)));
        self.line("waiting", &said.join("; "));
    }

    fn link(&mut self, link: &Value, now_ms: u64) {
        if link.is_null() {
            return self.line("link", "none is configured: what is accepted stays here");
        }
        let gateway = words(link, "/gateway").unwrap_or_else(|| "no gateway".to_owned());
        let mut said = vec![format!("{} {gateway}", words(link, "/phase").unwrap_or_default())];
        if let Some(rtt) = link["rtt_ms"].as_f64() {
            said.push(format!("rtt {rtt:.1} ms"));
        }
        let (sent, sent_bytes) = (number(link, "/sent"), number(link, "/sent_bytes"));
        said.push(format!("{} ({}) sent", several(sent, "batch"), bytes(sent_bytes)));
        if let Some(at) = link["last_ack_unix_ms"].as_u64() {
            said.push(format!("last acknowledged {}", ago(at, now_ms)));
        }
        let again = number(link, "/retransmits");
        if again > 0 {
            said.push(format!("{} sent again", count(again)));
        }
        self.line("link", &said.join(", "));
        self.certificate(&link["certificate"], now_ms);
    }

    /// Until when it is valid, and when the next one comes.
    fn certificate(&mut self, certificate: &Value, now_ms: u64) {
        let Some(end) = certificate["not_after_unix_s"].as_u64() else {
            return;
        };
        let end = end.saturating_mul(1_000);
        let mut said = vec![match end > now_ms {
            true => format!("valid for {}", span(end - now_ms)),
            false => format!("expired {}", ago(end, now_ms)),
        }];
        match certificate["renews_at_unix_s"]
            .as_u64()
            .map(|at| at.saturating_mul(1_000))
        {
            Some(at) if at > now_ms => said.push(format!("to be renewed in {}", span(at - now_ms))),
            Some(_) => said.push("to be renewed now".to_owned()),
            None => said.push("not renewed over the link".to_owned()),
        }
        let renewals = number(certificate, "/renewals");
        if renewals > 0 {
            said.push(format!("renewed {} since the start", several(renewals, "time")));
        }
        self.line("identity", &said.join(", "));
    }

    fn changes(&mut self, chain: &Value, now_ms: u64) {
        let events = chain["events"].as_array().into_iter().flatten().rev().take(CHANGES);
        let told: Vec<String> = events
            .map(|event| {
                let [plugin, version, what] =
                    ["/plugin", "/version", "/what"].map(|place| words(event, place).unwrap_or_default());
                format!("{plugin} {version} {what} {}", ago(number(event, "/at_ms"), now_ms))
            })
            .collect();
        if !told.is_empty() {
            self.line("changes", &told.join("; "));
        }
    }

    fn ingest(&mut self, ingest: &Value) {
        let sessions = several(number(ingest, "/gateway/sessions"), "session");
        let (batches, received) = (
            number(ingest, "/gateway/batches_received"),
            number(ingest, "/gateway/bytes_received"),
        );
        let rows = several(number(ingest, "/gateway/rows_acknowledged"), "row");
        self.part("ingest", "");
        let batches = several(batches, "batch");
        self.line(
            "gateway",
            &format!(
                "{sessions}; {batches} ({}) received, {rows} acknowledged",
                bytes(received)
            ),
        );
        let partitions = ingest["partitions"].as_array().map_or(&[][..], Vec::as_slice);
        let log: u64 = partitions.iter().map(|partition| number(partition, "/log_bytes")).sum();
        let mut behind: Vec<(u64, u64)> = partitions
            .iter()
            .map(|partition| (number(partition, "/lag"), number(partition, "/partition")))
            .filter(|(lag, _)| *lag > 0)
            .collect();
        behind.sort_by_key(|(lag, _)| std::cmp::Reverse(*lag));
        let told: Vec<String> = behind
            .iter()
            .take(BEHIND)
            .map(|(lag, partition)| format!("partition {partition} by {}", several(*lag, "record")))
            .collect();
        let read = match told.is_empty() {
            true => "all of it read".to_owned(),
            false => format!("readers behind: {}", told.join(", ")),
        };
        let parts = several(partitions.len() as u64, "partition");
        // Not every log knows how large it is.
        let held = match log {
            0 => {
                let records = |p: &Value| number(p, "/log_end").saturating_sub(number(p, "/log_first"));
                several(partitions.iter().map(records).sum(), "record")
            }
            log => bytes(log),
        };
        self.line("log", &format!("{held} in {parts}, {read}"));
        let (hot, cap) = (number(ingest, "/hot_bytes"), number(ingest, "/hot_cap_bytes"));
        self.line("hot", &format!("{} of {}", bytes(hot), bytes(cap)));
        let (cold, files) = (number(ingest, "/cold_bytes"), number(ingest, "/cold_files"));
        self.line("cold", &format!("{} in {}", bytes(cold), several(files, "file")));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_795_284_754_000;

    fn node() -> Value {
        serde_json::from_str(include_str!("a_node.json")).unwrap()
    }

    #[test]
    fn a_good_day_is_one_screen_without_a_mark() {
        let shown = render(&node(), NOW, Paint::new(false));
        assert_eq!(shown, include_str!("a_node.txt"));
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        assert!(
            shown.lines().count() <= 24 && !shown.contains('!') && !shown.contains('✗'),
            "{shown}"
        );
        let painted = render(&node(), NOW, Paint::new(true));
        assert!(painted.contains("\x1b["));
        assert_eq!(without_colours(&painted), shown);
    }

    fn without_colours(text: &str) -> String {
        let mut pieces = text.split("\x1b[");
        let first = pieces.next().unwrap_or_default().to_owned();
        pieces.fold(first, |all, piece| {
            all + piece.split_once('m').map_or("", |(_, rest)| rest)
        })
    }

    #[test]
    fn bad_news_comes_first_and_none_is_left_out() {
        let mut status = node();
        status["ready"] = json!(false);
        status["completeness"] = json!({"complete": false, "missing_records": 3, "oldest_missing_age_ms": 5000,
            "streams": [{"stream": "acme/site-1/00", "silent": true, "gaps": 0, "last_heard": "2026-11-21T00:00:00Z"}]});
        status["edge"]["disk_full"] = json!(true);
        status["edge"]["link"]["connected"] = json!(false);
        status["edge"]["link"]["down_since_unix_ms"] = json!(NOW - 11_520_000);
        status["edge"]["link"]["spares_bytes"] = json!(true);
        status["edge"]["link"]["last_error"] = json!("time\u{1b}[2Jd out");
        status["edge"]["link"]["refusals"] = json!(3);
        status["edge"]["chain"]["warnings"] =
            json!(["the mask `mask` is switched off by `sluice plugin disable` since \
            2026-11-21T18:00:00Z: no reason given, by ada: events pass UNMASKED"]);
        status["edge"]["chain"]["refused"] = json!({"at_ms": NOW - 125_000, "why": "no package acme/x"});
        status["edge"]["refused"] = json!({"disk_full": 12_345});
        status["edge"]["plugins"][0]["breaker"] = json!("open");
        status["edge"]["plugins"][1]["faults"] = json!(1);
        status["edge"]["plugins"][1]["last_fault"] = json!("trap: unreachable");
        status["ingest"]["partitions"][0]["lag"] = json!(7);
        status["ingest"]["something_new"] = json!({"commits_failed": 2});
        let shown = render(&status, NOW, Paint::new(false));
        let news: Vec<&str> = shown.split("\n\n").next().unwrap().lines().collect();
        assert_eq!(
            news,
            [
                "✗ NOT READY: data does not move",
                "✗ the edge's disk is full: new events are refused until there is room, what was accepted is kept",
                "! no link to a gateway for 3 h 12 min (live, asks with few bytes), 0 batches waiting: time\u{fffd}[2Jd out",
                "✗ the plugins asked for 2 min 5 s ago are refused, those from before go on: no package acme/x",
                "! the mask `mask` is switched off by `sluice plugin disable` since 2026-11-21T18:00:00Z: no reason",
                "  given, by ada: events pass UNMASKED",
                "! 3 records of the log not in the stores yet, the oldest for 5 s",
                "! 1 edge stream, 1 silent, 0 with gaps",
                "  silent: acme/site-1/00 (last heard 2026-11-21T00:00:00Z)",
                "✗ plugin mask 0.1.0 is switched off for a while after faults (breaker open)",
                "! plugin sample 0.1.0: 1 fault, the last one: trap: unreachable",
                "! since the start: edge link refusals 3, edge refused disk full 12.3 k, ingest something new commits",
                "  failed 2",
            ],
            "{shown}"
        );
        assert!(shown.contains("readers behind: partition 0 by 7 records"), "{shown}");
    }

    #[test]
    fn a_node_of_one_role_or_of_another_version_is_shown_as_far_as_it_is_known() {
        for status in [
            json!({"ready": true}),
            json!({"ready": true, "edge": {}}),
            json!({"ready": true, "ingest": {}}),
        ] {
            assert!(
                render(&status, NOW, Paint::new(false)).starts_with("● ready"),
                "{status}"
            );
        }
        assert!(render(&json!(null), NOW, Paint::new(false)).starts_with("✗ NOT READY"));
    }
}
