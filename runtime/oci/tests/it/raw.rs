//! What no HTTP library would send: a server that speaks TCP, and what comes of it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::interval,
};

use crate::{
    bench::Bench,
    images::{CNCF_CONFIG, MODULE, WASM, descriptor, gzip, manifest, module_of},
};

/// Bytes to send on a connection, and what to do then.
#[derive(Clone)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

/// What becomes of a connection once the bytes were sent.
#[derive(Clone)]
pub(crate) enum Then {
    /// It ends.
    Close,
    /// It stays as it is.
    Hold,
    /// These come again and again, at once.
    Repeat(Vec<u8>),
    /// One of these comes every so often.
    Drip(Vec<u8>, Duration),
}

impl Reply {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Close }
    }

    /// A whole answer.
    pub(crate) fn ok(body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        Self::new([head.as_bytes(), body].concat())
    }

    pub(crate) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

type Script = Arc<dyn Fn(&str, &str) -> Reply + Send + Sync>;

/// A server that answers as it was told, one request a connection, and keeps what it was sent.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawServer {
    /// `script` gets the path of a request, and all of it.
    pub(crate) async fn start(script: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (script, heard): (Script, _) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let shared = heard.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, script.clone(), shared.clone()));
            }
        });
        Self { address, heard, task }
    }

    /// Every request so far, byte for byte.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn converse(mut stream: TcpStream, script: Script, heard: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let Reply { bytes, then } = script(&path, &request);
    heard.lock().unwrap().push(request);
    // Whoever hangs up early has seen enough.
    drop(answer(&mut stream, &bytes, then).await);
}

async fn answer(stream: &mut TcpStream, bytes: &[u8], then: Then) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    match then {
        Then::Close => stream.shutdown().await,
        Then::Hold => stream.read_u8().await.map(drop),
        Then::Repeat(bytes) => loop {
            stream.write_all(&bytes).await?;
        },
        Then::Drip(bytes, every) => {
            let mut turns = interval(every);
            loop {
                turns.tick().await;
                stream.write_all(&bytes).await?;
            }
        }
    }
}

/// Answers in the place of a manifest, and in that of a blob, and gives what is said of both.
async fn refusals(reply: Reply) -> [String; 2] {
    let module = module_of(2000);
    let good = manifest(&descriptor(CNCF_CONFIG, b"{}"), &[descriptor(WASM, &module)]);
    let server = RawServer::start(move |path, _| match path {
        "/v2/blob/manifests/v1" => Reply::ok(&good),
        _ => reply.clone(),
    })
    .await;
    let bench = Bench::configured(|config| {
        config.plain_http.push(server.address.to_string().parse().unwrap());
        config.timeouts.total = Duration::from_secs(20);
    })
    .await;
    let image = |name: &str| format!("{}/{name}:v1", server.address);
    [bench.refusal_elsewhere(&image("manifest")).await, bench.refusal_elsewhere(&image("blob")).await]
}

/// Every one is refused for one of these reasons.
async fn assert_refused(what: &str, reply: Reply, reasons: &[&str]) {
    for refusal in refusals(reply).await {
        assert!(reasons.iter().any(|reason| refusal.contains(reason)), "{what}: {refusal}");
    }
}

