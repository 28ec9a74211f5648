//! Charts as SVG, one below the other over one time.

use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const GAP: f64 = 70.0;
const COLOURS: [&str; 2] = ["#1f5fa8", "#c2571a"];
const TICKS: usize = 5;

type Points = Vec<(f64, f64)>;

pub(crate) struct Chart {
    title: String,
    series: Vec<(String, Points)>,
    joined: bool,
}

impl Chart {
    pub(crate) fn lines(title: &str, series: Vec<(String, Points)>) -> Self {
        Self {
            title: title.to_owned(),
            series,
            joined: true,
        }
    }

    pub(crate) fn points(title: &str, series: Vec<(String, Points)>) -> Self {
        Self {
            joined: false,
            ..Self::lines(title, series)
        }
    }
}

pub(crate) fn write(path: &Path, time: &str, charts: &[Chart]) -> std::io::Result<()> {
    let all = charts
        .iter()
        .flat_map(|chart| &chart.series)
        .flat_map(|(_, points)| points);
    let last = nice(all.map(|(at, _)| *at).fold(1.0, f64::max));
    let height = TOP + charts.len() as f64 * (HEIGHT + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 40.0
    );
    for (place, chart) in charts.iter().enumerate() {
        draw(&mut out, chart, TOP + place as f64 * (HEIGHT + GAP), last, time);
    }
    out.push_str("</svg>\n");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, out)
}

fn draw(out: &mut String, chart: &Chart, top: f64, last: f64, time: &str) {
    let values = chart.series.iter().flat_map(|(_, points)| points);
    let most = nice(values.map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max));
    let x = |at: f64| LEFT + at / last * WIDTH;
    let y = |value: f64| top + HEIGHT - value / most * HEIGHT;
    let bottom = top + HEIGHT;
    text(out, LEFT, top - 12.0, "start", "black", &chart.title);
    for (place, (name, _)) in chart.series.iter().enumerate() {
        let from_right = (chart.series.len() - 1 - place) as f64 * 240.0;
        text(
            out,
            LEFT + WIDTH - from_right,
            top - 12.0,
            "end",
            COLOURS[place % COLOURS.len()],
            name,
        );
    }
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let (value, at) = (share * most, share * last);
        writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>",
            LEFT + WIDTH,
            y = y(value)
        )
        .unwrap();
        text(out, LEFT - 6.0, y(value) + 4.0, "end", "black", &short(value));
        text(out, x(at), bottom + 16.0, "middle", "black", &short(at));
    }
    text(out, LEFT + WIDTH / 2.0, bottom + 32.0, "middle", "#555", time);
    for (place, (_, points)) in chart.series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        if chart.joined {
            let path: Vec<String> = points
                .iter()
                .map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v)))
                .collect();
            writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
                path.join(" ")
            )
            .unwrap();
        } else {
            for (at, value) in points {
                writeln!(
                    out,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\" fill=\"{colour}\"/>",
                    x(*at),
                    y(*value)
                )
                .unwrap();
            }
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
    )
    .unwrap();
}

/// The next larger number that divides well.
fn nice(most: f64) -> f64 {
    let unit = 10f64.powf(most.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps
        .iter()
        .map(|step| step * unit)
        .find(|value| *value >= most)
        .unwrap_or(most)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
