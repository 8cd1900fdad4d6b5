//! Calls that fail, and what becomes of them.

use std::{
    future::ready,
    time::{Duration, SystemTime},
};

use gateway_queue::{CallStatus, State, Which};
use http::Response;
use runtime_api::{Error, FunctionName, empty};
use tokio::sync::watch;

use super::{
    queued::Queued,
    target::{Target, status_of},
};

/// Adds a function that answers with a status, and one header.
fn answering(gateway: &Queued, name: &str, status: u16, header: (&'static str, &'static str)) {
    gateway.provider.script(name, move |_| {
        ready(Ok(Response::builder().status(status).header(header.0, header.1).body(empty()).unwrap()))
    });
}

fn failing(gateway: &Queued, name: &str, status: u16) {
    answering(gateway, name, status, ("x-none", ""));
}

fn annotate(gateway: &Queued, name: &str, annotations: &[(&str, &str)]) {
    for (annotation, value) in annotations {
        gateway.provider.annotate(name, &format!("com.openfaas.retry.{annotation}"), value);
    }
}

/// In how many seconds a waiting call is due, as its gateway saw it when the attempt ended.
fn pause(gateway: &Queued, call: &CallStatus) -> u64 {
    let due = call.due.unwrap() + Duration::from_millis(999);
    due.duration_since(gateway.queue.now().min(due)).unwrap().as_secs()
}

#[tokio::test]
async fn a_call_that_fails_is_tried_again_with_longer_and_longer_pauses() {
    let gateway = Queued::start();
    failing(&gateway, "f", 500);
    annotate(&gateway, "f", &[("attempts", "5"), ("min_wait", "100s"), ("max_wait", "300s")]);
    gateway.keep("f", "1", &[], "").await;
    for (attempts, least, most) in [(1, 100, 150), (2, 100, 200), (3, 150, 300), (4, 150, 300), (5, 150, 300)]
    {
        let call = gateway.reaches_after("1", State::Waiting, attempts).await;
        assert_eq!(
            (call.attempts.len(), &*call.last_error),
            (attempts, "answered with 500 Internal Server Error")
        );
        let attempt = call.attempts.last().unwrap();
        assert!(attempt.status == Some(500) && attempt.duration.is_some(), "{attempt:?}");
        let pause = pause(&gateway, &call);
        // Some of it may have gone by.
        assert!((least - 30..=most).contains(&pause), "{attempts}: {pause}");
        gateway.pass(Duration::from_secs(most + 1));
    }
    let dead = gateway.reaches("1", State::Dead).await;
    assert_eq!((dead.attempts.len(), &*dead.last_error), (6, "answered with 500 Internal Server Error"));
}

#[tokio::test]
async fn a_call_that_goes_well_at_last_has_succeeded() {
    let gateway = Queued::start();
    let (left, tries) = (watch::Sender::new(2), Duration::from_secs(3600));
    gateway.provider.script("f", move |_| {
        let fails = left.send_if_modified(|left| {
            *left = i32::max(*left - 1, -1);
            *left >= 0
        });
        ready(Ok(status_of(if fails { 503 } else { 200 })))
    });
    gateway.keep("f", "1", &[], "").await;
    for attempts in [1, 2] {
        gateway.reaches_after("1", State::Waiting, attempts).await;
        gateway.pass(tries);
    }
    let call = gateway.reaches("1", State::Succeeded).await;
    let statuses: Vec<_> = call.attempts.iter().map(|attempt| attempt.status.unwrap()).collect();
    assert_eq!((statuses, &*call.last_error), (vec![503, 503, 200], ""));
}

#[tokio::test]
async fn a_function_says_which_answers_are_tried_again() {
    let gateway = Queued::start();
    for (codes, status, state) in [
        ("", 500, State::Waiting),
        ("", 429, State::Waiting),
        ("", 404, State::Succeeded),
        ("", 301, State::Succeeded),
        ("418, 404", 418, State::Waiting),
        ("418, 404", 404, State::Waiting),
        ("418, 404", 500, State::Succeeded),
        ("418, many", 418, State::Succeeded),
        ("418, many", 503, State::Waiting),
    ] {
        failing(&gateway, "f", status);
        if !codes.is_empty() {
            annotate(&gateway, "f", &[("codes", codes)]);
        }
        let id = format!("{codes}/{status}").replace(' ', "");
        gateway.keep("f", &id, &[], "").await;
        let call = gateway.reaches(&id, state).await;
        assert_eq!(call.attempts[0].status, Some(status), "{id}");
    }
}

