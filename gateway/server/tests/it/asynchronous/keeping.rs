//! What is kept of a call: what its function sees is what its caller sent.

use gateway_queue::State;
use http::Method;

use super::queued::{Queued, next};

#[tokio::test]
async fn a_call_is_kept_before_it_is_answered() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    let answer = gateway.push("f", "call-7", &[], "hello").await;
    assert_eq!((answer.status, &*answer.body, &*answer.header("content-length")), (202, "", "0"));
    assert_eq!((&*answer.header("x-call-id"), &*answer.header("x-served-by")), ("call-7", "fawn/0.1.0"));
    assert!(answer.header("x-start-time").parse::<u64>().unwrap() > 1_600_000_000_000_000_000);
    let known = gateway.known("call-7").await;
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].state, known[0].function.as_str()), (State::Queued, "f.openfaas-fn"));
    assert!(known[0].attempts.is_empty());

    let anonymous = gateway.send("POST", "/async-function/f", &[], "hello").await;
    let id = anonymous.header("x-call-id");
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 4);
    assert_eq!(gateway.known(&id).await.len(), 1);
}

#[tokio::test]
async fn a_call_reaches_its_function_as_it_was_sent() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f.dev");
    let sent = [
        "Content-Type: application/json",
        "X-Twice: 1",
        "X-Twice: 2",
        "Authorization: Bearer token",
        "X-Forwarded-For: 203.0.113.7",
        "Connection: close, X-Private",
        "X-Private: 1",
        "TE: trailers",
    ];
    let answer = gateway.push("f.dev/a/b?q=1", "call-7", &sent, "{\"a\": 1}").await;
    let seen = next(&mut calls).await;
    assert_eq!((&seen.method, &*seen.target, &*seen.body), (&Method::POST, "/a/b?q=1", &b"{\"a\": 1}"[..]));
    for (header, values) in [
        ("content-type", "application/json"),
        ("x-twice", "1 | 2"),
        ("authorization", "Bearer token"),
        ("x-forwarded-for", "203.0.113.7, 127.0.0.1"),
        ("x-forwarded-host", "edge.example"),
        ("host", "edge.example"),
        ("x-call-id", "call-7"),
        ("x-start-time", &answer.header("x-start-time")),
        ("content-length", "8"),
        ("connection", ""),
        ("x-private", ""),
        ("te", ""),
    ] {
        assert_eq!(seen.header(header), values, "{header}");
    }
    let call = gateway.reaches("call-7", State::Succeeded).await;
    assert_eq!((call.attempts.len(), call.attempts[0].status, &*call.last_error), (1, Some(200), ""));
}

#[tokio::test]
async fn the_path_and_query_are_kept_byte_for_byte() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    for (target, seen) in [
        ("f", "/"),
        ("f/", "/"),
        ("f?q=1", "/?q=1"),
        ("f/?", "/?"),
        ("f/a/b?q=1&q=%202", "/a/b?q=1&q=%202"),
        ("f//", "//"),
        ("f//a//b", "//a//b"),
        ("f/../x", "/../x"),
        ("f/%2e%2e/%2F/%20/%zz/%", "/%2e%2e/%2F/%20/%zz/%"),
        ("f/a;b=c,d/@:!$'()*+=~|^{}\"[]", "/a;b=c,d/@:!$'()*+=~|^{}\"[]"),
        ("f/async-function/f", "/async-function/f"),
        ("f.openfaas-fn/x", "/x"),
    ] {
        gateway.keep(target, "1", &[], "").await;
        assert_eq!(next(&mut calls).await.target, seen, "{target}");
    }
}

#[tokio::test]
async fn bodies_are_kept_whatever_their_size() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    // Some beside the record, some in it.
    for size in [0, 1, 64 << 10, (64 << 10) + 1, 200_000, super::queued::MAX_BYTES] {
        let body: String = "0123456789abcdef".chars().cycle().take(size).collect();
        gateway.keep("f", &size.to_string(), &[], &body).await;
        assert!(next(&mut calls).await.body == body, "{size}");
        gateway.reaches(&size.to_string(), State::Succeeded).await;
    }
}

#[tokio::test]
async fn plain_calls_of_a_function_that_wants_it_are_kept_with_their_method() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    gateway.provider.annotate("f", "faas.net/async", "true");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"] {
        let id = format!("X-Call-Id: {method}");
        let answer = gateway.request(method, "/function/f/x?y=1", &[&id]).await;
        assert_eq!((answer.status, &*answer.body, &*answer.header("x-call-id")), (202, "", method));
        let seen = next(&mut calls).await;
        assert_eq!((seen.method.as_str(), &*seen.target), (method, "/x?y=1"));
        gateway.reaches(method, State::Succeeded).await;
    }
    gateway.keep("f", "asked", &[], "").await;
    next(&mut calls).await;
    let answer = gateway.get("/function/unknown").await;
    assert_eq!(answer.status, 404);

    // Nobody asked for that of this one.
    gateway.provider.add("plain");
    gateway.provider.annotate("plain", "faas.net/async", "false");
    assert_eq!(gateway.send("POST", "/function/plain", &[], "hi").await.body, "hi");
}

#[tokio::test]
async fn a_call_may_be_wanted_later() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    let asked = gateway.queue.now();
    gateway.keep("f", "late", &["X-Delay-Seconds: 3600"], "").await;
    let due = gateway.reaches("late", State::Waiting).await.due.unwrap();
    let delay = due.duration_since(asked).unwrap().as_secs();
    assert!((3599..3660).contains(&delay), "{delay}");
    gateway.keep("f", "soon", &["X-Delay-Seconds: 0"], "").await;
    assert_eq!(next(&mut calls).await.header("x-call-id"), "soon");
    gateway.pass(std::time::Duration::from_secs(3500));
    gateway.keep("f", "sooner", &[], "").await;
    assert_eq!(next(&mut calls).await.header("x-call-id"), "sooner");
    gateway.pass(std::time::Duration::from_secs(200));
    assert_eq!(next(&mut calls).await.header("x-call-id"), "late");
}

#[tokio::test]
async fn one_key_is_one_call_of_a_function() {
    let gateway = Queued::idle();
    let (mut calls, mut others) = (gateway.seeing("f"), gateway.seeing("g"));
    let longest = format!("Idempotency-Key: {}", "k".repeat(255));
    for key in ["Idempotency-Key: a", &longest] {
        gateway.keep("f", "first", &[key], "first").await;
        let again = gateway.push("f", "again", &[key], "another body").await;
        // What it is known by, so that it can be found.
        assert_eq!((again.status, &*again.header("x-call-id")), (202, "first"));
        gateway.keep("g", "other", &[key], "other").await;
    }
    assert_eq!(gateway.kept().await, 4);
    gateway.work();
    for _ in 0..2 {
        assert_eq!(
            (&*next(&mut calls).await.body, &*next(&mut others).await.body),
            (&b"first"[..], &b"other"[..])
        );
    }
    gateway.reaches("first", State::Succeeded).await;
    // Done calls are known by their keys, too.
    gateway.keep("f", "later", &["Idempotency-Key: a"], "").await;
    gateway.keep("f", "new", &["Idempotency-Key: b"], "new").await;
    assert_eq!(next(&mut calls).await.body, "new");
    assert!(gateway.known("again").await.is_empty() && gateway.known("later").await.is_empty());
}
