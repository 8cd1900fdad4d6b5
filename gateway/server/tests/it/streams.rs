use bytes::Bytes;
use futures_util::{StreamExt, future::pending};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime_api::{BodyError, Invocation};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::edge::{Edge, ok, read_until};

/// A function that answers at once with a body of what the test sends.
fn streaming(
    edge: &Edge,
    name: &str,
) -> mpsc::UnboundedReceiver<mpsc::UnboundedSender<Result<Bytes, BodyError>>> {
    let (begun, begins) = mpsc::unbounded_channel();
    edge.provider.script(name, move |_| {
        let (pieces, mut body) = mpsc::unbounded_channel::<Result<Bytes, BodyError>>();
        begun.send(pieces).unwrap();
        let frames = futures_util::stream::poll_fn(move |cx| body.poll_recv(cx));
        let body = StreamBody::new(frames.map(|piece| piece.map(Frame::data))).boxed_unsync();
        async { Ok(Response::new(body)) }
    });
    begins
}

async fn reached(mut in_flight: watch::Receiver<usize>, calls: usize) {
    in_flight.wait_for(|count| *count == calls).await.unwrap();
}

#[tokio::test]
async fn an_answer_streams_piece_by_piece() {
    let edge = Edge::start();
    let mut begins = streaming(&edge, "f");
    let mut client = edge.open("GET /function/f HTTP/1.1").await;
    let pieces = begins.recv().await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
    for piece in ["one", "two"] {
        pieces.send(Ok(piece.into())).unwrap();
        assert_eq!(
            read_until(&mut client, piece).await.matches('\n').count(),
            if piece == "one" { 1 } else { 2 }
        );
    }
    drop(pieces);
    assert_eq!(read_until(&mut client, "0\r\n\r\n").await, "\r\n0\r\n\r\n");
    reached(edge.provider.in_flight(), 0).await;
}

#[tokio::test]
async fn a_request_streams_piece_by_piece() {
    let edge = Edge::start();
    edge.provider.add("echo");
    let mut client = edge.open("POST /function/echo HTTP/1.1\r\nTransfer-Encoding: chunked").await;
    read_until(&mut client, "\r\n\r\n").await;
    for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut client, piece).await, piece);
    }
}

/// A function that reads all of its request before it answers with it.
fn reading(edge: &Edge, name: &str) {
    edge.provider.script(name, async |invocation: Invocation| {
        ok(invocation.request.into_body().collect().await.unwrap().to_bytes())
    });
}

#[tokio::test]
async fn a_body_larger_than_any_buffer_passes() {
    let edge = Edge::start();
    reading(&edge, "f");
    let body = "0123456789abcdef".repeat(1 << 20);
    assert!(edge.send("POST", "/function/f", &[], &body).await.body == body);
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let edge = Edge::start();
    reading(&edge, "f");
    let head = "POST /function/f HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue";
    let mut client = edge.open(head).await;
    assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").await.unwrap();
    assert!(read_until(&mut client, "\r\n\r\nhi").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let edge = Edge::start();
    edge.provider.script("hang", async |_| pending().await);
    let client = edge.open("GET /function/hang HTTP/1.1").await;
    reached(edge.provider.in_flight(), 1).await;
    drop(client);
    reached(edge.provider.in_flight(), 0).await;

    let mut begins = streaming(&edge, "f");
    let mut client = edge.open("GET /function/f HTTP/1.1").await;
    begins.recv().await.unwrap().send(Ok("one".into())).unwrap();
    let pieces = begins.try_recv();
    assert!(pieces.is_err());
    read_until(&mut client, "one").await;
    drop(client);
    reached(edge.provider.in_flight(), 0).await;

    let metrics = edge.metrics("GET", "/metrics").await.body;
    let left = r#"gateway_function_invocation_total{code="499",function_name="hang.openfaas-fn"}"#;
    assert!(!metrics.contains(left), "the first call of a name is not known to be of a function: {metrics}");
}

#[tokio::test]
async fn a_body_that_breaks_is_seen_to_break() {
    let edge = Edge::start();
    let mut begins = streaming(&edge, "f");
    let mut client = edge.open("GET /function/f HTTP/1.1").await;
    let pieces = begins.recv().await.unwrap();
    pieces.send(Ok("one".into())).unwrap();
    read_until(&mut client, "one\r\n").await;
    pieces.send(Err("the guest trapped".into())).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "", "no last chunk may follow");
    reached(edge.provider.in_flight(), 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_stops_arriving_is_not_waited_for() {
    let edge = Edge::start();
    let mut client = edge.open("POST /system/artifacts HTTP/1.1\r\nContent-Length: 10").await;
    client.write_all(b"\0as").await.unwrap();
    let begun = Instant::now();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("the module cannot be read: the client stopped sending the body\n"), "{answer}");
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_arriving_is_not_waited_for() {
    let edge = Edge::start();
    edge.provider.script("read", async |invocation: Invocation| {
        invocation.request.into_body().collect().await.map(|_| ()).unwrap_err();
        pending().await
    });
    let mut client = edge.open("POST /function/read HTTP/1.1\r\nContent-Length: 10\r\nX-Call-Id: 1").await;
    client.write_all(b"hal").await.unwrap();
    let begun = Instant::now();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains("X-Call-Id: 1\r\n"),
        "{answer}"
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
    reached(edge.provider.in_flight(), 0).await;
}
