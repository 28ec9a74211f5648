//! The oracle: it is never killed, remembers every request from before its first byte left, and says afterwards whether
//! what the tables hold is what was acknowledged (P2).
//!
//! A request is acknowledged, refused, or unknown. An event of an acknowledged request that the plugins keep is in the
//! tables exactly once; of an unknown one (the connection broke before the answer) at most once, and then with all its
//! companions; of a refused one never; and what the plugins drop is nowhere.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::corpus::{Corpus, Expected, Signal};
use crate::load::{Finished, Observer, Outcome};

/// Ids that a verdict shows of each kind of mistake.
const EXAMPLES: usize = 5;

/// Remembers what was sent from one seed.
#[derive(Debug)]
pub struct Oracle {
    corpus: Corpus,
    sent: Mutex<BTreeMap<u64, Sent>>,
    /// Counts what happened, so that it is known what came before what.
    moments: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    signal: Signal,
    rows: usize,
    class: Class,
    begun: u64,
    ended: u64,
}

/// A request whose events may be in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub k: u64,
    pub signal: Signal,
    pub rows: usize,
    /// Moments of one row: one that is smaller was before.
    pub begun: u64,
    /// None where nobody said that the events are accepted.
    pub answered: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Acknowledged,
    Refused,
    Unknown,
    /// Acknowledged but for some events, and it was not said which.
    InPart,
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub acknowledged_requests: u64,
    pub unknown_requests: u64,
    pub refused_requests: u64,
    /// Events of acknowledged requests.
    pub accepted: u64,
    /// Of those, the ones that the rule keeps.
    pub due: u64,
    /// Distinct events of acknowledged requests found in the tables.
    pub stored: u64,
    /// Events of acknowledged requests that the rule drops, and which are not in the tables.
    pub dropped: u64,
    /// Events of unknown requests that turned out to be stored.
    pub stored_unknown: u64,
    /// Events of unknown requests: all of them, and those of requests of which something is stored. What the ledger counts
    /// as accepted lies between `accepted + seen_unknown` and `accepted + sent_unknown`.
    pub sent_unknown: u64,
    pub seen_unknown: u64,
    /// Due, but not in the tables.
    pub missing: Mistakes,
    /// In the tables more than once.
    pub duplicated: Mistakes,
    /// In the tables although the rule drops them.
    pub too_many: Mistakes,
    /// In the tables although refused, or never sent.
    pub invented: Mistakes,
    /// Unknown requests of which a part is stored.
    pub torn: Mistakes,
}

/// How many, and a few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mistakes {
    pub count: u64,
    pub examples: Vec<String>,
}

impl Mistakes {
    pub(crate) fn add(&mut self, id: &str) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(id.to_owned());
        }
    }
}

