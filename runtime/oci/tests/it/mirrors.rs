//! Where an image is looked for: mirrors in their order, the registry, and registries for names without one.

use std::time::Duration;

use reqwest::Url;
use runtime_oci::{ArtifactStore, PullPolicy, Registry, RegistryConfig};

use crate::{
    bench::Bench,
    fake::{FakeRegistry, challenge, digest, endless, status},
    images::{COMPONENT, MODULE},
    raw::{RawServer, Reply},
};

/// A client of a registry with mirrors, given by their addresses.
async fn mirrored(mirrors: &[String], log_in: bool) -> Bench {
    Bench::with(FakeRegistry::start().await, |config, fake, folder| {
        config.plain_http.push(fake.address.to_string().parse().unwrap());
        let mirror =
            |mirror: &String| (fake.address.to_string(), Url::parse(&format!("http://{mirror}")).unwrap());
        config.mirrors = mirrors.iter().map(mirror).collect();
        if log_in {
            let file = folder.join("config.json");
            let auths = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, fake.address);
            std::fs::write(&file, auths).unwrap();
            config.auth_file = Some(file);
        }
    })
}

#[tokio::test]
async fn the_first_mirror_that_has_an_image_gives_it() {
    let (first, second) = (FakeRegistry::start().await, FakeRegistry::start().await);
    second.artifact("hub/me/hello", "v1", MODULE);
    let bench = mirrored(&[first.address.to_string(), format!("{}/hub", second.address)], false).await;
    let fetched = bench.fetch_as(&bench.fake.image("me/hello:v1"), PullPolicy::Always).await.unwrap();
    assert_eq!(first.paths(), ["/v2/me/hello/manifests/v1"]);
    assert!(bench.fake.paths().is_empty(), "the registry itself is not needed");
    // It goes by its own name, wherever it came from.
    assert_eq!(fetched.image.registry, bench.fake.address.to_string());
}

