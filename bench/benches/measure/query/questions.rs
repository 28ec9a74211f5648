//! The twenty questions, in the words of each side. Where the sides count differently (sketches), each uses its own.

use super::data::Rows;

/// A range of event times, in microseconds since 1970; the end is not in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect<'a> {
    Sluice,
    ClickHouse { database: &'a str },
    DuckDb,
}

/// `{events}` is the table, `{range}` the condition on the time, `{trace}` and `{service}` values that are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) name: &'static str,
    /// It asks for a range of time.
    pub(super) is_timed: bool,
    sluice: &'static str,
    /// `None`: the same words.
    clickhouse: Option<&'static str>,
    duckdb: Option<&'static str>,
}

const fn same(name: &'static str, text: &'static str) -> Question {
    Question {
        name,
        is_timed: true,
        sluice: text,
        clickhouse: None,
        duckdb: None,
    }
}

const fn each(name: &'static str, sluice: &'static str, clickhouse: &'static str, duckdb: &'static str) -> Question {
    Question {
        name,
        is_timed: true,
        sluice,
        clickhouse: Some(clickhouse),
        duckdb: Some(duckdb),
    }
}

pub(super) const ONE_TRACE: Question = Question {
    name: "one trace",
    is_timed: false,
    sluice: "SELECT time, signal, service, name, duration_ns, body FROM {events} WHERE trace_id = '{trace}' ORDER BY time",
    clickhouse: None,
    duckdb: None,
};

