//! Components of wasi:http: whose answer is whose, and how one ends.

use super::*;

#[tokio::test]
async fn an_http_component_owns_its_answer() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    assert_eq!(pool.module().world, World::Http);
    let response = call(&pool, "").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert!(response.headers().contains_key("x-duration-seconds"));
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(16), "sent in one piece");
    assert_eq!(text(response).await, "Hello from Fawn\n");
    assert_eq!(bench.engine.slots_in_use(), 0);
    assert_eq!(bench.engine.memory_in_use_bytes(), 0);
}

#[tokio::test]
async fn bodies_stream_both_ways_piece_by_piece() {
    let bench = Bench::new();
    let pool = bench.pool(guests::ECHO_HTTP, |_| {}).await;
    let (send, receive) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receive, |mut receive| async {
        let piece = receive.recv().await?;
        Some((Ok::<_, BodyError>(http_body::Frame::data(piece)), receive))
    });
    send.send("one".into()).await.unwrap();
    let response = pool.invoke(invocation(StreamBody::new(pieces).boxed_unsync()), u64::MAX).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    // The second piece is sent only after the first was seen to come back.
    send.send("two".into()).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    drop(send);
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(bench.engine.slots_in_use(), 0);
}

#[tokio::test]
async fn an_answer_cut_short_is_never_a_clean_end() {
    let bench = Bench::new();
    for guest in [guests::HTTP_HALF, guests::HTTP_LATE_TRAP] {
        let pool = bench.pool(guest, |_| {}).await;
        match call(&pool, "").await {
            Err(Error::FunctionFailed { .. }) => {}
            Err(error) => panic!("{error:?}"),
            Ok(response) => assert!(response.into_body().collect().await.is_err()),
        }
    }
}

#[tokio::test]
async fn a_component_that_misbehaves_is_told_apart() {
    let bench = Bench::new();
    for (guest, code) in [
        (guests::HTTP_SILENT, "no-response"),
        (guests::HTTP_TWICE, "guest-trap"),
        (guests::HTTP_TRAP, "guest-trap"),
        (guests::HTTP_ERROR, "guest-error"),
    ] {
        let pool = bench.pool(guest, |_| {}).await;
        let error = call(&pool, "").await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(!error.to_string().contains("wasm"), "the answer holds no backtrace: {error}");
    }
}

#[tokio::test]
async fn an_endless_component_is_stopped_at_its_deadline() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HTTP_LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let neighbour = bench.pool(guests::HELLO_HTTP, |_| {}).await;
    let looping = tokio::spawn({
        let pool = pool.clone();
        async move { call(&pool, "").await }
    });
    assert_eq!(call(&neighbour, "").await.unwrap().status(), 200, "neighbours answer meanwhile");
    let response = looping.await.unwrap().unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-openfaas-internal"], "of-watchdog");

    let pool =
        bench.pool(guests::HTTP_LATE_LOOP, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert!(response.into_body().collect().await.is_err(), "what began is cut off");
    bench.at_rest().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_the_instance() {
    let bench = Bench::new();
    let pool = bench.pool(guests::HTTP_ENDLESS, |_| {}).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(bench.engine.slots_in_use(), 1);
    drop(response);
    assert_eq!(bench.engine.slots_in_use(), 0);
    assert_eq!(pool.inflight(), 0);
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_an_instance_beyond_its_deadline() {
    let bench = Bench::new();
    let pool =
        bench.pool(guests::HTTP_ENDLESS, |settings| settings.timeout = Duration::from_millis(100)).await;
    let response = call(&pool, "").await.unwrap();
    assert_eq!(bench.engine.slots_in_use(), 1);
    let freed = async {
        while bench.engine.slots_in_use() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), freed).await.expect("given back though nobody reads");
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn an_answer_stays_within_bounds_whatever_the_guest_asks_for() {
    let bench = Bench::new();
    let illegal = bench.pool(guests::HTTP_ILLEGAL_HEADERS, |_| {}).await;
    assert_eq!(
        text(call(&illegal, "").await.unwrap()).await,
        "nnnnnnnn",
        "no header of the connection's own"
    );

    for guest in [guests::HTTP_HUGE_HEADER, guests::HTTP_MANY_HEADERS] {
        let pool = bench.pool(guest, |_| {}).await;
        if let Ok(response) = call(&pool, "").await {
            let bytes: usize =
                response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            assert!(bytes < 64 << 10, "{bytes} bytes of headers");
        }
    }
    let lie = bench.pool(guests::HTTP_LENGTH_LIE, |_| {}).await;
    match call(&lie, "").await {
        Err(error) => assert!(matches!(error, Error::FunctionFailed { .. }), "{error:?}"),
        Ok(response) => assert!(response.into_body().collect().await.is_err()),
    }
    let hoarder = bench.pool(guests::HTTP_HOARDER, |_| {}).await;
    assert_eq!(call(&hoarder, "").await.unwrap_err().code(), "guest-trap", "resources are counted");
}
