//! Pages in the text formats of Prometheus (0.0.4) and OpenMetrics (1.0). Pure; what it makes borrows from the page.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a page says of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    /// Nothing that is known here.
    #[default]
    Unknown,
}

/// Samples that belong together.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Family<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) help: Cow<'a, str>,
    pub(super) unit: &'a str,
    pub(super) samples: Vec<Sample<'a>>,
}

pub(super) type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) time_ns: Option<u64>,
    pub(super) exemplar: Option<Mark<'a>>,
}

/// An exemplar.
#[derive(Debug, PartialEq)]
pub(super) struct Mark<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) time_ns: Option<u64>,
}

/// Why a page is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct PageError {
    line: usize,
    what: String,
}

/// Labels of one sample; Prometheus itself knows no limit, and programs have ten.
const MAX_LABELS: usize = 128;

/// Reads a page. In OpenMetrics times are seconds, else milliseconds.
pub(super) fn parse(page: &str, is_open_metrics: bool, max_samples: usize) -> Result<Vec<Family<'_>>, PageError> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut samples = 0;
    for (number, line) in page.lines().enumerate() {
        let refuse = |what: String| PageError { line: number + 1, what };
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if is_open_metrics && comment.trim() == "EOF" {
                break;
            }
            if let Some((what, name, rest)) = about(comment) {
                let family = family_of(&mut families, &mut places, name);
                match what {
                    About::Help => family.help = unescape(cut(rest)),
                    About::Unit => family.unit = cut(rest),
                    About::Type => family.kind = kind(rest),
                }
            }
            continue;
        }
        samples += 1;
        if samples > max_samples {
            return Err(refuse(format!("more than {max_samples} samples")));
        }
        let sample = sample(line, is_open_metrics).map_err(|what| refuse(what.to_owned()))?;
        let name = owner(sample.name, &families, &places);
        family_of(&mut families, &mut places, name).samples.push(sample);
    }
    Ok(families)
}

enum About {
    Help,
    Type,
    Unit,
}

/// Every metric carries a copy, and one family can be many metrics.
const MAX_ABOUT_BYTES: usize = 1024;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_ABOUT_BYTES)]
}

/// `HELP name text` and its relatives; any other comment is for people.
fn about(comment: &str) -> Option<(About, &str, &str)> {
    let comment = comment.trim_start_matches([' ', '\t']);
    let (what, rest) = comment.split_once([' ', '\t'])?;
    let what = match what {
        "HELP" => About::Help,
        "TYPE" => About::Type,
        "UNIT" => About::Unit,
        _ => return None,
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (name, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    (!name.is_empty()).then(|| (what, name, rest.trim_start_matches([' ', '\t'])))
}

fn kind(text: &str) -> Kind {
    match text {
        "counter" => Kind::Counter,
        "gauge" | "info" | "stateset" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        _ => Kind::Unknown,
    }
}

fn family_of<'f, 'a>(
    families: &'f mut Vec<Family<'a>>,
    places: &mut BTreeMap<&'a str, usize>,
    name: &'a str,
) -> &'f mut Family<'a> {
    let place = *places.entry(name).or_insert_with(|| {
        families.push(Family {
            name,
            ..Family::default()
        });
        families.len() - 1
    });
    &mut families[place]
}

/// The family that a sample belongs to by its name: its own, or that of the name without what its kind puts behind it.
fn owner<'a>(name: &'a str, families: &[Family<'a>], places: &BTreeMap<&'a str, usize>) -> &'a str {
    for (suffix, kinds) in [
        ("_total", &[Kind::Counter][..]),
        ("_bucket", &[Kind::Histogram]),
        ("_sum", &[Kind::Histogram, Kind::Summary]),
        ("_count", &[Kind::Histogram, Kind::Summary]),
        ("_created", &[Kind::Counter, Kind::Histogram, Kind::Summary]),
    ] {
        if let Some(base) = name.strip_suffix(suffix)
            && let Some(place) = places.get(base)
            && kinds.contains(&families[*place].kind)
        {
            return base;
        }
    }
    name
}

/// `name{label="value",…} value time # {…} value time`
fn sample(line: &str, is_open_metrics: bool) -> Result<Sample<'_>, &'static str> {
    let end = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return Err("has no name of a metric");
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Labels::new(), rest),
    };
    let (numbers, exemplar) = match rest.split_once(" # ") {
        Some((numbers, mark)) => (numbers, Some(exemplar(mark)?)),
        None => (rest, None),
    };
    let (value, time_ns) = value_and_time(numbers, is_open_metrics)?;
    Ok(Sample {
        name,
        labels,
        value,
        time_ns,
        exemplar,
    })
}

fn exemplar(text: &str) -> Result<Mark<'_>, &'static str> {
    let inside = text.trim_start_matches([' ', '\t']).strip_prefix('{');
    let (labels, rest) = labels(inside.ok_or("an exemplar has no labels")?)?;
    // Exemplars exist in OpenMetrics alone.
    let (value, time_ns) = value_and_time(rest, true)?;
    Ok(Mark { labels, value, time_ns })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Labels up to the closing brace, and what stands behind it.
fn labels(text: &str) -> Result<(Labels<'_>, &str), &'static str> {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((labels, behind));
        }
        let end = rest.find(|c: char| !is_name(c)).ok_or("the braces are not closed")?;
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return Err("has no name of a label");
        }
        let after = after.trim_start_matches([' ', '\t']);
        let after = after.strip_prefix('=').ok_or("a label has no value")?;
        let after = after.trim_start_matches([' ', '\t']);
        let quoted = after.strip_prefix('"').ok_or("the value of a label is not in quotes")?;
        let end = closing_quote(quoted).ok_or("a quote is not closed")?;
        if labels.len() == MAX_LABELS {
            return Err("has more than 128 labels");
        }
        labels.push((name, unescape(&quoted[..end])));
        rest = quoted[end + 1..].trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("a comma or a brace is missing between labels"),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    })
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(escaped @ ('\\' | '"')) => out.push(escaped),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            (other, false) => out.push(other),
        }
    }
    Cow::Owned(out)
}

