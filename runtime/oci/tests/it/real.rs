//! Against the CNCF distribution registry, as a user would run it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use runtime_api::{ArtifactKind, ImageReference};
use runtime_oci::{ArtifactSource, ArtifactStore, ModuleDescription, Registry, RegistryConfig, WasmOs};
use tempfile::TempDir;

use crate::images::module_of;

struct RealRegistry {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl RealRegistry {
    async fn start(auth: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It cannot be told to pick a port itself and say which.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let at = |name: &str| folder.path().join(name);
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            at("data").display()
        );
        fs::write(at("config.yml"), config.replace("PASSWORDS", &at("htpasswd").display().to_string()))
            .unwrap();
        // me:secret, in bcrypt.
        fs::write(at("htpasswd"), "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
            .unwrap();
        let auths = format!(r#"{{"auths": {{"{address}": {{"username": "me", "password": "secret"}}}}}}"#);
        fs::write(at("auth.json"), auths).unwrap();
        let process = Command::new("docker-registry")
            .args([Path::new("serve"), &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, address, folder };
        registry.wait().await;
        registry
    }

    async fn wait(&self) {
        let listening = async {
            while tokio::net::TcpStream::connect(&self.address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), listening).await.unwrap();
    }

    fn client(&self, store: &ArtifactStore, log_in: bool) -> Registry {
        let config = RegistryConfig {
            plain_http: vec![self.address.parse().unwrap()],
            auth_file: log_in.then(|| self.folder.path().join("auth.json")),
            ..RegistryConfig::default()
        };
        Registry::new(config, store.clone()).unwrap()
    }
}

#[tokio::test]
#[ignore = "needs docker-registry"]
async fn a_module_goes_to_a_real_registry_and_comes_back() {
    crate::bench::install_provider();
    for auth in ["", "auth: {htpasswd: {realm: here, path: 'PASSWORDS'}}"] {
        let real = RealRegistry::start(auth).await;
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path(), 64 << 20).unwrap();
        let client = real.client(&store, true);
        let image = ImageReference::parse(&format!("{}/me/hello:v1", real.address)).unwrap();
        // Several chunks of an upload, and nothing that compresses.
        let noise = (0..9_000_000_u32).map(|i| (i.wrapping_mul(i) >> 3) as u8);
        let module: Vec<u8> = module_of(8).into_iter().chain(noise).collect();
        let about = ModuleDescription {
            kind: ArtifactKind::Module,
            os: WasmOs::Wasip1,
            imports: Vec::new(),
            exports: Vec::new(),
            target: None,
        };
        let digest = client.push(&image, Bytes::from(module.clone()), about).await.unwrap();

        let artifact = client.fetch(&image, &|_| {}).await.unwrap();
        assert_eq!(fs::read(&artifact.path).unwrap(), module);
        let pinned = ImageReference { tag: None, digest: Some(digest), ..image.clone() };
        assert_eq!(client.fetch(&pinned, &|_| {}).await.unwrap(), artifact);

        let missing = ImageReference::parse(&format!("{}/me/other", real.address)).unwrap();
        assert_eq!(client.fetch(&missing, &|_| {}).await.unwrap_err().code(), "image-not-found");
        if !auth.is_empty() {
            let refused = real.client(&store, false).fetch(&image, &|_| {}).await.unwrap_err();
            assert_eq!(refused.code(), "unauthorized");
        }
    }
}
