//! What a registry may try, and what comes of it: a reason, and nothing on disk.

use http::Response;
use runtime_api::full;
use serde_json::json;

use crate::{
    bench::{Bench, MAX_MODULE_BYTES},
    fake::{FakeRegistry, digest, endless, redirect, status},
    images::{
        CNCF_CONFIG, IMAGE_CONFIG, MODULE, TAR, WASM, config, descriptor, gzip, manifest, module_of, tar,
        zstd,
    },
};

fn blob_path(name: &str, bytes: &[u8]) -> String {
    format!("/v2/{name}/blobs/{}", digest(bytes))
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let bench = Bench::start().await;
    let refusal = bench.refusal("hello:v9").await;
    assert!(refusal.starts_with("image-not-found: "), "{refusal}");
    assert!(refusal.contains("\"v9\"") && refusal.contains(&bench.fake.image("hello:v9")), "{refusal}");
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused() {
    let bench = Bench::start().await;
    let (good, bad) = (module_of(100), [MODULE, &[1; 92]].concat());
    bench.fake.artifact("layer", "v1", &good);
    bench.fake.serve_at(blob_path("layer", &good), bad.clone());
    assert!(bench.refusal("layer:v1").await.starts_with("wrong-digest: "));

    bench.fake.docker_image("tar", "v1", &["/f.wasm"], &[tar(&[("f.wasm", &good)])]);
    bench.fake.serve_at(blob_path("tar", &tar(&[("f.wasm", &good)])), tar(&[("f.wasm", &bad)]));
    assert!(bench.refusal("tar:v1").await.starts_with("wrong-digest: "));

    bench.fake.docker_image("config", "v1", &["/f.wasm"], &[tar(&[("f.wasm", MODULE)])]);
    bench.fake.serve_at(blob_path("config", &config(&["/f.wasm"])), config(&["/g.wasm"]));
    assert!(bench.refusal("config:v1").await.starts_with("wrong-digest: "));

    let pinned = bench.fake.artifact("pinned", "v1", MODULE);
    bench.fake.serve_at(format!("/v2/pinned/manifests/{pinned}"), manifest(&json!({}), &[]));
    assert!(bench.refusal(&format!("pinned@{pinned}")).await.starts_with("wrong-digest: "));
}

#[tokio::test]
async fn a_header_that_contradicts_the_manifest_is_believed_to_be_right() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", MODULE);
    for claim in [digest(b"something else"), "sha256:../../x".into(), "sha512:00".into()] {
        bench.fake.answer("/v2/hello/manifests/v1", move |_| {
            Response::builder().header("docker-content-digest", &claim).body(full("{}")).unwrap()
        });
        let refusal = bench.refusal("hello:v1").await;
        assert!(
            refusal.starts_with("wrong-digest: ") || refusal.starts_with("invalid-digest: "),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn more_or_fewer_bytes_than_promised_are_refused() {
    let bench = Bench::start().await;
    let module = module_of(1000);
    bench.fake.artifact("hello", "v1", &module);
    for wrong in [module_of(999), module_of(1001), Vec::new()] {
        bench.fake.serve_at(blob_path("hello", &module), wrong);
        assert!(bench.refusal("hello:v1").await.starts_with("wrong-size: "));
    }
    let (config, layer) = (bench.fake.blob("config", IMAGE_CONFIG, b"{}"), descriptor(TAR, b""));
    bench.fake.tag("config", "v1", &manifest(&config, &[layer]));
    for wrong in ["{", "{ }", "{              }"] {
        bench.fake.serve_at(blob_path("config", b"{}"), wrong);
        assert!(bench.refusal("config:v1").await.starts_with("wrong-size: "));
    }
}

#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    let bench = Bench::start().await;
    let module = module_of(1000);
    bench.fake.artifact("hello", "v1", &module);
    bench.fake.answer(blob_path("hello", &module), |_| Response::new(endless(false)));
    assert!(bench.refusal("hello:v1").await.starts_with("wrong-size: "));
    bench.fake.answer("/v2/hello/manifests/v1", |_| Response::new(endless(false)));
    assert!(bench.refusal("hello:v1").await.starts_with("too-large: "));
}

#[tokio::test]
async fn silence_is_not_waited_out() {
    let bench = Bench::start().await;
    let module = module_of(100_000);
    bench.fake.artifact("hello", "v1", &module);
    bench.fake.answer(blob_path("hello", &module), |_| Response::new(endless(true)));
    let refusal = bench.refusal("hello:v1").await;
    assert!(
        refusal.starts_with("registry-unavailable: ") && refusal.contains("did not answer in time"),
        "{refusal}"
    );
}

#[tokio::test]
async fn slowness_without_end_meets_the_limit_of_the_whole() {
    let bench =
        Bench::configured(|config| config.timeouts.total = std::time::Duration::from_millis(200)).await;
    bench.fake.answer("/v2/hello/manifests/v1", |_| Response::new(endless(true)));
    let refusal = bench.refusal("hello:v1").await;
    assert!(refusal.contains("not done within 200ms"), "{refusal}");
}

#[tokio::test]
async fn modules_and_layers_larger_than_the_limit_are_not_even_asked_for() {
    let bench = Bench::start().await;
    let large = module_of(MAX_MODULE_BYTES as usize + 1);
    bench.fake.artifact("module", "v1", &large);
    assert!(bench.refusal("module:v1").await.starts_with("too-large: "));
    let config = bench.fake.blob("image", IMAGE_CONFIG, &config(&["/f.wasm"]));
    let layer = json!({"mediaType": TAR, "digest": digest(b""), "size": 100_u64 << 30});
    bench.fake.tag("image", "v1", &manifest(&config, &[layer]));
    assert!(bench.refusal("image:v1").await.starts_with("too-large: "));
    assert!(
        !bench
            .fake
            .paths()
            .iter()
            .any(|path| path.ends_with(&digest(&large)) || path.ends_with(&digest(b"")))
    );
}

#[tokio::test]
async fn bombs_stop_early() {
    let bench = Bench::start().await;
    let zeros = vec![0; 8 * MAX_MODULE_BYTES as usize];
    let large = module_of(2 * MAX_MODULE_BYTES as usize);
    for (tag, file) in [("beside", ("zeros", zeros.as_slice())), ("itself", ("f.wasm", large.as_slice()))] {
        for pack in [gzip, zstd] {
            bench.fake.docker_image("bomb", tag, &["/f.wasm"], &[pack(&tar(&[file]))]);
            assert!(bench.refusal(&format!("bomb:{tag}")).await.starts_with("too-large: "), "{tag}");
        }
    }
    // The limit is for all layers together.
    let layer = |name: &str| gzip(&tar(&[(name, &zeros[..zeros.len() / 4])]));
    bench.fake.docker_image("many", "v1", &["/f.wasm"], &["a", "b", "c"].map(layer));
    assert!(bench.refusal("many:v1").await.starts_with("too-large: "));
}

#[tokio::test]
async fn manifests_made_to_cost_are_refused() {
    let bench = Bench::start().await;
    let config = bench.fake.blob("f", CNCF_CONFIG, b"{}");
    let layers = vec![descriptor(WASM, MODULE); 1000];
    bench.fake.tag("f", "layers", &manifest(&config, &layers));
    assert!(bench.refusal("f:layers").await.starts_with("too-large: "));
    bench.fake.tag("f", "more", &manifest(&config, &vec![json!({}); 100_000]));
    assert!(bench.refusal("f:more").await.starts_with("invalid-manifest: "));
    let layers = vec![json!({"mediaType": "", "digest": "", "size": 0}); 80_000];
    bench.fake.tag("f", "most", &manifest(&config, &layers));
    assert!(bench.refusal("f:most").await.starts_with("too-large: "));
    for nested in ["[", "{\"a\":", "{\"config\":["] {
        bench.fake.serve_at("/v2/f/manifests/deep", nested.repeat((4 << 20) / nested.len()));
        assert!(bench.refusal("f:deep").await.starts_with("invalid-manifest: "), "{nested}");
    }
    bench.fake.serve_at("/v2/f/manifests/nested", "[".repeat(1 << 20));
    assert!(bench.refusal("f:nested").await.starts_with("invalid-manifest: "));
    bench.fake.serve_at("/v2/f/manifests/padded", " ".repeat((4 << 20) + 1));
    assert!(bench.refusal("f:padded").await.starts_with("too-large: "));
    bench.fake.serve_at("/v2/f/manifests/html", "<html>welcome to our hotel</html>");
    assert!(bench.refusal("f:html").await.starts_with("invalid-manifest: "));
}

#[tokio::test]
async fn an_index_leads_to_no_other_index() {
    let bench = Bench::start().await;
    let inner = json!({"schemaVersion": 2, "manifests": []}).to_string();
    bench.fake.tag("f", "inner", inner.as_bytes());
    bench.fake.index("f", "v1", &[("linux", "amd64", inner.as_bytes())]);
    assert!(bench.refusal("f:v1").await.contains("index within an index"));
}

#[tokio::test]
async fn indexes_in_a_loop_or_without_end_are_refused() {
    let bench = Bench::start().await;
    // An index that says of itself to be the image that is meant.
    let name = "/v2/f/manifests/loop";
    let loops = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b""), "size": 400,
         "platform": {"os": "wasi", "architecture": "wasm"}}]});
    bench.fake.serve_at(name, loops.to_string());
    bench.fake.serve_at(format!("/v2/f/manifests/{}", digest(b"")), loops.to_string());
    let refusal = bench.refusal("f:loop").await;
    assert!(refusal.starts_with("wrong-"), "{refusal}");
    bench.fake.forget_requests();
    bench.fake.answer(format!("/v2/f/manifests/{}", digest(b"")), move |_| redirect(name));
    assert!(bench.refusal("f:loop").await.starts_with("wrong-"));
    assert_eq!(bench.fake.paths().len(), 3, "and it comes to an end");
    bench.fake.tag("f", "none", json!({"schemaVersion": 2, "manifests": []}).to_string().as_bytes());
    assert!(bench.refusal("f:none").await.contains("image"), "of an empty index");
}

