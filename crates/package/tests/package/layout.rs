//! OCI layout folders: what they hold is what was put there, or nothing.

use std::fs;

use serde_json::Value;
use sluice_package::oci::{self, Access, OciError, Reference};

use crate::site::package;

fn at(folder: &std::path::Path, rest: &str) -> Reference {
    format!("oci:{}{rest}", folder.display()).parse().unwrap()
}

#[tokio::test]
async fn a_layout_gives_back_what_was_put_and_notices_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (stick, access) = (folder.path().join("stick"), Access::default());
    let sent = package(folder.path(), 5000);
    let digest = oci::push(&sent, &at(&stick, ""), "1.0.0", &access).await.unwrap();
    assert_eq!(
        oci::push(&sent, &at(&stick, ""), "1.0.0", &access).await.unwrap(),
        digest
    );
    assert_eq!(oci::pull(&at(&stick, ":1.0.0"), &access).await.unwrap(), sent);
    assert_eq!(
        oci::pull(&at(&stick, &format!("@{digest}")), &access).await.unwrap(),
        sent
    );
    let missing = oci::pull(&at(&stick, ":2.0.0"), &access).await.unwrap_err();
    assert!(matches!(missing, OciError::Missing { .. }), "{missing}");

    // What other tools wrote stays, and a version does not change.
    let index = stick.join("index.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["annotations"] = serde_json::json!({ "by": "another tool" });
    fs::write(&index, value.to_string()).unwrap();
    let other = package(folder.path(), 6000);
    let taken = oci::push(&other, &at(&stick, ""), "1.0.0", &access).await.unwrap_err();
    assert!(matches!(taken, OciError::Taken { .. }), "{taken}");
    oci::push(&other, &at(&stick, ""), "1.0.1", &access).await.unwrap();
    assert!(fs::read_to_string(&index).unwrap().contains("another tool"));
    assert_eq!(oci::pull(&at(&stick, ":1.0.0"), &access).await.unwrap(), sent);

    let blobs = stick.join("blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let good = fs::read(&path).unwrap();
        for bad in [
            vec![b'y'; good.len()],
            good[..good.len() - 1].to_vec(),
            [&good[..], b"x"].concat(),
        ] {
            fs::write(&path, bad).unwrap();
            let both = [":1.0.0", ":1.0.1"].map(|tag| at(&stick, tag));
            let mut failed = 0;
            for reference in &both {
                // What arrives is what was sent; never something else.
                match oci::pull(reference, &access).await {
                    Ok(got) => assert!(got == sent || got == other),
                    Err(_) => failed += 1,
                }
            }
            assert!(failed > 0, "{}", path.display());
        }
        fs::write(&path, good).unwrap();
    }
}
