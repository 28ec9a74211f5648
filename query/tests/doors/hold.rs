#[tokio::test(flavor = "multi_thread")]
#[ignore]
async fn hold() {
    let node = super::node::Node::start().await;
    std::fs::create_dir_all("/tmp/hold").unwrap();
    std::fs::write("/tmp/hold/token", &node.operator).unwrap();
    std::fs::write("/tmp/hold/ready.json", format!(r#"{{"listen":{{"http":"{}"}},"token_file":"/tmp/hold/token"}}"#, node.address)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
}
