//! The headlines: whether data moves, and everything that somebody should look at.

use serde_json::Value;
use sluice_settings::readable;

use super::paint::Paint;
use super::{ago, number, several, words};

/// A line is never longer, so that it fits where people read it.
const WIDTH: usize = 100;
/// Silent streams that are named; `--json` has all.
const NAMED: usize = 10;
/// Counters whose names speak of one of these are zero on a good day.
const UNWANTED: [&str; 13] = [
    "damaged",
    "error",
    "fail",
    "fault",
    "gap",
    "hold",
    "invalid",
    "lost",
    "overload",
    "quarantine",
    "refus",
    "reject",
    "tombstone",
];
/// Parts that are shown by themselves.
const SHOWN_APART: [&str; 4] = ["completeness", "plugins", "partitions", "chain"];

pub(super) fn headlines(status: &Value, now_ms: u64, paint: Paint) -> String {
    let mut news = News {
        paint,
        out: String::new(),
    };
    match status["ready"].as_bool() {
        Some(true) => news.good("ready: data moves"),
        _ => news.bad("NOT READY: data does not move"),
    }
    news.edge(status, now_ms);
    news.gateway(status);
    if let Some(trouble) = words(&status["ingest"], "/log_trouble") {
        news.bad(&format!("the log cannot be used: {trouble}"));
    }
    news.completeness(&status["completeness"]);
    news.plugins(status);
    let mut counted = Vec::new();
    unwanted(status, &mut Vec::new(), false, &mut counted);
    if !counted.is_empty() {
        news.look(&format!("since the start: {}", counted.join(", ")));
    }
    news.out
}

struct News {
    paint: Paint,
    out: String,
}

impl News {
    fn good(&mut self, text: &str) {
        let mark = self.paint.good("●");
        self.tell(&mark, text);
    }

    fn look(&mut self, text: &str) {
        let mark = self.paint.look("!");
        self.tell(&mark, text);
    }

    fn bad(&mut self, text: &str) {
        let mark = self.paint.bad("✗");
        self.tell(&mark, text);
    }

    fn tell(&mut self, mark: &str, text: &str) {
        self.out.push_str(mark);
        self.out.push(' ');
        self.out.push_str(&wrapped(text, WIDTH - 2, "  "));
        self.out.push('\n');
    }

    fn edge(&mut self, status: &Value, now_ms: u64) {
        let edge = &status["edge"];
        if edge.is_null() {
            return;
        }
        match words(edge, "/phase").as_deref() {
            None | Some("running") => {}
            Some(phase) => self.bad(&format!("the edge is {phase}")),
        }
        if edge["disk_full"] == true {
            self.bad("the edge's disk is full: new events are refused until there is room, what was accepted is kept");
        }
        let link = &edge["link"];
        if let Some(alarm) = words(link, "/alarm") {
            self.bad(&format!("link: {alarm}"));
        }
        let certificate = &link["certificate"];
        if let Some(problem) = words(certificate, "/problem") {
            match certificate["degraded"] == true {
                true => self.bad(&format!("link: {problem}")),
                false => self.look(&format!("link: {problem}")),
            }
        }
        if let Some(problem) = words(certificate, "/files_problem") {
            self.look(&format!("link: certificate files: {problem}"));
        }
        if link["connected"] == false {
            let phase = words(link, "/phase").unwrap_or_default();
            let why = words(link, "/last_error").map_or(String::new(), |why| format!(": {why}"));
            let waiting = several(number(edge, "/spool/batches"), "batch");
            let since = link["down_since_unix_ms"].as_u64();
            let time = since.map_or(String::new(), |at| {
                format!(" for {}", readable::span(now_ms.saturating_sub(at)))
            });
            let asks = match link["spares_bytes"] == true {
                true => ", asks with few bytes",
                false => "",
            };
            self.look(&format!(
                "no link to a gateway{time} ({phase}{asks}), {waiting} waiting{why}"
            ));
        }
        let chain = &edge["chain"];
        if let Some(why) = words(chain, "/refused/why") {
            let since = ago(number(chain, "/refused/at_ms"), now_ms);
            self.bad(&format!(
                "the plugins asked for {since} are refused, those from before go on: {why}"
            ));
        }
        for warning in chain["warnings"].as_array().into_iter().flatten() {
            if let Some(warning) = words(warning, "") {
                self.look(&warning);
            }
        }
    }

