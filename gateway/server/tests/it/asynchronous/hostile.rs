//! What somebody would try who means no good.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gateway_queue::State;
use runtime_api::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::subscriber::{set_default, set_global_default};

use super::{
    queued::{PATIENCE, Queued, next},
    target::{Target, connected, raw, status_of},
};

#[tokio::test]
async fn what_fits_into_a_head_fits_into_a_record_or_is_refused() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    let path = format!("f/{}?{}", "p".repeat(60 << 10), "q".repeat(1 << 10));
    gateway.keep(&path, "path", &[], "").await;
    let seen = next(&mut calls).await.target;
    assert_eq!(seen, path.strip_prefix('f').unwrap());

    let large = format!("X-Large: {}", "h".repeat(60 << 10));
    gateway.keep("f", "large", &[&large], "").await;
    assert_eq!(next(&mut calls).await.header("x-large").len(), 60 << 10);

    // As many as a request may have, beside those that are there anyway.
    let many: Vec<String> = (0..80).map(|number| format!("X-{number}: {}", "v".repeat(700))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    gateway.keep("f", "many", &many, "").await;
    let seen = next(&mut calls).await;
    assert!((0..80).all(|number| seen.header(&format!("x-{number}")).len() == 700));

    // What is kept of it twice may be too much.
    let most = format!("X-Large: {}", "h".repeat(52 << 10));
    let twice = format!("X-Callback-Url: http://127.0.0.1/{}", "u".repeat(8000));
    let refused = gateway.push("f", "most", &[&most, &twice], "").await;
    assert_eq!((refused.status, &*refused.header("x-error-code")), (413, "too-large"), "{}", refused.body);
    assert!(
        refused.body.starts_with("all but the body of the call is larger than 65536 bytes"),
        "{}",
        refused.body
    );
    for (lines, status) in [(1, 431), (200, 431)] {
        let line = format!("X-Large: {}\r\n", "h".repeat((70 << 10) / lines));
        let answer = gateway.raw(&["POST /async-function/f HTTP/1.1", &line.repeat(lines)]).await;
        assert_eq!(answer.status, status, "{lines}");
    }
    for id in ["path", "large", "many"] {
        gateway.reaches(id, State::Succeeded).await;
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_kept_as_they_are() {
    let gateway = Queued::start();
    let mut calls = gateway.seeing("f");
    let mut stream = gateway
        .open("POST /async-function/f HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\nX-Odd: \u{ff}")
        .await;
    stream.write_all(b"\0\xff\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let seen = next(&mut calls).await;
    assert_eq!((seen.headers["x-odd"].as_bytes(), &*seen.body), ("\u{ff}".as_bytes(), &b"\0\xff\n"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_sending_has_nothing_kept() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut stream = gateway.open(&format!("POST /async-function/f HTTP/1.1\r\n{head}")).await;
        stream.write_all(b"5\r\nhello\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
    assert_eq!(gateway.kept().await, 0);
}

#[tokio::test]
async fn a_client_that_goes_away_has_nothing_kept() {
    let gateway = Queued::idle();
    gateway.provider.add("f");
    for sent in [&b"half"[..], &[b'x'; 100_000]] {
        let mut stream = gateway.open("POST /async-function/f HTTP/1.1\r\nContent-Length: 200000").await;
        stream.write_all(sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // Closed by either, whichever is first.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 202"), "{}", answer.escape_ascii());
    }
    gateway.keep("f", "1", &[], "").await;
    assert_eq!(gateway.kept().await, 1);
}

#[tokio::test]
async fn a_target_that_never_answers_is_given_up_and_keeps_nobody_waiting() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    let (listener, header) = raw().await;
    gateway.keep("f", "1", &[&header], "hi").await;
    let mut streams = vec![connected(&listener).await];
    gateway.keep("f", "2", &[], "").await;
    gateway.reaches("2", State::Succeeded).await;
    // Each time it has 30 s, and a minute in all.
    tokio::time::pause();
    streams.push(connected(&listener).await);
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let call = gateway.reaches("1", State::Succeeded).await;
    assert_eq!(call.last_error, "the answer was not posted: its target takes too long");
}

#[tokio::test]
async fn a_target_that_never_stops_answering_is_left() {
    let gateway = Queued::start();
    gateway.provider.add("f");
    for (start, posts) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\nX-Endless: ", 5),
        ("HTTP/1.1 ", 5),
        ("nonsense", 5),
    ] {
        let (listener, header) = raw().await;
        let id = format!("call-{}", start.len());
        gateway.keep("f", &id, &[&header], "hi").await;
        for post in 1..=posts {
            let mut stream = connected(&listener).await;
            let begun = Instant::now();
            stream.write_all(start.as_bytes()).await.unwrap();
            let mut written = 0;
            while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {
                written += 64 << 10;
                assert!(
                    begun.elapsed() < PATIENCE && written < 64 << 20,
                    "post {post}: {written} bytes were taken"
                );
            }
            if post == 1 {
                tokio::time::pause();
            }
        }
        tokio::time::resume();
        let call = gateway.reaches(&id, State::Succeeded).await;
        assert_eq!(call.last_error.is_empty(), posts == 1, "{start}: {call:?}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_of_a_calls_body_or_headers_is_logged() {
    // Else a call site that is first reached in another test may be taken for one that nobody listens to.
    let _ = set_global_default(tracing_subscriber::registry());
    let log = Log::default();
    let lines = Arc::clone(&log.0);
    let ours = "gateway_server=trace,gateway_queue=trace,runtime_http=trace,runtime_egress=trace,runtime_process=trace";
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_env_filter(ours);
    let _guard = set_default(subscriber.with_writer(move || log.clone()).finish());

    let gateway = Queued::start();
    let mut target = Target::always(400);
    gateway.provider.add("f");
    gateway.provider.script("bad", async |_| Ok(status_of(500)));
    gateway.provider.script("gone", async |_| Err(Error::unavailable("no node", "refused")));
    gateway.provider.guard("guarded", "Bearer right");
    let callback = format!("{}&token=canary", target.header());
    let canaries = [
        "Authorization: Bearer canary",
        "Cookie: canary=1",
        "X-Own: canary",
        "X-Forwarded-Host: canary",
        "Idempotency-Key: canary",
        "Content-Type: text/canary",
    ];
    let with = |callback: &'static str| [&canaries[..], &[callback]].concat();
    for name in ["f", "bad", "gone"] {
        let callback: &'static str = callback.clone().leak();
        gateway.keep(&format!("{name}/canary?canary=1"), name, &with(callback), "canary").await;
    }
    target.next().await;
    gateway.reaches("f", State::Succeeded).await;
    for name in ["bad", "gone"] {
        gateway.reaches(name, State::Waiting).await;
    }
    for (target, header) in [
        ("missing", "X-Own: canary"),
        ("f", "X-Callback-Url: http://10.0.0.1/canary"),
        ("f", "X-Callback-Url: canary canary"),
        ("f", "X-Delay-Seconds: canary"),
    ] {
        assert!(gateway.push(target, "1", &with(header), "canary").await.status >= 400);
    }
    assert_eq!(gateway.push("f", "1", &with("X-None: 1"), &"canary".repeat(100_000)).await.status, 413);
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(text.contains("the answer was not posted") && text.contains("call_id=bad"), "{text}");
    for line in text.lines() {
        assert!(!line.contains("canary"), "{line}");
    }
}

#[tokio::test]
async fn a_call_that_runs_may_be_as_long_as_its_function() {
    let gateway = Queued::start();
    gateway.provider.script("endless", async |_| {
        let pieces = futures_util::stream::repeat_with(|| {
            Ok::<_, runtime_api::BodyError>(http_body::Frame::data(Bytes::from_static(&[b'x'; 16 << 10])))
        });
        let pieces = futures_util::StreamExt::then(pieces, async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        Ok(http::Response::new(http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(
            pieces,
        ))))
    });
    let mut target = Target::start();
    // Wanted, it is too large at last; unwanted, it runs until somebody ends it, or its time is over.
    gateway.keep("endless", "wanted", &[&target.header()], "").await;
    assert_eq!(target.next().await.header("x-function-status"), "503");
    gateway.keep("endless", "unwanted", &[], "").await;
    gateway.reaches("unwanted", State::Running).await;
    gateway.provider.in_flight().wait_for(|calls| *calls == 1).await.unwrap();
    assert_eq!(gateway.request("DELETE", "/async-function/unwanted", &[]).await.status, 202);
    gateway.reaches("unwanted", State::Cancelled).await;
    assert_eq!(*gateway.provider.in_flight().borrow(), 0);
}
