//! The configuration files of a fleet's processes.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::keys::Keys;
use super::{Places, SERVER_NAME, Shape};
use crate::engines::Engines;

/// One file for all roles of ingest, which differ in `--role` only. A replay window of nothing lets the log forget as soon as it may.
pub(super) fn ingest(engines: &Engines, places: &Places, shape: &Shape, keys: &Keys, folder: &Path) -> Result<String> {
    let [certificate, key] = keys.gateway();
    let (authority, deny) = (keys.authority(), folder.join("ca/deny"));
    let (data, hot) = (folder.join("ingest"), clickhouse(engines, places)?);
    let insert_rows = shape
        .insert_rows
        .map(|rows| format!("insert_rows = {rows}\n"))
        .unwrap_or_default();
    Ok(format!(
        "data_dir = {data:?}\nlake = {:?}\n\n\
         [s3]\nendpoint = {:?}\nregion = {:?}\nallow_http = true\n\
         access_key = {{ env = \"AWS_ACCESS_KEY_ID\" }}\nsecret_key = {{ env = \"AWS_SECRET_ACCESS_KEY\" }}\n\n\
         [gateway]\ncertificate = {certificate:?}\nkey = {key:?}\nca = {authority:?}\ndeny_list = {deny:?}\n\n\
         [log]\nkind = \"kafka\"\npartitions = {}\nreplay_window = \"0 s\"\nwrites = \"group\"\n\n\
         [log.kafka]\nbrokers = {:?}\ntopic = {:?}\ngroup = {:?}\nreplication = 1\nmin_insync = 1\ntimeout = \"5 s\"\n\n\
         [hot]\nstore = \"clickhouse\"\n\n[hot.clickhouse]\n{hot}{insert_rows}takeover_after = \"10 s\"\n\n\
         [cold]\ncommit_every = \"{} ms\"\n",
        places.lake,
        engines.get("S3_ENDPOINT")?,
        engines.get("S3_REGION")?,
        shape.partitions,
        engines.get("KAFKA_BROKERS")?,
        places.name,
        places.name,
        shape.commit_every.as_millis(),
    ))
}

/// Limits as wide as an audit of everything needs them.
pub(super) fn query(engines: &Engines, places: &Places, tokens: &Path) -> Result<String> {
    Ok(format!(
        "tokens = {tokens:?}\n\n[hot]\nstore = \"clickhouse\"\n\n[hot.clickhouse]\n{}\n\
         [limits]\ntimeout = \"2 min\"\nmemory = \"2 GiB\"\n",
        clickhouse(engines, places)?
    ))
}

fn clickhouse(engines: &Engines, places: &Places) -> Result<String> {
    let url = engines.get("CLICKHOUSE_URL")?;
    Ok(format!("url = {url:?}\ndatabase = {:?}\n", places.database))
}

/// A link that notices soon that it is down. Every edge has a gateway of its own for a home, and goes to the others when it must.
pub(super) fn edge(shape: &Shape, keys: &Keys, number: u8, gateways: &[SocketAddr]) -> String {
    let [certificate, key] = keys.edge(number);
    let mut gateways: Vec<String> = gateways.iter().map(ToString::to_string).collect();
    let home = usize::from(number - 1) % gateways.len();
    gateways.rotate_left(home);
    let mut text = format!(
        "[seal]\noffline_age = \"2 s\"\n\n\
         [link]\ngateways = {gateways:?}\nfirst_is_home = true\nreturn_after = \"5 s\"\nserver_name = {SERVER_NAME:?}\n\
         certificate = {certificate:?}\nkey = {key:?}\nca = {:?}\n\
         idle_timeout = \"2 s\"\nkeep_alive = \"500 ms\"\nconnect_timeout = \"2 s\"\nack_timeout = \"10 s\"\nreport_every = \"5 s\"\n",
        keys.authority(),
    );
    if let Some(rate) = shape.sample {
        text.push_str(&format!(
            "\n[[plugin]]\nname = \"sample\"\nconfig = {{ rate = {rate:?} }}\n"
        ));
    }
    text
}
