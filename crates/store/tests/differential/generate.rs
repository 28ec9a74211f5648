//! Queries from a seed: what people ask of telemetry, over every type of column.

use crate::common::Seeded;

/// One query. Its answer is the same wherever the rows are.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) class: &'static str,
    pub(crate) sql: String,
    /// The order of the rows is said whole.
    pub(crate) ordered: bool,
}

type Make = fn(&mut Draw) -> (String, bool);

pub(crate) const CLASSES: [(&str, Make); 19] = [
    ("filter", filter),
    ("aggregate", aggregate),
    ("group", group),
    ("having", having),
    ("top-k", top),
    ("ties", ties),
    ("limit", limit),
    ("join", join),
    ("window", window),
    ("nulls", nulls),
    ("map", map),
    ("list", list),
    ("zone", zone),
    ("bin", bin),
    ("distinct", distinct),
    ("case", case),
    ("union", union),
    ("subquery", subquery),
    ("view", view),
];

/// A total order.
const PLACE: &str = "\"partition\", \"offset\", \"row\"";

pub(crate) fn question(seed: u64, number: usize) -> Question {
    let (class, make) = CLASSES[number % CLASSES.len()];
    let mut draw = Draw(Seeded::new(
        seed ^ (number as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d),
    ));
    let (sql, ordered) = make(&mut draw);
    Question { class, sql, ordered }
}

