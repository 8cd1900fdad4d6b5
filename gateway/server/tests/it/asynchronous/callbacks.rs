//! Answers that are posted to those who want them.

use std::{future::ready, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use gateway_queue::{CallStatus, Limits, State};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use ring::hmac;
use runtime_api::{BodyError, Error, empty, full};

use super::{
    queued::{MAX_BYTES, Queued, SECRET},
    target::{Target, status_of},
};

/// A call that was made, and whose answer was given up.
async fn given_up(gateway: &Queued, id: &str) -> CallStatus {
    let call = gateway.reaches(id, State::Succeeded).await;
    assert!(call.last_error.starts_with("the answer was not posted: "), "{call:?}");
    call
}

#[tokio::test]
async fn an_answer_is_posted_with_what_it_is_an_answer_to() {
    let gateway = Queued::start();
    let mut target = Target::start();
    gateway.provider.script("f.dev", async |_| {
        let answer = Response::builder().status(201).header("x-own", "1").header("x-own", "2");
        let answer = answer.header("x-call-id", "forged").header("x-function-status", "999");
        let answer = answer.header("connection", "x-private").header("x-private", "1");
        Ok(answer.header("content-type", "text/html").body(full("made")).unwrap())
    });
    gateway.keep("f.dev/x", "call-7", &[&target.header()], "asked").await;
    let posted = target.next().await;
    assert_eq!(
        (posted.method.as_str(), &*posted.target, &*posted.body),
        ("POST", "/done?of=f", &b"made"[..])
    );
    for (header, value) in [
        ("x-call-id", "call-7"),
        ("x-function-name", "f.dev"),
        ("x-function-status", "201"),
        ("x-retry", "0"),
        ("x-retry-max", "10"),
        ("user-agent", "fawn/0.1.0"),
        ("x-own", "1 | 2"),
        ("content-type", "text/html"),
        ("content-length", "4"),
        ("x-private", ""),
        ("webhook-signature", ""),
    ] {
        assert_eq!(posted.header(header), value, "{header}");
    }
    let seconds = posted.header("x-duration-seconds");
    assert_eq!(seconds.split_once('.').unwrap().1.len(), 6, "{seconds}");
    assert!((0.0..60.0).contains(&seconds.parse::<f64>().unwrap()), "{seconds}");
    let call = gateway.reaches("call-7", State::Succeeded).await;
    assert_eq!((call.attempts[0].status, &*call.last_error), (Some(201), ""));
    assert!(target.is_quiet());
}

#[tokio::test]
async fn a_function_may_say_where_its_answers_go() {
    let gateway = Queued::start();
    let (mut own, mut asked) = (Target::start(), Target::start());
    gateway.provider.add("f");
    gateway.provider.annotate("f", "faas.net/callback", &own.url);
    gateway.keep("f", "1", &[], "one").await;
    assert_eq!(own.next().await.body, "one");
    gateway.keep("f", "2", &[&asked.header()], "two").await;
    assert_eq!(asked.next().await.body, "two");
    gateway.provider.annotate("f", "faas.net/async", "true");
    gateway.send("POST", "/function/f", &[], "three").await;
    assert_eq!(own.next().await.body, "three");
}

#[tokio::test]
async fn nothing_is_posted_before_a_call_is_given_up() {
    let gateway = Queued::start();
    let mut target = Target::start();
    gateway
        .provider
        .script("f", async |_| Ok(Response::builder().status(500).body(full("it failed")).unwrap()));
    gateway.provider.annotate("f", "com.openfaas.retry.attempts", "2");
    gateway.keep("f", "1", &[&target.header()], "").await;
    for attempts in [1, 2] {
        gateway.reaches_after("1", State::Waiting, attempts).await;
        assert!(target.is_quiet());
        gateway.pass(Duration::from_secs(3600));
    }
    let posted = target.next().await;
    let told = ["x-function-status", "x-retry", "x-retry-max"].map(|name| posted.header(name));
    assert_eq!((told.each_ref().map(String::as_str), &*posted.body), (["500", "2", "2"], &b"it failed"[..]));
    gateway.reaches("1", State::Dead).await;
}

#[tokio::test]
async fn what_the_platform_answers_is_posted_too() {
    let gateway = Queued::start();
    let mut target = Target::start();
    gateway.provider.script("f", async |_| {
        Err(Error::FunctionFailed { code: "trap".into(), message: "it trapped".into(), source: None })
    });
    gateway.provider.annotate("f", "com.openfaas.retry.attempts", "0");
    gateway.keep("f", "1", &[&target.header()], "").await;
    let posted = target.next().await;
    let told = ["x-function-status", "x-error-code"].map(|name| posted.header(name));
    assert_eq!((told.each_ref().map(String::as_str), &*posted.body), (["500", "trap"], &b"it trapped\n"[..]));
    let call = gateway.reaches("1", State::Dead).await;
    assert_eq!(call.last_error, "it trapped");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_too_large_is_an_error() {
    let gateway = Queued::start();
    let mut target = Target::start();
    gateway.provider.script("cut", async |_| {
        let frames = [Ok(http_body::Frame::data("half".into())), Err(BodyError::from("the guest trapped"))];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        Ok(Response::builder().header("x-own", "1").body(body).unwrap())
    });
    gateway.provider.script("large", async |_| Ok(Response::new(full(vec![b'x'; MAX_BYTES + 1]))));
    gateway.provider.annotate("cut", "com.openfaas.retry.attempts", "0");
    // One that is too large is given up at once: it would be too large again.
    for name in ["cut", "large"] {
        gateway.keep(name, name, &[&target.header()], "").await;
        let posted = target.next().await;
        assert_eq!(
            (&*posted.header("x-function-status"), &*posted.header("x-own"), &*posted.body),
            ("503", "", &b""[..])
        );
        let call = gateway.reaches(name, State::Dead).await;
        assert!(call.attempts[0].status.is_none() && call.last_error.starts_with("the answer "), "{call:?}");
    }
    // Where nobody wants it, it may be as large as it is.
    gateway.keep("large", "unwanted", &[], "").await;
    gateway.reaches("unwanted", State::Succeeded).await;
}

#[tokio::test]
async fn a_large_answer_is_posted_whole_each_time() {
    let gateway = Queued::start();
    let mut target = Target::answering([status_of(500)]);
    gateway.provider.add("f");
    let body: String = "0123456789".chars().cycle().take(MAX_BYTES).collect();
    gateway.keep("f", "1", &[&target.header()], &body).await;
    for _ in 0..2 {
        assert!(target.next().await.body == body);
    }
    gateway.reaches("1", State::Succeeded).await;
}

#[tokio::test]
async fn a_target_that_fails_is_asked_five_times() {
    for status in [500, 503, 429, 408] {
        let gateway = Queued::start();
        let mut target = Target::always(status);
        gateway.provider.add("f");
        gateway.keep("f", "1", &[&target.header()], "hi").await;
        target.next().await;
        tokio::time::pause();
        for _ in 1..5 {
            assert_eq!(target.next().await.body, "hi");
        }
        tokio::time::resume();
        let call = given_up(&gateway, "1").await;
        let reason = http::StatusCode::from_u16(status).unwrap();
        assert_eq!(call.last_error, format!("the answer was not posted: {reason} was answered"));
        // The function was called once all the same.
        assert!(target.is_quiet() && call.attempts.len() == 1);
        assert!(counted(&gateway, "fawn_callbacks_total{outcome=\"given_up\"} 1").await);
    }
}

#[tokio::test]
async fn a_target_that_says_no_is_not_asked_again() {
    for status in [400, 401, 404, 410, 413] {
        let gateway = Queued::start();
        let mut target = Target::always(status);
        gateway.provider.add("f");
        gateway.keep("f", "1", &[&target.header()], "hi").await;
        target.next().await;
        given_up(&gateway, "1").await;
        assert!(target.is_quiet(), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let gateway = Queued::start();
    let mut elsewhere = Target::start();
    for status in [301, 302, 303, 307, 308] {
        let moved = Response::builder().status(status).header("location", &elsewhere.url);
        let mut target = Target::answering([moved.body(empty()).unwrap()]);
        gateway.provider.add("f");
        gateway.keep("f", &status.to_string(), &[&target.header()], "hi").await;
        for _ in 0..2 {
            target.next().await;
        }
        gateway.reaches(&status.to_string(), State::Succeeded).await;
        assert!(elsewhere.is_quiet(), "{status}");
    }
}

#[tokio::test]
async fn what_a_name_leads_to_is_looked_at_when_an_answer_is_posted() {
    let gateway = Queued::open(None, "public", Limits::default());
    gateway.provider.add("f");
    let mut target = Target::start();
    gateway.work();
    // All of them mean this machine, and look like names of others.
    for name in ["localhost", "LOCALHOST.", "2130706433", "0x7f000001", "127.1", "017700000001"] {
        let url = target.url.replace("127.0.0.1", name);
        gateway.keep("f", name, &[&format!("X-Callback-Url: {url}")], "hi").await;
        let call = given_up(&gateway, name).await;
        // In words for whoever called, who has no say in the egress of functions.
        assert!(call.last_error.contains("this gateway does not post to its address"), "{call:?}");
        assert!(target.is_quiet(), "{name}");
    }
}

#[tokio::test]
async fn answers_are_signed_when_the_function_wants_it() {
    let gateway = Queued::start();
    let mut target = Target::answering([status_of(500)]);
    gateway.provider.script("f", async |_| {
        let forged =
            Response::builder().header("webhook-id", "forged").header("webhook-signature", "v1,forged");
        Ok(forged.body(full(r#"{"done":true}"#)).unwrap())
    });
    gateway.provider.annotate("f", "dev.fawn.callback-secret", "signer");
    gateway.keep("f", "1", &[&target.header()], "").await;
    let key = BASE64_STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let posted = target.next().await;
        let [id, time, signature] =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| posted.header(name));
        let signed = [format!("{id}.{time}.").as_bytes(), &posted.body].concat();
        let signature = BASE64_STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, &signed, &signature).unwrap();
        let age = jiff::Timestamp::now().as_second() - time.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age}");
        ids.push(id);
    }
    assert!(ids[0] == ids[1] && ids[0] != "forged", "{ids:?}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_signed_is_not_posted() {
    let gateway = Queued::start();
    let mut target = Target::start();
    gateway.provider.add("f");
    gateway.provider.annotate("f", "dev.fawn.callback-secret", "missing");
    gateway.keep("f", "1", &[&target.header()], "").await;
    let call = given_up(&gateway, "1").await;
    assert!(call.last_error.contains("there is no secret missing"), "{call:?}");
    assert!(target.is_quiet());
}

#[tokio::test]
async fn a_call_without_a_callback_is_read_to_its_end_and_nothing_is_posted() {
    let gateway = Queued::start();
    gateway.provider.script("f", move |_| ready(Ok(Response::new(full("nobody wants this")))));
    gateway.keep("f", "1", &["X-Callback-Url:"], "").await;
    gateway.reaches("1", State::Succeeded).await;
    assert_eq!(*gateway.provider.in_flight().borrow(), 0);
    assert!(!counted(&gateway, "fawn_callbacks_total{").await);
}

async fn counted(gateway: &Queued, line: &str) -> bool {
    gateway.metrics("GET", "/metrics").await.body.contains(line)
}
