//! Image layouts on disk.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use runtime_api::{Artifact, ImageReference, Result};
use runtime_oci::{ArtifactStore, read_layout};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    bench::{Bench, MAX_MODULE_BYTES},
    fake::digest,
    images::{
        CNCF_CONFIG, COMPONENT, IMAGE_CONFIG, MODULE, TAR, WASM, config, descriptor, gzip, manifest,
        module_of, tar, zstd,
    },
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout as `skopeo copy` and `docker save` write it, in memory: names and contents of its files.
struct Layout {
    files: Vec<(String, Vec<u8>)>,
    entries: Vec<Value>,
}

impl Layout {
    fn new() -> Self {
        Self {
            files: vec![("oci-layout".into(), br#"{"imageLayoutVersion": "1.0.0"}"#.into())],
            entries: Vec::new(),
        }
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.files.push((format!("blobs/sha256/{}", &digest(bytes)[7..]), bytes.to_vec()));
        descriptor(media_type, bytes)
    }

    fn image(&mut self, name: &str, config: (&str, &[u8]), layer: (&str, &[u8])) -> Value {
        let (config, layer) = (self.blob(config.0, config.1), self.blob(layer.0, layer.1));
        let mut entry = self.blob(MANIFEST, &manifest(&config, &[layer]));
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.entries.push(entry.clone());
        entry
    }

    fn artifact(mut self, name: &str, module: &[u8]) -> Self {
        self.image(name, (CNCF_CONFIG, b"{}"), (WASM, module));
        self
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries});
        let mut files = self.files.clone();
        files.push(("index.json".into(), index.to_string().into_bytes()));
        files
    }

    fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        for (name, bytes) in self.files() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }

    fn tar(&self) -> Vec<u8> {
        let files = self.files();
        tar(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
    }
}

struct Disk {
    folder: TempDir,
    store: ArtifactStore,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(&folder.path().join("store"), MAX_MODULE_BYTES).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads an image, such as `oci:NAME`, where NAME is in the folder.
    async fn read(&self, image: &str) -> Result<Artifact> {
        let image = image.replacen(':', &format!(":{}/", self.folder.path().display()), 1);
        let image = ImageReference::parse(&image).unwrap();
        read_layout(&image, image.layout().unwrap(), &self.store).await
    }

    async fn refusal(&self, image: &str) -> String {
        let error = self.read(image).await.expect_err("it was taken");
        let left = ["modules", "manifests", "tmp"].map(|name| self.folder.path().join("store").join(name));
        let left = left.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).count();
        assert_eq!(left, 0, "left behind by {error}");
        format!("{}: {error}", error.code())
    }
}

#[tokio::test]
async fn a_layout_is_read_as_folder_and_as_tar_however_packed() {
    let disk = Disk::new();
    let module = module_of(300_000);
    let mut layout = Layout::new();
    let layer = gzip(&tar(&[("etc/motd", b"hi"), ("hello.wasm", &module)]));
    layout.image("v1", (IMAGE_CONFIG, &config(&["/hello.wasm", "--fast"])), (TAR, &layer));
    layout.write(&disk.path("app"));
    fs::write(disk.path("app.tar"), layout.tar()).unwrap();
    fs::write(disk.path("app.tar.gz"), gzip(&layout.tar())).unwrap();
    fs::write(disk.path("app.tar.zst"), zstd(&layout.tar())).unwrap();
    for image in [
        "oci:app",
        "oci:app:v1",
        "oci-archive:app.tar",
        "oci-archive:app.tar.gz:v1",
        "oci-archive:app.tar.zst",
    ] {
        let artifact = disk.read(image).await.unwrap();
        // The next is read anew, and not as remembered.
        disk.store.retain(&HashSet::new(), Duration::ZERO).unwrap();
        assert_eq!(artifact.digest.to_string(), digest(&module), "{image}");
        assert_eq!(artifact.args, ["--fast"], "{image}");
        assert_eq!(artifact.env, [("PATH".into(), "/bin".into()), ("A".into(), "b".into())]);
    }
}

