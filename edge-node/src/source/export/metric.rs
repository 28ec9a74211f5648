//! Metrics of an export request.

use sluice_wire::otlp::writer;

use super::Attributes;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: what counters of machines and programs are.
const CUMULATIVE: u64 = 2;

/// When a point was taken, and since when it counts; 0 where nobody knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) start_ns: u64,
    pub(crate) time_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    fn write(self, out: &mut Vec<u8>, double: u32, int: u32) {
        match self {
            Self::Double(value) => writer::double_always(out, double, value),
            Self::Int(value) => writer::fixed64_always(out, int, value as u64),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Exemplar {
    pub(crate) time_ns: u64,
    pub(crate) value: f64,
    pub(crate) attributes: Attributes,
    pub(crate) trace_id: Option<[u8; 16]>,
    pub(crate) span_id: Option<[u8; 8]>,
}

impl Exemplar {
    fn write(&self, out: &mut Vec<u8>, field: u32) {
        let mut message = Vec::new();
        writer::fixed64(&mut message, 2, self.time_ns);
        writer::double_always(&mut message, 3, self.value);
        writer::bytes(&mut message, 4, self.span_id.as_ref().map_or(&[], |id| &id[..]));
        writer::bytes(&mut message, 5, self.trace_id.as_ref().map_or(&[], |id| &id[..]));
        self.attributes.write(&mut message, 7);
        writer::bytes_always(out, field, &message);
    }
}

/// A histogram with bounds, and how many values lie in each bucket: one bucket more than bounds, or none of both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) bounds: Vec<f64>,
    pub(crate) buckets: Vec<u64>,
    pub(crate) exemplars: Vec<Exemplar>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantile {
    pub(crate) quantile: f64,
    pub(crate) value: f64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) quantiles: Vec<Quantile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Sum { monotonic: bool },
    Histogram,
    Summary,
}

/// One metric and its points.
#[derive(Clone, Debug)]
pub(crate) struct Metric {
    name: String,
    description: String,
    unit: String,
    kind: Kind,
    points: Vec<u8>,
    count: usize,
}

impl Metric {
    fn new(name: &str, unit: &str, description: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            description: description.to_owned(),
            unit: unit.to_owned(),
            kind,
            points: Vec::new(),
            count: 0,
        }
    }

    pub(crate) fn gauge(name: &str, unit: &str, description: &str) -> Self {
        Self::new(name, unit, description, Kind::Gauge)
    }

    /// A cumulative sum that only grows.
    pub(crate) fn counter(name: &str, unit: &str, description: &str) -> Self {
        Self::new(name, unit, description, Kind::Sum { monotonic: true })
    }

    /// A cumulative sum that also falls: what is in use.
    pub(crate) fn up_down(name: &str, unit: &str, description: &str) -> Self {
        Self::new(name, unit, description, Kind::Sum { monotonic: false })
    }

    pub(crate) fn histogram(name: &str, unit: &str, description: &str) -> Self {
        Self::new(name, unit, description, Kind::Histogram)
    }

    pub(crate) fn summary(name: &str, unit: &str, description: &str) -> Self {
        Self::new(name, unit, description, Kind::Summary)
    }

    pub(crate) fn points(&self) -> usize {
        self.count
    }

    /// A point of a gauge or a sum.
    pub(crate) fn number(&mut self, times: Times, value: Number, attributes: &Attributes, exemplar: Option<&Exemplar>) {
        let mut point = Vec::new();
        if matches!(self.kind, Kind::Sum { .. }) {
            writer::fixed64(&mut point, 2, times.start_ns);
        }
        writer::fixed64(&mut point, 3, times.time_ns);
        value.write(&mut point, 4, 6);
        if let Some(exemplar) = exemplar {
            exemplar.write(&mut point, 5);
        }
        attributes.write(&mut point, 7);
        self.push(&point);
    }

    pub(crate) fn distribution(&mut self, times: Times, value: &Histogram, attributes: &Attributes) {
        let mut point = Vec::new();
        writer::fixed64(&mut point, 2, times.start_ns);
        writer::fixed64(&mut point, 3, times.time_ns);
        writer::fixed64(&mut point, 4, value.count);
        if let Some(sum) = value.sum {
            writer::double_always(&mut point, 5, sum);
        }
        writer::fixed64s(&mut point, 6, value.buckets.iter().copied());
        writer::fixed64s(&mut point, 7, value.bounds.iter().map(|b| b.to_bits()));
        for exemplar in &value.exemplars {
            exemplar.write(&mut point, 8);
        }
        attributes.write(&mut point, 9);
        self.push(&point);
    }

    pub(crate) fn quantiles(&mut self, times: Times, value: &Summary, attributes: &Attributes) {
        let mut point = Vec::new();
        writer::fixed64(&mut point, 2, times.start_ns);
        writer::fixed64(&mut point, 3, times.time_ns);
        writer::fixed64(&mut point, 4, value.count);
        writer::double(&mut point, 5, value.sum);
        for quantile in &value.quantiles {
            let mut message = Vec::new();
            writer::double(&mut message, 1, quantile.quantile);
            writer::double(&mut message, 2, quantile.value);
            writer::bytes_always(&mut point, 6, &message);
        }
        attributes.write(&mut point, 7);
        self.push(&point);
    }

    fn push(&mut self, point: &[u8]) {
        writer::bytes_always(&mut self.points, 1, point);
        self.count += 1;
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        writer::text(out, 1, Some(&self.name));
        writer::text(out, 2, Some(&self.description));
        writer::text(out, 3, Some(&self.unit));
        let mut data = self.points.clone();
        let field = match self.kind {
            Kind::Gauge => 5,
            Kind::Sum { monotonic } => {
                writer::uint(&mut data, 2, CUMULATIVE);
                writer::uint(&mut data, 3, monotonic.into());
                7
            }
            Kind::Histogram => {
                writer::uint(&mut data, 2, CUMULATIVE);
                9
            }
            Kind::Summary => 11,
        };
        writer::bytes_always(out, field, &data);
    }
}