impl Verdict {
    pub fn holds(&self) -> bool {
        [
            &self.missing,
            &self.duplicated,
            &self.too_many,
            &self.invented,
            &self.torn,
        ]
        .iter()
        .all(|mistakes| mistakes.count == 0)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests: {} acknowledged, {} without an answer, {} refused",
            self.acknowledged_requests, self.unknown_requests, self.refused_requests
        )?;
        writeln!(
            f,
            "accepted {}   stored {}   dropped by plugins {}   stored without an answer {}",
            self.accepted, self.stored, self.dropped, self.stored_unknown
        )?;
        let kinds = [
            ("missing", &self.missing),
            ("duplicated", &self.duplicated),
            ("too many", &self.too_many),
            ("invented", &self.invented),
            ("torn", &self.torn),
        ];
        for (name, mistakes) in kinds {
            write!(f, "{name} {}   ", mistakes.count)?;
        }
        for (name, mistakes) in kinds {
            if mistakes.count > 0 {
                write!(f, "\n{name}: {}", mistakes.examples.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Oracle {
    pub fn new(seed: u64) -> Oracle {
        Oracle {
            corpus: Corpus::new(seed),
            sent: Mutex::default(),
            moments: AtomicU64::default(),
        }
    }

    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// Requests so far that nobody refused.
    pub fn requests(&self) -> Vec<Request> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sent.iter().filter(|(_, s)| s.class != Class::Refused);
        open.map(|(k, s)| Request {
            k: *k,
            signal: s.signal,
            rows: s.rows,
            begun: s.begun,
            answered: (s.class == Class::Acknowledged).then_some(s.ended),
        })
        .collect()
    }

    /// Requests that were refused so far.
    pub fn refused_requests(&self) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.values().filter(|s| s.class == Class::Refused).count() as u64
    }

    /// Events of all requests that were acknowledged without exception.
    pub fn acknowledged_events(&self) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let acknowledged = sent.values().filter(|s| s.class == Class::Acknowledged);
        acknowledged.map(|s| s.rows as u64).sum()
    }

    /// Compares with `stored`: how often each `evt.id` is in the tables. `keeps` is the rule of the plugins.
    pub fn judge(&self, stored: &HashMap<String, u64>, keeps: impl Fn(&Expected) -> bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut known = 0;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (k, request) in &sent {
            let events = self.corpus.expected(request.signal, *k, request.rows);
            known += self.judge_request(&mut verdict, request, &events, stored, &keeps);
        }
        if known < stored.len() {
            self.find_invented(&mut verdict, &sent, stored);
        }
        verdict
    }

    /// Judges the events of one request; answers how many distinct ids of the tables are its own.
    fn judge_request(
        &self,
        verdict: &mut Verdict,
        request: &Sent,
        events: &[Expected],
        stored: &HashMap<String, u64>,
        keeps: impl Fn(&Expected) -> bool,
    ) -> usize {
        match request.class {
            Class::Acknowledged | Class::InPart => verdict.acknowledged_requests += 1,
            Class::Refused => verdict.refused_requests += 1,
            Class::Unknown => verdict.unknown_requests += 1,
        }
        let acknowledged = request.class == Class::Acknowledged;
        let (mut found, mut kept) = (0, 0);
        let mut lost = Vec::new();
        for event in events {
            let times = stored.get(&event.id).copied().unwrap_or(0);
            let keep = keeps(event);
            kept += usize::from(keep);
            found += usize::from(times > 0);
            if times > 1 {
                verdict.duplicated.add(&event.id);
            }
            match (keep, times > 0) {
                (true, false) => lost.push(&event.id),
                (false, true) => verdict.too_many.add(&event.id),
                _ => {}
            }
            if times > 0 && request.class == Class::Refused {
                verdict.invented.add(&event.id);
            }
            verdict.dropped += u64::from(acknowledged && !keep && times == 0);
        }
        if acknowledged {
            verdict.accepted += events.len() as u64;
            verdict.due += kept as u64;
            verdict.stored += found as u64;
            lost.iter().for_each(|id| verdict.missing.add(id));
        } else {
            verdict.stored_unknown += found as u64;
            verdict.sent_unknown += events.len() as u64;
            if found > 0 {
                verdict.seen_unknown += events.len() as u64;
            }
            if request.class == Class::Unknown && found > 0 && !lost.is_empty() {
                verdict.torn.add(lost[0]);
            }
        }
        found
    }

    fn find_invented(&self, verdict: &mut Verdict, sent: &BTreeMap<u64, Sent>, stored: &HashMap<String, u64>) {
        let mut unclaimed: HashMap<&str, u64> = stored.iter().map(|(id, n)| (id.as_str(), *n)).collect();
        for (k, request) in sent {
            for event in self.corpus.expected(request.signal, *k, request.rows) {
                unclaimed.remove(event.id.as_str());
            }
        }
        for id in unclaimed.keys() {
            verdict.invented.add(id);
        }
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }
}

impl Observer for Oracle {
    fn started(&self, k: u64, signal: Signal, rows: usize) {
        let sent = Sent {
            signal,
            rows,
            class: Class::Unknown,
            begun: self.moment(),
            ended: 0,
        };
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(k, sent);
    }

