use std::fs;

use gateway_server::{Config, FunctionStore};

use crate::{access::admin, edge::Edge};

const LIST: &str = r#"{"version":"1","functions":[{"name":"hello","images":{"x86_64":"oci:images:hello"}}]}"#;

#[tokio::test]
async fn everybody_reads_the_store_s_list_and_nobody_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("functions.json"), LIST).unwrap();
    let store = Some(FunctionStore::open(folder.path()).unwrap());
    let configure = |config| Config { store, basic_auth: Some(admin()), ..config };
    let (edge, ()) = Edge::start_configured(configure, |_, _| ());
    let answer = edge.get("/store/functions.json").await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (200, "application/json"));
    assert_eq!(answer.body, LIST);
    let head = edge.request("HEAD", "/store/functions.json", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), LIST.len().to_string());
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(edge.request(method, "/store/functions.json", &[]).await.status, 405, "{method}");
    }
    for path in ["/store", "/store/", "/store/images/index.json", "/store/..%2ffunctions.json"] {
        assert_eq!(edge.get(path).await.status, 404, "{path}");
    }
    fs::write(folder.path().join("functions.json"), "half of it").unwrap();
    let broken = edge.get("/store/functions.json").await;
    assert_eq!((broken.status, broken.header("x-error-code").as_str()), (503, "unavailable"));
    let folder = folder.path().display().to_string();
    assert!(!broken.body.contains(&folder), "where it lies is the operator's affair: {}", broken.body);
}

#[tokio::test]
async fn a_gateway_without_a_store_says_how_to_have_one() {
    let answer = Edge::start().get("/store/functions.json").await;
    assert_eq!((answer.status, answer.header("x-error-code").as_str()), (404, "not-found"));
    assert!(answer.body.contains("--store FOLDER"), "{}", answer.body);
}