/// Choices.
pub(crate) struct Draw(Seeded);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn some<'a>(&mut self, count: usize, choices: &[&'a str]) -> Vec<&'a str> {
        let mut rest = choices.to_vec();
        (0..count.min(choices.len()))
            .map(|_| rest.remove(self.below(rest.len() as u64) as usize))
            .collect()
    }

    /// A moment around those of the rows, some to the nanosecond.
    fn moment(&mut self) -> String {
        let (second, nanos) = (self.below(135), self.below(1_000_000_000));
        let day = if self.chance(6) { 19 + self.below(2) } else { 21 };
        let rest = match self.below(3) {
            0 => String::new(),
            1 => format!(".{:03}", nanos / 1_000_000),
            _ => format!(".{nanos:09}"),
        };
        format!(
            "TIMESTAMP '2025-11-{day}T04:{}:{:02}{rest}Z'",
            40 + second / 60,
            second % 60
        )
    }

    fn trace(&mut self) -> String {
        format!("'{:032x}'", self.below(50))
    }

    fn op(&mut self) -> &'static str {
        self.of(&["=", "<>", "<", "<=", ">", ">="])
    }

    fn wide_op(&mut self) -> &'static str {
        self.of(&["<", "<=", ">", ">=", "<>"])
    }

    /// Something that is true of some rows.
    fn predicate(&mut self, depth: u64) -> String {
        if depth > 0 && self.chance(3) {
            let (left, right) = (self.predicate(depth - 1), self.predicate(depth - 1));
            return match self.below(4) {
                0 => format!("({left} AND {right})"),
                1 => format!("NOT ({left} AND {right})"),
                _ => format!("({left} OR {right})"),
            };
        }
        match self.below(12) {
            0 | 1 => self.on_text(),
            2 => self.on_pattern(),
            3 | 4 => self.on_number(),
            5 => self.on_float(),
            6 | 7 => self.on_time(),
            8 => self.on_map(),
            9 => self.on_trace(),
            10 => self.on_null(),
            _ => self.on_bool_or_list(),
        }
    }

    fn on_text(&mut self) -> String {
        let n = self.below(5);
        match self.below(9) {
            0 => format!("service {} 'service-{n}'", self.wide_op()),
            1 => format!("service IN ('service-{n}', 'service-{}', 'nobody')", self.below(5)),
            2 => format!("service NOT IN ('service-{n}', 'nobody')"),
            3 => format!("name BETWEEN 'name-{n}' AND 'name-{}'", n + 2),
            4 => format!(
                "signal {} '{}'",
                self.of(&["=", "<>"]),
                self.of(&["log", "span", "metric"])
            ),
            5 => format!("upper(service) = 'SERVICE-{n}'"),
            6 => format!("character_length(body) {} {}", self.wide_op(), 17 + n),
            7 => format!("'name-{n}' {} name", self.wide_op()),
            _ => format!(
                "concat(service, '/', signal) = 'service-{n}/{}'",
                self.of(&["log", "span", "metric"])
            ),
        }
    }

    fn on_pattern(&mut self) -> String {
        let n = self.below(10);
        match self.below(9) {
            0 => format!("body LIKE '%{n}%'"),
            1 => format!("body LIKE 'line {n}%'"),
            2 => format!("name LIKE 'name-_' AND name NOT LIKE '%{}'", n % 7),
            3 => format!("body ILIKE 'LINE %{n}'"),
            4 => format!("service ~ 'service-[0-{}]'", n % 4),
            5 => format!("body !~ '{n} of'"),
            6 => format!("regexp_like(body, '^line \\d*{n}')"),
            7 => format!("starts_with(body, 'line {n}')"),
            _ => format!("strpos(body, '{n}{}') > 0", self.below(10)),
        }
    }

    fn on_number(&mut self) -> String {
        let n = self.below(24);
        match self.below(10) {
            0 => format!("severity {} {n}", self.op()),
            1 => format!("severity BETWEEN {} AND {}", n / 2, n),
            2 => format!("severity IN ({n}, {}, {})", self.below(24), self.below(24)),
            3 => format!("duration_ns {} {}", self.wide_op(), self.below(1 << 40)),
            4 => format!("\"count\" {} {}", self.wide_op(), u64::MAX - n),
            5 => "flags = 4294967294".to_owned(),
            6 => format!("\"offset\" {} {}", self.wide_op(), self.below(48)),
            7 => format!("severity % 3 = {}", n % 3),
            8 => format!("\"row\" + \"offset\" {} {}", self.wide_op(), 10 + n),
            _ => format!("duration_ns / 1000000000 {} {}", self.wide_op(), self.below(1100)),
        }
    }

    fn on_float(&mut self) -> String {
        match self.below(5) {
            0 => format!("value {} {}", self.wide_op(), self.below(24)),
            1 => format!("\"sum\" {} {}.25", self.op(), self.below(12)),
            2 => format!("\"max\" {} {}.5", self.wide_op(), self.below(12)),
            3 => "weight = 1.0".to_owned(),
            _ => format!("value * 2 {} \"sum\"", self.wide_op()),
        }
    }

    fn on_time(&mut self) -> String {
        let moment = self.moment();
        match self.below(7) {
            0 => format!("\"time\" BETWEEN {moment} AND {moment} + INTERVAL '40 seconds'"),
            1 => format!(
                "date_trunc('minute', \"time\") = TIMESTAMP '2025-11-21T04:4{}:00Z'",
                self.below(3)
            ),
            2 => format!("observed_time {} {moment}", self.wide_op()),
            3 => format!("ingested_at {} {moment}", self.wide_op()),
            4 => format!("{moment} {} \"time\"", self.wide_op()),
            5 => format!("extract(second FROM \"time\") {} {}", self.wide_op(), self.below(60)),
            _ => format!("\"time\" {} {moment}", self.wide_op()),
        }
    }

    fn on_map(&mut self) -> String {
        match self.below(8) {
            0 => format!("attrs['route'] = '/r{}'", self.below(4)),
            1 => format!("attrs['n'] > '{}'", self.below(9)),
            2 => "attrs['absent'] IS NULL".to_owned(),
            3 => format!("attrs['route'] IN ('/r{}', '/r2')", self.below(4)),
            4 => format!("attrs['route'] <> '/r{}'", self.below(4)),
            5 => format!("resource['zone'] = 'z{}'", self.below(3)),
            6 => format!("attrs['twice'] = '{}'", self.of(&["first", "second", ""])),
            _ => format!("attrs['route'] LIKE '%{}'", self.below(4)),
        }
    }

    fn on_trace(&mut self) -> String {
        let (one, other) = (self.trace(), self.trace());
        match self.below(3) {
            0 => format!("trace_id = {one}"),
            1 => format!("trace_id IN ({one}, {other}, {})", self.trace()),
            _ => format!("trace_id > {one}"),
        }
    }

    fn on_null(&mut self) -> String {
        let column = self.of(&[
            "service",
            "body",
            "severity",
            "trace_id",
            "value",
            "duration_ns",
            "monotonic",
            "\"sum\"",
            "host",
        ]);
        match self.below(4) {
            0 => format!("{column} IS NOT NULL"),
            1 => format!("{column} IS NULL"),
            2 => format!("coalesce(severity, {}) > 5", self.below(12)),
            _ => format!("(service IS DISTINCT FROM 'service-{}')", self.below(4)),
        }
    }

    fn on_bool_or_list(&mut self) -> String {
        match self.below(6) {
            0 => "monotonic".to_owned(),
            1 => "NOT monotonic".to_owned(),
            2 => "monotonic IS NOT TRUE".to_owned(),
            3 => format!("buckets[1] > {}", self.below(1 << 40)),
            4 => "array_length(bounds) = 2".to_owned(),
            _ => "bounds IS NULL".to_owned(),
        }
    }

    /// ` WHERE …`, mostly.
    fn filtered(&mut self) -> String {
        match self.chance(4) {
            true => String::new(),
            false => format!(" WHERE {}", self.predicate(2)),
        }
    }

    fn key(&mut self) -> &'static str {
        self.of(&[
            "service",
            "signal",
            "name",
            "severity",
            "monotonic",
            "attrs['route']",
            "attrs['twice']",
            "resource['zone']",
            "date_trunc('minute', \"time\")",
            "date_trunc('day', \"time\")",
            "date_bin(INTERVAL '10 seconds', \"time\")",
            "severity % 4",
            "upper(service)",
            "flags",
            "service IS NULL",
            "CASE WHEN severity > 12 THEN 'bad' ELSE 'good' END",
            "coalesce(service, 'none')",
            "extract(minute FROM \"time\")",
            "\"partition\"",
        ])
    }

    fn measure(&mut self) -> &'static str {
        self.of(&[
            "count(*)",
            "count(*)",
            "count(severity)",
            "count(service)",
            "sum(severity)",
            "sum(duration_ns)",
            "sum(value)",
            "sum(weight)",
            "avg(severity)",
            "avg(duration_ns)",
            "avg(value)",
            "min(\"time\")",
            "max(\"time\")",
            "max(ingested_at)",
            "min(service)",
            "max(body)",
            "min(severity)",
            "max(duration_ns)",
            "min(value)",
            "max(\"count\")",
            "min(flags)",
            "count(DISTINCT service)",
            "count(DISTINCT trace_id)",
            "count(DISTINCT severity)",
            "bool_or(monotonic)",
            "bool_and(monotonic)",
            "count(*) FILTER (WHERE severity > 12)",
            "sum(value) FILTER (WHERE signal = 'metric')",
            "min(attrs['route'])",
            "count(attrs['twice'])",
            "max(value) - min(value)",
            "median(severity)",
            "sum(\"row\" + 1)",
            "sum(flags)",
        ])
    }

    fn measures(&mut self) -> String {
        let count = 1 + self.below(3);
        let each: Vec<String> = (0..count).map(|n| format!("{} AS m{n}", self.measure())).collect();
        each.join(", ")
    }
}

