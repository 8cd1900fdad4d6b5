//! Bodies pass through piece by piece.

use reqwest::{Body, Method, Response};
use runtime_testing::guests::ECHO_HTTP;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio_util::io::ReaderStream;

use crate::{
    edge::{Deployment, Edge},
    guests::{built, text},
};

/// What a client sends at once of a large body, as curl does.
const PIECE_BYTES: usize = 64 * 1024;

/// A request body that is written as the test goes on.
pub(crate) fn written_later() -> (DuplexStream, Body) {
    let (write, read) = duplex(PIECE_BYTES);
    (write, Body::wrap_stream(ReaderStream::with_capacity(read, PIECE_BYTES)))
}

async fn next_piece(answer: &mut Response) -> String {
    let piece = answer.chunk().await.unwrap().expect("the answer goes on");
    String::from_utf8(piece.to_vec()).unwrap()
}

/// Each piece of the request is sent only when the one before has come back.
pub(crate) async fn talks_back(edge: &Edge, path: &str) {
    let (mut send, body) = written_later();
    send.write_all(b"first").await.unwrap();
    let mut answer = edge.request(Method::POST, path).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "the head comes before the request has ended");
    assert_eq!(next_piece(&mut answer).await, "first");
    for piece in ["second", "third"] {
        send.write_all(piece.as_bytes()).await.unwrap();
        assert_eq!(next_piece(&mut answer).await, piece);
    }
    drop(send);
    assert!(answer.chunk().await.unwrap().is_none());
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_component_answers_while_it_is_still_asked() {
    let edge = Edge::start().await;
    let image = edge.upload(text(ECHO_HTTP)).await;
    edge.serve(Deployment::of("echo", &image)).await;
    talks_back(&edge, "/function/echo").await;
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_javascript_handler_answers_while_it_is_still_asked() {
    let edge = Edge::start().await;
    let image = edge.upload(built("js.wasm")).await;
    edge.serve(Deployment::of("js", &image)).await;
    talks_back(&edge, "/function/js/echo").await;
}
