//! The provider API as a node serves it, by the bytes on the wire.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use runtime_api::Provider;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::remote::{Remote, credentials, name};

/// Sends a head and gives the whole answer.
async fn raw(remote: &Remote, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(remote.address).await.unwrap();
    stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

async fn ask(remote: &Remote, method: &str, path: &str, header: &str) -> (u16, String) {
    let line = format!("{method} {path} HTTP/1.1");
    let answer = raw(remote, &[&line, "Host: node", "Connection: close", header]).await;
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn authorization() -> String {
    let pair = format!("{}:{}", credentials().user, credentials().password);
    format!("Authorization: Basic {}", BASE64_STANDARD.encode(pair))
}

#[tokio::test]
async fn everything_below_system_asks_for_credentials() {
    for path in [
        "/system/functions",
        "/system/function/f",
        "/system/namespaces",
        "/system/namespace/",
        "/system/namespace/dev",
        "/system/secrets",
        "/system/logs?name=f",
        "/system/info",
        "/system/nothing",
        "/system",
        "/system/",
        "/system//functions",
        "http://node/system/functions",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "BREW"] {
            // Wrong credentials are slowed down, so that each has a node of its own.
            let remote = Remote::start();
            remote.fake.add("f");
            for header in ["X-A: b", "Authorization: Basic YWRtaW46YWRtaW4=", "Authorization: Bearer x"] {
                let (status, answer) = ask(&remote, method, path, header).await;
                assert_eq!(status, 401, "{method} {path}: {answer}");
                assert!(answer.contains("Basic realm=\"Restricted\""), "{answer}");
            }
        }
        let remote = Remote::start();
        assert_ne!(ask(&remote, "GET", path, &authorization()).await.0, 401, "{path}");
    }
    let remote = Remote::start();
    let cross = format!("{}\r\nSec-Fetch-Site: cross-site", authorization());
    assert_eq!(ask(&remote, "GET", "/system/functions", &cross).await.0, 403);
}

#[tokio::test]
async fn calls_health_and_metrics_are_for_everybody() {
    let remote = Remote::start();
    remote.fake.add("f");
    for (method, path, status) in [
        ("GET", "/function/f", 200),
        ("POST", "/function/f.openfaas-fn/a?b", 200),
        ("GET", "/function/none", 404),
        ("GET", "/function/a%20b", 404),
        ("GET", "/function/", 404),
        ("TRACE", "/function/f", 405),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("POST", "/healthz", 405),
        ("GET", "/metrics", 200),
        ("DELETE", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/%73ystem/functions", 404),
    ] {
        let (answered, text) = ask(&remote, method, path, "X-A: b").await;
        assert_eq!(answered, status, "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_few_paths() {
    let remote = Remote::start();
    remote.fake.add("f");
    remote.provider.list("").await.unwrap();
    for _ in 0..2 {
        remote.provider.status(&name("f")).await.unwrap();
    }
    ask(&remote, "BREW", "/system/function/x", "X-A: b").await;
    ask(&remote, "GET", "/function/f", "X-A: b").await;
    let (_, text) = ask(&remote, "GET", "/metrics", "X-A: b").await;
    for line in [
        r#"provider_http_requests_total{code="200",method="GET",path="/system/functions"} 1"#,
        r#"provider_http_requests_total{code="200",method="GET",path="/system/function"} 2"#,
        r#"provider_http_requests_total{code="401",method="OTHER",path="/system/function"} 1"#,
        r#"provider_http_request_duration_seconds_count{code="200",method="GET",path="/system/function"} 2"#,
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
    }
    assert!(!text.contains("path=\"/function"), "{text}");
}

#[tokio::test]
async fn a_head_that_may_be_misread_ends_the_connection() {
    let remote = Remote::start();
    for lines in [
        &["GET /function/f HTTP/1.1"][..],
        &["GET /function/f HTTP/1.1", "Host: a", "Host: b"],
        &["POST /system/info HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"],
    ] {
        let answer = raw(&remote, lines).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn whoever_calls_directly_is_told_to_the_function() {
    let remote = Remote::start();
    remote.fake.script("f", async |invocation: runtime_api::Invocation| {
        let headers = invocation.request.headers();
        let of = |name: &str| headers[name].to_str().unwrap().to_owned();
        let text = ["x-forwarded-for", "x-forwarded-host", "x-call-id"].map(of).join(" ");
        Ok(http::Response::new(runtime_api::full(text)))
    });
    let (_, direct) = ask(&remote, "GET", "/function/f", "X-Call-Id: c").await;
    assert!(direct.ends_with("127.0.0.1 node c"), "{direct}");
    let (_, passed_on) =
        ask(&remote, "GET", "/function/f", "X-Call-Id: c\r\nX-Forwarded-For: 192.0.2.1").await;
    assert!(passed_on.ends_with("192.0.2.1 node c"), "{passed_on}");
}
