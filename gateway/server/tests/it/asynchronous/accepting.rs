//! What is refused, before anything is kept.

use gateway_queue::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::queued::{MAX_BYTES, Queued};

#[tokio::test]
async fn a_call_of_an_unknown_function_is_not_kept() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for name in ["missing", "f.dev", "Upper", "a.b.c", ".."] {
        let answer = gateway.push(name, "1", &["X-Callback-Url: nonsense"], "x").await;
        assert_eq!((answer.status, &*answer.header("x-error-code")), (404, "not-found"), "{name}");
        assert!(answer.body.starts_with("error finding function "), "{}", answer.body);
    }
    for target in ["/async-function", "/async-function/", "/async-function//x", "/async-function/a%20b"] {
        let answer = gateway.send("POST", target, &[], "").await;
        assert_eq!(answer.error(), (404, "not-found".into(), "404 page not found"), "{target}");
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn other_methods_are_not_routed() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for method in ["GET", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"] {
        let answer = gateway.request(method, "/async-function/f", &[]).await;
        assert_eq!((answer.status, &*answer.header("allow")), (405, "POST, DELETE"), "{method}");
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn a_body_is_refused_at_the_byte_that_passes_the_limit() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    let limit = format!("an asynchronous call is limited to {MAX_BYTES} bytes");
    // By what it says of itself: nothing of the body is waited for.
    let head = |length: usize| format!("POST /async-function/f HTTP/1.1\r\nContent-Length: {length}");
    for length in [MAX_BYTES + 1, usize::MAX >> 1] {
        let mut declared = gateway.open(&head(length)).await;
        let mut answer = vec![0; 4096];
        let read = declared.read(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer[..read].to_vec()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains(&limit), "{answer}");
    }

    // In chunks, of which each but the last may be the last.
    let mut chunked = gateway.open("POST /async-function/f HTTP/1.1\r\nTransfer-Encoding: chunked").await;
    chunked.write_all(format!("{MAX_BYTES:x}\r\n{}\r\n", "x".repeat(MAX_BYTES)).as_bytes()).await.unwrap();
    chunked.write_all(b"1\r\nx\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    let read = chunked.read(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer[..read].to_vec()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("X-Error-Code: too-large"), "{answer}");
    assert_eq!(gateway.kept().await, 0);

    let body = "x".repeat(MAX_BYTES);
    let chunked = format!("{MAX_BYTES:x}\r\n{body}\r\n0\r\n\r\n");
    let mut stream = gateway
        .open("POST /async-function/f HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked")
        .await;
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(gateway.push("f", "1", &[], &body).await.status, 202);
    assert_eq!(gateway.push("f", "1", &[], &format!("{body}x")).await.status, 413);
    assert_eq!(gateway.kept().await, 2);
}

#[tokio::test]
async fn headers_that_cannot_be_honoured_are_refused() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    let long = format!("Idempotency-Key: {}", "k".repeat(256));
    let far = format!("X-Callback-Url: http://127.0.0.1/{}", "x".repeat(8 << 10));
    for (header, code) in [
        ("X-Delay-Seconds: -1", "invalid-delay"),
        ("X-Delay-Seconds: 1.5", "invalid-delay"),
        ("X-Delay-Seconds: soon", "invalid-delay"),
        ("X-Delay-Seconds: 18446744073709551616", "invalid-delay"),
        ("X-Delay-Seconds: 2592001", "invalid-delay"),
        ("Idempotency-Key:", "invalid-idempotency-key"),
        ("Idempotency-Key: \u{e4}", "invalid-header"),
        (&long, "invalid-idempotency-key"),
        ("X-Callback-Url: \u{e4}", "invalid-header"),
        ("X-Callback-Url: not a url", "invalid-callback-url"),
        ("X-Callback-Url: /done", "invalid-callback-url"),
        ("X-Callback-Url: ftp://127.0.0.1/", "invalid-callback-url"),
        ("X-Callback-Url: javascript:alert(1)", "invalid-callback-url"),
        ("X-Callback-Url: http://", "invalid-callback-url"),
        ("X-Callback-Url: http://user:password@127.0.0.1/", "invalid-callback-url"),
        ("X-Callback-Url: http://127.0.0.1:99999/", "invalid-callback-url"),
        (&far, "invalid-callback-url"),
        ("X-Callback-Url: http://127.0.0.2/", "callback-denied"),
        ("X-Callback-Url: http://10.0.0.1/", "callback-denied"),
        ("X-Callback-Url: http://[::1]:8080/", "callback-denied"),
        ("X-Callback-Url: http://169.254.169.254/latest/meta-data", "callback-denied"),
        ("X-Callback-Url: http://gateway.openfaas:8080/system/functions", "invalid-callback-url"),
    ] {
        let answer = gateway.push("f", "1", &[header], "x").await;
        let told = (answer.status, &*answer.header("x-error-code"));
        assert_eq!(told, (400, code), "{header}: {}", answer.body);
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn a_functions_own_callback_is_looked_at_too() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.provider.annotate("f", "faas.net/callback", "http://10.0.0.1/");
    let answer = gateway.push("f", "1", &[], "").await;
    let (status, code, text) = answer.error();
    assert_eq!((status, &*code), (400, "callback-denied"));
    assert!(text.starts_with("faas.net/callback leads to 10.0.0.1"), "{text}");
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn who_may_not_call_a_function_is_told_at_once() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    gateway.provider.guard("f", "Bearer right");
    gateway.provider.annotate("f", "faas.net/async", "true");
    for target in ["/async-function/f", "/function/f"] {
        for header in ["X-None: 1", "Authorization: Bearer wrong"] {
            let answer = gateway.send("POST", target, &[header], "x").await;
            assert_eq!(
                (answer.status, &*answer.header("www-authenticate")),
                (401, "Bearer"),
                "{target} {header}"
            );
        }
    }
    assert_eq!(gateway.kept().await, 0);
    gateway.keep("f", "1", &["Authorization: Bearer right"], "x").await;
    // What is for the door is not kept.
    assert_eq!(super::queued::next(&mut calls).await.header("authorization"), "");
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let limits = Limits { calls_per_function: 2, calls: 3, ..Limits::default() };
    let gateway = Queued::open(None, "none", limits);
    gateway.provider.add("f");
    gateway.provider.add("g");
    for id in ["1", "2"] {
        gateway.keep("f", id, &[], "").await;
    }
    let full = gateway.push("f", "3", &[], "").await;
    assert_eq!(
        (full.status, &*full.header("x-error-code"), &*full.header("retry-after")),
        (429, "queue-full", "5")
    );
    gateway.keep("g", "4", &[], "").await;
    let full = gateway.push("g", "5", &[], "").await;
    assert_eq!(
        (full.status, &*full.header("x-error-code"), &*full.header("retry-after")),
        (503, "no-capacity", "5")
    );
    assert_eq!(gateway.kept().await, 3);
}

#[tokio::test]
async fn a_provider_that_is_away_is_no_reason_to_keep_a_call() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.provider.fail_next(runtime_api::Error::unreachable("it is away", "refused"));
    assert_eq!(gateway.push("f", "1", &[], "").await.status, 502);
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn a_closed_queue_takes_no_calls() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    gateway.queue.close().await.unwrap();
    let answer = gateway.push("f", "1", &[], "").await;
    assert_eq!((answer.status, &*answer.header("x-error-code")), (503, "unavailable"));
    assert_eq!(gateway.get("/system/async").await.status, 503);
    assert_eq!(gateway.send("POST", "/function/f", &[], "hi").await.body, "hi");
}

#[tokio::test]
async fn a_gateway_without_a_queue_says_so() {
    let gateway = crate::edge::Edge::start();
    gateway.provider.add("f");
    gateway.provider.annotate("f", "faas.net/async", "true");
    for method in ["POST", "DELETE"] {
        let answer = gateway.request(method, "/async-function/f", &[]).await;
        let text = "this gateway keeps no asynchronous calls: `fawn up` does";
        assert_eq!(answer.error(), (501, "not-supported".into(), text), "{method}");
    }
    assert_eq!(gateway.get("/system/async").await.status, 501);
    assert_eq!(gateway.get("/system/async/dead/f").await.status, 501);
    assert_eq!(gateway.send("POST", "/function/f", &[], "hi").await.body, "hi");
}
