//! P1, P13: events that come with a key are on disk when they are accepted, and stand under the key's tenant and nowhere else.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_bench::corpus::{Corpus, Signal};
use sluice_bench::load::{Client, Outcome, Protocol, Target};
use sluice_tests::{SOON, eventually};

use super::{Cloud, bearer, hang_up, retry_after, start_otlp, until};

/// Bodies that a key of scope read sees, sorted.
async fn bodies(cloud: &Cloud, key: &str, expected: &[&str]) {
    let sql = cloud.sql(key);
    let asked = || async {
        let answer = sql
            .ask("SELECT body, tenant FROM logs ORDER BY body")
            .await
            .map_err(|e| e.to_string())?;
        let found: Vec<_> = answer
            .rows
            .iter()
            .map(|row| row[0].as_str().unwrap_or_default())
            .collect();
        match found == expected {
            true => Ok(answer.rows.clone()),
            false => Err(format!("{found:?}")),
        }
    };
    eventually(&format!("{expected:?}"), asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p13_what_comes_with_a_key_is_safe_and_stands_under_its_tenant_only() {
    let mut cloud = Cloud::with_tenants(&["acme", "beta"]).await;
    let ((_, acme), (_, beta)) = (cloud.key("acme", "write", &[]), cloud.key("beta", "write", &[]));
    let ((_, acme_reads), (_, beta_reads)) = (cloud.key("acme", "read", &[]), cloud.key("beta", "read", &[]));
    // Keys made while it runs are known within seconds.
    let known = || async {
        let answer = cloud.post("acme http", &[("authorization", &bearer(&acme))]).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    };
    eventually("the new keys", known).await.unwrap();
    // The tenant is the key's, whatever else the request says; `post` names another one in its attributes.
    let spoofed = [
        ("x-api-key", beta.as_str()),
        ("x-scope-orgid", "acme"),
        ("x-tenant", "acme"),
    ];
    assert_eq!(cloud.post("beta http", &spoofed).await.status, 200);
    for (tenant, key) in [("acme", &acme), ("beta", &beta)] {
        let mut target = Target::new(Protocol::Grpc, cloud.otlp().url("otlp-grpc").unwrap());
        target.token = Some(key.clone());
        let mut client = Client::connect(&target).unwrap();
        let event = crate::otlp::one_log(&format!("{tenant} grpc"), Vec::new());
        let outcome = client.send(Signal::Log, Bytes::from(event)).await;
        assert!(outcome.is_accepted(), "{outcome:?}");
    }
    let url = cloud.otlp().url("otlp-http").unwrap() + "/v1/logs/json";
    let lines = http::Request::post(url)
        .header("authorization", bearer(&acme))
        .body(http_body_util::Full::from("{\"message\":\"acme lines\"}\n"))
        .unwrap();
    let answer = sluice_bench::process::http_send(lines, SOON).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Killed at once: what was accepted is on its disk, and goes on its way when the process comes back, without anybody sending.
    let before = cloud.otlp.take().unwrap();
    let again = start_otlp(cloud.folder.path()).listen_as(&before);
    before.kill().unwrap();
    cloud.otlp = Some(again.spawn().await.unwrap());
    bodies(&cloud, &acme_reads, &["acme grpc", "acme http", "acme lines"]).await;
    bodies(&cloud, &beta_reads, &["beta grpc", "beta http"]).await;
    let tenants = |key: String| {
        let sql = cloud.sql(&key);
        async move { sql.ask("SELECT DISTINCT tenant, node FROM events").await.unwrap().rows }
    };
    assert_eq!(tenants(acme_reads.clone()).await, [[json!("acme"), json!("otlp")]]);
    assert_eq!(tenants(beta_reads.clone()).await, [[json!("beta"), json!("otlp")]]);
    // A key that writes does not ask, and one that is revoked does not ask any more.
    assert!(cloud.sql(&acme).ask("SELECT 1").await.is_err());
    cloud.sluice(&["key", "revoke", "beta/test"]);
    let revoked = || async {
        match cloud.sql(&beta_reads).ask("SELECT 1").await {
            Err(error) => Ok(error.to_string()),
            Ok(_) => Err("it still asks".to_owned()),
        }
    };
    eventually("the revocation", revoked).await.unwrap();
    // What opens nothing any more can be forgotten, and nothing else is.
    let forgotten = cloud.sluice(&["key", "prune", "--dead-for", "0 s"]);
    assert_eq!(forgotten, json!({ "forgotten": 2, "left": 2 }));
    assert!(cloud.sql(&acme_reads).ask("SELECT 1").await.is_ok());
    assert!(
        cloud
            .otlp
            .take()
            .unwrap()
            .terminate(SOON)
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_r4_over_its_quota_a_sender_is_told_when_to_come_again_and_others_are_not() {
    let cloud = Cloud::with_tenants(&["acme", "beta"]).await;
    cloud.sluice(&["tenant", "limit", "acme", "--events-per-second", "1", "--burst", "1 s"]);
    let ((_, acme), (_, beta)) = (cloud.key("acme", "write", &[]), cloud.key("beta", "write", &[]));
    let listed = cloud.sluice(&["tenant", "show", "acme"]);
    assert_eq!(
        (&listed["events_per_second"], &listed["keys"][0]["tenant"]),
        (&json!(1), &json!("acme"))
    );
    hang_up(cloud.otlp());
    let known = || async {
        let answer = cloud.post("beta", &[("x-api-key", &beta)]).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    };
    eventually("the new keys", known).await.unwrap();
    // 1,000 events are a quarter of an hour.
    let many = Bytes::from(Corpus::new(7).request(Signal::Log, 0, 1_000, 0));
    let client = |protocol, door: &str, key: &str| {
        let mut target = Target::new(protocol, cloud.otlp().url(door).unwrap());
        target.token = Some(key.to_owned());
        Client::connect(&target).unwrap()
    };
    let mut noisy = client(Protocol::Grpc, "otlp-grpc", &acme);
    let first = noisy.send(Signal::Log, many.clone()).await;
    assert!(first.is_accepted(), "{first:?}");
    let mut quiet = client(Protocol::Grpc, "otlp-grpc", &beta);
    for _ in 0..20 {
        let refused = noisy.send(Signal::Log, many.clone()).await;
        let Outcome::Refused { code, message } = refused else {
            panic!("{refused:?}")
        };
        assert!(message.contains("events_per_second"), "{code} {message}");
        assert!(quiet.send(Signal::Log, many.clone()).await.is_accepted());
    }
    let answer = cloud.post("acme", &[("x-api-key", &acme)]).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!((1..=60).contains(&retry_after(&answer.headers)));
    let status = cloud.otlp_status().await;
    assert_eq!(status["tenants"]["acme"]["held_events_per_second"], 21);
    assert_eq!(status["tenants"]["acme"]["events"], 1_000);
    assert_eq!(status["tenants"]["beta"]["held_events_per_second"], 0);
    assert_eq!(status["refused"]["events_per_second"], 21);
    // Counted at the gateway, too, by the tenant of the certificate.
    let is_counted = |status: &Value| status["gateway"]["tenants"]["beta"]["events"].as_u64() == Some(20_001);
    until(&cloud.ingest, "the events at the gateway", is_counted).await;
    let page = sluice_bench::process::get(&(cloud.otlp().url("http").unwrap() + "/metrics"), None)
        .await
        .unwrap();
    let line = "sluice_tenant_held_total{tenant=\"acme\",limit=\"events_per_second\"} 21";
    assert!(page.text().contains(line), "{}", page.text());
}
