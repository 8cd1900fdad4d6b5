//! Docker's token authentication, as far as a registry and a client need it: `GET /token` with a password gives a JWT
//! that lets one user do what the scope says.

use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use rcgen::{CertificateParams, KeyPair, SigningKey};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::registry::{PASSWORD, USER};

pub(crate) const ISSUER: &str = "tests";
pub(crate) const SERVICE: &str = "registry of tests";

/// Gives tokens to [`USER`], and to nobody else.
pub(crate) struct TokenServer {
    pub(crate) port: u16,
    /// What a registry checks tokens against, in PEM.
    pub(crate) certificate: String,
    task: JoinHandle<()>,
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TokenServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let signer = Signer::new();
        let certificate = pem("CERTIFICATE", &signer.certificate);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that hangs up is one that a test has stopped.
                drop(answer(stream, &signer).await);
            }
        });
        Self { port, certificate, task }
    }
}

async fn answer(mut stream: TcpStream, signer: &Signer) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request).unwrap();
    let password = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let knows = request.lines().any(|line| {
        let header = line.split_once(": ");
        header.is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == format!("Basic {password}")
        })
    });
    let path = request.split(' ').nth(1).unwrap();
    let (status, body) = match knows {
        true => ("200 OK", json!({ "token": signer.token(path) }).to_string()),
        false => ("401 Unauthorized", String::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
    stream.shutdown().await
}

struct Signer {
    key: KeyPair,
    /// In DER.
    certificate: Vec<u8>,
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        Self { certificate: certificate.der().to_vec(), key }
    }

    /// A JWT for what a request asks for (RFC 7519; Docker, "Token Authentication Implementation").
    fn token(&self, path: &str) -> String {
        let url = Url::parse("http://tests/").unwrap().join(path).unwrap();
        let scope = url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned();
        let [kind, name, actions] = scope.split(':').collect::<Vec<_>>().try_into().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let header =
            json!({ "typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(&self.certificate)] });
        let claims = json!({
            "iss": ISSUER, "sub": USER, "aud": SERVICE, "jti": "1",
            "iat": now.as_secs(), "nbf": now.as_secs() - 60, "exp": (now + Duration::from_secs(300)).as_secs(),
            "access": [{ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }],
        });
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(fixed(&signature)))
    }
}

/// A signature of P-256 as JWTs have it (RFC 7518 §3.4), from that of X.509: a sequence of two integers (RFC 3279).
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut fixed = Vec::new();
    for _ in 0..2 {
        let (integer, after) = rest[2..].split_at(rest[1].into());
        let digits = &integer[integer.len().saturating_sub(32)..];
        fixed.extend(vec![0; 32 - digits.len()]);
        fixed.extend(digits);
        rest = after;
    }
    fixed
}

/// RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}
