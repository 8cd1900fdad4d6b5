use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt, sync::Mutex, time::Duration};

use runtime_api::{ArtifactKind, Digest, ImageReference, full};
use runtime_oci::{ArtifactSource, Progress, PullPolicy};
use serde_json::json;

use crate::{
    bench::Bench,
    fake::{FakeRegistry, digest, redirect},
    images::{COMPONENT, MODULE, TAR, config, gzip, manifest, module_of, tar, zstd},
};

#[tokio::test]
async fn an_artifact_becomes_a_file_under_its_own_digest() {
    let bench = Bench::start().await;
    let module = module_of(500_000);
    bench.fake.artifact("hello", "v1", &module);

    let artifact = bench.fetch("hello:v1").await.unwrap();

    assert_eq!(artifact.digest.to_string(), digest(&module));
    assert_eq!((artifact.size_bytes, artifact.kind), (500_000, ArtifactKind::Module));
    assert_eq!(fs::read(&artifact.path).unwrap(), module);
    assert_eq!(fs::metadata(&artifact.path).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(bench.store.get(&artifact.digest).unwrap(), artifact);
}

#[tokio::test]
async fn a_component_is_told_by_its_bytes_and_not_by_its_configuration() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", COMPONENT);
    assert_eq!(bench.fetch("hello:v1").await.unwrap().kind, ArtifactKind::Component);
}

#[tokio::test]
async fn a_second_pull_moves_no_layer_and_a_pinned_one_asks_for_nothing() {
    let bench = Bench::start().await;
    let pinned = bench.fake.artifact("hello", "v1", MODULE);
    let first = bench.fetch("hello:v1").await.unwrap();
    bench.fake.forget_requests();

    assert_eq!(bench.fetch("hello:v1").await.unwrap(), first);
    assert_eq!(bench.fake.paths(), ["/v2/hello/manifests/v1"]);
    assert_eq!(bench.fetch(&format!("hello@{pinned}")).await.unwrap(), first);
    assert_eq!(bench.fake.paths().len(), 1);
}

#[tokio::test]
async fn a_tag_that_moved_leads_to_the_new_module_and_a_digest_to_the_old() {
    let bench = Bench::start().await;
    let old = bench.fake.artifact("hello", "v1", MODULE);
    bench.fake.artifact("hello", "v1", COMPONENT);
    assert_eq!(bench.fetch("hello:v1").await.unwrap().kind, ArtifactKind::Component);
    assert_eq!(bench.fetch(&format!("hello:v1@{old}")).await.unwrap().kind, ArtifactKind::Module);
}

#[tokio::test]
async fn a_module_that_was_collected_is_pulled_again() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();

    assert_eq!(bench.store.retain(&HashSet::new(), Duration::ZERO).unwrap(), MODULE.len() as u64);
    assert!(bench.files().is_empty());
    assert!(bench.fetch("hello:v1").await.unwrap().path.is_file());
}

#[tokio::test]
async fn many_who_want_one_image_share_one_pull() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", &module_of(300_000));
    let fetch = || bench.fetch("hello:v1");
    let (first, second, third, fourth) = tokio::join!(fetch(), fetch(), fetch(), fetch());
    let first = first.unwrap();
    for other in [second, third, fourth] {
        assert_eq!(other.unwrap(), first);
    }
    assert_eq!(bench.fake.paths().iter().filter(|path| path.contains("/blobs/")).count(), 1);
}

#[tokio::test]
async fn progress_ends_at_the_whole() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", &module_of(300_000));
    let seen = Mutex::new(Vec::new());
    let image = ImageReference::parse(&bench.fake.image("hello:v1")).unwrap();
    bench
        .registry
        .fetch(&image, PullPolicy::Always, &|progress| seen.lock().unwrap().push(progress))
        .await
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(*seen.last().unwrap(), Progress { bytes_done: 300_000, bytes_total: 300_000 });
    assert!(seen.is_sorted_by_key(|progress| progress.bytes_done));
}

#[tokio::test]
async fn the_entrypoint_of_a_docker_image_is_the_module() {
    let bench = Bench::start().await;
    let layer = tar(&[("etc/passwd", b"root"), ("hello.wasm", MODULE)]);
    for (tag, layer) in [("plain", layer.clone()), ("gzip", gzip(&layer)), ("zstd", zstd(&layer))] {
        bench.fake.docker_image("hello", tag, &["/hello.wasm", "--fast"], &[layer]);
        let artifact = bench.fetch(&format!("hello:{tag}")).await.unwrap();
        assert_eq!(artifact.digest.to_string(), digest(MODULE), "{tag}");
        assert_eq!(artifact.args, ["--fast"]);
        assert_eq!(artifact.env, [("PATH".into(), "/bin".into()), ("A".into(), "b".into())]);
        assert_eq!(bench.fetch(&format!("hello:{tag}")).await.unwrap(), artifact, "as remembered");
    }
    // The module lies there once, and not in any archive.
    assert_eq!(
        bench
            .files()
            .iter()
            .filter(|path| path.ends_with(format!("{}.wasm", digest(MODULE).replace(':', "-"))))
            .count(),
        1
    );
}

