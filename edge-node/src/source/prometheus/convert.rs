//! Families of a page as metrics of OpenTelemetry: counters are cumulative sums, classic histograms and summaries one point each.
//! Names stay as they are on the page.

use std::collections::BTreeMap;

use super::parse::{Family, Kind, Labels, Mark, Sample, number};
use crate::source::export::{Attributes, Exemplar, Histogram, Metric, Number, Quantile, Summary, Times};

/// Points of one metric message; a family with more becomes several.
const MAX_POINTS: usize = 1000;

/// The metrics of a page that was read at a time.
pub(super) fn convert(families: &[Family<'_>], read_ns: u64) -> Vec<Metric> {
    let started = process_start(families);
    let mut all = Vec::new();
    for family in families {
        let mut converter = Converter {
            family,
            read_ns,
            started,
            created: BTreeMap::new(),
            done: &mut all,
        };
        converter.convert();
    }
    all
}

/// What the program says of its own start: that is since when its counters count.
fn process_start(families: &[Family<'_>]) -> u64 {
    let family = families.iter().find(|f| f.name == "process_start_time_seconds");
    let seconds = family.and_then(|f| f.samples.first()).map_or(0.0, |s| s.value);
    to_ns(seconds)
}

fn to_ns(seconds: f64) -> u64 {
    let ns = seconds * 1e9;
    if (0.0..1.8e19).contains(&ns) { ns as u64 } else { 0 }
}

/// Labels without one that is part of the representation, in an order of their own.
type Key<'a> = Vec<(&'a str, &'a str)>;

fn key<'a>(labels: &'a Labels<'a>, without: &str) -> Key<'a> {
    let mut key: Key<'a> = labels
        .iter()
        .filter(|(name, _)| *name != without)
        .map(|(name, value)| (*name, &**value))
        .collect();
    key.sort_unstable();
    key
}

fn attributes(key: &Key<'_>) -> Attributes {
    let mut set = Attributes::default();
    key.iter().for_each(|(name, value)| set.text(name, value));
    set
}

/// What stands behind the name of the family.
fn suffix<'a>(family: &Family<'a>, sample: &Sample<'a>) -> &'a str {
    match family.kind {
        Kind::Gauge | Kind::Unknown => "",
        _ => sample.name.strip_prefix(family.name).unwrap_or_default(),
    }
}

struct Converter<'c, 'a> {
    family: &'c Family<'a>,
    read_ns: u64,
    started: u64,
    /// When each series began.
    created: BTreeMap<Key<'c>, u64>,
    done: &'c mut Vec<Metric>,
}

/// What a histogram or a summary is put together from.
#[derive(Default)]
struct Parts<'a> {
    /// Bound and how many values are at or below it; or quantile and its value.
    steps: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
    time_ns: Option<u64>,
    marks: Vec<&'a Mark<'a>>,
}

impl<'c, 'a: 'c> Converter<'c, 'a> {
    fn convert(&mut self) {
        let family = self.family;
        for sample in family.samples.iter().filter(|s| suffix(family, s) == "_created") {
            self.created.insert(key(&sample.labels, ""), to_ns(sample.value));
        }
        match family.kind {
            Kind::Gauge | Kind::Unknown => self.numbers(Metric::gauge),
            Kind::Counter => self.numbers(Metric::counter),
            Kind::Histogram => self.histograms(),
            Kind::Summary => self.summaries(),
        }
    }

    fn times(&self, key: &Key<'c>, time_ns: Option<u64>) -> Times {
        Times {
            start_ns: self.created.get(key).copied().unwrap_or(self.started),
            time_ns: time_ns.unwrap_or(self.read_ns),
        }
    }

    fn numbers(&mut self, new: fn(&str, &str, &str) -> Metric) {
        let family = self.family;
        let mut metrics: BTreeMap<&str, Metric> = BTreeMap::new();
        for sample in family.samples.iter().filter(|s| suffix(family, s) != "_created") {
            let metric = metrics
                .entry(sample.name)
                .or_insert_with(|| new(sample.name, family.unit, &family.help));
            let key = key(&sample.labels, "");
            let mark = sample.exemplar.as_ref().map(|mark| self.exemplar(mark));
            let value = Number::Double(sample.value);
            metric.number(
                self.times(&key, sample.time_ns),
                value,
                &attributes(&key),
                mark.as_ref(),
            );
            if metric.points() >= MAX_POINTS {
                self.done.extend(metrics.remove(sample.name));
            }
        }
        self.done.extend(metrics.into_values());
    }

    /// Samples that are one point together, by their labels.
    fn parts(&self, label: &str) -> BTreeMap<Key<'c>, Parts<'c>> {
        let mut points: BTreeMap<Key<'c>, Parts<'c>> = BTreeMap::new();
        for sample in &self.family.samples {
            let suffix = suffix(self.family, sample);
            if suffix == "_created" {
                continue;
            }
            let parts = points.entry(key(&sample.labels, label)).or_default();
            parts.time_ns = parts.time_ns.or(sample.time_ns);
            match suffix {
                "_sum" => parts.sum = Some(sample.value),
                "_count" => parts.count = Some(sample.value),
                _ => {
                    let at = sample.labels.iter().find(|(name, _)| *name == label);
                    if let Some(at) = at.and_then(|(_, text)| number(text)) {
                        parts.steps.push((at, sample.value));
                        parts.marks.extend(&sample.exemplar);
                    }
                }
            }
        }
        points
    }

    fn histograms(&mut self) {
        let family = self.family;
        let new = || Metric::histogram(family.name, family.unit, &family.help);
        let mut metric = new();
        for (key, mut parts) in self.parts("le") {
            parts
                .steps
                .retain(|(bound, count)| *bound > f64::NEG_INFINITY && *count >= 0.0);
            parts.steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            parts.steps.dedup_by_key(|step| step.0);
            let mut histogram = Histogram {
                sum: parts.sum.filter(|sum| !sum.is_nan()),
                exemplars: parts.marks.iter().map(|mark| self.exemplar(mark)).collect(),
                ..Histogram::default()
            };
            let mut below = 0;
            for (bound, count) in &parts.steps {
                // Counts are cumulative on the page; one that falls was read while it changed.
                let count = (*count as u64).max(below);
                histogram.buckets.push(count - below);
                below = count;
                if bound.is_finite() {
                    histogram.bounds.push(*bound);
                }
            }
            let told = parts
                .count
                .filter(|count| *count >= 0.0)
                .map_or(below, |count| count as u64);
            histogram.count = told.max(below);
            // What is above the last bound.
            let above = histogram.count - below;
            if histogram.buckets.len() > histogram.bounds.len() {
                if let Some(last) = histogram.buckets.last_mut() {
                    *last += above;
                }
            } else if !histogram.bounds.is_empty() {
                histogram.buckets.push(above);
            }
            metric.distribution(self.times(&key, parts.time_ns), &histogram, &attributes(&key));
            if metric.points() >= MAX_POINTS {
                self.done.push(std::mem::replace(&mut metric, new()));
            }
        }
        self.done.push(metric);
    }

    fn summaries(&mut self) {
        let family = self.family;
        let new = || Metric::summary(family.name, family.unit, &family.help);
        let mut metric = new();
        for (key, mut parts) in self.parts("quantile") {
            parts.steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            let quantiles = parts.steps.iter();
            let summary = Summary {
                count: parts
                    .count
                    .filter(|count| *count >= 0.0)
                    .map_or(0, |count| count as u64),
                sum: parts.sum.unwrap_or(0.0),
                quantiles: quantiles
                    .map(|&(quantile, value)| Quantile { quantile, value })
                    .collect(),
            };
            metric.quantiles(self.times(&key, parts.time_ns), &summary, &attributes(&key));
            if metric.points() >= MAX_POINTS {
                self.done.push(std::mem::replace(&mut metric, new()));
            }
        }
        self.done.push(metric);
    }

    fn exemplar(&self, mark: &Mark<'_>) -> Exemplar {
        let (mut trace_id, mut span_id) = (None, None);
        let mut attributes = Attributes::default();
        for (name, value) in &mark.labels {
            match *name {
                "trace_id" if trace_id.is_none() => trace_id = id(value),
                "span_id" if span_id.is_none() => span_id = id(value),
                _ => attributes.text(name, value),
            }
        }
        Exemplar {
            time_ns: mark.time_ns.unwrap_or(self.read_ns),
            value: mark.value,
            attributes,
            trace_id,
            span_id,
        }
    }
}

fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut id = [0; N];
    hex::decode_to_slice(text, &mut id).ok()?;
    Some(id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::source::export::Request;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1 as otlp;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use proptest::prelude::*;
    use prost::Message;
    use sluice_wire::Signal;
    use sluice_wire::otlp::{DecodeLimits, Decoder};

    fn metrics(page: &str) -> Vec<otlp::Metric> {
        let families = parse(page, true, 10_000).unwrap();
        let mut request = Request::new("test");
        for metric in convert(&families, 77) {
            request.push_metric(&Attributes::default(), &metric);
        }
        let rows = request.rows();
        let body = request.finish();
        // What the decoder behind it makes of it.
        let decoded = Decoder::new(DecodeLimits::default())
            .decode(Signal::Metric, &body, 1)
            .unwrap();
        assert_eq!((decoded.batch.num_rows(), decoded.rejected), (rows, 0));
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        let groups = request.resource_metrics.into_iter().flat_map(|g| g.scope_metrics);
        groups.flat_map(|g| g.metrics).collect()
    }

    #[test]
    fn counters_count_since_they_began() {
        let page = "# TYPE a counter\na_total{x=\"1\"} 5 # {trace_id=\"5b8efff798038103d269b633813fc60c\",k=\"v\"} 0.5\na_created{x=\"1\"} 12\na_total{x=\"2\"} 6\nprocess_start_time_seconds 10\n";
        let found = metrics(page);
        let Some(Data::Sum(sum)) = &found[0].data else {
            panic!("{found:?}")
        };
        assert_eq!(
            (found[0].name.as_str(), sum.is_monotonic, sum.aggregation_temporality),
            ("a_total", true, 2)
        );
        let starts: Vec<u64> = sum.data_points.iter().map(|p| p.start_time_unix_nano).collect();
        assert_eq!(starts, [12_000_000_000, 10_000_000_000]);
        assert_eq!(
            (
                sum.data_points[0].exemplars[0].trace_id.len(),
                sum.data_points[0].time_unix_nano
            ),
            (16, 77)
        );
        assert!(matches!(found[1].data, Some(Data::Gauge(_))));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn histograms_and_summaries_are_one_point_for_each_set_of_labels() {
        let page = "# TYPE h histogram\nh_bucket{a=\"1\",le=\"1\"} 2\nh_bucket{le=\"0.5\",a=\"1\"} 1\nh_bucket{a=\"1\",le=\"+Inf\"} 5\nh_sum{a=\"1\"} 9.5\nh_count{a=\"1\"} 5\nh_bucket{a=\"2\",le=\"1\"} 4\nh_count{a=\"2\"} 6\n# TYPE s summary\ns{quantile=\"0.9\"} 3\ns{quantile=\"0.5\"} 2\ns_sum 10\ns_count 4\n";
        let found = metrics(page);
        let Some(Data::Histogram(histogram)) = &found[0].data else {
            panic!("{found:?}")
        };
        let [first, second] = &histogram.data_points[..] else {
            panic!("{histogram:?}")
        };
        assert_eq!((first.count, first.sum), (5, Some(9.5)));
        assert_eq!(
            (&first.explicit_bounds[..], &first.bucket_counts[..]),
            (&[0.5, 1.0][..], &[1, 1, 3][..])
        );
        // Without the bucket of the rest, the count tells it.
        assert_eq!((second.count, &second.bucket_counts[..]), (6, &[4, 2][..]));
        let Some(Data::Summary(summary)) = &found[1].data else {
            panic!("{found:?}")
        };
        let point = &summary.data_points[0];
        assert_eq!((point.count, point.sum, point.quantile_values.len()), (4, 10.0, 2));
        assert_eq!(point.quantile_values[0].quantile, 0.5);
    }

    proptest! {
        /// Pages that lie: buckets that fall, counts that do not agree, bounds twice.
        #[test]
        fn a_histogram_always_adds_up(
            steps in proptest::collection::vec((prop::sample::select(&["1", "2", "+Inf", "-Inf", "NaN", "x"][..]), -3i32..9), 0..8),
            count in proptest::option::of(-3i32..9),
        ) {
            let mut page = "# TYPE h histogram\nh_sum 1\n".to_owned();
            for (bound, value) in &steps {
                page += &format!("h_bucket{{le=\"{bound}\"}} {value}\n");
            }
            if let Some(count) = count {
                page += &format!("h_count {count}\n");
            }
            for metric in metrics(&page) {
                let Some(Data::Histogram(histogram)) = metric.data else { panic!() };
                for point in histogram.data_points {
                    if !point.bucket_counts.is_empty() {
                        prop_assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                        prop_assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    }
                    prop_assert!(point.explicit_bounds.is_sorted());
                }
            }
        }
    }
}
