//! The client in front of our own routes: what goes in at one end comes out at the other.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use runtime_api::{
    Body, Deployed, Error, FunctionSpec, Invocation, LogQuery, Namespace, Provider, Response, Result,
    SecretName, SecretValue, empty, full,
};
use runtime_testing::provider_suite;
use tokio::sync::mpsc;

use crate::remote::{Remote, call, name};

#[tokio::test]
async fn keeps_the_contract() {
    provider_suite(async || Remote::start().into_provider(), b"\0asm\x01\0\0\0").await;
}

/// One of each variant. One that is new does not compile here until it is added.
fn errors() -> Vec<Error> {
    let known = |error: &Error| match error {
        Error::NotFound(_)
        | Error::AlreadyExists(_)
        | Error::Invalid { .. }
        | Error::Unauthenticated { .. }
        | Error::TooManyAttempts { .. }
        | Error::TooManyCalls { .. }
        | Error::QueueFull { .. }
        | Error::Overloaded { .. }
        | Error::StorageFull(_)
        | Error::Unavailable { .. }
        | Error::Unreachable { .. }
        | Error::RegistryUnavailable { .. }
        | Error::TimedOut(_)
        | Error::FunctionFailed { .. }
        | Error::Internal(_) => {}
    };
    let failed = |code: &'static str| Error::FunctionFailed {
        code: code.into(),
        message: format!("it failed by {code}"),
        source: None,
    };
    let all = vec![
        Error::NotFound("no such thing".into()),
        Error::AlreadyExists("there is one".into()),
        Error::invalid("too-large", "it is too large"),
        Error::invalid("not-wasm", "it is a picture"),
        Error::invalid("invalid-log-query", "tail is no number"),
        Error::TooManyAttempts { retry_after: Duration::from_secs(4) },
        Error::TooManyCalls { max_inflight: 7 },
        Error::QueueFull { message: "too many wait".into(), retry_after: Duration::from_secs(5) },
        Error::Overloaded { message: "no room".into(), retry_after: Duration::from_secs(3) },
        Error::StorageFull("the disk is full".into()),
        Error::unavailable("starting", "x"),
        Error::unreachable("nobody there", "x"),
        Error::registry_unavailable("the registry is down", "x"),
        Error::TimedOut("60 s are over".into()),
        failed("guest-trap"),
        failed("bad-response"),
        Error::internal("the disk is on fire"),
    ];
    all.iter().for_each(known);
    all
}

#[track_caller]
fn assert_same(sent: &Error, arrived: &Error) {
    assert_eq!(std::mem::discriminant(sent), std::mem::discriminant(arrived), "{sent:?} {arrived:?}");
    assert_eq!((sent.code(), sent.fault()), (arrived.code(), arrived.fault()));
    // What clients are not told does not come here, either.
    if !matches!(sent, Error::TimedOut(_) | Error::Unreachable { .. } | Error::Internal(_)) {
        assert_eq!(sent.to_string(), arrived.to_string());
    }
    if let (Error::Overloaded { retry_after: sent, .. }, Error::Overloaded { retry_after, .. })
    | (Error::QueueFull { retry_after: sent, .. }, Error::QueueFull { retry_after, .. }) = (sent, arrived)
    {
        assert_eq!(sent, retry_after);
    }
}

/// What arrives where no call was made: that a gateway is kept out is its operator's business.
fn of_request(sent: &Error) -> Error {
    if let Error::TooManyAttempts { .. } = sent {
        let message = "the provider does not take this gateway's credentials: give both the same".to_owned();
        return Error::Unavailable { message, source: None };
    }
    errors().into_iter().find(|error| error.to_string() == sent.to_string()).unwrap()
}

#[tokio::test]
async fn each_error_arrives_as_itself_whatever_was_asked() {
    let remote = Remote::start();
    for (asked, called) in errors().into_iter().zip(errors()) {
        let expected = errors().into_iter().find(|error| error.to_string() == asked.to_string()).unwrap();
        remote.fake.fail_next(asked);
        assert_same(&of_request(&expected), &remote.provider.status(&name("f")).await.unwrap_err());

        let once = Arc::new(Mutex::new(Some(called)));
        remote.fake.script("failing", move |_| {
            let error = once.lock().unwrap().take().unwrap();
            async move { Err(error) }
        });
        let request = Request::get("/").body(empty()).unwrap();
        let answer = remote.provider.invoke(call("failing", request)).await;
        assert_same(&expected, &answer.err().unwrap());
    }
}

