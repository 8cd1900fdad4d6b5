//! Image layouts that are written here, and read back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use runtime_api::{Artifact, ImageReference, LayoutForm, ModuleCommand, Result};
use runtime_oci::{ArtifactStore, ModuleDescription, read_layout, write_layout};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    bench::MAX_MODULE_BYTES,
    fake::digest,
    images::{COMPONENT, MODULE, module_of},
    push::{component, module},
};

struct Place {
    folder: TempDir,
    store: ArtifactStore,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(&folder.path().join("store"), MAX_MODULE_BYTES).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self, name: &str) -> ImageReference {
        ImageReference::parse(&format!("oci:{}", self.path(name).display())).unwrap()
    }

    async fn write(&self, name: &str, module: &[u8], about: &ModuleDescription) -> Result<String> {
        let written = write_layout(&self.image(name), Bytes::copy_from_slice(module), about).await;
        written.map(|digest| digest.to_string())
    }

    async fn refusal(&self, name: &str, module: &[u8], about: &ModuleDescription) -> String {
        let error = self.write(name, module, about).await.expect_err(name);
        format!("{}: {error}", error.code())
    }

    async fn read(&self, name: &str) -> Result<Artifact> {
        read_layout(&self.image(name), LayoutForm::Folder, &self.store).await
    }

    async fn module_of(&self, name: &str) -> String {
        self.read(name).await.unwrap().digest.to_string()
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_written_is_read_and_lies_as_the_specification_says() {
    let place = Place::new();
    let written = place.write("deep/down/app:hello", COMPONENT, &component()).await.unwrap();
    assert_eq!(place.module_of("deep/down/app:hello").await, digest(COMPONENT));
    let app = place.path("deep/down/app");
    assert_eq!(json_of(&app.join("oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
    let blob = |digest: &str| app.join("blobs").join(digest.replace(':', "/"));
    let size = fs::metadata(blob(&written)).unwrap().len();
    let entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": written,
        "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "hello"},
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    assert_eq!(json_of(&app.join("index.json")), index);
    let manifest = json_of(&blob(&written));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "hello.wasm");
    let config = json_of(&blob(manifest["config"]["digest"].as_str().unwrap()));
    assert_eq!((&config["os"], &config["layerDigests"]), (&json!("wasip2"), &json!([digest(COMPONENT)])));
    let mut names: Vec<_> =
        fs::read_dir(&app).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"], "nothing else is left");
}

#[tokio::test]
async fn a_tag_is_replaced_and_the_others_stay() {
    let place = Place::new();
    let (old, new) = (module_of(1000), module_of(2000));
    for (name, bytes) in [("app:v1", &old), ("app", &old), ("app:v2", &old), ("app:v1", &new)] {
        place.write(name, bytes, &module()).await.unwrap();
    }
    for (name, bytes) in [("app:v1", &new), ("app:v2", &old), ("app:latest", &old)] {
        assert_eq!(place.module_of(name).await, digest(bytes), "{name}");
    }
    assert_eq!(json_of(&place.path("app/index.json"))["manifests"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_same_module_is_written_once() {
    let place = Place::new();
    let command = ModuleCommand { args: vec!["--fast".into()], ..ModuleCommand::default() };
    let blobs = place.path("app/blobs/sha256");
    for about in [module(), ModuleDescription { command, ..module() }] {
        let first = place.write("app:v1", MODULE, &about).await.unwrap();
        let count = fs::read_dir(&blobs).unwrap().count();
        assert_eq!(place.write("app:v1", MODULE, &about).await.unwrap(), first);
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), count);
    }
}

#[tokio::test]
async fn what_a_killed_writer_left_is_finished_or_removed() {
    let place = Place::new();
    let app = place.path("app");
    for (missing, left) in [
        (&["oci-layout", "index.json", "blobs"][..], &[".write-a.tmp"][..]),
        (&["oci-layout", "index.json"], &["blobs/sha256/.write-a.tmp", ".write-b.tmp"]),
        (&["oci-layout"], &[".write-a.tmp"]),
        (&[], &["blobs/sha256/.write-a.tmp"]),
    ] {
        place.write("app:old", MODULE, &module()).await.unwrap();
        for path in missing.iter().map(|name| app.join(name)) {
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        for name in left {
            fs::write(app.join(name), "{").unwrap();
        }
        place.write("app:new", MODULE, &module()).await.unwrap();
        assert_eq!(place.module_of("app:new").await, digest(MODULE), "{missing:?}");
        let names_old = !missing.contains(&"index.json");
        assert_eq!(place.read("app:old").await.is_ok(), names_old, "{missing:?}");
        assert!(!left.iter().any(|name| app.join(name).exists()), "{missing:?}");
        fs::remove_dir_all(&app).unwrap();
    }
}

#[tokio::test]
async fn a_module_keeps_its_command() {
    let place = Place::new();
    let command =
        ModuleCommand { args: vec!["--fast".into(), "a b".into()], env: vec![("A".into(), "b=c".into())] };
    let about = ModuleDescription { command: command.clone(), ..module() };
    place.write("app:v1", MODULE, &about).await.unwrap();
    let artifact = place.read("app:v1").await.unwrap();
    assert_eq!(artifact.digest.to_string(), digest(MODULE));
    assert_eq!((artifact.args, artifact.env), (command.args, command.env));
}

#[tokio::test]
async fn writers_at_once_lose_nothing() {
    const WRITERS: usize = 16;
    let place = Place::new();
    let modules: Vec<_> = (0..WRITERS).map(|number| module_of(1000 + number)).collect();
    let names: Vec<_> = (0..WRITERS).map(|number| format!("app:f{number}")).collect();
    let mut writers = JoinSet::new();
    for (name, bytes) in names.iter().zip(&modules) {
        let (image, bytes) = (place.image(name), Bytes::from(bytes.clone()));
        writers.spawn(async move { write_layout(&image, bytes, &module()).await });
    }
    for written in writers.join_all().await {
        written.unwrap();
    }
    for (name, module) in names.iter().zip(&modules) {
        assert_eq!(place.module_of(name).await, digest(module), "{name}");
    }
}

#[tokio::test]
async fn a_damaged_blob_is_mended() {
    let place = Place::new();
    place.write("app:v1", MODULE, &module()).await.unwrap();
    let blob = place.path("app/blobs").join(digest(MODULE).replace(':', "/"));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[4] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    assert!(place.read("app:v1").await.is_err());
    place.write("app:v1", MODULE, &module()).await.unwrap();
    assert_eq!(place.module_of("app:v1").await, digest(MODULE));
}

#[tokio::test]
async fn what_cannot_be_written_to_is_refused_and_left_as_it_is() {
    let place = Place::new();
    fs::create_dir(place.path("home")).unwrap();
    fs::write(place.path("home/letter"), "dear").unwrap();
    fs::write(place.path("file"), "").unwrap();
    fs::create_dir(place.path("site")).unwrap();
    fs::write(place.path("site/index.json"), "{}").unwrap();
    for (name, layout, index) in [
        ("future", r#"{"imageLayoutVersion":"2.0.0"}"#, "{}"),
        ("broken", r#"{"imageLayoutVersion":"1.0.0"}"#, "{"),
        ("image", r#"{"imageLayoutVersion":"1.0.0"}"#, r#"{"schemaVersion":2,"config":{},"layers":[]}"#),
    ] {
        fs::create_dir(place.path(name)).unwrap();
        fs::write(place.path(name).join("oci-layout"), layout).unwrap();
        fs::write(place.path(name).join("index.json"), index).unwrap();
    }
    for (name, expected) in [
        ("home:v1", "has other things in it"),
        ("site:v1", "has other things in it"),
        ("file:v1", "cannot be written"),
        ("future:v1", "version 2.0.0"),
        ("broken:v1", "cannot be read"),
        ("image:v1", "invalid-manifest"),
        ("app:a..b", "cannot be called"),
    ] {
        let refusal = place.refusal(name, MODULE, &module()).await;
        assert!(refusal.contains(expected) && refusal.contains("image oci:"), "{refusal}");
    }
    assert_eq!(fs::read_dir(place.path("home")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(place.path("broken/index.json")).unwrap(), "{");
    assert!(place.refusal("app:v1", MODULE, &component()).await.starts_with("not-wasm"));
    assert!(!place.path("app").exists());
    let archive = ImageReference::parse("oci-archive:a.tar:v1").unwrap();
    let refused = write_layout(&archive, Bytes::from_static(MODULE), &module()).await.unwrap_err();
    assert!(refused.to_string().contains("oci:FOLDER:TAG"), "{refused}");
}