    fn finished(&self, request: &Finished) {
        let class = match &request.outcome {
            Outcome::Accepted { rejected: 0, .. } => Class::Acknowledged,
            Outcome::Accepted { .. } => Class::InPart,
            Outcome::Refused { .. } => Class::Refused,
            Outcome::Unknown { .. } => Class::Unknown,
        };
        let ended = self.moment();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sent) = sent.get_mut(&request.k) {
            (sent.class, sent.ended) = (class, ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROWS: usize = 40;

    /// Requests 0 acknowledged, 1 unknown, 2 refused; everything of request 0 and 1 that the rule keeps is stored once.
    fn right() -> (Oracle, HashMap<String, u64>) {
        let oracle = Oracle::new(3);
        let mut stored = HashMap::new();
        let outcomes = [
            Outcome::Accepted {
                rejected: 0,
                note: String::new(),
            },
            Outcome::Unknown { message: String::new() },
            Outcome::Refused {
                code: String::new(),
                message: String::new(),
            },
        ];
        for (k, outcome) in outcomes.into_iter().enumerate() {
            let (k, signal) = (k as u64, Signal::Log);
            oracle.started(k, signal, ROWS);
            oracle.finished(&Finished {
                k,
                signal,
                rows: ROWS,
                bytes: 0,
                outcome,
                latency: Duration::ZERO,
            });
            if k < 2 {
                let events = Corpus::new(3).expected(signal, k, ROWS);
                stored.extend(events.into_iter().filter(rule).map(|e| (e.id, 1)));
            }
        }
        (oracle, stored)
    }

    fn rule(event: &Expected) -> bool {
        event.kept_at(0.5)
    }

    #[test]
    fn the_right_tables_hold() {
        let (oracle, mut stored) = right();
        let verdict = oracle.judge(&stored, rule);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!(verdict.accepted, ROWS as u64);
        assert_eq!(verdict.stored + verdict.dropped, verdict.accepted);
        assert!(verdict.stored_unknown > 0);
        stored.retain(|id, _| !id.starts_with("3-1-"));
        assert!(oracle.judge(&stored, rule).holds(), "an unknown request may be absent");
    }

    #[test]
    fn each_mistake_is_seen_alone() {
        let (oracle, right) = right();
        let kept = Corpus::new(3).expected(Signal::Log, 0, ROWS);
        let first_kept = kept.iter().find(|e| rule(e)).map(|e| e.id.clone()).unwrap_or_default();
        let first_dropped = kept.iter().find(|e| !rule(e)).map(|e| e.id.clone()).unwrap_or_default();

        let judge = |change: &dyn Fn(&mut HashMap<String, u64>) -> Option<u64>| {
            let mut stored = right.clone();
            change(&mut stored);
            let v = oracle.judge(&stored, rule);
            [
                v.missing.count,
                v.duplicated.count,
                v.too_many.count,
                v.invented.count,
                v.torn.count,
            ]
        };
        assert_eq!(judge(&|s| s.remove(&first_kept)), [1, 0, 0, 0, 0]);
        assert_eq!(judge(&|s| s.insert(first_kept.clone(), 2)), [0, 1, 0, 0, 0]);
        assert_eq!(judge(&|s| s.insert(first_dropped.clone(), 1)), [0, 0, 1, 0, 0]);
        assert_eq!(judge(&|s| s.insert("3-9-0".to_owned(), 1)), [0, 0, 0, 1, 0]);
        let unknown = right
            .keys()
            .find(|id| id.starts_with("3-1-"))
            .cloned()
            .unwrap_or_default();
        assert_eq!(judge(&|s| s.remove(&unknown)), [0, 0, 0, 0, 1]);
    }
}
