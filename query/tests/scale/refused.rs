//! Who may ask a worker for work, and who may be asked.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{DistributedConfig, DistributedExt, MaybeEncoded, SetPlanRequest, TaskKey};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use sluice_query::config::TlsConfig;
use sluice_query::{BuildError, QueryConfig, QueryService, Tokens, WorkerService};
use tonic::transport::Endpoint;
use uuid::Uuid;

use super::fleet::{Fleet, Node, get};

/// The build that this is.
const OURS: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("SLUICE_MEANING"));
const GROUPS: &str = "SELECT service, count(*) FROM events GROUP BY 1 ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_does_nothing_for_who_does_not_show_its_secret() {
    let fleet = Fleet::new().await;
    let worker = fleet.worker();
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    for shown in [None, Some("Bearer 0123456789abcdef0123456789abcdee"), Some("Bearer ")] {
        for path in [
            "/worker.WorkerService/ExecuteTask",
            "/worker.WorkerService/GetWorkerInfo",
            "/worker.WorkerService/CoordinatorChannel",
            "/nothing",
        ] {
            let mut request =
                Request::post(format!("{}{path}", worker.url())).header("content-type", "application/grpc");
            if let Some(shown) = shown {
                request = request.header("authorization", shown);
            }
            let answer = client
                .request(request.body(Full::from(vec![0; 5])).unwrap())
                .await
                .unwrap();
            assert_eq!(answer.headers()["grpc-status"], "16", "{shown:?} {path}");
        }
    }
    assert_eq!(get(worker.address, "/healthz", None).await.status, StatusCode::OK);
    assert_eq!(worker.metric("sluice_query_worker_taken_total").await, 0);
    assert!(worker.metric("sluice_query_worker_strangers_total").await > 0);

    // A node with another secret computes its queries itself.
    let other = fleet.folder.path().join("other");
    std::fs::write(&other, "ffffffffffffffffffffffffffffffff").unwrap();
    let mut config = fleet.settings();
    config.scale.workers = vec![worker.url()];
    config.scale.secret_file = other;
    let node = Node::start(config, fleet.tables()).await;
    let alone = fleet.node(&[]).await;
    let expected = alone.ask(&alone.acme, GROUPS).await.rows();
    assert_eq!(node.ask(&node.acme, GROUPS).await.rows(), expected);
    assert_eq!(worker.metric("sluice_query_worker_taken_total").await, 0);
}

