//! Calls that somebody wants to end.

use std::{future::pending, time::Duration};

use gateway_queue::State;
use tokio::sync::mpsc;

use super::{
    queued::{PATIENCE, Queued, next},
    target::{Target, connected, raw, status_of},
};

async fn cancel(gateway: &Queued, id: &str) -> (u16, String) {
    let answer = gateway.request("DELETE", &format!("/async-function/{id}"), &[]).await;
    (answer.status, answer.body)
}

const DONE: fn() -> (u16, String) = || (202, String::new());

/// Adds a function that tells when it is called, and never answers.
fn hanging(gateway: &Queued, name: &str) -> mpsc::UnboundedReceiver<()> {
    let (tell, told) = mpsc::unbounded_channel();
    gateway.provider.script(name, move |_| {
        tell.send(()).unwrap();
        pending()
    });
    told
}

#[tokio::test]
async fn a_queued_call_does_not_run() {
    let gateway = Queued::idle();
    let mut calls = gateway.seeing("f");
    for id in ["1", "2"] {
        gateway.keep("f", id, &[], "").await;
    }
    assert_eq!(cancel(&gateway, "1").await, DONE());
    assert_eq!(gateway.known("1").await[0].state, State::Cancelled);
    gateway.work();
    assert_eq!(next(&mut calls).await.header("x-call-id"), "2");
    gateway.reaches("2", State::Succeeded).await;
    calls.try_recv().unwrap_err();
}

#[tokio::test]
async fn a_running_call_is_stopped_and_nothing_is_posted() {
    let gateway = Queued::start();
    let mut target = Target::start();
    let mut calls = hanging(&gateway, "f");
    gateway.keep("f", "1", &[&target.header()], "").await;
    next(&mut calls).await;
    assert_eq!(gateway.reaches("1", State::Running).await.attempts.len(), 1);
    assert_eq!(cancel(&gateway, "1").await, DONE());
    let stopped = gateway.provider.in_flight();
    tokio::time::timeout(PATIENCE, { stopped }.wait_for(|calls| *calls == 0)).await.unwrap().unwrap();
    gateway.reaches("1", State::Cancelled).await;
    assert!(target.is_quiet());
}

#[tokio::test]
async fn a_waiting_call_is_not_tried_again() {
    let gateway = Queued::start();
    gateway.provider.script("f", async |_| Ok(status_of(500)));
    gateway.keep("f", "failed", &[], "").await;
    gateway.keep("f", "delayed", &["X-Delay-Seconds: 60"], "").await;
    for (id, attempts) in [("failed", 1), ("delayed", 0)] {
        gateway.reaches_after(id, State::Waiting, attempts).await;
        assert_eq!(cancel(&gateway, id).await, DONE());
        gateway.pass(Duration::from_secs(3600));
        let call = gateway.reaches("failed", State::Cancelled).await;
        assert_eq!(call.attempts.len(), 1);
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn all_calls_with_the_id_are_cancelled() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.provider.add("g");
    for name in ["f", "g", "f", "g"] {
        gateway.keep(name, "same", &[], "").await;
    }
    gateway.keep("f", "other", &[], "").await;
    assert_eq!(cancel(&gateway, "same").await, DONE());
    assert_eq!(gateway.kept().await, 1);
}

#[tokio::test]
async fn many_calls_of_ones_own_hide_none_of_others() {
    let gateway = Queued::idle();
    gateway.provider.add("mine");
    gateway.provider.add("f");
    gateway.provider.guard("f", "Bearer right");
    for _ in 0..1000 {
        gateway.keep("mine", "same", &[], "").await;
    }
    gateway.keep("f", "same", &["Authorization: Bearer right"], "").await;
    assert_eq!(cancel(&gateway, "same").await.0, 401);
    assert_eq!(gateway.kept().await, 1001);
}

#[tokio::test]
async fn an_operator_cancels_all_calls_of_a_function() {
    let gateway = Queued::idle();
    for name in ["f", "g"] {
        gateway.provider.add(name);
        gateway.keep(name, "1", &[], "").await;
        gateway.keep(name, "2", &["X-Delay-Seconds: 60"], "").await;
    }
    let answer = gateway.request("DELETE", "/system/async/calls/f", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"calls":2}"#));
    assert_eq!(gateway.kept().await, 2);
    let answer = gateway.request("DELETE", "/system/async/calls/f%2e", &[]).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
}

#[tokio::test]
async fn an_id_is_what_its_caller_chose() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for (id, in_path) in [
        ("orders/7", "orders%2F7"),
        ("50%", "50%25"),
        ("a?b#c", "a%3Fb%23c"),
        ("f", "f"),
        ("..", "%2e%2e"),
        ("a+b", "a+b"),
    ] {
        gateway.keep("f", id, &[], "").await;
        assert_eq!(gateway.get(&format!("/system/async/{in_path}")).await.status, 200, "{id}");
        assert_eq!(cancel(&gateway, in_path).await, DONE(), "{id}");
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn what_is_not_there_or_over_cannot_be_cancelled() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    gateway.keep("f", "done", &[], "").await;
    gateway.reaches("done", State::Succeeded).await;
    for id in ["done", "unknown", "a/b", "%00"] {
        let answer = gateway.request("DELETE", &format!("/async-function/{id}"), &[]).await;
        let (status, code, text) = answer.error();
        assert_eq!((status, &*code), (404, "not-found"));
        assert!(text.starts_with("no call with the id "), "{text}");
    }
    for target in ["/async-function", "/async-function/", "/async-function/%ff"] {
        let answer = gateway.request("DELETE", target, &[]).await;
        assert_eq!(answer.error(), (404, "not-found".into(), "404 page not found"), "{target}");
    }
    assert_eq!(gateway.known("done").await[0].state, State::Succeeded);
}

#[tokio::test]
async fn an_answer_that_is_being_posted_is_let_go() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    let (listener, header) = raw().await;
    gateway.keep("f", "1", &[&header], "").await;
    let stream = connected(&listener).await;
    assert_eq!(gateway.known("1").await[0].state, State::Running);
    assert_eq!(cancel(&gateway, "1").await, DONE());
    // What it came to is what is on record.
    gateway.reaches("1", State::Succeeded).await;
    drop(stream);
}

#[tokio::test]
async fn who_may_not_call_a_function_may_not_cancel_its_calls() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.provider.add("g");
    gateway.provider.guard("f", "Bearer right");
    gateway.keep("f", "same", &["Authorization: Bearer right"], "").await;
    gateway.keep("g", "same", &[], "").await;
    for header in ["X-None: 1", "Authorization: Bearer wrong"] {
        let answer = gateway.request("DELETE", "/async-function/same", &[header]).await;
        assert_eq!((answer.status, &*answer.header("www-authenticate")), (401, "Bearer"), "{header}");
    }
    assert_eq!(gateway.kept().await, 2);
    let answer = gateway.request("DELETE", "/async-function/same", &["Authorization: Bearer right"]).await;
    assert_eq!(answer.status, 202);
    assert_eq!(gateway.kept().await, 0);
}