fn value_and_time(text: &str, is_open_metrics: bool) -> Result<(f64, Option<u64>), &'static str> {
    let mut words = text.split_ascii_whitespace();
    let value = words.next().and_then(number).ok_or("has no number as its value")?;
    let time = match words.next() {
        None => None,
        Some(word) => {
            let time: f64 = word.parse().map_err(|_| "the time is no number")?;
            let ns = time * if is_open_metrics { 1e9 } else { 1e6 };
            // 1970 to 2554, which is what 64 bits hold.
            Some(
                (0.0..1.8e19)
                    .contains(&ns)
                    .then_some(ns as u64)
                    .ok_or("the time is out of range")?,
            )
        }
    };
    match words.next() {
        None => Ok((value, time)),
        Some(_) => Err("something stands behind the time"),
    }
}

/// As Go writes numbers.
pub(super) fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of Prometheus' own documentation.
    const PAGE: &str = r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320
"#;

    #[test]
    fn a_page_is_read() {
        let families = parse(PAGE, false, 100).unwrap();
        let shown: Vec<_> = families.iter().map(|f| (f.name, f.kind, f.samples.len())).collect();
        assert_eq!(
            shown,
            [
                ("http_requests_total", Kind::Counter, 2),
                ("msdos_file_access_time_seconds", Kind::Unknown, 1),
                ("metric_without_timestamp_and_labels", Kind::Unknown, 1),
                ("something_weird", Kind::Unknown, 1),
                ("http_request_duration_seconds", Kind::Histogram, 4),
            ]
        );
        assert_eq!(families[0].help, "The total number of HTTP requests.");
        assert_eq!(families[0].samples[0].time_ns, Some(1_395_066_363_000_000_000));
        assert_eq!(families[0].samples[0].labels[1], ("code", Cow::Borrowed("200")));
        assert_eq!(families[1].samples[0].labels[0].1, "C:\\DIR\\FILE.TXT");
        assert_eq!(families[1].samples[0].labels[1].1, "Cannot find file:\n\"FILE.TXT\"");
        assert_eq!(families[3].samples[0].value, f64::INFINITY);
    }

    #[test]
    fn open_metrics_has_units_exemplars_and_an_end() {
        let page = "# TYPE acme_http counter\n# UNIT acme_http seconds\nacme_http_total{path=\"/\"} 3 1520879607.5 # {trace_id=\"abc\"} 0.67 1520879600\nacme_http_created{path=\"/\"} 1520430000\n# EOF\nnot read";
        let families = parse(page, true, 100).unwrap();
        assert_eq!(
            (families.len(), families[0].unit, families[0].samples.len()),
            (1, "seconds", 2)
        );
        let sample = &families[0].samples[0];
        assert_eq!(sample.time_ns, Some(1_520_879_607_500_000_000));
        let mark = sample.exemplar.as_ref().unwrap();
        assert_eq!((mark.value, mark.time_ns), (0.67, Some(1_520_879_600_000_000_000)));
        assert_eq!(mark.labels, [("trace_id", Cow::Borrowed("abc"))]);
    }

    #[test]
    fn what_is_no_page_is_refused_with_its_line() {
        for (page, says) in [
            ("<html>", "line 1: has no name of a metric"),
            ("a 1\nb{", "line 2: the braces are not closed"),
            ("a{b}", "a label has no value"),
            ("a{b=c} 1", "not in quotes"),
            ("a{b=\"c} 1", "a quote is not closed"),
            ("a{b=\"c\"d=\"e\"} 1", "a comma or a brace"),
            ("a{=\"c\"} 1", "no name of a label"),
            ("a", "no number"),
            ("a one", "no number"),
            ("a 1 soon", "the time is no number"),
            ("a 1 -5", "out of range"),
            ("a 1 2 3", "behind the time"),
            ("a 1\na 1\na 1\na 1", "line 4: more than 3 samples"),
        ] {
            let error = parse(page, false, 3).unwrap_err().to_string();
            assert!(error.contains(says), "{page}: {error}");
        }
    }

    proptest! {
        #[test]
        fn labels_of_any_text_read_back(value in "\\PC{0,20}", number: f64) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let page = format!("a{{b=\"{escaped}\",c=\"\"}} {number}");
            let families = parse(&page, false, 9).unwrap();
            let sample = &families[0].samples[0];
            prop_assert_eq!(&sample.labels[0].1, &value);
            prop_assert!(sample.value == number || number.is_nan());
        }

        #[test]
        fn any_page_is_read_or_refused(page in "[a-c_{}=\",#\\\\ \\n0-9.+]{0,80}") {
            let _ = (parse(&page, false, 9), parse(&page, true, 9));
        }
    }
}
