//! Log events: about 520 bytes each, nine to twelve attributes, an e-mail address in an attribute and in most bodies, a
//! card number in some.

use super::{ERROR_SEVERITY, Expected, ID_ATTRIBUTE, RequestBuilder, Signal, names, trace_id};

pub(super) fn event(request: &mut RequestBuilder, row: usize, observed_ns: u64) {
    let id = request.id(row);
    let time = request.time(row);
    let trace = trace_id(request.seed, request.k, row as u64);
    let host = request.host;
    let random = &mut request.random;

    let service = random.skewed(names::SERVICES);
    let (severity, severity_text) = match random.below(100) {
        0..3 => (ERROR_SEVERITY, "ERROR"),
        3..12 => (13, "WARN"),
        _ => (9, "INFO"),
    };
    let status = match severity {
        ERROR_SEVERITY => 500 + random.below(5),
        13 => [400, 401, 403, 404, 409, 429][random.below(6) as usize],
        _ => 200 + random.below(20) / 18 * 4,
    };
    let method = random.pick(&names::METHODS);
    let route = names::ROUTES[random.skewed(20) as usize];
    let mail = names::email(random.skewed(names::USERS));
    let client = names::address(random);
    let latency = (random.long_tail(24.0) * 1000.0).round() / 1000.0;
    let (request_id, order) = (random.next(), random.next());
    let size = random.long_tail(1500.0) as i64;

    let mut body = match random.below(4) {
        0 => format!("{method} {route} -> {status} in {latency} ms, asked by {mail}"),
        1 => format!(
            "order {order:016x} of {mail} has {} lines, {}.{:02} EUR, sent from {client}",
            1 + random.below(30),
            random.below(4000),
            random.below(100)
        ),
        2 => format!(
            "session {request_id:016x} of {mail} renewed for {} s, {size} bytes to {client}",
            60 + random.below(7200)
        ),
        _ => format!(
            "{} touched {} rows of shard {} in {latency} ms, transaction {order:012x}",
            random.pick(&names::OPERATIONS),
            random.below(9000),
            random.below(128)
        ),
    };
    if random.one_in(25) {
        body.push_str(&format!(", paid with {}", names::card(random)));
    }
    match severity {
        ERROR_SEVERITY => body.push_str(&format!(
            "; {} ({} attempts), told {mail}",
            random.pick(&names::FAILURES),
            1 + random.below(6)
        )),
        13 => body.push_str(&format!("; {}", random.pick(&names::WARNINGS))),
        _ => {}
    }
    let pod = format!(
        "{}-{:09x}-{:05x}",
        names::service(service),
        service * 7_919 + host * 104_729,
        service * 31 + host * 7 + random.below(5)
    );
    let agent = random.one_in(2).then(|| random.pick(&names::CLIENTS));
    let with_size = random.one_in(3);
    let span = random.next().to_be_bytes();

    let expected = Expected {
        id: id.clone(),
        signal: Signal::Log,
        trace_id: Some(trace),
        severity,
        status: "",
        service: names::service(service),
    };
    request.push(service, expected, |log| {
        log.fixed64(1, time);
        log.uint(2, severity as u64);
        log.text(3, severity_text);
        log.message(5, |value| value.text(1, &body));
        log.attr_text(6, ID_ATTRIBUTE, &id);
        log.attr_text(6, "http.request.method", method);
        log.attr_text(6, "http.route", route);
        log.attr_int(6, "http.response.status_code", status as i64);
        log.attr_text(6, "user.email", &mail);
        log.attr_text(6, "k8s.pod.name", &pod);
        log.attr_double(6, "latency_ms", latency);
        log.attr_text(6, "client.address", &client);
        log.attr_text(6, "request.id", &format!("{request_id:016x}{order:016x}"));
        if let Some(agent) = agent {
            log.attr_text(6, "user_agent.original", agent);
        }
        if with_size {
            log.attr_int(6, "http.response.body.size", size);
        }
        if severity == ERROR_SEVERITY {
            log.attr_bool(6, "error.handled", status % 2 == 0);
        }
        log.fixed32(8, 1);
        log.data(9, &trace);
        log.data(10, &span);
        if observed_ns != 0 {
            log.fixed64(11, observed_ns);
        }
    });
}
