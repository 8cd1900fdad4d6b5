//! Registries that fail in passing.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use runtime_api::{Body, full};

use crate::{
    bench::Bench,
    fake::{Seen, digest, status},
    images::{CNCF_CONFIG, IMAGE_CONFIG, MODULE, TAR, WASM, config, descriptor, manifest, tar},
    raw::{RawServer, Reply},
};

/// Fails so often, and then does as it should.
fn after(failures: usize, fail: fn() -> Response<Body>, good: Vec<u8>) -> impl Fn(&Seen) -> Response<Body> {
    let count = AtomicUsize::new(0);
    move |_| match count.fetch_add(1, Ordering::Relaxed) {
        count if count < failures => fail(),
        _ => Response::new(full(good.clone())),
    }
}

fn later(seconds: &str) -> Response<Body> {
    Response::builder().status(429).header("retry-after", seconds).body(full("")).unwrap()
}

#[tokio::test]
async fn what_fails_in_passing_is_asked_for_again() {
    for fail in [|| status(500), || status(502), || status(503), || later("0"), || status(429)] {
        let bench = Bench::start().await;
        bench.fake.artifact("hello", "v1", MODULE);
        let good = manifest(&descriptor(CNCF_CONFIG, b"{}"), &[descriptor(WASM, MODULE)]);
        bench.fake.answer("/v2/hello/manifests/v1", after(2, fail, good));
        let blob = format!("/v2/hello/blobs/{}", digest(MODULE));
        bench.fake.answer(blob, after(2, fail, MODULE.to_vec()));
        bench.fetch("hello:v1").await.unwrap();
        assert_eq!(bench.fake.paths().iter().filter(|path| path.contains("/manifests/")).count(), 3);
    }
}

#[tokio::test]
async fn a_token_is_asked_for_again_too() {
    let bench = Bench::logged_in().await;
    let realm = format!("Bearer realm=\"http://{}/token\"", bench.fake.address);
    bench.fake.guard(move |seen| {
        let free = seen.path.starts_with("/token") || seen.authorization.as_deref() == Some("Bearer right");
        (!free).then(|| crate::fake::challenge(&realm))
    });
    bench.fake.answer("/token", after(2, || status(503), br#"{"token": "right"}"#.to_vec()));
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
}

#[tokio::test]
async fn patience_has_an_end() {
    let bench = Bench::start().await;
    bench.fake.answer("/v2/hello/manifests/v1", |_| status(503));
    assert!(bench.refusal("hello:v1").await.contains("503"));
    assert_eq!(bench.fake.paths().len(), 3, "once, and the two more that were configured");
    bench.fake.forget_requests();
    bench.fake.answer("/v2/hello/manifests/v1", |_| later("86400"));
    let refusal = bench.refusal("hello:v1").await;
    assert!(refusal.starts_with("registry-unavailable: ") && refusal.contains("86400 s"), "{refusal}");
    assert_eq!(bench.fake.paths().len(), 1);
    bench.fake.forget_requests();
    bench.fake.answer("/v2/hello/manifests/v1", |_| status(403));
    assert!(bench.refusal("hello:v1").await.starts_with("unauthorized: "));
    assert_eq!(bench.fake.paths().len(), 1, "what is refused stays refused");
}

/// A registry of one image, of whose layer it sends a part and then hangs up, `breaks` times; what requests for it ask
/// for is answered by `rest`, given the layer and where to begin.
async fn breaking(
    image: Image,
    breaks: usize,
    part: usize,
    rest: impl Fn(&[u8], Option<usize>) -> Vec<u8> + Send + Sync + 'static,
) -> (RawServer, Bench) {
    let layers = AtomicUsize::new(0);
    let server = RawServer::start(move |path, request| {
        if path.contains("/manifests/") {
            return Reply::ok(&image.manifest);
        }
        if path.ends_with(&digest(&image.config)) {
            return Reply::ok(&image.config);
        }
        let whole = rest(&image.layer, range(request));
        if layers.fetch_add(1, Ordering::Relaxed) >= breaks {
            return Reply::new(whole);
        }
        let body = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        Reply::new(&whole[..body + part])
    })
    .await;
    let bench =
        Bench::configured(|config| config.plain_http.push(server.address.to_string().parse().unwrap())).await;
    (server, bench)
}

struct Image {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Image {
    fn of(module: &[u8]) -> Self {
        let manifest = manifest(&descriptor(CNCF_CONFIG, b"{}"), &[descriptor(WASM, module)]);
        Self { manifest, config: b"{}".into(), layer: module.to_vec() }
    }
}

/// The first byte that a request wants, if it wants a part.
fn range(request: &str) -> Option<usize> {
    let (_, after) = request.split_once("range: bytes=")?;
    after.split('-').next()?.parse().ok()
}

fn partial(module: &[u8], from: usize) -> Vec<u8> {
    let (last, size) = (module.len() - 1, module.len());
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{size}\r\nContent-Length: {}\r\n\r\n",
        size - from
    );
    [head.as_bytes(), &module[from..]].concat()
}

fn whole(module: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", module.len());
    [head.as_bytes(), module].concat()
}

/// Nothing in it is where it might also be.
fn noisy_module() -> Vec<u8> {
    let noise = (0..300_000_u32).map(|i| (i.wrapping_mul(i) >> 3) as u8);
    MODULE.iter().copied().chain(noise).collect()
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let module = noisy_module();
    let (server, bench) = breaking(Image::of(&module), 2, 100_000, |module, from| match from {
        Some(from) => partial(module, from),
        None => whole(module),
    })
    .await;
    let artifact = bench.fetch_elsewhere(&format!("{}/hello:v1", server.address)).await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(&module));
    let asked: Vec<_> = server.heard().iter().skip(1).map(|request| range(request)).collect();
    assert_eq!(asked, [None, Some(100_000), Some(200_000)]);
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_begins_again() {
    let module = noisy_module();
    let (server, bench) = breaking(Image::of(&module), 2, 100_000, |module, _| whole(module)).await;
    let artifact = bench.fetch_elsewhere(&format!("{}/hello:v1", server.address)).await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(&module));
}

#[tokio::test]
async fn another_part_than_was_asked_for_is_not_taken() {
    for wrong in [
        "bytes 0-300007/300008",
        "bytes 100001-300007/300008",
        "bytes 100000-300006/300008",
        "bytes 100000-300007/300009",
        "bytes */300008",
        "lines 1-2/3",
        "",
    ] {
        let module = noisy_module();
        let (server, bench) = breaking(Image::of(&module), 1, 100_000, move |module, from| match from {
            Some(from) => {
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: {wrong}\r\nContent-Length: {}\r\n\r\n",
                    module.len() - from
                );
                [head.as_bytes(), &module[from..]].concat()
            }
            None => whole(module),
        })
        .await;
        let artifact = bench.fetch_elsewhere(&format!("{}/hello:v1", server.address)).await.unwrap();
        assert_eq!(artifact.digest.to_string(), digest(&module), "{wrong}");
        let asked: Vec<_> = server.heard().iter().skip(1).map(|request| range(request)).collect();
        assert_eq!(asked, [None, Some(100_000), None], "{wrong}");
    }
}

