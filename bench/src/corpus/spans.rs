//! Spans: four to a trace, every second trace that of a log of the request before, some with events, links and errors.

use super::proto::Message;
use super::{Expected, ID_ATTRIBUTE, RequestBuilder, Signal, names, trace_id};

const SPANS_PER_TRACE: usize = 4;

pub(super) fn event(request: &mut RequestBuilder, row: usize) {
    let id = request.id(row);
    let start = request.time(row);
    let group = (row / SPANS_PER_TRACE) as u64;
    let (seed, k) = (request.seed, request.k);
    let shared = group.is_multiple_of(2) && k > 0;
    let trace = trace_id(seed, if shared { k - 1 } else { k }, group);
    let own = span_id(seed, k, row);
    let first = row - row % SPANS_PER_TRACE;
    let parent = (row > first).then(|| span_id(seed, k, first));
    let link = (row % 9 == 8).then(|| {
        (
            trace_id(seed, k, group.wrapping_sub(1)),
            span_id(seed, k, first.wrapping_sub(1)),
        )
    });
    let random = &mut request.random;

    let service = random.skewed(names::SERVICES);
    let failed = random.below(100) < 4;
    let ok = !failed && random.one_in(5);
    let duration = (random.long_tail(9.0e6)) as u64;
    let method = random.pick(&names::METHODS);
    let route = names::ROUTES[random.skewed(20) as usize];
    let failure = random.pick(&names::FAILURES);
    let mail = names::email(random.skewed(names::USERS));
    let peer = names::address(random);
    let statement = format!("{:016x}", random.next());
    let with_event = failed || random.one_in(6);

    let expected = Expected {
        id: id.clone(),
        signal: Signal::Span,
        trace_id: Some(trace),
        severity: 0,
        status: match (failed, ok) {
            (true, _) => "error",
            (_, true) => "ok",
            _ => "",
        },
        service: names::service(service),
    };
    request.push(service, expected, |span| {
        span.data(1, &trace);
        span.data(2, &own);
        if row % 16 == 3 {
            span.text(3, "shop=t61rcWkgMzE");
        }
        if let Some(parent) = parent {
            span.data(4, &parent);
        }
        span.text(5, &format!("{method} {route}"));
        span.uint(6, if parent.is_some() { 3 } else { 2 });
        span.fixed64(7, start);
        span.fixed64(8, start.wrapping_add(duration));
        span.attr_text(9, ID_ATTRIBUTE, &id);
        span.attr_text(9, "http.request.method", method);
        span.attr_text(9, "http.route", route);
        span.attr_int(9, "http.response.status_code", if failed { 500 } else { 200 });
        span.attr_text(9, "network.peer.address", &peer);
        span.attr_text(9, "db.query.hash", &statement);
        if row.is_multiple_of(7) {
            span.attr_text(9, "enduser.id", &mail);
        }
        if with_event {
            span.message(11, |event| {
                event.fixed64(1, start.wrapping_add(duration / 2));
                event.text(2, if failed { "exception" } else { "cache.miss" });
                if failed {
                    event.attr_text(3, "exception.message", &format!("{failure} for {mail}"));
                }
            });
        }
        if let Some((other_trace, other_span)) = link {
            span.message(13, |l| link_to(l, &other_trace, &other_span));
        }
        if failed {
            span.message(15, |status| {
                status.text(2, failure);
                status.uint(3, 2);
            });
        } else if ok {
            span.message(15, |status| status.uint(3, 1));
        }
        span.fixed32(16, 0x101);
    });
}

fn link_to(link: &mut Message, trace: &[u8; 16], span: &[u8; 8]) {
    link.data(1, trace);
    link.data(2, span);
    link.attr_text(4, "link.reason", "retry");
}

fn span_id(seed: u64, k: u64, row: usize) -> [u8; 8] {
    let id = trace_id(seed ^ 0x5350_414E, k, row as u64);
    let mut short = [0; 8];
    short.copy_from_slice(&id[..8]);
    // An id of zeros would mean "none".
    short[7] |= 1;
    short
}