#[tokio::test]
async fn the_topmost_layer_that_knows_the_module_counts() {
    let bench = Bench::start().await;
    let (base, top) = (gzip(&tar(&[("app/f.wasm", MODULE)])), gzip(&tar(&[("app/f.wasm", COMPONENT)])));
    let beside = gzip(&tar(&[("etc/motd", b"hi")]));
    bench.fake.docker_image("f", "replaced", &["/app/f.wasm"], &[base.clone(), top, beside.clone()]);
    assert_eq!(bench.fetch("f:replaced").await.unwrap().kind, ArtifactKind::Component);
    assert!(!bench.fake.paths().iter().any(|path| path.ends_with(&digest(&base))), "the base is not needed");

    let whiteout = gzip(&tar(&[("app/.wh.f.wasm", b"")]));
    bench.fake.docker_image("f", "removed", &["/app/f.wasm"], &[base.clone(), whiteout]);
    let error = bench.fetch("f:removed").await.unwrap_err();
    assert!(error.to_string().contains("no file /app/f.wasm"), "{error}");

    let back = gzip(&tar(&[("app/.wh..wh..opq", b""), ("app/f.wasm", MODULE)]));
    bench.fake.docker_image("f", "back", &["/app/f.wasm"], &[base, back, beside]);
    assert_eq!(bench.fetch("f:back").await.unwrap().kind, ArtifactKind::Module);
}

#[tokio::test]
async fn an_index_leads_to_its_wasm_and_never_to_an_attestation() {
    let bench = Bench::start().await;
    let fake = &bench.fake;
    let image = |module: &[u8]| {
        let config = fake.blob("f", crate::images::IMAGE_CONFIG, &config(&["/f.wasm"]));
        let manifest = manifest(&config, &[fake.blob("f", TAR, &gzip(&tar(&[("f.wasm", module)])))]);
        fake.tag("f", &digest(&manifest), &manifest);
        manifest
    };
    let (native, wasm) = (image(MODULE), image(COMPONENT));
    let entries = [("unknown", "unknown", &*native), ("linux", "amd64", &*native), ("wasi", "wasm", &*wasm)];
    fake.index("f", "v1", &entries);
    assert_eq!(bench.fetch("f:v1").await.unwrap().kind, ArtifactKind::Component);
    fake.index("f", "v2", &[("linux", "amd64", &*native)]);
    assert_eq!(bench.fetch("f:v2").await.unwrap().kind, ArtifactKind::Module);
}

#[tokio::test]
async fn blobs_may_lie_elsewhere() {
    let (bench, storage) = (Bench::start().await, FakeRegistry::start().await);
    bench.fake.artifact("hello", "v1", MODULE);
    storage.serve_at("/bucket/blob", MODULE);
    let elsewhere = format!("http://{}/bucket/blob?signature=x", storage.address);
    bench.fake.answer(format!("/v2/hello/blobs/{}", digest(MODULE)), move |_| redirect(&elsewhere));
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(storage.paths(), ["/bucket/blob?signature=x"]);
}

#[tokio::test]
async fn local_modules_need_no_registry() {
    let Bench { fake, registry, store, folder: _folder } = Bench::start().await;
    fake.stop().await;
    let stored = store.insert(full(MODULE)).await.unwrap();
    let fetched =
        registry.fetch(&ImageReference::local(stored.digest), PullPolicy::Always, &|_| {}).await.unwrap();
    assert_eq!(fetched.artifact, stored);

    let missing = ImageReference::local(Digest([7; 32]));
    assert_eq!(
        registry.fetch(&missing, PullPolicy::Always, &|_| {}).await.unwrap_err().code(),
        "image-not-found"
    );
}

#[tokio::test]
async fn a_registry_that_is_down_is_unavailable_and_says_why() {
    let Bench { fake, registry, .. } = Bench::start().await;
    let image = ImageReference::parse(&fake.image("hello:v1")).unwrap();
    fake.stop().await;
    let error = registry.fetch(&image, PullPolicy::Always, &|_| {}).await.unwrap_err();
    assert_eq!(error.code(), "registry-unavailable");
    assert!(error.to_string().starts_with(&format!("image {image}: ")), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn unverified_certificates_must_be_allowed_by_name() {
    crate::bench::install_provider();
    let bench = Bench::with(FakeRegistry::start_tls().await, |config, fake, _| {
        config.skip_tls_verification.push(fake.address.to_string().parse().unwrap());
    });
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();

    let strict = Bench::with(FakeRegistry::start_tls().await, |_, _, _| {});
    strict.fake.artifact("hello", "v1", MODULE);
    let error = strict.fetch("hello:v1").await.unwrap_err();
    assert_eq!(error.code(), "registry-unavailable");
    for flag in ["insecure-registry", "skip-tls-verify"] {
        assert!(error.to_string().contains(&format!("`--{flag} {}`", strict.fake.address)), "{error}");
    }
    assert!(strict.fake.paths().is_empty());
}

#[tokio::test]
async fn layers_named_by_other_addresses_are_not_fetched_from_there() {
    let (bench, other) = (Bench::start().await, FakeRegistry::start().await);
    let config = bench.fake.blob("f", crate::images::CNCF_CONFIG, b"{}");
    let mut layer = crate::images::descriptor(crate::images::WASM, MODULE);
    layer["urls"] = json!([format!("http://{}/blob", other.address)]);
    bench.fake.tag("f", "v1", &manifest(&config, &[layer]));
    assert!(bench.refusal("f:v1").await.starts_with("image-not-found: "));
    assert!(other.paths().is_empty());
}