/// Of anything but a call it would be the gateway whose credentials are wrong.
#[tokio::test]
async fn a_function_s_own_challenge_arrives_as_it_is() {
    let remote = Remote::start();
    remote.fake.script("f", async |_| Err(Error::Unauthenticated { challenge: "Bearer".into() }));
    let request = Request::get("/").body(empty()).unwrap();
    let error = remote.provider.invoke(call("f", request)).await.err().unwrap();
    assert!(matches!(&error, Error::Unauthenticated { challenge } if challenge == "Bearer"), "{error:?}");
    remote.fake.fail_next(Error::Unauthenticated { challenge: "Bearer".into() });
    assert_eq!(remote.provider.status(&name("f")).await.unwrap_err().code(), "unavailable");
}

#[tokio::test]
async fn a_rejected_deploy_says_why() {
    let remote = Remote::start();
    let spec = FunctionSpec { service: "f".into(), image: "a/b".into(), ..FunctionSpec::default() };
    for error in errors() {
        let expected = errors().into_iter().find(|one| one.to_string() == error.to_string()).unwrap();
        remote.fake.fail_next(error);
        assert_same(&of_request(&expected), &remote.provider.deploy(spec.clone()).await.unwrap_err());
    }
    assert_eq!(remote.provider.deploy(spec.clone()).await.unwrap(), Deployed::Ready);
    assert_eq!(remote.provider.update(spec).await.unwrap(), Deployed::Ready);
}

/// Lets a function answer with the request as it sees it.
fn mirror(remote: &Remote, function: &str) {
    remote.fake.script(function, async |invocation: Invocation| {
        let request = invocation.request;
        let mut seen = format!("{} {} {}\n", request.method(), request.uri(), invocation.call_id);
        for (name, value) in request.headers() {
            seen += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Ok(http::Response::new(full(seen)))
    });
}

async fn text(answer: Result<Response>) -> String {
    let bytes = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn paths_and_queries_arrive_byte_for_byte() {
    let remote = Remote::start();
    mirror(&remote, "f.dev");
    for path in [
        "/",
        "/?",
        "/?q=1&q=%202",
        "/a/",
        "//",
        "//a//b",
        "/../x",
        "/./x/..",
        "/%2e%2e/%2F/%20/%zz/%",
        "/a;b=c,d/@:!$'()*+=~|^{}\"[]",
        "/function/f",
    ] {
        let request = Request::post(path).body(empty()).unwrap();
        let seen = text(remote.provider.invoke(call("f.dev", request)).await).await;
        assert_eq!(seen.lines().next(), Some(&*format!("POST {path} call-1")), "{path}");
    }
}

#[tokio::test]
async fn headers_are_the_clients_but_those_of_the_connection() {
    let remote = Remote::start();
    mirror(&remote, "f");
    let request = Request::get("/")
        .version(http::Version::HTTP_10)
        .header("host", "faas.example")
        .header("authorization", "Bearer of the client")
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("proxy-authorization", "secret")
        .header("x-forwarded-for", "192.0.2.1, 192.0.2.2")
        .header("x-forwarded-host", "faas.example")
        .header("x-call-id", "not this one")
        .header("x-many", "a")
        .header("x-many", "b");
    let request = request.body(empty()).unwrap();
    let seen = text(remote.provider.invoke(call("f", request)).await).await;
    let of = |name: &str| -> Vec<&str> {
        seen.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
    };
    assert_eq!(of("authorization"), ["Bearer of the client"]);
    assert_eq!(of("x-forwarded-for"), ["192.0.2.1, 192.0.2.2"]);
    assert_eq!(of("x-forwarded-host"), ["faas.example"]);
    assert_eq!(of("host"), [remote.address.to_string()]);
    assert_eq!(of("x-call-id"), ["call-1"]);
    assert_eq!(of("x-many"), ["a", "b"]);
    assert_eq!(of("user-agent"), ["fawn/test"]);
    for gone in ["connection", "x-hop", "te", "proxy-authorization", "transfer-encoding"] {
        assert_eq!(of(gone), Vec::<&str>::new(), "{gone}");
    }
}

#[tokio::test]
async fn a_functions_answer_is_its_own_whatever_it_says() {
    let remote = Remote::start();
    remote.fake.script("f", async |_| {
        let answer = http::Response::builder()
            .status(StatusCode::NOT_FOUND)
            .header("location", "/elsewhere")
            .header("x-error-code", "not-found")
            .header("x-fawn-provider-error", "true")
            .header("x-openfaas-internal", "proxy")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2");
        Ok(answer.body(full("mine")).unwrap())
    });
    let request = Request::get("/").body(empty()).unwrap();
    let answer = remote.provider.invoke(call("f", request)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-error-code"]),
        (404, &"not-found".parse().unwrap())
    );
    assert!(!answer.headers().contains_key("x-fawn-provider-error"));
    assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(text(Ok(answer)).await, "mine");

    remote.fake.script("moved", async |_| {
        Ok(http::Response::builder().status(302).header("location", "/system/info").body(empty()).unwrap())
    });
    let request = Request::get("/").body(empty()).unwrap();
    let moved = remote.provider.invoke(call("moved", request)).await.unwrap();
    assert_eq!(moved.status(), 302);
}

/// A body whose pieces the test sends as it goes on.
fn sent_later() -> (mpsc::Sender<&'static str>, Body) {
    let (send, mut receive) = mpsc::channel(1);
    let pieces = futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx));
    let frames = pieces.map(|piece: &str| Ok(http_body::Frame::data(Bytes::from(piece))));
    (send, StreamBody::new(frames).boxed_unsync())
}