#[tokio::test]
async fn types_that_contradict_are_refused() {
    let bench = Bench::start().await;
    let layer = bench.fake.blob("f", WASM, MODULE);
    let config = bench.fake.blob("f", CNCF_CONFIG, b"{}");
    let good: serde_json::Value = serde_json::from_slice(&manifest(&config, &[layer])).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut other = good.clone();
        other[field] = value;
        other
    };
    for (what, bad) in [
        ("an index by its type", with("mediaType", json!("application/vnd.oci.image.index.v1+json"))),
        ("both", with("manifests", json!([]))),
        ("no manifest at all", with("mediaType", json!("text/plain"))),
        ("of another time", with("schemaVersion", json!(1))),
        ("a list of no layers", with("layers", json!("none"))),
        ("layers that are none", with("layers", json!([1, 2]))),
        (
            "a size that is none",
            with("layers", json!([{"mediaType": WASM, "digest": digest(MODULE), "size": "8"}])),
        ),
        (
            "a negative size",
            with("layers", json!([{"mediaType": WASM, "digest": digest(MODULE), "size": -8}])),
        ),
        (
            "a huge size",
            with("layers", json!([{"mediaType": WASM, "digest": digest(MODULE), "size": u64::MAX}])),
        ),
    ] {
        bench.fake.tag("f", "v1", bad.to_string().as_bytes());
        let refusal = bench.refusal("f:v1").await;
        let reasons = ["invalid-manifest: ", "unsupported-artifact: ", "wrong-size: "];
        assert!(reasons.iter().any(|reason| refusal.starts_with(reason)), "{what}: {refusal}");
    }
    assert!(bench.fake.paths().iter().all(|path| path.ends_with("/manifests/v1")), "no layer was asked for");
}

