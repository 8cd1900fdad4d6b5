use gateway_queue::Limits;
use serde_json::Value;

use crate::{access::admin, asynchronous::Queued, edge::Edge};

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

/// The paths of the document, with names in place of their parameters, and the methods of each.
async fn documented(edge: &Edge) -> Vec<(String, Vec<String>)> {
    let answer = edge.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (200, "application/json"));
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    let paths = document.get("paths").unwrap().as_object().unwrap().iter();
    let methods = |operations: &Value| operations.as_object().unwrap().keys().cloned().collect();
    paths.map(|(path, operations)| (filled(path), methods(operations))).collect()
}

/// A path with names in place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{name}", "f").replace("{namespace}", "dev").replace("{callId}", "call-7")
}

#[tokio::test]
async fn the_document_tells_what_is_routed() {
    let edge = Queued::idle();
    edge.provider.add("f");
    for (path, methods) in documented(&edge).await {
        for method in METHODS {
            let answer = edge.request(&method.to_uppercase(), &path, &[]).await;
            let (routed, told) = (answer.status != 405, methods.iter().any(|one| one == method));
            assert_eq!(routed, told, "{method} {path}: {}", answer.status);
            assert_ne!(answer.body, "404 page not found\n", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_path_of_the_document_below_system_asks_for_credentials() {
    let edge = Queued::open(Some(admin()), "none", Limits::default());
    let paths = documented(&edge).await;
    assert!(paths.iter().filter(|(path, _)| path.starts_with("/system/")).count() > 10);
    for (path, methods) in paths {
        for method in methods {
            let status = edge.request(&method.to_uppercase(), &path, &[]).await.status;
            assert_eq!(status == 401, path.starts_with("/system/"), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn every_route_is_in_the_document() {
    let edge = Edge::start();
    let paths = documented(&edge).await;
    for path in runtime_http::PATHS {
        let path = filled(path);
        assert!(paths.iter().any(|(documented, _)| *documented == path), "{path}");
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_answered_as_the_document_tells() {
    let edge = Queued::idle();
    edge.provider.add("f");
    let document: Value = serde_json::from_str(&edge.get("/openapi.json").await.body).unwrap();
    let mut away = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        if path.starts_with("/function/")
            || ["/openapi.json", "/store/functions.json"].contains(&path.as_str())
        {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            // Names nothing that the provider could be asked about.
            if (method.as_str(), path.as_str()) == ("get", "/system/namespace/") {
                continue;
            }
            edge.provider.fail_next(runtime_api::Error::unreachable("it is away", "refused"));
            let target = filled(path);
            let query = if path == "/system/logs" { "?name=f" } else { "" };
            let body = if method == "get" { "" } else { EVERY_BODY };
            let target = format!("{target}{query}");
            let answer = edge.send(&method.to_uppercase(), &target, &[], body).await;
            let told = operation["responses"].get(answer.status.to_string()).is_some();
            assert!(told, "{method} {path}: {} {}", answer.status, answer.body);
            // Who the provider is, whom it scaled, and what is kept here is told without it.
            let asks = !["/system/info", "/system/alert"].contains(&path.as_str())
                && !path.starts_with("/system/async")
                && operation["operationId"] != "cancelCalls";
            assert_eq!(answer.status == 502, asks, "{method} {path}: {}", answer.body);
            away += usize::from(asks);
        }
    }
    assert!(away > 15, "{away}");
}

/// All that any route reads.
const EVERY_BODY: &str = r#"{"service":"f","image":"a/b","functionName":"f","serviceName":"f","name":"dev","value":"x","alerts":[{"labels":{"function_name":"f"}}]}"#;
