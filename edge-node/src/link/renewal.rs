//! When to ask for a new certificate, and whether somebody should look. Pure: the monotonic clock (ms), the time of day (s) and seeds are
//! arguments.

use sluice_settings::readable::span;

use super::tls::Facts;

/// An answer that takes longer is none.
const ANSWER_MS: u64 = 30_000;
/// The range of the back-off begins at a thousandth of the certificate's life and ends at a twentieth, within these.
const LEAST_MS: (u64, u64) = (1_000, 60_000);
const MOST_MS: (u64, u64) = (2_000, 3_600_000);
/// While nothing can be sent without it.
const EXPIRED_MS: (u64, u64) = (5_000, 60_000);
/// With less left than this, a certificate that is not renewed is nobody's routine any more.
const DEGRADED_S: i64 = 86_400;

#[derive(Debug)]
pub(super) struct Schedule {
    /// Of the twelfth of a life over which a fleet is spread, 0 to 1.
    share: f64,
    random: u64,
    state: State,
    /// In a row.
    failures: u32,
    last_failure: Option<String>,
}

#[derive(Debug)]
enum State {
    Idle,
    Resting { until: u64 },
    Asking { until: u64 },
}

/// Who could renew, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewer {
    /// The configuration says no.
    SwitchedOff,
    /// The gateway of the last session does not.
    NotThere,
    Unknown,
    There,
}

/// How it is with a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) problem: Option<String>,
    /// Someone has to do something within a day.
    pub(super) degraded: bool,
}

impl Schedule {
    /// `stream` spreads a fleet, and is the same at every start; `seed` feeds the jitter.
    pub(super) fn new(stream: u64, seed: u64) -> Self {
        Self {
            share: (stream >> 11) as f64 / (1u64 << 53) as f64,
            random: seed,
            state: State::Idle,
            failures: 0,
            last_failure: None,
        }
    }

    /// In seconds since 1970.
    pub(super) fn renews_at(&self, facts: &Facts) -> i64 {
        let life = life(facts);
        let later = (life as f64 / 12.0 * self.share) as i64;
        facts.not_before + life / 3 * 2 + later
    }

    pub(super) fn is_due(&self, now_ms: u64, unix_s: i64, facts: &Facts) -> bool {
        let is_free = match self.state {
            State::Idle => true,
            State::Resting { until } => now_ms >= until,
            State::Asking { .. } => false,
        };
        is_free && unix_s >= self.renews_at(facts)
    }

    /// When something may be due, or an answer is overdue.
    pub(super) fn next_wake(&self, now_ms: u64, unix_s: i64, facts: &Facts) -> u64 {
        let left = self.renews_at(facts).saturating_sub(unix_s);
        let due = now_ms.saturating_add(u64::try_from(left).unwrap_or(0).saturating_mul(1_000));
        match self.state {
            State::Idle => due,
            State::Resting { until } => due.max(until),
            State::Asking { until } => until,
        }
    }

    pub(super) fn handle_asked(&mut self, now_ms: u64) {
        self.state = State::Asking {
            until: now_ms + ANSWER_MS,
        };
    }

    /// True if the answer that was waited for did not come.
    pub(super) fn handle_time(&mut self, now_ms: u64, unix_s: i64, facts: &Facts) -> bool {
        let is_overdue = matches!(self.state, State::Asking { until } if now_ms >= until);
        if is_overdue {
            self.handle_failed(now_ms, unix_s, facts, 0, "no answer".to_owned());
        }
        is_overdue
    }

    /// The connection ended; what was asked is not answered any more.
    pub(super) fn handle_lost(&mut self, now_ms: u64, unix_s: i64, facts: &Facts) {
        if matches!(self.state, State::Asking { .. }) {
            let reason = "the link was lost before the answer".to_owned();
            self.handle_failed(now_ms, unix_s, facts, 0, reason);
        }
    }

    /// Not before `after_ms`, if that is not too long for the certificate.
    pub(super) fn handle_failed(&mut self, now_ms: u64, unix_s: i64, facts: &Facts, after_ms: u64, reason: String) {
        let life_ms = u64::try_from(life(facts)).unwrap_or(0).saturating_mul(1_000);
        let least = (life_ms / 1_000).clamp(LEAST_MS.0, LEAST_MS.1);
        let most = (life_ms / 20).clamp(MOST_MS.0, MOST_MS.1);
        let is_expired = unix_s > facts.not_after;
        let (least, most) = match is_expired {
            true => (least.min(EXPIRED_MS.0), most.min(EXPIRED_MS.1)),
            false => (least, most),
        };
        let range = least.saturating_mul(1 << self.failures.min(20)).min(most);
        let wait = (least / 2 + self.below(range)).max(after_ms.min(most));
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(reason);
        self.state = State::Resting { until: now_ms + wait };
    }

    /// Another certificate is in use: everything begins anew.
    pub(super) fn handle_certificate(&mut self) {
        (self.state, self.failures, self.last_failure) = (State::Idle, 0, None);
    }