fn filter(d: &mut Draw) -> (String, bool) {
    let columns = match d.chance(5) {
        true => "*".to_owned(),
        false => {
            let count = 1 + d.below(4) as usize;
            let all = [
                "service",
                "body",
                "severity",
                "\"time\"",
                "value",
                "trace_id",
                "attrs",
                "buckets",
                "\"count\"",
                "flags",
                "monotonic",
                "resource",
            ];
            format!("\"offset\", {}", d.some(count, &all).join(", "))
        }
    };
    (format!("SELECT {columns} FROM events WHERE {}", d.predicate(3)), false)
}

fn aggregate(d: &mut Draw) -> (String, bool) {
    let (measures, filtered) = (d.measures(), d.filtered());
    if d.chance(5) {
        // What is learnt of one extreme must not hide rows of another.
        let (one, other) = (d.of(&["max", "min"]), d.of(&["max", "min"]));
        let column = d.of(&["\"offset\"", "time", "severity", "duration_ns"]);
        let sql =
            format!("SELECT {one}({column}), {other}(character_length(body)), max(ingested_at) FROM events{filtered}");
        return (sql, false);
    }
    (format!("SELECT {measures} FROM events{filtered}"), false)
}

fn group(d: &mut Draw) -> (String, bool) {
    let (one, other) = (d.key(), d.key());
    let (measures, filtered) = (d.measures(), d.filtered());
    let sql = match d.below(6) {
        0 => format!("SELECT {one} AS k, {other} AS l, {measures} FROM events{filtered} GROUP BY ROLLUP(k, l)"),
        1 | 2 => format!("SELECT {one} AS k, {other} AS l, {measures} FROM events{filtered} GROUP BY k, l"),
        _ => format!("SELECT {one} AS k, {measures} FROM events{filtered} GROUP BY k"),
    };
    // The same column twice is one group too many for a rollup.
    (
        if one == other {
            sql.replace("ROLLUP(k, l)", "k, l")
        } else {
            sql
        },
        false,
    )
}

