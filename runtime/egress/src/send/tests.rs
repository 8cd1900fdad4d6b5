use std::net::{Ipv4Addr, SocketAddr};

use http_body_util::{BodyExt, Empty, Full};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), first_byte: Duration::from_secs(5) };

fn get(uri: &str) -> Option<Request<Empty<Bytes>>> {
    Request::get(uri).body(Empty::new()).ok()
}

/// The ways in which people have hidden an IPv4 address in a URL.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let number = address.to_bits();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let last_24 = number & 0x00ff_ffff;
    let mut spellings = vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{number}"),
        format!("{number:#x}"),
        format!("{number:#X}").replace("0X", "0x"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{last_24}"),
        format!("{a:#x}.{last_24}"),
        format!("{a}.{b}.{low}"),
        format!("[::ffff:{a}.{b}.{c}.{d}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[::FFFF:{high:X}:{low:X}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::{a}.{b}.{c}.{d}]"),
        format!("[::ffff:0:{high:x}:{low:x}]"),
        format!("[64:ff9b::{high:x}:{low:x}]"),
        format!("[64:ff9b::{a}.{b}.{c}.{d}]"),
        format!("[64:ff9b:1::{high:x}:{low:x}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
    ];
    spellings.sort();
    spellings.dedup();
    spellings
}

const PRIVATE_V4: [[u8; 4]; 16] = [
    [127, 0, 0, 1],
    [127, 255, 255, 254],
    [0, 0, 0, 0],
    [10, 0, 0, 1],
    [100, 64, 0, 1],
    [100, 100, 100, 200],
    [169, 254, 169, 254],
    [169, 254, 170, 2],
    [172, 16, 0, 1],
    [172, 31, 255, 255],
    [192, 0, 0, 192],
    [192, 168, 1, 1],
    [198, 18, 0, 1],
    [203, 0, 113, 7],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
];

const PRIVATE_OTHERS: [&str; 26] = [
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[FD00:EC2::254]",
    "[fdff:ffff::1]",
    "[ff02::1]",
    "[ff0e::1]",
    "[100::1]",
    "[2001::1]",
    "[2001:0:a00:1::1]",
    "[2001:2::1]",
    "[2001:10::1]",
    "[2001:20::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[4000::1]",
    "[5f00::1]",
];

fn private_hosts() -> Vec<String> {
    let v4 = PRIVATE_V4.into_iter().flat_map(|octets| spellings(Ipv4Addr::from(octets)));
    v4.chain(PRIVATE_OTHERS.into_iter().map(str::to_owned)).collect()
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_reached_by_default() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = Policy::default();
    let hosts = private_hosts();
    assert!(hosts.len() >= 200, "{}", hosts.len());

    for host in &hosts {
        for uri in
            [format!("http://{host}:{port}/"), format!("https://{host}:{port}/"), format!("HTTP://{host}/")]
        {
            let error = send(&policy, get(&uri).unwrap(), TIMEOUTS).await.unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{uri}: {error}");
        }
        let uri = format!("http://1.1.1.1@{host}:{port}/");
        let error = send(&policy, get(&uri).unwrap(), TIMEOUTS).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest(_)), "{uri}: {error}");
    }
    let reached = timeout(Duration::ZERO, listener.accept()).await;
    assert!(reached.is_err(), "something was reached: {reached:?}");
}

/// The control: the spellings above are not refused for being unreadable.
#[tokio::test]
async fn the_same_spellings_reach_a_server_that_is_allowed() {
    let policy = Policy::parse("127.0.0.1").unwrap();
    let mut reached = 0;
    for host in spellings(Ipv4Addr::LOCALHOST) {
        let (address, _, _gone) = serve_once(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        let uri = format!("http://{host}:{}/", address.port());
        match send(&policy, get(&uri).unwrap(), TIMEOUTS).await {
            Ok(_) => reached += 1,
            Err(error) => assert!(matches!(error, Error::Denied { .. }), "{uri}: {error}"),
        }
    }
    assert!(reached >= 14, "{reached}");
}

#[tokio::test]
async fn what_is_no_destination_is_refused_before_anything_is_connected() {
    let policy = Policy::parse("127.0.0.1,localhost").unwrap();
    for uri in [
        "/path",
        "127.0.0.1:80",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:/",
        "http://a@127.0.0.1/",
        "http://a:b@127.0.0.1/",
        "http://@127.0.0.1/",
        "ws://127.0.0.1/",
    ] {
        let Some(request) = get(uri) else { continue };
        let error = send(&policy, request, TIMEOUTS).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRequest(_)), "{uri}: {error}");
    }
    let connect = Request::connect("http://127.0.0.1/").body(Empty::<Bytes>::new()).unwrap();
    assert!(matches!(send(&policy, connect, TIMEOUTS).await, Err(Error::InvalidRequest(_))));
}