    pub(super) fn health(&self, unix_s: i64, facts: &Facts, renewer: Renewer) -> Health {
        let left = facts.not_after - unix_s;
        let for_how_long = span(u64::try_from(left.saturating_abs()).unwrap_or(0).saturating_mul(1_000));
        let why = match (&self.last_failure, renewer) {
            (_, Renewer::SwitchedOff) => Some("link.renew is false: put a new one in its place".to_owned()),
            (Some(failure), _) => Some(failure.clone()),
            (None, Renewer::NotThere) => {
                Some("the gateway has no authority to ask: put a new one in its place".to_owned())
            }
            (None, Renewer::Unknown | Renewer::There) => None,
        };
        let problem = if left < 0 {
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            Some(format!(
                "certificate expired {for_how_long} ago, nothing is sent until there is a new one{why}"
            ))
        } else if unix_s >= self.renews_at(facts) {
            why.map(|why| format!("certificate is not renewed and expires in {for_how_long}: {why}"))
        } else {
            None
        };
        Health {
            degraded: problem.is_some() && left < DEGRADED_S,
            problem,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // The constants of Knuth's MMIX generator: enough for jitter.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound.max(1)
    }
}

fn life(facts: &Facts) -> i64 {
    facts.not_after.saturating_sub(facts.not_before).max(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn facts(life_s: i64) -> Facts {
        Facts {
            tenant: "acme".parse().unwrap(),
            node: "site-1".parse().unwrap(),
            serial: "01".to_owned(),
            not_before: 1_000_000,
            not_after: 1_000_000 + life_s,
        }
    }

    #[test]
    fn a_fleet_asks_between_two_thirds_and_three_quarters_of_a_life() {
        let facts = facts(12 * DAY);
        let at: Vec<i64> = (0..1_000u64)
            .map(|node| Schedule::new(node.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0).renews_at(&facts) - facts.not_before)
            .collect();
        assert!(at.iter().all(|at| (8 * DAY..=9 * DAY).contains(at)));
        let early = at.iter().filter(|at| **at < 8 * DAY + DAY / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }

    #[test]
    fn failures_back_off_within_the_life_of_the_certificate_and_silence_is_one() {
        for (life_s, most_ms) in [(20, 2_000), (14 * DAY, 3_600_000)] {
            let facts = facts(life_s);
            let mut schedule = Schedule::new(0, 7);
            let (mut now, unix) = (5_000, facts.not_before + life_s * 3 / 4);
            assert!(schedule.is_due(now, unix, &facts));
            let mut longest = 0;
            for round in 0..200 {
                schedule.handle_asked(now);
                assert!(!schedule.is_due(now + 1, unix, &facts));
                if round % 2 == 0 {
                    schedule.handle_failed(now, unix, &facts, 0, "away".to_owned());
                } else {
                    now += ANSWER_MS;
                    assert!(schedule.handle_time(now, unix, &facts));
                }
                let wake = schedule.next_wake(now, unix, &facts);
                assert!(wake > now && schedule.is_due(wake, unix, &facts));
                longest = longest.max(wake - now);
                now = wake;
            }
            assert!(longest > most_ms / 2 && longest <= most_ms + LEAST_MS.1, "{longest}");
            // What a gateway asks for counts, unless the certificate would not live so long.
            schedule.handle_failed(now, unix, &facts, u64::MAX, "an hour".to_owned());
            let wait = schedule.next_wake(now, unix, &facts) - now;
            assert!(wait >= most_ms && wait <= most_ms + LEAST_MS.1, "{wait}");
            // One that is expired is in a hurry.
            let after = facts.not_after + 1;
            schedule.handle_failed(now, after, &facts, u64::MAX, "an hour".to_owned());
            assert!(schedule.next_wake(now, after, &facts) - now <= 2 * EXPIRED_MS.1);
            schedule.handle_certificate();
            assert!(schedule.is_due(now, unix, &facts) && schedule.last_failure.is_none());
        }
    }

    #[test]
    fn health_tells_what_a_person_has_to_do_and_only_then() {
        let facts = facts(12 * DAY);
        let mut schedule = Schedule::new(0, 7);
        let health = |schedule: &Schedule, day: i64, renewer| {
            let health = schedule.health(facts.not_before + day * DAY + 60, &facts, renewer);
            (health.problem.unwrap_or_default(), health.degraded)
        };
        assert_eq!(health(&schedule, 7, Renewer::NotThere), (String::new(), false));
        assert_eq!(health(&schedule, 9, Renewer::There), (String::new(), false));
        let (problem, degraded) = health(&schedule, 9, Renewer::NotThere);
        assert!(problem.contains("no authority") && !degraded, "{problem}");
        assert!(health(&schedule, 11, Renewer::SwitchedOff).1);
        let late = facts.not_before + 11 * DAY + 60;
        schedule.handle_failed(0, late, &facts, 0, "the authority is away".to_owned());
        let (problem, degraded) = health(&schedule, 11, Renewer::There);
        assert!(degraded && problem.contains("the authority is away"), "{problem}");
        let (problem, degraded) = health(&schedule, 15, Renewer::There);
        assert!(degraded && problem.starts_with("certificate expired 3 d"), "{problem}");
        schedule.handle_certificate();
        assert!(
            health(&schedule, 15, Renewer::Unknown).1,
            "expired is bad whatever is known"
        );
    }
}