#[tokio::test]
async fn a_rest_that_cannot_be_had_is_asked_for_from_the_start() {
    let module = noisy_module();
    let (server, bench) = breaking(Image::of(&module), 1, 100_000, |module, from| match from {
        Some(_) => b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_vec(),
        None => whole(module),
    })
    .await;
    let artifact = bench.fetch_elsewhere(&format!("{}/hello:v1", server.address)).await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(&module));
}

#[tokio::test]
async fn the_digest_is_of_all_parts_together() {
    let (server, bench) = breaking(Image::of(&noisy_module()), 1, 100_000, |module, from| match from {
        Some(from) => {
            let mut other = partial(module, from);
            *other.last_mut().unwrap() ^= 1;
            other
        }
        None => whole(module),
    })
    .await;
    let refusal = bench.refusal_elsewhere(&format!("{}/hello:v1", server.address)).await;
    assert!(refusal.starts_with("wrong-digest: "), "{refusal}");
}

#[tokio::test]
async fn a_blob_that_breaks_off_for_ever_is_given_up() {
    let (server, bench) = breaking(Image::of(&noisy_module()), usize::MAX, 1, |module, from| match from {
        Some(from) => partial(module, from),
        None => whole(module),
    })
    .await;
    let refusal = bench.refusal_elsewhere(&format!("{}/hello:v1", server.address)).await;
    assert!(refusal.starts_with("registry-unavailable: ") && refusal.contains("broke off"), "{refusal}");
    assert_eq!(server.heard().len(), 4, "the manifest, the blob, and it twice again");
}

#[tokio::test]
async fn progress_makes_up_for_failures() {
    // More breaks than there are tries, and more than a MiB between them.
    let config = config(&["/f.wasm"]);
    let layer = tar(&[("noise", &noisy_module().repeat(11)), ("f.wasm", MODULE)]);
    let manifest = manifest(&descriptor(IMAGE_CONFIG, &config), &[descriptor(TAR, &layer)]);
    let image = Image { manifest, config, layer };
    let (server, bench) = breaking(image, 3, (1 << 20) + 1, |layer, from| match from {
        Some(from) => partial(layer, from),
        None => whole(layer),
    })
    .await;
    let artifact = bench.fetch_elsewhere(&format!("{}/hello:v1", server.address)).await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(MODULE));
    assert_eq!(server.heard().len(), 2 + 4);
}