#[tokio::test]
async fn a_web_page_is_no_registry() {
    let bench = Bench::start().await;
    bench.fake.answer("/v2/f/manifests/v1", |_| {
        let page = Response::builder().header("content-type", "Text/HTML; charset=utf-8");
        page.body(full("<html>welcome to our hotel</html>")).unwrap()
    });
    let refusal = bench.refusal("f:v1").await;
    assert!(refusal.starts_with("not-a-registry: ") && refusal.contains("web page"), "{refusal}");
    // A blob is known by its digest, whatever it is said to be.
    bench.fake.artifact("g", "v1", MODULE);
    bench.fake.answer(blob_path("g", MODULE), |_| Response::new(full("<html>welcome to our hotel</html>")));
    assert!(bench.refusal("g:v1").await.starts_with("wrong-size: "));
}

#[tokio::test]
async fn digests_never_make_paths() {
    let bench = Bench::start().await;
    for bad in ["sha256:../../x", "sha512:aa", "../../etc/passwd", "", "sha256:"] {
        let config = json!({"mediaType": CNCF_CONFIG, "digest": bad, "size": 2});
        let layer = json!({"mediaType": WASM, "digest": bad, "size": 8});
        bench.fake.tag("f", "v1", &manifest(&config, &[layer]));
        assert!(bench.refusal("f:v1").await.starts_with("invalid-digest: "), "{bad}");
    }
    assert!(bench.fake.paths().iter().all(|path| path == "/v2/f/manifests/v1"));
}