    /// Files of the gateway that are not used.
    fn gateway(&mut self, status: &Value) {
        let problems = status.pointer("/ingest/gateway/problems").and_then(Value::as_array);
        for problem in problems.into_iter().flatten() {
            if let Some(problem) = words(problem, "") {
                self.look(&format!("gateway: {problem}"));
            }
        }
    }

    fn completeness(&mut self, c: &Value) {
        if c.is_null() {
            return;
        }
        if let Some(error) = words(c, "/error") {
            return self.bad(&format!("the stores cannot be read: {error}"));
        }
        match (c["complete"].as_bool(), c["missing_records"].as_u64()) {
            (Some(true), _) => self.good("stores hold all of the log"),
            (_, Some(missing)) => {
                let age = c["oldest_missing_age_ms"].as_u64().map(readable::span);
                let age = age.map_or(String::new(), |age| format!(", the oldest for {age}"));
                let records = several(missing, "record");
                self.look(&format!("{records} of the log not in the stores yet{age}"));
            }
            _ => self.look("the end of the log is not known"),
        }
        let Some(streams) = c["streams"].as_array() else {
            return;
        };
        let silent: Vec<&Value> = streams.iter().filter(|stream| stream["silent"] == true).collect();
        let gaps = streams.iter().filter(|stream| number(stream, "/gaps") > 0).count();
        let all = several(streams.len() as u64, "edge stream");
        let text = format!("{all}, {} silent, {gaps} with gaps", silent.len());
        match silent.is_empty() && gaps == 0 {
            true => self.good(&text),
            false => self.look(&text),
        }
        for stream in silent.iter().take(NAMED) {
            let (name, heard) = (words(stream, "/stream"), words(stream, "/last_heard"));
            let heard = heard.unwrap_or_else(|| "never".to_owned());
            self.tell(
                " ",
                &format!("silent: {} (last heard {heard})", name.unwrap_or_default()),
            );
        }
        if silent.len() > NAMED {
            self.tell(" ", &format!("… and {} more (--json has all)", silent.len() - NAMED));
        }
    }

    /// Plugins that do not do their work, or did it badly.
    fn plugins(&mut self, status: &Value) {
        for plugin in status
            .pointer("/edge/plugins")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let name = format!(
                "plugin {} {}",
                words(plugin, "/name").unwrap_or_default(),
                words(plugin, "/version").unwrap_or_default()
            );
            if let Some(why) = words(plugin, "/blocked") {
                self.bad(&format!("{name} may not run: {why}"));
            }
            if let Some(other) = words(plugin, "/rolled_back_from") {
                self.look(&format!("{name} runs again, because {other} failed"));
            }
            let open = words(plugin, "/breaker").filter(|breaker| breaker != "closed");
            if let Some(breaker) = &open {
                self.bad(&format!(
                    "{name} is switched off for a while after faults (breaker {breaker})"
                ));
            }
            let faults = number(plugin, "/faults");
            if faults > 0 {
                let last = words(plugin, "/last_fault").map_or(String::new(), |last| format!(", the last one: {last}"));
                self.look(&format!("{name}: {}{last}", several(faults, "fault")));
            }
        }
    }
}

/// Counters that should be zero and are not, as `edge link refusals 3`; `is` whether the name above speaks of such.
fn unwanted(value: &Value, path: &mut Vec<String>, is: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if SHOWN_APART.contains(&name.as_str()) {
                    continue;
                }
                let is = is || UNWANTED.iter().any(|word| name.contains(word));
                path.push(name.replace('_', " "));
                unwanted(inner, path, is, found);
                path.pop();
            }
        }
        Value::Number(number) if is => {
            if let Some(count) = number.as_u64().filter(|count| *count > 0) {
                found.push(format!("{} {}", path.join(" "), readable::count(count)));
            }
        }
        _ => {}
    }
}

/// Breaks a text between words; lines after the first are indented. A word that is longer than a line stays whole.
pub(super) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += length;
    }
    out
}