#[tokio::test]
async fn what_the_platform_answers_is_tried_again_whatever_its_code() {
    let gateway = Queued::start();
    let late: fn() -> Error = || Error::TimedOut("60 s are over".into());
    for (name, error, status) in [
        ("late", late, 504),
        ("bug", || Error::internal("/var/lib/secret"), 500),
        ("gone", || Error::unavailable("no node", "refused"), 503),
        ("wrong", || Error::invalid("invalid-host", "it has none"), 400),
    ] {
        gateway.provider.script(name, move |_| ready(Err(error())));
        annotate(&gateway, name, &[("codes", "418")]);
        gateway.keep(name, name, &[], "").await;
        let call = gateway.reaches(name, State::Waiting).await;
        assert_eq!(call.attempts[0].status, Some(status), "{name}");
        assert_eq!(call.last_error, error().to_string());
    }
    // Another gateway's or watchdog's own errors say so (OpenFaaS).
    answering(&gateway, "marked", 501, ("x-openfaas-internal", "faas-middleware"));
    gateway.keep("marked", "marked", &[], "").await;
    gateway.reaches("marked", State::Waiting).await;
}

#[tokio::test]
async fn a_function_that_is_gone_may_come_back() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    gateway.keep("f", "1", &[], "").await;
    let name = FunctionName::parse("f").unwrap();
    runtime_api::Provider::remove(&*gateway.provider, &name).await.unwrap();
    gateway.work();
    let call = gateway.reaches("1", State::Waiting).await;
    assert_eq!(call.attempts[0].status, Some(404));
    gateway.provider.add("f");
    gateway.pass(Duration::from_secs(3600));
    gateway.reaches("1", State::Succeeded).await;
}

#[tokio::test]
async fn an_answer_says_when_to_try_again() {
    let gateway = Queued::start();
    annotate_default(&gateway, "busy", 429, "500", &[]);
    annotate_default(&gateway, "soon", 503, "1", &[("min_wait", "200s")]);
    let date = jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(700)).unwrap();
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    annotate_default(&gateway, "dated", 503, Box::leak(date.into_boxed_str()), &[]);
    annotate_default(&gateway, "other", 500, "500", &[("min_wait", "50s")]);
    for (name, least, most) in
        [("busy", 470, 501), ("soon", 170, 201), ("dated", 660, 701), ("other", 20, 76)]
    {
        gateway.keep(name, name, &[], "").await;
        let call = gateway.reaches(name, State::Waiting).await;
        let pause = pause(&gateway, &call);
        assert!((least..=most).contains(&pause), "{name}: {pause}");
    }
}

fn annotate_default(
    gateway: &Queued,
    name: &str,
    status: u16,
    retry_after: &'static str,
    annotations: &[(&str, &str)],
) {
    answering(gateway, name, status, ("retry-after", retry_after));
    annotate(gateway, name, annotations);
}

#[tokio::test]
async fn a_function_that_wants_no_retries_has_none() {
    let gateway = Queued::start();
    failing(&gateway, "f", 500);
    annotate(&gateway, "f", &[("attempts", "0")]);
    gateway.keep("f", "1", &[], "").await;
    assert_eq!(gateway.reaches("1", State::Dead).await.attempts.len(), 1);
}

#[tokio::test]
async fn a_call_whose_worker_is_lost_each_time_is_given_up_and_its_caller_told() {
    let gateway = Queued::idle();
    let mut target = Target::start();
    let mut calls = gateway.seeing("f");
    annotate(&gateway, "f", &[("attempts", "1")]);
    gateway.keep("f", "1", &[&target.header()], "").await;
    for attempt in [1, 2] {
        let taken = gateway.queue.next(1, std::sync::Arc::new(|_| 1)).await.unwrap();
        assert_eq!(taken[0].attempt, attempt);
    }
    gateway.work();
    let dead = gateway.reaches("1", State::Dead).await;
    assert_eq!(dead.last_error, "given up: it has run as often as it may without an end on record");
    calls.try_recv().unwrap_err();
    let posted = target.next().await;
    assert_eq!((&*posted.header("x-function-status"), &*posted.body), ("503", &b""[..]));
}

#[tokio::test]
async fn dead_letters_are_tried_anew_when_somebody_wants_that() {
    let gateway = Queued::start();
    let name = FunctionName::parse("f").unwrap();
    failing(&gateway, "f", 500);
    annotate(&gateway, "f", &[("attempts", "0")]);
    gateway.keep("f", "1", &[], "kept").await;
    gateway.reaches("1", State::Dead).await;
    let mut calls = gateway.seeing("f");
    assert_eq!(gateway.queue.replay(&name, Which::All).await.unwrap(), 1);
    assert_eq!(super::queued::next(&mut calls).await.body, "kept");
    gateway.reaches("1", State::Succeeded).await;
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn a_call_waits_while_nobody_can_tell_how_it_is_to_be_tried() {
    let gateway = Queued::idle();
    failing(&gateway, "f", 500);
    annotate(&gateway, "f", &[("attempts", "0")]);
    gateway.keep("f", "1", &[], "").await;
    gateway.provider.fail_next(Error::unreachable("the provider is away", "refused"));
    gateway.work();
    let call = gateway.reaches("1", State::Waiting).await;
    assert_eq!(call.last_error, "the provider is away");
    gateway.pass(Duration::from_secs(3600));
    // By its own rules, of which one is that it is tried once.
    let dead = gateway.reaches("1", State::Dead).await;
    assert_eq!(dead.last_error, "answered with 500 Internal Server Error");
}