#[tokio::test]
async fn a_mirror_that_is_no_use_is_passed_over() {
    let gone = FakeRegistry::start().await;
    let address = gone.address.to_string();
    gone.stop().await;
    let (failing, refusing, html) =
        (FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await);
    failing.guard(|_| Some(status(503)));
    refusing.guard(|_| Some(challenge("Basic realm=\"here\"")));
    html.guard(|_| {
        let page = http::Response::builder().header("content-type", "text/html; charset=utf-8");
        Some(page.body(runtime_api::full("<html>")).unwrap())
    });
    let fakes = [&failing, &refusing, &html].map(|fake| fake.address.to_string());
    let bench = mirrored(&[&[address][..], &fakes].concat(), false).await;
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(failing.paths().len(), 1, "nobody waits for a mirror");

    let refusal = refusal_beside(&bench, "hello:v2").await;
    assert!(refusal.starts_with("image-not-found: ") && refusal.contains("before that, "), "{refusal}");
    assert!(
        refusal.contains("503") && refusal.contains("refused") && refusal.contains("web page"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_mirror_that_breaks_off_is_passed_over_too() {
    let mirror = FakeRegistry::start().await;
    mirror.artifact("hello", "v1", MODULE);
    mirror.answer(format!("/v2/hello/blobs/{}", digest(MODULE)), |_| status(502));
    let bench = mirrored(&[mirror.address.to_string()], false).await;
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(mirror.paths().iter().filter(|path| path.contains("/blobs/")).count(), 3, "it had promised");
}

#[tokio::test]
async fn a_mirror_that_lies_is_told_of() {
    let mirror = FakeRegistry::start().await;
    mirror.artifact("hello", "v1", MODULE);
    mirror.serve_at(format!("/v2/hello/blobs/{}", digest(MODULE)), COMPONENT);
    let bench = mirrored(&[mirror.address.to_string()], false).await;
    let pinned = bench.fake.artifact("hello", "v1", MODULE);
    assert!(bench.refusal("hello:v1").await.starts_with("wrong-digest: "));
    let other = mirror.artifact("hello", "v2", COMPONENT);
    assert_ne!(pinned, other);
    mirror.serve_at(format!("/v2/hello/manifests/{pinned}"), "{}");
    assert!(bench.refusal(&format!("hello@{pinned}")).await.starts_with("wrong-digest: "));
    assert!(bench.fake.paths().is_empty(), "a lie is not passed over in silence");
}

#[tokio::test]
async fn a_mirror_gets_no_credentials_of_the_registry() {
    let wants = "HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"all of it\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let mirror = RawServer::start(move |_, _| Reply::new(wants)).await;
    let bench = mirrored(&[mirror.address.to_string()], true).await;
    bench.fake.guard(|seen| seen.authorization.is_none().then(|| challenge("Basic realm=\"here\"")));
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    let heard = mirror.heard().join("").to_ascii_lowercase();
    assert!(heard.contains("/v2/hello/manifests/v1"), "{heard}");
    assert!(!heard.contains("authorization") && !heard.contains("bwu6c2vjcmv0"), "{heard}");
}

#[tokio::test]
async fn a_registry_that_is_not_to_be_asked_is_not() {
    let mirror = FakeRegistry::start().await;
    let bench = Bench::with(FakeRegistry::start().await, |config, fake, _| {
        config.plain_http.push(fake.address.to_string().parse().unwrap());
        let url = Url::parse(&format!("http://{}", mirror.address)).unwrap();
        config.mirrors.push((fake.address.to_string(), url));
        config.mirrors_only.push(fake.address.to_string());
    });
    bench.fake.artifact("hello", "v1", MODULE);
    assert!(bench.refusal("hello:v1").await.starts_with("image-not-found: "));
    assert!(bench.fake.paths().is_empty());

    let config = RegistryConfig { mirrors_only: vec!["ghcr.io".into()], ..RegistryConfig::default() };
    let error = Registry::new(config, bench.store.clone()).err().unwrap();
    assert!(error.to_string().contains("ghcr.io") && error.to_string().contains("no mirror"), "{error}");
}

/// A client that looks for short names in the first registry and then in its own.
async fn two_registries() -> (FakeRegistry, Bench) {
    let first = FakeRegistry::start().await;
    let bench = Bench::with(FakeRegistry::start().await, |config, fake, _| {
        for address in [first.address, fake.address] {
            config.plain_http.push(address.to_string().parse().unwrap());
            config.short_names.push(address.to_string());
        }
    });
    (first, bench)
}

#[tokio::test]
async fn a_short_name_is_looked_for_in_order() {
    let (first, bench) = two_registries().await;
    bench.fake.artifact("hello", "v1", MODULE);
    let fetched = bench.fetch_as("hello:v1", PullPolicy::Always).await.unwrap();
    assert_eq!(first.paths(), ["/v2/hello/manifests/v1"]);
    assert_eq!(fetched.image.registry, bench.fake.address.to_string(), "where it was found is told");

    first.artifact("hello", "v1", COMPONENT);
    let fetched = bench.fetch_as("hello:v1", PullPolicy::Always).await.unwrap();
    assert_eq!(fetched.image.registry, first.address.to_string());

    let error = bench.fetch_elsewhere("other:v1").await.unwrap_err();
    let both = [first.address, bench.fake.address].map(|address| address.to_string());
    assert!(both.iter().all(|address| error.to_string().contains(address)), "{error}");
}

#[tokio::test]
async fn nobody_else_s_image_takes_the_place_of_one_whose_registry_is_down() {
    let (first, bench) = two_registries().await;
    bench.fake.artifact("hello", "v1", MODULE);
    first.guard(|_| Some(status(503)));
    assert_eq!(bench.fetch_elsewhere("hello:v1").await.unwrap_err().code(), "registry-unavailable");
    assert!(bench.fake.paths().is_empty());
}

#[tokio::test]
async fn only_a_registry_without_the_image_leads_to_the_next() {
    let (first, bench) = two_registries().await;
    bench.fake.artifact("hello", "v1", MODULE);
    first.artifact("hello", "v1", MODULE);
    first.answer(format!("/v2/hello/blobs/{}", digest(MODULE)), |_| status(404));
    assert_eq!(bench.fetch_elsewhere("hello:v1").await.unwrap_err().code(), "image-not-found");
    first.guard(|_| Some(challenge("Basic realm=\"here\"")));
    assert_eq!(bench.fetch_elsewhere("hello:v1").await.unwrap_err().code(), "unauthorized");
    assert!(bench.fake.paths().is_empty());
}

#[tokio::test]
async fn what_is_here_of_a_later_registry_does_not_come_before_the_first() {
    let (first, bench) = two_registries().await;
    bench.fake.artifact("hello", "v1", MODULE);
    let later = bench.fetch_as("hello:v1", PullPolicy::IfNotPresent).await.unwrap();
    first.artifact("hello", "v1", COMPONENT);
    let fetched = bench.fetch_as("hello:v1", PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(fetched.image.registry, first.address.to_string());
    assert_ne!(fetched.artifact.digest, later.artifact.digest);
    first.stop().await;
    assert_eq!(bench.fetch_as("hello:v1", PullPolicy::IfNotPresent).await.unwrap(), fetched);
}

#[tokio::test]
async fn a_mirror_does_not_use_up_the_time_of_the_registry() {
    let mirror = FakeRegistry::start().await;
    mirror.answer("/v2/hello/manifests/v1", |_| http::Response::new(endless(true)));
    let bench = Bench::with(FakeRegistry::start().await, |config, fake, _| {
        config.plain_http.push(fake.address.to_string().parse().unwrap());
        let url = Url::parse(&format!("http://{}", mirror.address)).unwrap();
        config.mirrors.push((fake.address.to_string(), url));
        (config.timeouts.total, config.timeouts.stall) = (Duration::from_secs(3), Duration::from_secs(60));
    });
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(mirror.paths().len(), 1);
}

#[test]
fn a_registry_is_the_same_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 4096).unwrap();
    let mirrors = vec![("GHCR.io:443".into(), Url::parse("http://mirror").unwrap())];
    let config =
        RegistryConfig { mirrors, mirrors_only: vec!["ghcr.io.".into()], ..RegistryConfig::default() };
    Registry::new(config, store).unwrap();
}

/// What is said of an image, where another is already there.
async fn refusal_beside(bench: &Bench, image: &str) -> String {
    let error = bench.fetch(image).await.unwrap_err();
    format!("{}: {error}", error.code())
}
