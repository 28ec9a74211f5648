//! Metric data points of all five kinds, one data point to a metric: each is one row of the table.

use super::proto::Message;
use super::random::Random;
use super::{Expected, ID_ATTRIBUTE, RequestBuilder, Signal, names};

const BOUNDS: [f64; 8] = [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
/// Cumulative sums start an hour before their data point.
const HOUR_NS: u64 = 3_600_000_000_000;
const CUMULATIVE: u64 = 2;
const DELTA: u64 = 1;

pub(super) fn event(request: &mut RequestBuilder, row: usize) {
    let id = request.id(row);
    let time = request.time(row);
    let random = &mut request.random;
    let service = random.skewed(names::SERVICES);
    let route = names::ROUTES[random.skewed(20) as usize];
    let point = Point {
        id: id.clone(),
        time,
        route,
        random: Random::new(random.next(), row as u64),
    };
    let expected = Expected {
        id,
        signal: Signal::Metric,
        trace_id: None,
        severity: 0,
        status: "",
        service: names::service(service),
    };
    request.push(service, expected, |metric| match row % 6 {
        0 => point.gauge(metric),
        1 => point.sum_of_ints(metric),
        2 => point.sum_of_doubles(metric),
        3 => point.histogram(metric),
        4 => point.exponential(metric),
        _ => point.summary(metric),
    });
}

struct Point {
    id: String,
    time: u64,
    route: &'static str,
    random: Random,
}

impl Point {
    fn attributes(&self, point: &mut Message, field: u32) {
        point.attr_text(field, ID_ATTRIBUTE, &self.id);
        point.attr_text(field, "http.route", self.route);
    }

    fn times(&self, point: &mut Message) {
        point.fixed64(2, self.time.wrapping_sub(HOUR_NS));
        point.fixed64(3, self.time);
    }

    fn gauge(mut self, metric: &mut Message) {
        let value = self.random.unit();
        describe(metric, "process.cpu.utilization", "1", "Share of one processor.");
        metric.message(5, |gauge| {
            gauge.message(1, |point| {
                point.fixed64(3, self.time);
                point.double(4, value);
                self.attributes(point, 7);
            });
        });
    }

    fn sum_of_ints(mut self, metric: &mut Message) {
        let value = self.random.next() >> 20;
        describe(metric, "http.server.requests", "{request}", "Requests answered.");
        metric.message(7, |sum| {
            sum.message(1, |point| {
                self.times(point);
                point.fixed64(6, value);
                self.attributes(point, 7);
            });
            sum.uint(2, CUMULATIVE);
            sum.uint(3, 1);
        });
    }

    fn sum_of_doubles(mut self, metric: &mut Message) {
        let value = (self.random.long_tail(40.0) * 100.0).round() / 100.0;
        describe(metric, "orders.revenue", "EUR", "Revenue since the last report.");
        metric.message(7, |sum| {
            sum.message(1, |point| {
                self.times(point);
                point.double(4, value);
                self.attributes(point, 7);
            });
            sum.uint(2, DELTA);
        });
    }

    fn histogram(mut self, metric: &mut Message) {
        let counts: Vec<u64> = (0..=BOUNDS.len()).map(|_| self.random.below(400)).collect();
        let low = self.random.unit() * 5.0;
        let (trace, span) = (self.random.next(), self.random.next());
        describe(metric, "http.server.request.duration", "ms", "Time to answer.");
        metric.message(9, |histogram| {
            histogram.message(1, |point| {
                self.times(point);
                point.fixed64(4, counts.iter().sum());
                point.double(5, counts.iter().sum::<u64>() as f64 * 31.5);
                point.packed_fixed64(6, &counts);
                point.packed_double(7, &BOUNDS);
                point.message(8, |exemplar| {
                    exemplar.fixed64(2, self.time);
                    exemplar.double(3, low + 12.0);
                    exemplar.data(4, &(span | 1).to_be_bytes());
                    exemplar.data(5, &u128::from(trace | 1).to_be_bytes());
                });
                self.attributes(point, 9);
                point.double(11, low);
                point.double(12, 1000.0 + low);
            });
            histogram.uint(2, CUMULATIVE);
        });
    }

    fn exponential(mut self, metric: &mut Message) {
        let counts: Vec<u64> = (0..20).map(|_| self.random.below(90)).collect();
        let zeros = self.random.below(10);
        describe(metric, "queue.wait", "ms", "Time from arrival to work.");
        metric.message(10, |histogram| {
            histogram.message(1, |point| {
                self.attributes(point, 1);
                self.times(point);
                point.fixed64(4, counts.iter().sum::<u64>() + zeros);
                point.double(5, counts.iter().sum::<u64>() as f64 * 3.25);
                point.zigzag(6, 3);
                point.fixed64(7, zeros);
                point.message(8, |buckets| {
                    buckets.zigzag(1, -7);
                    buckets.packed_uint(2, &counts);
                });
                point.double(14, 0.001);
            });
            histogram.uint(2, DELTA);
        });
    }

    fn summary(mut self, metric: &mut Message) {
        let middle = self.random.long_tail(12.0);
        let count = 1 + self.random.below(5000);
        describe(metric, "gc.pause", "ms", "Pauses of the collector.");
        metric.message(11, |summary| {
            summary.message(1, |point| {
                self.times(point);
                point.fixed64(4, count);
                point.double(5, middle * count as f64);
                for (quantile, factor) in [(0.5, 1.0), (0.9, 2.5), (0.99, 6.0)] {
                    point.message(6, |value| {
                        value.double(1, quantile);
                        value.double(2, middle * factor);
                    });
                }
                self.attributes(point, 7);
            });
        });
    }
}

fn describe(metric: &mut Message, name: &str, unit: &str, description: &str) {
    metric.text(1, name);
    metric.text(2, description);
    metric.text(3, unit);
}