async fn next_piece(body: &mut Body) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let remote = Remote::start();
    remote.fake.add("echo");
    let (send, body) = sent_later();
    let answering = remote.provider.invoke(call("echo", Request::post("/").body(body).unwrap()));
    let mut answer = answering.await.unwrap().into_body();
    for piece in ["first", "second", "third"] {
        send.send(piece).await.unwrap();
        assert_eq!(next_piece(&mut answer).await, piece);
    }
    drop(send);
    assert!(answer.frame().await.is_none());
}

#[tokio::test]
async fn a_body_arrives_whatever_the_method_and_though_its_length_is_unknown() {
    let remote = Remote::start();
    remote.fake.add("echo");
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let (send, body) = sent_later();
        send.send("unheard of").await.unwrap();
        drop(send);
        let request = Request::builder().method(method).uri("/").body(body).unwrap();
        assert_eq!(text(remote.provider.invoke(call("echo", request)).await).await, "unheard of", "{method}");
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let remote = Remote::start();
    remote.fake.add("echo");
    let sent: Vec<u8> = (0..=250).cycle().take(20 << 20).collect();
    let request = Request::post("/").body(full(sent.clone())).unwrap();
    let answer = remote.provider.invoke(call("echo", request)).await.unwrap();
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == sent);
}

#[tokio::test]
async fn whoever_gives_up_ends_the_call_at_the_other_end() {
    let remote = Remote::start();
    let mut running = remote.fake.in_flight();
    remote.fake.script("never", async |_| pending().await);
    let request = Request::get("/").body(empty()).unwrap();
    let provider = remote.provider.clone();
    let waiting = tokio::spawn(async move { provider.invoke(call("never", request)).await.map(drop) });
    running.wait_for(|count| *count == 1).await.unwrap();
    waiting.abort();
    running.wait_for(|count| *count == 0).await.unwrap();

    remote.fake.add("echo");
    let (send, body) = sent_later();
    let answer = remote.provider.invoke(call("echo", Request::post("/").body(body).unwrap())).await.unwrap();
    send.send("x").await.unwrap();
    running.wait_for(|count| *count == 1).await.unwrap();
    drop(answer);
    running.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test]