fn ok_with(headers: &str, body: &[u8]) -> Reply {
    Reply::new([b"HTTP/1.1 200 OK\r\n", headers.as_bytes(), b"\r\n\r\n", body].concat())
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let broken = &["broke off", "did not answer in time"];
    for (what, bytes) in [
        ("nothing", b"".as_slice()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x28"),
        ("no version", b"200 OK\r\n\r\nhello"),
        ("a version to come", b"HTTP/9.9 200 OK\r\n\r\n"),
        ("a status that is none", b"HTTP/1.1 two OK\r\n\r\n"),
        ("a header without a name", b"HTTP/1.1 200 OK\r\n: x\r\n\r\n"),
        ("a header that ends in a zero", b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n"),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Len"),
    ] {
        assert_refused(what, Reply::new(bytes), broken).await;
    }
}

#[tokio::test]
async fn lengths_that_lie_are_refused() {
    for (what, headers, body) in [
        ("more than there is", "Content-Length: 2000", b"{}".as_slice()),
        ("negative", "Content-Length: -1", b"{}"),
        ("no number", "Content-Length: many", b"{}"),
        ("two of them", "Content-Length: 2\r\nContent-Length: 3", b"{}"),
        ("more than any", "Content-Length: 99999999999999999999999", b"{}"),
    ] {
        assert_refused(what, ok_with(headers, body), &["broke off"]).await;
    }
    for (what, headers, body) in [
        ("fewer than there are", "Content-Length: 1", b"{}".as_slice()),
        ("none", "Content-Length: 0", b""),
        ("length and chunks", "Content-Length: 2000\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    ] {
        let reasons = &["invalid-manifest: ", "wrong-size: ", "broke off"];
        assert_refused(what, ok_with(headers, body), reasons).await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    for (what, chunks) in [
        ("no size", b"\r\n{}\r\n0\r\n\r\n".as_slice()),
        ("a size that is none", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("a size larger than any", b"ffffffffffffffffff\r\n{}\r\n"),
        ("more than the chunk's size", b"1\r\n{}\r\n0\r\n\r\n"),
        ("no last chunk", b"2\r\n{}\r\n"),
        ("half a chunk", b"ff\r\n{}"),
    ] {
        assert_refused(what, ok_with("Transfer-Encoding: chunked", chunks), &["broke off"]).await;
    }
    let extension = [b"2;".as_slice(), &[b'a'; 1 << 20], b"\r\n{}\r\n0\r\n\r\n"].concat();
    assert_refused("an endless extension", ok_with("Transfer-Encoding: chunked", &extension), &["broke off"])
        .await;
    let trailers = ok_with("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n")
        .then(Then::Repeat(b"A: b\r\n".repeat(1000)));
    assert_refused("endless trailers", trailers, &["broke off"]).await;
}

#[tokio::test]
async fn floods_of_headers_are_cut_off() {
    let head = || Reply::new(b"HTTP/1.1 200 OK\r\n");
    assert_refused(
        "headers without end",
        head().then(Then::Repeat(b"A: b\r\n".repeat(1000))),
        &["broke off"],
    )
    .await;
    let long = Reply::new(b"HTTP/1.1 200 OK\r\nA: ").then(Then::Repeat(vec![b'a'; 1 << 16]));
    assert_refused("a header without end", long, &["broke off"]).await;
    let many = "A: b\r\n".repeat(5000);
    assert_refused("many headers", ok_with(many.trim_end(), b"{}"), &["broke off"]).await;
    let interim = Reply::new("").then(Then::Repeat(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)));
    assert_refused("interim answers without end", interim, &["did not answer in time", "broke off"]).await;
}

#[tokio::test]
async fn answers_that_were_not_asked_for_are_refused() {
    for status in [
        "204 No Content",
        "206 Partial Content",
        "304 Not Modified",
        "300 Multiple Choices",
        "101 Switching Protocols",
    ] {
        let reply = Reply::new(format!(
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
        ));
        assert_refused(status, reply, &["registry-refused: ", "refused-redirect: ", "broke off"]).await;
    }
    let location = format!("HTTP/1.1 307 T\r\nLocation: http://{}/\r\n\r\n", "a".repeat(10_000));
    assert_refused(
        "a redirect to no host",
        Reply::new(location),
        &["refused-redirect: ", "cannot be looked up"],
    )
    .await;
}

#[tokio::test]
async fn content_is_what_was_sent_and_not_what_it_unpacks_to() {
    // Nobody asked for compression (RFC 9110 §12.5.3), so that a digest is always of what was on the wire.
    let reasons = &["invalid-manifest: ", "wrong-size: ", "wrong-digest: "];
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip", "x-bomb"] {
        let body = gzip(&module_of(2000));
        let headers = format!("Content-Encoding: {encoding}\r\nContent-Length: {}", body.len());
        assert_refused(encoding, ok_with(&headers, &body), reasons).await;
    }
    let bomb = gzip(&vec![0; 8 << 20]);
    assert_refused("a bomb", ok_with("Content-Encoding: gzip", &bomb), reasons).await;
}

#[tokio::test]
async fn what_only_trickles_is_given_up() {
    let every = Duration::from_millis(20);
    let body = ok_with("Content-Length: 2000", MODULE).then(Then::Drip(b"\0".into(), every));
    assert_refused("a body", body, &["bytes a second"]).await;
    let first = [b"8\r\n", MODULE, b"\r\n"].concat();
    let chunks = ok_with("Transfer-Encoding: chunked", &first).then(Then::Drip(b"1\r\n\0\r\n".into(), every));
    assert_refused("chunks", chunks, &["bytes a second"]).await;
    let head = Reply::new("HTTP/1.1 200 OK\r\n").then(Then::Drip(b"A: b\r\n".into(), every));
    assert_refused("a head", head, &["did not answer in time", "broke off"]).await;
    assert_refused("nothing", Reply::new("").then(Then::Hold), &["did not answer in time"]).await;
}

#[tokio::test]
async fn nobody_but_the_registry_hears_a_word_of_its_credentials() {
    // Everything that the listener could be led to say, in every form that the credentials have.
    let silent_about = |listener: &RawServer| {
        let heard = listener.heard().join("\n").to_ascii_lowercase();
        for secret in ["authorization", "cookie", "secret", "bwu6c2vjcmv0", "bearer", "token-of-me"] {
            assert!(!heard.contains(secret), "{secret}: {heard}");
        }
        heard
    };
    for challenge in ["Basic realm=\"a\"", "Bearer realm=\"http://127.0.0.1:PORT/token\""] {
        let listener = RawServer::start(|_, _| Reply::ok(MODULE)).await;
        let bench = Bench::logged_in().await;
        let challenge = challenge.replace("PORT", &bench.fake.address.port().to_string());
        bench.fake.serve_at("/token", r#"{"token": "token-of-me"}"#);
        bench.fake.guard(move |seen| {
            let free = seen.authorization.is_some() || seen.path.starts_with("/token");
            (!free).then(|| {
                let mut refusal = crate::fake::challenge(&challenge);
                let cookie = http::HeaderValue::from_static("session=secret; Domain=127.0.0.1; Path=/");
                refusal.headers_mut().insert("set-cookie", cookie);
                refusal
            })
        });
        bench.fake.artifact("hello", "v1", MODULE);
        let to = format!("http://localhost:{}/signed?for=blob", listener.address.port());
        bench.fake.answer(format!("/v2/hello/blobs/{}", crate::fake::digest(MODULE)), move |_| {
            crate::fake::redirect(&to)
        });
        bench.fetch("hello:v1").await.unwrap();
        let to = format!("http://{}/signed?for=manifest", listener.address);
        bench.fake.answer("/v2/hello/manifests/v2", move |_| crate::fake::redirect(&to));
        bench.fetch("hello:v2").await.unwrap_err();
        let heard = silent_about(&listener);
        assert!(heard.contains("for=blob") && heard.contains("for=manifest"), "it was asked: {heard}");
        let sent = bench.fake.seen();
        assert!(sent.iter().any(|seen| seen.authorization.is_some()), "and the registry did hear them");
    }
}
