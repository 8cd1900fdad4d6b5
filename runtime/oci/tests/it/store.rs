use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use runtime_api::{ArtifactKind, Body, ImageReference, ModuleCommand, full};
use runtime_oci::{ArtifactSource, ArtifactStore, PullPolicy, Registry, RegistryConfig};

use crate::{
    bench::Bench,
    fake::{digest, endless},
    images::{COMPONENT, MODULE, module_of},
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn uploads_are_kept_by_digest_and_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 1 << 20).unwrap();
    let stored = store.insert(full(COMPONENT)).await.unwrap();
    assert_eq!((stored.digest.to_string(), stored.kind), (digest(COMPONENT), ArtifactKind::Component));
    assert_eq!(store.insert(full(COMPONENT)).await.unwrap(), stored, "a second time changes nothing");

    let reopened = ArtifactStore::open(folder.path(), 1 << 20).unwrap();
    assert_eq!(reopened.get(&stored.digest), Some(stored));
    assert_eq!(reopened.get(&digest(MODULE).parse().unwrap()), None);
    assert_eq!(fs::metadata(folder.path().join("modules")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn uploads_that_cannot_be_kept_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 1000).unwrap();
    let broken = || Body::new(BrokenOff(false).boxed_unsync());
    for (body, expected) in [
        (full(module_of(1001)), "too-large"),
        (endless(false), "not-wasm"),
        (full("(module)"), "not-wasm"),
        (full(""), "not-wasm"),
        (broken(), "cut-off"),
    ] {
        assert_eq!(store.insert(body).await.unwrap_err().code(), expected);
    }
    for name in ["modules", "manifests", "tmp"] {
        assert_eq!(fs::read_dir(folder.path().join(name)).unwrap().count(), 0, "{name}");
    }
    assert!(store.insert(full(module_of(1000))).await.is_ok());
}

#[tokio::test]
async fn opening_sweeps_what_was_left_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let stored = ArtifactStore::open(folder.path(), 1000).unwrap().insert(full(MODULE)).await.unwrap();
    fs::write(folder.path().join("tmp/.tmp123"), "half").unwrap();
    fs::write(folder.path().join("manifests/.write-1.tmp"), "half").unwrap();

    let store = ArtifactStore::open(folder.path(), 1000).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path().join("manifests")).unwrap().count(), 0);
    assert_eq!(store.get(&stored.digest), Some(stored));
}

#[tokio::test]
async fn collecting_spares_what_is_kept_and_what_is_young() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 1000).unwrap();
    let kept = store.insert(full(MODULE)).await.unwrap();
    let dropped = store.insert(full(COMPONENT)).await.unwrap();
    let keep = HashSet::from([kept.digest]);

    assert_eq!(store.retain(&keep, HOUR).unwrap(), 0);
    assert!(store.get(&dropped.digest).is_some());
    assert_eq!(store.retain(&keep, Duration::ZERO).unwrap(), COMPONENT.len() as u64);
    assert!(store.get(&dropped.digest).is_none() && store.get(&kept.digest).is_some());
}

#[tokio::test]
async fn a_damaged_module_is_as_good_as_none_and_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 1000).unwrap();
    let stored = store.insert(full(MODULE)).await.unwrap();
    fs::remove_file(&stored.path).unwrap();
    fs::write(&stored.path, "nothing").unwrap();
    assert_eq!(store.get(&stored.digest), None);
    assert_eq!(store.insert(full(MODULE)).await.unwrap(), stored);
    assert_eq!(store.get(&stored.digest), Some(stored));
}

#[tokio::test]
async fn a_module_found_damaged_is_fetched_anew() {
    let bench = Bench::start().await;
    bench.fake.artifact("hello", "v1", MODULE);
    let artifact = bench.fetch("hello:v1").await.unwrap();
    fs::remove_file(&artifact.path).unwrap();
    fs::write(&artifact.path, MODULE.iter().map(|_| 0).collect::<Vec<u8>>()).unwrap();
    bench.store.discard(&artifact.digest).unwrap();
    bench.store.discard(&artifact.digest).unwrap();
    assert_eq!(bench.store.get(&artifact.digest), None);
    assert_eq!(bench.fetch("hello:v1").await.unwrap(), artifact);
    assert_eq!(fs::read(&artifact.path).unwrap(), MODULE);
}

/// A body whose connection breaks in the middle.
struct BrokenOff(bool);

impl hyper::body::Body for BrokenOff {
    type Data = Bytes;
    type Error = runtime_api::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(Some(match std::mem::replace(&mut self.0, true) {
            false => Ok(hyper::body::Frame::data(Bytes::from_static(MODULE))),
            true => Err("connection reset".into()),
        }))
    }
}

#[tokio::test]
async fn a_module_with_a_command_has_a_digest_of_its_own_and_is_kept_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::open(folder.path(), 1000).unwrap();
    let module = store.insert(full(MODULE)).await.unwrap();
    let command = ModuleCommand { args: vec!["--fast".into()], env: vec![("A".into(), "b=c".into())] };
    let digest = store.with_command(&module, command.clone()).await.unwrap();
    assert_ne!(digest, module.digest);
    assert_eq!(store.with_command(&module, command.clone()).await.unwrap(), digest);
    assert_eq!(store.with_command(&module, ModuleCommand::default()).await.unwrap(), module.digest);

    store.retain(&HashSet::from([digest]), Duration::ZERO).unwrap();
    crate::bench::install_provider();
    let registry = Registry::new(RegistryConfig::default(), store.clone()).unwrap();
    let fetched = registry.fetch(&ImageReference::local(digest), PullPolicy::IfNotPresent, &|_| {}).await;
    let found = fetched.unwrap().artifact;
    assert_eq!((found.digest, found.args, found.env), (module.digest, command.args, command.env));

    store.retain(&HashSet::new(), Duration::ZERO).unwrap();
    assert_eq!(
        registry
            .fetch(&ImageReference::local(digest), PullPolicy::IfNotPresent, &|_| {})
            .await
            .unwrap_err()
            .code(),
        "image-not-found"
    );
    let bad = ModuleCommand { args: vec!["\0".into()], env: Vec::new() };
    assert_eq!(store.with_command(&module, bad).await.unwrap_err().code(), "invalid-command");
}