/// What a part may be: those who hold the secret may have cold rows computed, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_no_plan_but_those_over_its_cold_files() {
    let fleet = Fleet::new().await;
    let worker = fleet.worker();
    let distributed = SessionConfig::new().with_distributed_option_extension(DistributedConfig::default());
    let context = SessionContext::new_with_config(distributed).task_ctx();
    let send = async |build: &'static str, plan: MaybeEncoded<Arc<dyn ExecutionPlan>>| {
        let channel = Endpoint::from_shared(worker.url()).unwrap().connect_lazy();
        let mut client = create_worker_client(BoxCloneSyncChannel::new(channel));
        let mut headers = HeaderMap::new();
        headers.insert(
            "authorization",
            HeaderValue::from_static("Bearer 0123456789abcdef0123456789abcdef"),
        );
        headers.insert("x-sluice-build", HeaderValue::from_static(build));
        let request = SetPlanRequest {
            task_key: TaskKey {
                query_id: Uuid::new_v4(),
                stage_id: 0,
                task_number: 0,
            },
            task_count: 1,
            plan,
            work_unit_feed_declarations: Vec::new(),
            target_worker_url: worker.url().parse().unwrap(),
            query_start_time_ns: 0,
        };
        let nothing = futures::stream::pending().boxed();
        let taken = client.coordinator_channel(headers, request, nothing, ExecutionPlanMetricsSet::new(), &context);
        let error = taken.await.err();
        error.map_or_else(|| "taken".to_owned(), |error| error.to_string())
    };
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
    let empty: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::clone(&schema)));
    let mut deep = Arc::clone(&empty);
    for _ in 0..200 {
        deep = Arc::new(CoalescePartitionsExec::new(deep));
    }
    // What writes it needs a larger stack than a test has.
    let writing = {
        let context = Arc::clone(&context);
        std::thread::Builder::new()
            .stack_size(256 << 20)
            .spawn(move || MaybeEncoded::Decoded(deep).encode(&context).unwrap())
    };
    let deep = writing.unwrap().join().unwrap();
    let files = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(ParquetSource::new(schema)))
        .with_file(PartitionedFile::new(fleet.secret().display().to_string(), 33))
        .build();
    let foreign: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(files);
    let above: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::clone(&empty)));
    let cases = [
        (
            OURS,
            MaybeEncoded::Decoded(Arc::clone(&empty)),
            "does not run EmptyExec",
        ),
        (OURS, MaybeEncoded::Decoded(above), "does not run EmptyExec"),
        (OURS, MaybeEncoded::Decoded(foreign), "No suitable object store found"),
        (OURS, MaybeEncoded::Encoded(deep), ""),
        (OURS, MaybeEncoded::Encoded(b"no plan".to_vec()), ""),
        (OURS, MaybeEncoded::Encoded(Vec::new()), ""),
        (OURS, MaybeEncoded::Encoded(vec![0xff; 1 << 20]), ""),
        (
            concat!(env!("CARGO_PKG_VERSION"), "+0"),
            MaybeEncoded::Decoded(empty),
            "is of the build",
        ),
    ];
    for (at, (build, plan, says)) in cases.into_iter().enumerate() {
        let said = send(build, plan).await;
        assert!(said != "taken" && said.contains(says), "{at}: {said}");
    }
    assert_eq!(worker.metric("sluice_query_worker_taken_total").await, 0);
    // And it does its work as before.
    let (alone, node) = (fleet.node(&[]).await, fleet.node(&[&worker]).await);
    let expected = alone.ask(&alone.acme, GROUPS).await.rows();
    assert_eq!(node.ask(&node.acme, GROUPS).await.rows(), expected);
    assert!(node.parts("there").await > 0 && node.parts("here").await == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_workers_know_each_other_by_certificates() {
    let fleet = Fleet::new().await;
    let folder = fleet.folder.path();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        TlsConfig { cert, key }
    };
    let (ours, theirs) = (certificate("ours"), certificate("theirs"));
    let worker = fleet.worker_with(&format!("[tls]\ncert = {:?}\nkey = {:?}\n", ours.cert, ours.key));
    let node = |ca: &TlsConfig| {
        let mut config = fleet.settings();
        config.scale.workers = vec![format!("https://{}", worker.address)];
        config.scale.ca = ca.cert.clone();
        Node::start(config, fleet.tables())
    };
    let alone = fleet.node(&[]).await;
    let expected = alone.ask(&alone.acme, GROUPS).await.rows();
    let trusts = node(&ours).await;
    assert_eq!(trusts.ask(&trusts.acme, GROUPS).await.rows(), expected);
    assert!(trusts.parts("there").await > 0 && trusts.parts("here").await == 0);
    let doubts = node(&theirs).await;
    assert_eq!(doubts.ask(&doubts.acme, GROUPS).await.rows(), expected);
    assert!(
        doubts.parts("there").await == 0 && doubts.parts("here").await > 0,
        "the secret is not shown to a stranger"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_an_open_door_is_not_built() {
    let fleet = Fleet::new().await;
    let build = |change: &dyn Fn(&mut QueryConfig)| {
        let mut config = fleet.settings();
        config.worker.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        WorkerService::build(config, fleet.tables())
    };
    let without = build(&|config| config.scale.secret_file = std::path::PathBuf::new()).await;
    assert!(matches!(without, Err(BuildError::Workers(_))), "{without:?}");
    let open = build(&|config| config.worker.listen = "0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(open, Err(BuildError::Insecure { .. })), "{open:?}");
    let told = build(&|config| {
        config.worker.listen = "0.0.0.0:0".parse().unwrap();
        config.insecure = true;
    });
    assert!(told.await.is_ok());

    let mut config = fleet.settings();
    config.scale.workers = vec!["http://10.0.0.5:7082".to_owned()];
    for address in [&mut config.listen, &mut config.pg, &mut config.flight] {
        *address = "127.0.0.1:0".parse().unwrap();
    }
    let node = QueryService::build(config, fleet.tables(), Tokens::from_entries(&[]).unwrap()).await;
    assert!(matches!(node, Err(BuildError::Workers(_))), "{node:?}");
}
