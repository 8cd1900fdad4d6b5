//! When a registry is asked, and what is known without it.

use std::{collections::HashSet, time::Duration};

use runtime_api::{ArtifactKind, ImageReference};
use runtime_oci::{ArtifactSource, ArtifactStore, PullPolicy, Registry, RegistryConfig};

use crate::{
    bench::{Bench, MAX_MODULE_BYTES},
    images::{COMPONENT, MODULE},
};

#[tokio::test]
async fn a_tag_keeps_its_meaning_unless_it_is_asked_for() {
    let bench = Bench::start().await;
    let image = bench.fake.image("hello:v1");
    let first = bench.fake.artifact("hello", "v1", MODULE);
    let fetched = bench.fetch_as(&image, PullPolicy::IfNotPresent).await.unwrap();
    assert_eq!(fetched.image.to_string(), bench.fake.image(&format!("hello@{first}")));

    let second = bench.fake.artifact("hello", "v1", COMPONENT);
    bench.fake.forget_requests();
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
        assert_eq!(bench.fetch_as(&image, policy).await.unwrap(), fetched);
    }
    assert!(bench.fake.paths().is_empty());
    let asked = bench.fetch_as(&image, PullPolicy::Always).await.unwrap();
    assert_eq!(asked.artifact.kind, ArtifactKind::Component);
    assert_eq!(asked.image.digest.unwrap().to_string(), second);
    assert_eq!(bench.fetch_as(&image, PullPolicy::Never).await.unwrap(), asked, "from then on");
}

#[tokio::test]
async fn what_is_known_of_tags_outlasts_the_process_and_the_registry() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", MODULE);
    let image = ImageReference::parse(&bench.fake.image("hello:v1")).unwrap();
    let fetched = bench.registry.fetch(&image, PullPolicy::Always, &|_| {}).await.unwrap();
    let Bench { fake, registry, store, folder } = bench;
    fake.stop().await;
    drop((registry, store));
    let store = ArtifactStore::open(folder.path(), MAX_MODULE_BYTES).unwrap();
    let registry = Registry::new(RegistryConfig::default(), store).unwrap();
    assert_eq!(registry.fetch(&image, PullPolicy::Never, &|_| {}).await.unwrap(), fetched);
}

#[tokio::test]
async fn never_means_never() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", MODULE);
    let error = bench.fetch_as(&bench.fake.image("hello:v1"), PullPolicy::Never).await.unwrap_err();
    assert_eq!(error.code(), "image-not-present");
    assert!(error.to_string().contains("Never") && error.to_string().contains("hello:v1"), "{error}");
    assert!(bench.fake.paths().is_empty() && bench.files().is_empty());
}

#[tokio::test]
async fn a_tag_whose_module_was_collected_is_forgotten() {
    let bench = Bench::start().await;
    let image = bench.fake.image("hello:v1");
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    bench.store.retain(&HashSet::new(), Duration::ZERO).unwrap();
    assert!(bench.files().is_empty());
    assert_eq!(bench.fetch_as(&image, PullPolicy::Never).await.unwrap_err().code(), "image-not-present");
    bench.fetch_as(&image, PullPolicy::IfNotPresent).await.unwrap();
}

#[test]
fn policies_are_kubernetes_s() {
    for (text, policy) in [
        ("Always", PullPolicy::Always),
        ("IfNotPresent", PullPolicy::IfNotPresent),
        ("ifnotpresent", PullPolicy::IfNotPresent),
        ("Never", PullPolicy::Never),
    ] {
        assert_eq!(text.parse::<PullPolicy>().unwrap(), policy);
    }
    assert!("Sometimes".parse::<PullPolicy>().unwrap_err().to_string().contains("IfNotPresent"));
}