pub(super) const ALL: [Question; 20] = [
    same(
        "how many rows",
        "SELECT count(*) FROM {events} WHERE {range} AND signal <> '_batch'",
    ),
    same(
        "last error by service",
        "SELECT service, max(time) AS last FROM {events} WHERE {range} AND signal = 'log' AND severity >= 17 GROUP BY service ORDER BY service",
    ),
    same(
        "rows by service and signal",
        "SELECT service, signal, count(*) AS n FROM {events} WHERE {range} AND signal <> '_batch' GROUP BY service, signal ORDER BY n DESC",
    ),
    each(
        "p99 by route",
        "SELECT attrs['http.route'] AS route, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) AS p99, count(*) AS n \
         FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 2 DESC",
        "SELECT attrs['http.route'] AS route, quantileTDigest(0.99)(duration_ns) AS p99, count(*) AS n \
         FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 2 DESC",
        "SELECT attrs['http.route'] AS route, approx_quantile(duration_ns, 0.99) AS p99, count(*) AS n \
         FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 2 DESC",
    ),
    ONE_TRACE,
    same(
        "top talkers",
        "SELECT attrs['client.address'] AS client, count(*) AS n FROM {events} WHERE {range} AND signal = 'log' GROUP BY 1 ORDER BY n DESC LIMIT 10",
    ),
    each(
        "distinct users",
        "SELECT approx_distinct(attrs['user.email']) FROM {events} WHERE {range} AND signal = 'log'",
        "SELECT uniqHLL12(attrs['user.email']) FROM {events} WHERE {range} AND signal = 'log'",
        "SELECT approx_count_distinct(attrs['user.email']) FROM {events} WHERE {range} AND signal = 'log'",
    ),
    same(
        "search in bodies",
        "SELECT count(*) FROM {events} WHERE {range} AND signal = 'log' AND body LIKE '%rows of shard 77 %'",
    ),
    each(
        "expression in bodies",
        "SELECT count(*) FROM {events} WHERE {range} AND signal = 'log' AND regexp_like(body, 'transaction [0-9a-f]*00$')",
        "SELECT count(*) FROM {events} WHERE {range} AND signal = 'log' AND match(body, 'transaction [0-9a-f]*00$')",
        "SELECT count(*) FROM {events} WHERE {range} AND signal = 'log' AND regexp_matches(body, 'transaction [0-9a-f]*00$')",
    ),
    each(
        "rate, errors and duration by minute",
        "SELECT date_bin(INTERVAL '1 minute', time) AS minute, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors, \
         avg(duration_ns) AS mean FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 1",
        "SELECT toStartOfMinute(time) AS minute, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors, \
         avg(duration_ns) AS mean FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 1",
        "SELECT time_bucket(INTERVAL '1 minute', time) AS minute, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors, \
         avg(duration_ns) AS mean FROM {events} WHERE {range} AND signal = 'span' GROUP BY 1 ORDER BY 1",
    ),
    each(
        "rate, errors and duration of one service",
        "SELECT date_bin(INTERVAL '10 seconds', time) AS at, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors \
         FROM {events} WHERE {range} AND signal = 'span' AND service = '{service}' GROUP BY 1 ORDER BY 1",
        "SELECT toStartOfInterval(time, INTERVAL 10 SECOND) AS at, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors \
         FROM {events} WHERE {range} AND signal = 'span' AND service = '{service}' GROUP BY 1 ORDER BY 1",
        "SELECT time_bucket(INTERVAL '10 seconds', time) AS at, count(*) AS requests, sum(CASE WHEN status = 'error' THEN 1 ELSE 0 END) AS errors \
         FROM {events} WHERE {range} AND signal = 'span' AND service = '{service}' GROUP BY 1 ORDER BY 1",
    ),
    each(
        "logs by level and minute",
        "SELECT date_bin(INTERVAL '1 minute', time) AS minute, severity, count(*) AS n FROM {events} WHERE {range} AND signal = 'log' GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT toStartOfMinute(time) AS minute, severity, count(*) AS n FROM {events} WHERE {range} AND signal = 'log' GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT time_bucket(INTERVAL '1 minute', time) AS minute, severity, count(*) AS n FROM {events} WHERE {range} AND signal = 'log' GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    same(
        "the newest hundred logs",
        "SELECT time, service, severity, body FROM {events} WHERE {range} AND signal = 'log' ORDER BY time DESC LIMIT 100",
    ),
    same(
        "the newest errors of one service",
        "SELECT time, body FROM {events} WHERE {range} AND signal = 'log' AND service = '{service}' AND severity >= 17 ORDER BY time DESC LIMIT 50",
    ),
    same(
        "the slowest spans",
        "SELECT time, service, name, duration_ns FROM {events} WHERE {range} AND signal = 'span' ORDER BY duration_ns DESC LIMIT 20",
    ),
    same(
        "answers by status code",
        "SELECT attrs['http.response.status_code'] AS code, count(*) AS n FROM {events} WHERE {range} AND signal = 'log' GROUP BY 1 ORDER BY n DESC",
    ),
    same(
        "share of errors by service",
        "SELECT service, sum(CASE WHEN status = 'error' THEN 1.0 ELSE 0.0 END) / count(*) AS share FROM {events} WHERE {range} AND signal = 'span' \
         GROUP BY service ORDER BY service",
    ),
    same(
        "hosts that were heard",
        "SELECT count(DISTINCT host) FROM {events} WHERE {range} AND signal <> '_batch'",
    ),
    same(
        "metrics by name",
        "SELECT name, count(*) AS n, min(value) AS least, max(value) AS most FROM {events} WHERE {range} AND signal = 'metric' GROUP BY name ORDER BY name",
    ),
    same(
        "errors of one route",
        "SELECT count(*) FROM {events} WHERE {range} AND signal = 'log' AND severity >= 17 AND attrs['http.route'] = '/v1/search'",
    ),
];

impl Question {
    pub(super) fn text(&self, dialect: Dialect<'_>, span: Span, rows: Rows) -> String {
        let (text, events) = match dialect {
            Dialect::Sluice => (self.sluice, "events".to_owned()),
            Dialect::ClickHouse { database } => {
                (self.clickhouse.unwrap_or(self.sluice), format!("`{database}`.`events`"))
            }
            Dialect::DuckDb => (self.duckdb.unwrap_or(self.sluice), "events".to_owned()),
        };
        let time = |us: i64| match dialect {
            Dialect::Sluice => format!("to_timestamp_micros({us})"),
            Dialect::ClickHouse { .. } => format!("fromUnixTimestamp64Micro({us}, 'UTC')"),
            Dialect::DuckDb => format!("make_timestamptz({us})"),
        };
        let range = format!("time >= {} AND time < {}", time(span.from_us), time(span.to_us));
        let text = text
            .replace("{events}", &events)
            .replace("{range}", &range)
            .replace("{trace}", &rows.trace())
            .replace("{service}", &rows.service());
        match dialect {
            Dialect::ClickHouse { .. } => format!("{text} FORMAT JSONCompact"),
            _ => text,
        }
    }
}