async fn a_call_has_its_time_answer_and_all() {
    let remote = Remote::start_with(Duration::from_millis(300));
    remote.fake.script("never", async |_| pending().await);
    let request = Request::get("/").body(empty()).unwrap();
    let late = remote.provider.invoke(call("never", request)).await.err().unwrap();
    assert_eq!(late.code(), "provider-unreachable", "{late}");

    remote.fake.add("echo");
    let (_send, body) = sent_later();
    let answer = remote.provider.invoke(call("echo", Request::post("/").body(body).unwrap())).await.unwrap();
    let error = answer.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("time is over"), "{error}");
    let mut running = remote.fake.in_flight();
    running.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_gone_is_unreachable() {
    let remote = Remote::start();
    remote.fake.add("echo");
    let request = || Request::get("/").body(empty()).unwrap();
    assert_eq!(text(remote.provider.invoke(call("echo", request())).await).await, "");
    let provider = remote.stop();
    let gone = async {
        loop {
            if let Err(error) = provider.invoke(call("echo", request())).await {
                return error;
            }
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(gone.code(), "provider-unreachable", "{gone:?}");
    for error in [provider.health().await.err(), provider.info().await.err(), provider.list("").await.err()] {
        assert_eq!(error.unwrap().code(), "provider-unreachable");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_callers_fault() {
    let remote = Remote::start();
    remote.fake.script("reader", async |invocation: Invocation| {
        let read = invocation.request.into_body().collect().await;
        Ok(http::Response::new(full(format!("{}", read.is_ok()))))
    });
    let broken =
        futures_util::stream::iter([Ok(http_body::Frame::data(Bytes::from("x"))), Err("broken".into())]);
    let request = Request::post("/").body(StreamBody::new(broken).boxed_unsync()).unwrap();
    let error = remote.provider.invoke(call("reader", request)).await.err().unwrap();
    assert_eq!(error.code(), "incomplete-body", "{error:?}");
}

#[tokio::test]
async fn secrets_arrive_byte_for_byte() {
    let remote = Remote::start();
    for value in [&b""[..], b"text\n", &[0, 255, 10]] {
        let secret = SecretName::new("s", "dev").unwrap();
        remote.provider.create_secret(&secret, SecretValue::new(value).unwrap()).await.unwrap();
        assert_eq!(remote.fake.secret(&secret).unwrap().expose(), value);
        remote.provider.remove_secret(&secret).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_is_read_and_followed() {
    let remote = Remote::start();
    remote.fake.add("f.dev");
    for (second, line) in ["one", "two \u{1f98c}", "three"].into_iter().enumerate() {
        let when = Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap();
        remote.fake.log("f.dev", when, line);
    }
    let query = |tail, since, follow| LogQuery {
        function: name("f.dev"),
        instance: String::new(),
        tail,
        since,
        follow,
    };
    let read = async |query| {
        let lines = remote.provider.logs(query).await.unwrap();
        lines.map(|line| line.unwrap().text).collect::<Vec<_>>().await
    };
    assert_eq!(read(query(None, None, false)).await, ["one", "two \u{1f98c}", "three"]);
    assert_eq!(read(query(Some(1), None, false)).await, ["three"]);
    let since = Timestamp::from_second(1_700_000_001).ok();
    assert_eq!(read(query(None, since, false)).await.len(), 2);
    let mut followed = remote.provider.logs(query(Some(1), None, true)).await.unwrap();
    assert_eq!(followed.next().await.unwrap().unwrap().text, "three");
    remote.fake.log("f.dev", Timestamp::from_second(1_700_000_003).unwrap(), "four");
    assert_eq!(followed.next().await.unwrap().unwrap().text, "four");
    // Else who listens would hold up draining.
    remote.ending.cancel();
    assert!(followed.next().await.is_none());
}

#[tokio::test]
async fn a_namespace_keeps_its_labels() {
    let remote = Remote::start();
    let labels = [("openfaas".to_owned(), "1".to_owned())].into();
    let staff = Namespace { name: "staff".into(), labels, ..Namespace::default() };
    remote.provider.create_namespace(staff.clone()).await.unwrap();
    assert_eq!(remote.provider.namespace("staff").await.unwrap(), staff);
    let missing = remote.provider.namespace("a b/../c?d").await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_) | Error::Invalid { .. }), "{missing:?}");
}

#[tokio::test]
async fn health_is_the_providers_and_ends_first() {
    let remote = Remote::start();
    remote.provider.health().await.unwrap();
    remote.fake.fail_next(Error::Unavailable { message: "starting".into(), source: None });
    assert_eq!(remote.provider.health().await.unwrap_err().to_string(), "starting");
    remote.ending.cancel();
    assert_eq!(remote.provider.health().await.unwrap_err().to_string(), "shutting down");
}