fn having(d: &mut Draw) -> (String, bool) {
    let (key, measures, filtered) = (d.key(), d.measures(), d.filtered());
    let condition = d.of(&[
        "count(*) > 3",
        "avg(severity) > 8",
        "max(\"time\") > TIMESTAMP '2025-11-21T04:40:30Z'",
        "count(DISTINCT service) > 1",
    ]);
    let sql = format!("SELECT {key} AS k, {measures} FROM events{filtered} GROUP BY k HAVING {condition}");
    (sql, false)
}

fn direction(d: &mut Draw) -> &'static str {
    d.of(&[
        "",
        " DESC",
        " DESC",
        " NULLS FIRST",
        " DESC NULLS LAST",
        " ASC NULLS LAST",
    ])
}

fn top(d: &mut Draw) -> (String, bool) {
    let limit = 1 + d.below(12);
    let (filtered, way) = (d.filtered(), direction(d));
    let sql = match d.below(6) {
        0 => {
            let key = d.key();
            format!(
                "SELECT {key} AS k, count(*) AS n FROM events{filtered} GROUP BY k ORDER BY n DESC, k LIMIT {limit}"
            )
        }
        1 => format!(
            "SELECT service, max(\"time\") AS t FROM events{filtered} GROUP BY service ORDER BY t{way}, service LIMIT {limit}"
        ),
        2 => {
            let key = d.of(&[
                "severity",
                "service",
                "value",
                "duration_ns",
                "trace_id",
                "\"count\"",
                "monotonic",
                "\"max\"",
            ]);
            format!(
                "SELECT {key}, body FROM events{filtered} ORDER BY {key}{way}, {PLACE} LIMIT {limit} OFFSET {}",
                d.below(4)
            )
        }
        3 => format!("SELECT * FROM events{filtered} ORDER BY \"time\"{way}, {PLACE} LIMIT {limit}"),
        _ => format!(
            "SELECT \"time\", body, attrs['route'] FROM events{filtered} ORDER BY \"time\"{way}, {PLACE} LIMIT {limit}"
        ),
    };
    (sql, true)
}

/// Which of equal rows come is open, so only what is equal is shown.
fn ties(d: &mut Draw) -> (String, bool) {
    let limit = 1 + d.below(20);
    let (filtered, way) = (d.filtered(), direction(d));
    let key = d.of(&[
        "\"time\"",
        "\"time\"",
        "severity",
        "service",
        "ingested_at",
        "monotonic",
        "attrs['route']",
        "value",
        "flags",
    ]);
    (
        format!("SELECT {key} FROM events{filtered} ORDER BY {key}{way} LIMIT {limit}"),
        true,
    )
}

fn limit(d: &mut Draw) -> (String, bool) {
    let (limit, filtered) = (d.below(30), d.filtered());
    let columns = d.of(&["1", "body", "\"time\", attrs", "*"]);
    (
        format!("SELECT count(*) FROM (SELECT {columns} FROM events{filtered} LIMIT {limit})"),
        false,
    )
}

