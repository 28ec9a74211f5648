//! What the sandbox costs: the standard plugins on batches as they arrive.

use std::path::Path;

use serde_json::json;
use sluice_bench::corpus::{Corpus, Signal};
use sluice_runtime::{Call, Host, HostOptions};
use sluice_wire::otlp::{DecodeLimits, Decoder};

use crate::stages::chain;
use crate::{Line, line};

const ROWS: usize = 1_000;
const REQUESTS: u64 = 32;
const ROUNDS: usize = 6;

pub(crate) fn measure(dist: &Path) -> Vec<Line> {
    let corpus = Corpus::new(1);
    let mut decoder = Decoder::new(DecodeLimits::default());
    let bodies: Vec<Vec<u8>> = (0..REQUESTS).map(|k| corpus.request(Signal::Log, k, ROWS, 0)).collect();
    let mut decode = |body: &Vec<u8>| decoder.decode(sluice_wire::Signal::Log, body, 1).unwrap().batch;
    let batches: Vec<_> = bodies.iter().map(&mut decode).collect();
    let decoding = crate::seconds(|| {
        std::hint::black_box(decode(&bodies[0]));
    });

    let host = Host::new(HostOptions::default()).unwrap();
    let sample = ("sample", json!({"rate": 0.2, "keep_errors": true}));
    let mask = ("mask", json!({}));
    let chains = [
        ("sample", vec![sample.clone()]),
        ("mask", vec![mask.clone()]),
        ("mask, then sample", vec![mask, sample]),
    ];
    chains
        .into_iter()
        .map(|(name, plugins)| {
            let chain = chain(&host, dist, &plugins);
            let cost = sluice_runtime::measure(
                &chain,
                &batches,
                &Call::new(sluice_wire::Signal::Log, 0, "acme"),
                ROUNDS,
            )
            .unwrap();
            let of_decoding = cost.cpu_s / cost.rows as f64 / (decoding / ROWS as f64);
            line(
                &format!("plugins: {name}, batches of 1,000 logs"),
                format!("{:.2} CPU-s/M rows", cost.cpu_s_per_million()),
                format!("{of_decoding:.2} times the cost of decoding the same rows"),
            )
        })
        .collect()
}