/// Answers one connection with fixed bytes, and tells what it was sent.
async fn serve_once(answer: &'static [u8]) -> (SocketAddr, oneshot::Receiver<String>, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell_request, request) = oneshot::channel();
    let (tell_gone, gone) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = vec![0; 4096];
        let mut length = 0;
        while !received[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            length += stream.read(&mut received[length..]).await.unwrap();
        }
        tell_request.send(String::from_utf8_lossy(&received[..length]).into_owned()).ok();
        stream.write_all(answer).await.ok();
        while matches!(stream.read(&mut received).await, Ok(1..)) {}
        tell_gone.send(()).ok();
    });
    (address, request, gone)
}

#[tokio::test]
async fn an_allowed_server_answers_and_sees_an_ordinary_request() {
    let (address, seen, _gone) = serve_once(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let policy = Policy::parse("localhost").unwrap();
    let patient = Timeouts { connect: Duration::MAX, first_byte: Duration::MAX };
    let uri = format!("http://LocalHost:{}/a%20b?c=d", address.port());
    let request =
        Request::post(uri).header("host", "forged.example").body(Full::new(Bytes::from("ping"))).unwrap();

    let response = send(&policy, request, patient).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");

    let seen = seen.await.unwrap();
    assert!(seen.starts_with("POST /a%20b?c=d HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("host: LocalHost:{}\r\n", address.port())), "{seen}");
    assert!(!seen.contains("forged"), "{seen}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let (address, _, _gone) =
        serve_once(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
            .await;
    let policy = Policy::parse("127.0.0.1").unwrap();
    let response = send(&policy, get(&format!("http://{address}/")).unwrap(), TIMEOUTS).await.unwrap();
    assert_eq!(response.status(), 302);
}

#[tokio::test]
async fn dropping_the_body_ends_the_connection() {
    let (address, _, gone) = serve_once(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbeginning").await;
    let policy = Policy::parse("127.0.0.1").unwrap();
    let mut response = send(&policy, get(&format!("http://{address}/")).unwrap(), TIMEOUTS).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "beginning");
    drop(response);
    gone.await.unwrap();
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_left() {
    let (address, _, gone) = serve_once(b"").await;
    let policy = Policy::parse("127.0.0.1").unwrap();
    let timeouts = Timeouts { first_byte: Duration::from_millis(20), ..TIMEOUTS };
    let error = send(&policy, get(&format!("http://{address}/")).unwrap(), timeouts).await.unwrap_err();
    assert!(matches!(error, Error::AnswerTimedOut { .. }), "{error}");
    gone.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_an_error() {
    let (address, _, _gone) = serve_once(b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    let policy = Policy::parse("127.0.0.1").unwrap();
    let error = send(&policy, get(&format!("http://{address}/")).unwrap(), TIMEOUTS).await.unwrap_err();
    assert!(matches!(error, Error::HttpFailed { .. }), "{error}");
}

/// A server with a certificate that it signed itself, for `localhost`.
async fn serve_tls_once() -> (u16, rustls::pki_types::CertificateDer<'static>) {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await else {
            return;
        };
        let mut received = [0; 4096];
        assert!(stream.read(&mut received).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await.unwrap();
        stream.shutdown().await.ok();
    });
    (port, certificate)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (port, _) = serve_tls_once().await;
    let policy = Policy::parse("localhost").unwrap();
    let error =
        send(&policy, get(&format!("https://localhost:{port}/")).unwrap(), TIMEOUTS).await.unwrap_err();
    assert!(matches!(error, Error::TlsFailed { .. }), "{error}");
}

#[tokio::test]
async fn a_trusted_server_answers_over_tls_under_its_own_name_only() {
    for (host, trusted) in [("localhost", true), ("127.0.0.1", false)] {
        let (port, certificate) = serve_tls_once().await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let policy = Policy::parse("localhost,127.0.0.1").unwrap();
        policy.tls.set(std::sync::Arc::new(config)).unwrap();

        let answer = send(&policy, get(&format!("https://{host}:{port}/")).unwrap(), TIMEOUTS).await;
        if trusted {
            assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "secret");
        } else {
            assert!(matches!(answer, Err(Error::TlsFailed { .. })), "{host}");
        }
    }
}