#[tokio::test]
async fn only_webassembly_is_taken() {
    let bench = Bench::start().await;
    for (bytes, expected) in [
        (b"\x7fELF\x02\x01\x01\0".as_slice(), "precompiled: "),
        (&gzip(b"\x7fELF\x02\x01\x01\0"), "precompiled: "),
        (&gzip(&zstd(MODULE)), "not-wasm: "),
        (b"\0asm\x02\0\0\0", "not-wasm: "),
        (b"#!/bin/sh\nexit 0", "not-wasm: "),
        (b"\0asm", "not-wasm: "),
        (b"", "not-wasm: "),
    ] {
        bench.fake.artifact("f", "v1", bytes);
        assert!(bench.refusal("f:v1").await.starts_with(expected), "{bytes:?}");
        bench.fake.docker_image("g", "v1", &["/f.wasm"], &[tar(&[("f.wasm", bytes)])]);
        assert!(bench.refusal("g:v1").await.starts_with(expected), "{bytes:?} in an image");
    }
}

#[tokio::test]
async fn containers_and_other_layouts_are_refused_before_any_layer_moves() {
    let bench = Bench::start().await;
    bench.fake.docker_image("nginx", "v1", &["/docker-entrypoint.sh"], &[tar(&[("bin/sh", b"ELF")])]);
    let refusal = bench.refusal("nginx:v1").await;
    assert!(
        refusal.starts_with("unsupported-artifact: ") && refusal.contains("container image"),
        "{refusal}"
    );

    let configs = |path: &&String| path.contains("/blobs/");
    assert_eq!(bench.fake.paths().iter().filter(configs).count(), 1, "its configuration, and nothing else");
}

#[tokio::test]
async fn wrapped_modules_are_bounded_by_what_they_unpack_to() {
    let bench = Bench::start().await;
    let large = module_of(2 * MAX_MODULE_BYTES as usize);
    for packed in [gzip(&large), zstd(&large)] {
        assert!((packed.len() as u64) < MAX_MODULE_BYTES);
        bench.fake.artifact("f", "v1", &packed);
        assert!(bench.refusal("f:v1").await.starts_with("too-large: "));
    }
    let packed = gzip(&module_of(100_000));
    for damaged in [&packed[..packed.len() / 2], &[&packed[..], b"trailing"].concat()] {
        bench.fake.artifact("f", "v1", damaged);
        let refusal = bench.refusal("f:v1").await;
        assert!(refusal.starts_with("not-wasm: ") && refusal.contains("cannot be unpacked"), "{refusal}");
    }
}

#[tokio::test]
async fn redirects_without_end_or_aim_are_refused() {
    let bench = Bench::start().await;
    bench.fake.answer("/v2/f/manifests/loop", |_| redirect("/v2/f/manifests/loop"));
    assert!(bench.refusal("f:loop").await.contains("more than 5 redirects"));
    assert_eq!(bench.fake.paths().len(), 6);
    for aim in ["file:///etc/passwd", "ftp://x/", "http://", "http://me:pw@127.0.0.1/", "data:,x"] {
        bench.fake.answer("/v2/f/manifests/v1", move |_| redirect(aim));
        assert!(bench.refusal("f:v1").await.starts_with("refused-redirect: "), "{aim}");
    }
    bench.fake.answer("/v2/f/manifests/v1", |_| status(302));
    assert!(bench.refusal("f:v1").await.starts_with("refused-redirect: "));
}

#[tokio::test]
async fn an_encrypted_registry_does_not_lead_to_an_unencrypted_place() {
    crate::bench::install_provider();
    let storage = FakeRegistry::start().await;
    let bench = Bench::with(FakeRegistry::start_tls().await, |config, fake, _| {
        config.skip_tls_verification.push(fake.address.to_string().parse().unwrap());
    });
    let aim = format!("http://{}/blob", storage.address);
    bench.fake.answer("/v2/f/manifests/v1", move |_| redirect(&aim));
    let refusal = bench.refusal("f:v1").await;
    assert!(refusal.starts_with("refused-redirect: ") && refusal.contains("not encrypted"), "{refusal}");
    assert!(storage.paths().is_empty());
}

#[tokio::test]
async fn trouble_of_the_registry_is_told_from_that_of_the_user() {
    let bench = Bench::start().await;
    for (code, expected) in [
        (500, "registry-unavailable: "),
        (503, "registry-unavailable: "),
        (429, "registry-unavailable: "),
        (403, "unauthorized: "),
        (418, "registry-refused: "),
    ] {
        bench.fake.answer("/v2/f/manifests/v1", move |_| status(code));
        assert!(bench.refusal("f:v1").await.starts_with(expected), "{code}");
    }
}
