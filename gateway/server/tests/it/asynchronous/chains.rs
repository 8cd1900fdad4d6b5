//! Answers that go to functions behind this gateway.

use gateway_queue::State;

use super::queued::{Queued, next, until};

#[tokio::test]
async fn an_answer_may_go_to_a_function_behind_this_gateway() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    let mut seconds = gateway.seeing("second.dev");
    for (kind, name) in [
        ("function", "gateway.openfaas:8080"),
        ("async-function", "gateway.openfaas:8080"),
        ("function", "gateway:8080"),
        ("function", "gateway.openfaas.svc.cluster.local:8080"),
    ] {
        let header = format!("X-Callback-Url: http://{name}/{kind}/second.dev/x?y=1");
        gateway.keep("f", "1", &[&header, "Content-Type: text/html"], "hello").await;
        let seen = next(&mut seconds).await;
        assert_eq!((&*seen.target, &*seen.body, seen.method.as_str()), ("/x?y=1", &b"hello"[..], "POST"));
        for (header, value) in [
            ("x-call-id", "1"),
            ("x-function-name", "f.openfaas-fn"),
            ("x-function-status", "200"),
            ("user-agent", "fawn/0.1.0"),
            ("content-type", "text/html"),
        ] {
            assert_eq!(seen.header(header), value, "{kind} {header}");
        }
    }
    gateway.reaches("1", State::Succeeded).await;
}

#[tokio::test]
async fn a_second_functions_own_rules_count() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    let mut seconds = gateway.seeing("second");
    gateway.provider.annotate("second", "faas.net/async", "true");
    gateway.keep("f", "1", &["X-Callback-Url: http://gateway:8080/function/second"], "").await;
    next(&mut seconds).await;
    // Both are asynchronous calls, under one id.
    until("both are done", async || {
        let known = gateway.known("1").await;
        (known.iter().filter(|call| call.state == State::Succeeded).count() == 2).then_some(())
    })
    .await;

    gateway.provider.guard("second", "Bearer right");
    for kind in ["function", "async-function"] {
        let header = format!("X-Callback-Url: http://gateway:8080/{kind}/second");
        gateway.keep("f", kind, &[&header], "").await;
        let call = gateway.reaches(kind, State::Succeeded).await;
        assert_eq!(call.last_error, "the answer was not posted: 401 Unauthorized was answered");
    }
    gateway.keep("f", "nobody", &["X-Callback-Url: http://gateway:8080/function/missing"], "").await;
    let call = gateway.reaches("nobody", State::Succeeded).await;
    assert_eq!(call.last_error, "the answer was not posted: 404 Not Found was answered");
    seconds.try_recv().unwrap_err();
}