#[tokio::test]
async fn images_of_a_layout_are_told_by_name() {
    let disk = Disk::new();
    let mut layout = Layout::new().artifact("v1", MODULE).artifact("ghcr.io/me/other:v2", COMPONENT);
    layout.entries[1]["annotations"]["io.containerd.image.name"] = json!("ghcr.io/me/other:v2");
    layout.write(&disk.path("app"));
    for (name, module) in
        [("v1", MODULE), ("v2", COMPONENT), ("ghcr.io/me/other:v2", COMPONENT), ("other:v2", COMPONENT)]
    {
        let artifact = disk.read(&format!("oci:app:{name}")).await.unwrap();
        assert_eq!(artifact.digest.to_string(), digest(module), "{name}");
    }
    let ambiguous = disk.read("oci:app").await.unwrap_err().to_string();
    assert!(ambiguous.contains("name one of \"v1\", \"ghcr.io/me/other:v2\""), "{ambiguous}");
    // An exact name comes first; a part of several names means none of them.
    let mut same = Layout::new().artifact("v1", MODULE).artifact("ghcr.io/me/a:v1", COMPONENT);
    same.write(&disk.path("exact"));
    assert_eq!(disk.read("oci:exact:v1").await.unwrap().digest.to_string(), digest(MODULE));
    assert_eq!(disk.read("oci:exact:a:v1").await.unwrap().digest.to_string(), digest(COMPONENT));
    for (entry, name) in same.entries.iter_mut().zip(["docker.io/me/a:v1", "docker.io/me/b:v1"]) {
        entry["annotations"] =
            json!({"org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": name});
    }
    same.write(&disk.path("same"));
    for image in ["oci:same", "oci:same:v1"] {
        let ambiguous = disk.read(image).await.unwrap_err();
        assert_eq!(ambiguous.code(), "ambiguous-image");
        let names = "\"docker.io/me/a:v1\", \"docker.io/me/b:v1\"";
        assert!(ambiguous.to_string().contains(names), "{ambiguous}");
    }
    assert_eq!(disk.read("oci:same:b:v1").await.unwrap().digest.to_string(), digest(COMPONENT));
    for entry in &mut same.entries {
        entry["annotations"] = json!({});
    }
    same.write(&disk.path("nameless"));
    assert_eq!(disk.read("oci:nameless").await.unwrap_err().code(), "ambiguous-image");
    // Several names of one image are one image.
    let mut names = Layout::new().artifact("v1", MODULE);
    let mut other = names.entries[0].clone();
    other["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    names.entries.push(other);
    names.write(&disk.path("names"));
    assert_eq!(disk.read("oci:names").await.unwrap().digest.to_string(), digest(MODULE));
    for missing in ["v3", "2", "her:v2"] {
        let missing = disk.read(&format!("oci:app:{missing}")).await.unwrap_err();
        assert!(
            missing.code() == "image-not-found" && missing.to_string().contains("it has \"v1\""),
            "{missing}"
        );
    }
}

#[tokio::test]
async fn platforms_and_attestations_in_a_layout_are_told_apart() {
    let disk = Disk::new();
    let mut layout = Layout::new();
    let native = layout.image("x", (IMAGE_CONFIG, &config(&["/bin/sh"])), (TAR, &tar(&[])));
    let wasm = layout.image("x", (IMAGE_CONFIG, &config(&["/f.wasm"])), (TAR, &tar(&[("f.wasm", MODULE)])));
    let with = |entry: &Value, os: &str, architecture: &str| {
        let mut entry = entry.clone();
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    };
    let inner = json!({"schemaVersion": 2, "manifests": [
        with(&native, "unknown", "unknown"), with(&native, "linux", "amd64"), with(&wasm, "Wasip1", "wasm"),
    ]});
    // As Docker's containerd store saves it.
    let inner = layout.blob(INDEX, inner.to_string().as_bytes());
    layout.entries = vec![inner.clone()];
    layout.write(&disk.path("app"));
    assert_eq!(disk.read("oci:app").await.unwrap().digest.to_string(), digest(MODULE));

    let nested = json!({"schemaVersion": 2, "manifests": [inner]});
    layout.entries = vec![layout.blob(INDEX, nested.to_string().as_bytes())];
    layout.write(&disk.path("nested"));
    let refusal = disk.read("oci:nested").await.unwrap_err().to_string();
    assert!(refusal.contains("index within an index"), "{refusal}");
}

#[tokio::test]
async fn damaged_layouts_are_refused_by_what_is_wrong() {
    let good = || Layout::new().artifact("v1", &module_of(1000));
    let blob = format!("blobs/sha256/{}", &digest(&module_of(1000))[7..]);
    let replaced = |name: &str, bytes: Option<&[u8]>| {
        let mut files = good().files();
        files.retain(|(file, _)| file != name);
        files.extend(bytes.map(|bytes| (name.to_owned(), bytes.to_vec())));
        files
    };
    let large = vec![b' '; (4 << 20) + 1];
    let mut wrong = module_of(1000);
    wrong[999] = 1;
    for (files, expected) in [
        (replaced(&blob, Some(&wrong)), "wrong-digest: "),
        (replaced(&blob, Some(&module_of(999))), "there are fewer"),
        (replaced(&blob, Some(&module_of(1001))), "there are more"),
        (replaced(&blob, Some(b"no module")), "not-wasm: "),
        (replaced(&blob, None), "copy the whole of it"),
        (replaced("index.json", None), "Docker 25"),
        (replaced("oci-layout", None), "no OCI image layout"),
        (replaced("oci-layout", Some(br#"{"imageLayoutVersion": "2.0.0"}"#)), "version 2.0.0"),
        (replaced("index.json", Some(b"{")), "invalid-manifest: "),
        (replaced("index.json", Some(&large)), "too-large: "),
        (
            replaced(
                "index.json",
                Some(&manifest(&json!({"mediaType": "a", "digest": "b", "size": 1}), &[])),
            ),
            "no index",
        ),
    ] {
        let disk = Disk::new();
        let archive: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        fs::write(disk.path("app.tar"), tar(&archive)).unwrap();
        fs::write(disk.path("app.tgz"), gzip(&tar(&archive))).unwrap();
        fs::create_dir_all(disk.path("app/blobs/sha256")).unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(disk.path("app").join(name), bytes).unwrap());
        for image in ["oci:app", "oci-archive:app.tar", "oci-archive:app.tgz"] {
            let refusal = disk.refusal(image).await;
            assert!(refusal.contains(expected), "{image}: {refusal} has no {expected}");
        }
    }
}

#[tokio::test]
async fn hostile_archives_are_bounded() {
    let disk = Disk::new();
    fs::write(disk.path("bomb.tgz"), gzip(&tar(&[("zeros", &vec![0; 33 * MAX_MODULE_BYTES as usize])])))
        .unwrap();
    assert!(disk.refusal("oci-archive:bomb.tgz").await.starts_with("too-large: "));
    let large = Layout::new().artifact("v1", &module_of(MAX_MODULE_BYTES as usize + 1));
    fs::write(disk.path("large.tar"), large.tar()).unwrap();
    assert!(disk.refusal("oci-archive:large.tar").await.starts_with("too-large: "));
    let cut = Layout::new().artifact("v1", &module_of(100_000)).tar();
    fs::write(disk.path("cut.tar"), &cut[..20_000]).unwrap();
    disk.refusal("oci-archive:cut.tar").await;
    fs::write(disk.path("none.tar"), b"no tar").unwrap();
    disk.refusal("oci-archive:none.tar").await;
    fs::write(disk.path("empty.tar"), b"").unwrap();
    assert!(disk.refusal("oci-archive:empty.tar").await.contains("no OCI image layout"));
    // Each file alone could be reached.
    let mut padded = Layout::new().artifact("v1", MODULE);
    padded.files.insert(0, ("padding".into(), vec![0; 10 * MAX_MODULE_BYTES as usize]));
    fs::write(disk.path("padded.tgz"), gzip(&padded.tar())).unwrap();
    assert!(disk.refusal("oci-archive:padded.tgz").await.starts_with("too-large: "));
    let mut sparse = tar::Header::new_gnu();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    sparse.set_path("holes").unwrap();
    sparse.set_size(0);
    sparse.as_gnu_mut().unwrap().set_real_size(0);
    sparse.set_cksum();
    let sparse = [sparse.as_bytes().as_slice(), &Layout::new().artifact("v1", MODULE).tar()].concat();
    fs::write(disk.path("sparse.tar"), &sparse).unwrap();
    fs::write(disk.path("sparse.tgz"), gzip(&sparse)).unwrap();
    for image in ["oci-archive:sparse.tar", "oci-archive:sparse.tgz"] {
        let refusal = disk.refusal(image).await;
        assert!(refusal.contains("the archive has a sparse file"), "{refusal}");
    }
    for (image, expected) in [
        ("oci:none.tar", "write oci-archive:"),
        ("oci-archive:store", "write oci:"),
        ("oci:nowhere", "No such file"),
    ] {
        let refusal = disk.refusal(image).await;
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[tokio::test]
async fn a_node_reads_below_its_operators_folders_and_nowhere_else() {
    let (images, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, outer) = (images.path(), outside.path());
    let layout = Layout::new().artifact("v1", MODULE);
    layout.write(&inside.join("team/app"));
    fs::write(inside.join("app.tar"), layout.tar()).unwrap();
    layout.write(&outer.join("secret"));
    symlink(outer.join("secret"), inside.join("link")).unwrap();
    symlink(inside.join("team/app"), inside.join("near")).unwrap();
    layout.write(&inside.join("hollow"));
    let blob = inside.join("hollow/blobs/sha256").join(&digest(MODULE)[7..]);
    fs::remove_file(&blob).unwrap();
    symlink(outer.join("secret/blobs/sha256").join(&digest(MODULE)[7..]), &blob).unwrap();

    let empty = tempfile::tempdir().unwrap();
    let dirs = vec![empty.path().to_owned(), inside.to_owned()];
    let bench = Bench::configured(|config| config.image_dirs = dirs).await;
    let absolute = format!("oci:{}/team/app", inside.display());
    for (image, expected) in [
        ("oci:../secret", "image-dir: "),
        ("oci:team/../../secret", "image-dir: "),
        (&absolute, "image-dir: "),
        ("oci:.", "image-dir: "),
        ("oci:link", "symbolic link"),
        ("oci:near", "symbolic link"),
        ("oci:hollow", "symbolic link"),
        ("oci:nowhere", "--image-dir"),
        ("oci:app.tar", "write oci-archive:"),
    ] {
        let error = bench.fetch_elsewhere(image).await.expect_err(image);
        let refusal = format!("{}: {error}", error.code());
        assert!(refusal.contains(expected) && refusal.contains(image), "{refusal} has no {expected}");
        assert!(bench.files().is_empty(), "{image}");
    }
    for image in ["oci:team/app", "oci:team/app:v1", "oci-archive:app.tar"] {
        assert_eq!(bench.fetch_elsewhere(image).await.unwrap().digest.to_string(), digest(MODULE), "{image}");
    }
    let closed = Bench::start().await;
    let refusal = closed.fetch_elsewhere("oci:team/app").await.unwrap_err();
    assert!(refusal.code() == "image-dir" && refusal.to_string().contains("FAWN_IMAGE_DIR"), "{refusal}");
}

#[tokio::test]
async fn the_first_folder_that_has_the_image_counts() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Layout::new().artifact("v1", MODULE).write(&first.path().join("images"));
    Layout::new().artifact("v1", COMPONENT).artifact("v2", COMPONENT).write(&second.path().join("images"));
    let dirs = vec![first.path().to_owned(), second.path().to_owned()];
    let bench = Bench::configured(|config| config.image_dirs = dirs).await;
    for (image, module) in [("oci:images:v1", MODULE), ("oci:images:v2", COMPONENT)] {
        assert_eq!(bench.fetch_elsewhere(image).await.unwrap().digest.to_string(), digest(module), "{image}");
    }
    let missing = bench.fetch_elsewhere("oci:images:v3").await.unwrap_err();
    assert!(missing.code() == "image-not-found" && missing.to_string().contains("\"v2\""), "{missing}");
}
