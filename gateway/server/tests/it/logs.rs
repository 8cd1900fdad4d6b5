use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use crate::edge::{Edge, read_until};

/// Another server, which gives each request to the test as it came, and answers it with the next of those texts.
async fn server(answers: Vec<String>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            seen.send(read_until(&mut stream, "\r\n\r\n").await).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn another_server_of_logs_gets_query_and_credentials_and_its_answer_is_passed_on() {
    let line = "{\"name\":\"f\",\"text\":\"hi\"}\n";
    let plain = answer("200 OK", "", line);
    let typed = answer("200 OK", "Content-Type: text/x-lines\r\n", line);
    let (address, mut requests) = server(vec![plain, typed]).await;
    let edge = Edge::start_beside(None, Some(address));
    let query = "name=f&since=2026-01-01T00%3A00%3A00Z&follow=true&tail=-1&more=x";
    let told = edge
        .request("GET", &format!("/system/logs?{query}"), &["Authorization: Basic YTpi", "Cookie: c=1"])
        .await;
    assert_eq!((told.status, &*told.body), (200, line));
    assert_eq!(told.header("content-type"), "application/x-ndjson");
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with(&format!("GET /system/logs?{query} HTTP/1.1\r\n")), "{request}");
    let request = request.to_lowercase();
    assert!(request.contains("authorization: basic ytpi\r\n") && !request.contains("cookie"), "{request}");
    assert_eq!(edge.get("/system/logs").await.header("content-type"), "text/x-lines");
    assert!(requests.recv().await.unwrap().starts_with("GET /system/logs HTTP/1.1\r\n"));
}

#[tokio::test]
async fn another_server_of_logs_that_has_credentials_does_not_see_the_users() {
    let (address, mut requests) = server(vec![answer("200 OK", "", "")]).await;
    let edge = Edge::start_beside(None, Some(address.replace("//", "//reader:secret@")));
    let told = edge.request("GET", "/system/logs?name=f", &["Authorization: Basic YTpi"]).await;
    assert_eq!(told.status, 200);
    let request = requests.recv().await.unwrap().to_lowercase();
    assert_eq!(request.matches("authorization: ").count(), 1, "{request}");
    assert!(!request.contains("ytpi"), "{request}");
}

#[tokio::test]
async fn what_another_server_refuses_is_told_in_the_words_that_clients_know() {
    let redirect = answer("302 Found", "Location: http://127.0.0.1:1/\r\n", "");
    let answers =
        [answer("404 Not Found", "", "no"), answer("501 Not Implemented", "", "no"), redirect].into_iter();
    let answers = answers.chain([answer("422 Unprocessable Entity", "", "canary")]).collect();
    let (address, _requests) = server(answers).await;
    let edge = Edge::start_beside(None, Some(address));
    for (status, body) in [
        (501, ""),
        (501, ""),
        (500, "unknown log request error (302)\n"),
        (500, "unknown log request error (422)\n"),
        // It is gone now.
        (500, "log request failed\n"),
    ] {
        let answer = edge.get("/system/logs?name=f").await;
        assert_eq!((answer.status, &*answer.body), (status, body));
    }
}

#[tokio::test]
async fn lines_of_another_server_stream_until_draining_begins() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let edge = Edge::start_beside(None, Some(address));
    let mut client = edge.open("GET /system/logs?name=f&follow=1 HTTP/1.1").await;
    let (mut server, _) = listener.accept().await.unwrap();
    read_until(&mut server, "\r\n\r\n").await;
    server.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut client, "one\n\r\n").await;
    server.write_all(b"4\r\ntwo\n\r\n").await.unwrap();
    read_until(&mut client, "two\n\r\n").await;
    edge.ending.cancel();
    // Ended as it should, and the other server's connection is let go.
    assert_eq!(read_until(&mut client, "0\r\n\r\n").await, "0\r\n\r\n");
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
}