fn join(d: &mut Draw) -> (String, bool) {
    let kind = d.of(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
    let (left, right) = (d.predicate(1), d.predicate(1));
    let sql = match d.below(5) {
        0 => format!(
            "SELECT s.name, l.body FROM (SELECT name, trace_id FROM spans WHERE duration_ns > {}) s {kind} (SELECT body, trace_id FROM logs) l ON s.trace_id = l.trace_id",
            d.below(1 << 40)
        ),
        1 => format!(
            "SELECT a.service, count(*) AS n, sum(b.severity) FROM (SELECT * FROM events WHERE {left}) a {kind} (SELECT * FROM events WHERE {right}) b ON a.trace_id = b.trace_id AND a.signal <> b.signal GROUP BY a.service"
        ),
        2 => format!(
            "SELECT service, \"offset\" FROM events a WHERE trace_id IN (SELECT trace_id FROM events WHERE {right})"
        ),
        3 => format!(
            "SELECT a.\"offset\", a.\"row\" FROM events a LEFT ANTI JOIN (SELECT trace_id FROM events WHERE {right}) b ON a.trace_id = b.trace_id"
        ),
        _ => format!(
            "SELECT a.trace_id, a.\"time\", b.\"time\" FROM (SELECT trace_id, \"time\" FROM events WHERE {left}) a {kind} (SELECT trace_id, \"time\" FROM events WHERE {right}) b ON a.trace_id = b.trace_id AND a.\"time\" < b.\"time\""
        ),
    };
    (sql, false)
}

fn window(d: &mut Draw) -> (String, bool) {
    let key = d.of(&["service", "signal", "name", "attrs['route']", "\"partition\""]);
    let filtered = d.filtered();
    let over = format!("(PARTITION BY {key} ORDER BY \"time\", {PLACE})");
    let what = match d.below(8) {
        0 => format!("row_number() OVER {over}"),
        1 => format!("rank() OVER (PARTITION BY {key} ORDER BY severity)"),
        2 => format!("lag(severity) OVER {over}"),
        3 => format!("lead(body, 2) OVER {over}"),
        4 => format!(
            "sum(severity) OVER (PARTITION BY {key} ORDER BY \"time\", {PLACE} ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)"
        ),
        5 => format!("count(*) OVER (PARTITION BY {key})"),
        6 => format!("first_value(\"time\") OVER {over}"),
        _ => {
            format!("max(severity) OVER (ORDER BY \"time\", {PLACE} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)")
        }
    };
    let sql = match d.chance(3) {
        true => format!(
            "SELECT * FROM (SELECT \"offset\", \"row\", {key} AS k, row_number() OVER {over} AS n FROM events{filtered}) WHERE n <= {}",
            1 + d.below(3)
        ),
        false => format!("SELECT \"offset\", \"row\", {what} AS w FROM events{filtered}"),
    };
    (sql, false)
}

fn nulls(d: &mut Draw) -> (String, bool) {
    let filtered = d.filtered();
    let sql = match d.below(6) {
        0 => format!("SELECT coalesce(service, name, 'none') AS c, count(*) FROM events{filtered} GROUP BY c"),
        1 => format!(
            "SELECT nullif(service, 'service-1') AS c, count(severity), count(*) FROM events{filtered} GROUP BY c"
        ),
        2 => format!("SELECT \"offset\", nvl(severity, -1), body IS NULL FROM events{filtered}"),
        3 => format!(
            "SELECT severity IS NULL AS a, value IS NULL AS b, count(*), sum(value), avg(severity) FROM events{filtered} GROUP BY a, b"
        ),
        4 => format!(
            "SELECT count(*) FROM events WHERE (severity > 5) IS {} TRUE",
            d.of(&["", "NOT"])
        ),
        _ => format!(
            "SELECT \"offset\", \"row\" FROM events WHERE {} ORDER BY severity NULLS FIRST, {PLACE} LIMIT 9",
            d.on_null()
        ),
    };
    (sql, false)
}

fn map(d: &mut Draw) -> (String, bool) {
    let (condition, filtered) = (d.on_map(), d.filtered());
    let sql = match d.below(7) {
        0 => format!("SELECT attrs['route'] AS r, attrs['n'] AS n, count(*) FROM events{filtered} GROUP BY r, n"),
        1 => format!("SELECT \"offset\", attrs FROM events WHERE {condition}"),
        2 => format!("SELECT \"offset\", map_keys(attrs), cardinality(attrs) FROM events WHERE {condition}"),
        3 => format!("SELECT count(*), count(attrs['twice']), max(attrs['n']) FROM events WHERE {condition}"),
        4 => format!("SELECT k, count(*) FROM (SELECT unnest(map_keys(attrs)) AS k FROM events{filtered}) GROUP BY k"),
        5 => format!(
            "SELECT CAST(attrs['n'] AS BIGINT) AS n, count(*) FROM events{filtered} GROUP BY n ORDER BY n LIMIT 8"
        ),
        _ => format!("SELECT attrs['route'], resource['zone'], service FROM events WHERE {condition}"),
    };
    (sql, false)
}

fn list(d: &mut Draw) -> (String, bool) {
    let filtered = d.filtered();
    let sql = match d.below(5) {
        0 => format!("SELECT \"offset\", buckets[1], bounds[2], array_length(buckets) FROM events{filtered}"),
        1 => format!("SELECT unnest(bounds) AS b, count(*) FROM events{filtered} GROUP BY b"),
        2 => format!("SELECT max(buckets[1]), count(bounds[1]) FROM events{filtered}"),
        3 => format!(
            "SELECT \"offset\", buckets, bounds FROM events WHERE buckets[2] IS NOT NULL AND {}",
            d.predicate(1)
        ),
        _ => format!("SELECT array_length(bounds) AS n, count(*), sum(bounds[1]) FROM events{filtered} GROUP BY n"),
    };
    (sql, false)
}

fn zone(d: &mut Draw) -> (String, bool) {
    let zone = d.of(&["Europe/Berlin", "Asia/Kolkata", "America/New_York", "+05:30", "UTC"]);
    let (filtered, moment) = (d.filtered(), d.moment());
    let there = format!("arrow_cast(\"time\", 'Timestamp(Nanosecond, Some(\"{zone}\"))')");
    let sql = match d.below(6) {
        0 => format!("SELECT date_trunc('hour', {there}) AS h, count(*) FROM events{filtered} GROUP BY h"),
        1 => format!("SELECT extract(hour FROM {there}) AS h, count(*) FROM events{filtered} GROUP BY h"),
        2 => format!("SELECT \"offset\", \"time\" AT TIME ZONE '{zone}' FROM events{filtered}"),
        3 => format!("SELECT count(*) FROM events WHERE {there} > {moment}"),
        4 => format!("SELECT \"offset\", \"row\", {there} FROM events{filtered} ORDER BY {PLACE} LIMIT 11"),
        _ => format!(
            "SELECT date_trunc('day', {there}) AS d, min(\"time\"), max({there}) FROM events{filtered} GROUP BY d"
        ),
    };
    (sql, false)
}

fn bin(d: &mut Draw) -> (String, bool) {
    let width = d.of(&["5 seconds", "10 seconds", "1 minute", "1 hour", "1 day"]);
    let (measures, filtered) = (d.measures(), d.filtered());
    let sql = match d.below(4) {
        0 => format!(
            "SELECT date_bin(INTERVAL '{width}', \"time\", TIMESTAMP '2025-11-20T00:00:03Z') AS b, {measures} FROM events{filtered} GROUP BY b"
        ),
        1 => format!(
            "SELECT date_bin(INTERVAL '{width}', \"time\") AS b, service, {measures} FROM events{filtered} GROUP BY b, service"
        ),
        2 => format!(
            "SELECT date_bin(INTERVAL '{width}', ingested_at) AS b, {measures} FROM events{filtered} GROUP BY b"
        ),
        _ => format!(
            "SELECT date_bin(INTERVAL '{width}', \"time\") AS b, {measures} FROM events{filtered} GROUP BY b ORDER BY b LIMIT 5"
        ),
    };
    (sql, false)
}

fn distinct(d: &mut Draw) -> (String, bool) {
    let (one, other, filtered) = (d.key(), d.key(), d.filtered());
    let sql = match d.below(7) {
        0 => format!("SELECT DISTINCT {one} AS k FROM events{filtered}"),
        1 => format!("SELECT DISTINCT {one} AS k, {other} AS l FROM events{filtered}"),
        2 => format!("SELECT count(DISTINCT {one}) FROM events{filtered}"),
        3 => format!(
            "SELECT {one} AS k, count(DISTINCT trace_id), count(DISTINCT service), count(*) FROM events{filtered} GROUP BY k"
        ),
        4 => format!(
            "SELECT approx_distinct({}) FROM events{filtered}",
            d.of(&["body", "trace_id", "\"offset\""])
        ),
        5 => format!("SELECT {one} AS k, {other} AS l, approx_distinct(body) FROM events{filtered} GROUP BY k, l"),
        _ => format!(
            "SELECT DISTINCT ON (service) service, \"offset\", \"row\" FROM events{filtered} ORDER BY service, {PLACE}"
        ),
    };
    (sql, false)
}

fn case(d: &mut Draw) -> (String, bool) {
    let (condition, other, filtered) = (d.predicate(1), d.predicate(1), d.filtered());
    let sql = match d.below(4) {
        0 => format!(
            "SELECT CASE WHEN {condition} THEN 'a' WHEN {other} THEN 'b' ELSE 'c' END AS c, count(*) FROM events{filtered} GROUP BY c"
        ),
        1 => format!("SELECT sum(CASE WHEN {condition} THEN 1 ELSE 0 END), count(*) FROM events{filtered}"),
        2 => format!(
            "SELECT \"offset\", CASE signal WHEN 'log' THEN body WHEN 'span' THEN name END FROM events{filtered}"
        ),
        _ => format!(
            "SELECT service, avg(CASE WHEN {condition} THEN severity END) FROM events{filtered} GROUP BY service"
        ),
    };
    (sql, false)
}

fn union(d: &mut Draw) -> (String, bool) {
    let (one, other) = (d.predicate(1), d.predicate(1));
    let word = d.of(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
    let columns = d.of(&["service", "signal, severity", "\"time\", body", "trace_id"]);
    let sql = match d.below(3) {
        0 => format!("SELECT {columns} FROM events WHERE {one} {word} SELECT {columns} FROM events WHERE {other}"),
        1 => format!(
            "SELECT service, count(*) AS n FROM (SELECT service, \"time\" FROM logs {word} SELECT service, \"time\" FROM spans) GROUP BY service"
        ),
        _ => format!(
            "SELECT 'a' AS w, count(*) FROM events WHERE {one} {word} SELECT 'b', count(*) FROM events WHERE {other}"
        ),
    };
    (sql, false)
}

fn subquery(d: &mut Draw) -> (String, bool) {
    let (inner, outer) = (d.predicate(1), d.predicate(1));
    let sql = match d.below(7) {
        0 => format!(
            "SELECT \"offset\", \"row\" FROM events WHERE trace_id IN (SELECT trace_id FROM events WHERE {inner}) AND {outer}"
        ),
        1 => format!(
            "SELECT \"offset\" FROM events WHERE service NOT IN (SELECT service FROM events WHERE service IS NOT NULL AND {inner})"
        ),
        2 => format!("SELECT count(*) FROM events WHERE severity > (SELECT avg(severity) FROM events WHERE {inner})"),
        3 => format!(
            "SELECT \"offset\" FROM events a WHERE EXISTS (SELECT 1 FROM events b WHERE b.trace_id = a.trace_id AND b.signal = 'log') AND {outer}"
        ),
        4 => format!(
            "WITH t AS (SELECT service, count(*) AS n FROM events WHERE {inner} GROUP BY service) SELECT * FROM t WHERE n > 2"
        ),
        5 => format!(
            "SELECT service, (SELECT max(severity) FROM events b WHERE b.service = a.service) AS m FROM events a WHERE {outer}"
        ),
        _ => format!(
            "SELECT max(n) FROM (SELECT service, count(*) AS n FROM (SELECT * FROM events WHERE {inner}) GROUP BY service)"
        ),
    };
    (sql, false)
}

fn view(d: &mut Draw) -> (String, bool) {
    let n = d.below(20);
    let sql = match d.below(7) {
        0 => format!("SELECT body, severity FROM logs WHERE severity > {n}"),
        1 => format!(
            "SELECT name, end_time, duration_ns FROM spans WHERE duration_ns > {} ORDER BY {PLACE}",
            d.below(1 << 40)
        ),
        2 => format!("SELECT name, sum(value), max(\"count\") FROM metrics WHERE value > {n} GROUP BY name"),
        3 => "SELECT bucket, plugin, reason, sum(\"rows\") FROM ledger GROUP BY bucket, plugin, reason".to_owned(),
        4 => format!("SELECT outcome, count(*) FROM ledger WHERE \"offset\" > {n} GROUP BY outcome"),
        5 => format!("SELECT quarantined_by, count(*) FROM quarantined WHERE \"offset\" > {n} GROUP BY quarantined_by"),
        _ => format!(
            "SELECT service, count(*), max(\"time\") FROM logs WHERE {} GROUP BY service",
            d.on_time()
        ),
    };
    (sql, false)
}
