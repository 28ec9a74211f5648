//! P1: what the OTLP role accepted of a tenant goes on its way however many tenants there are, and whether their tenants send or not; and
//! who asks whether data moves is told.

use std::fs;
use std::io::Write;
use std::process::Command;

use sluice_bench::process::{HttpAnswer, get};
use sluice_tests::eventually;

use super::{Cloud, hang_up, run, start_otlp};

const TENANTS: [&str; 4] = ["acme", "beta", "gamma", "delta"];

fn signal(cloud: &Cloud, name: &str) {
    run(Command::new("kill").args([name, &cloud.ingest.pid().to_string()]));
}

async fn ready(cloud: &Cloud) -> HttpAnswer {
    get(&(cloud.otlp().url("http").unwrap() + "/readyz"), None)
        .await
        .unwrap()
}

/// Asks until the answer of `/readyz` is one that holds.
async fn until_ready_says(cloud: &Cloud, words: &str) {
    let asked = || async {
        let answer = ready(cloud).await;
        match answer.text().contains(words) && answer.status == 200 {
            true => Ok(()),
            false => Err(answer.text()),
        }
    };
    eventually(words, asked).await.unwrap();
}

/// Posts until the tenant's events are taken.
async fn until_taken(cloud: &Cloud, body: &str, key: &str) {
    let posted = || async {
        let answer = cloud.post(body, &[("x-api-key", key)]).await;
        match answer.status.as_u16() {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    };
    eventually(body, posted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_what_tenants_left_goes_on_its_way_although_there_are_more_of_them_than_places() {
    let mut cloud = Cloud::with_tenants(&TENANTS).await;
    let keys = TENANTS.map(|tenant| cloud.key(tenant, "write", &[]).1);
    let reads = TENANTS.map(|tenant| cloud.key(tenant, "read", &[]).1);
    // The gateway stands still, so that everything stays on the disk of the role.
    signal(&cloud, "-STOP");
    hang_up(cloud.otlp());
    for (tenant, key) in TENANTS.iter().zip(&keys) {
        until_taken(&cloud, tenant, key).await;
    }
    until_ready_says(&cloud, "4 of 4 chains have no link to a gateway").await;
    // It comes back with room for one tenant, and nobody sends.
    let before = cloud.otlp.take().unwrap();
    let again = start_otlp(cloud.folder.path()).listen_as(&before);
    before.kill().unwrap();
    let mut config = fs::OpenOptions::new()
        .append(true)
        .open(cloud.path("otlp.toml"))
        .unwrap();
    config.write_all(b"max_tenants = 1\n").unwrap();
    cloud.otlp = Some(again.spawn().await.unwrap());
    signal(&cloud, "-CONT");
    for (tenant, key) in TENANTS.iter().zip(&reads) {
        let sql = cloud.sql(key);
        let arrived = || async {
            let answer = sql
                .ask("SELECT body FROM logs")
                .await
                .map_err(|error| error.to_string())?;
            match answer.rows.as_slice() {
                [row] if row[0] == *tenant => Ok(()),
                rows => Err(format!("{rows:?}")),
            }
        };
        eventually(&format!("what {tenant} left"), arrived).await.unwrap();
    }
    // Nothing is left, nobody sends: nothing runs.
    let nothing_runs = || async {
        let (status, answer) = (cloud.otlp_status().await, ready(&cloud).await);
        match status["edges"].as_object().unwrap().is_empty() && answer.text() == "ready\n" {
            true => Ok(()),
            false => Err(format!("{status:#}")),
        }
    };
    eventually("the end of the nodes", nothing_runs).await.unwrap();

    // The one place is for who sends first, until its tenant is not served any more.
    until_taken(&cloud, "acme again", &keys[0]).await;
    let refused = cloud.post("beta", &[("x-api-key", &keys[1])]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("otlp.max_tenants"), "{}", refused.text());
    cloud.sluice(&["tenant", "remove", "acme"]);
    hang_up(cloud.otlp());
    until_taken(&cloud, "beta again", &keys[1]).await;
}
