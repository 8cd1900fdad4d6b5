//! Registries with certificates of their own, and those that want one of ours.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use runtime_oci::{Registry, RegistryConfig};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::{
    bench::{Bench, install_provider},
    fake::FakeRegistry,
    images::MODULE,
};

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// An authority that nobody knows.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, host: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![host.into()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// How a registry serves; one that is careful wants a certificate of this authority from its clients.
    fn server(&self, careful: bool) -> ServerConfig {
        install_provider();
        let (certificate, key) = self.issue("127.0.0.1");
        let builder = match careful {
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.0.der().clone()).unwrap();
                ServerConfig::builder().with_client_cert_verifier(
                    WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap(),
                )
            }
            false => ServerConfig::builder().with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }

    fn file(&self, folder: &Path) -> std::path::PathBuf {
        let path = folder.join("ca.pem");
        fs::write(&path, pem("CERTIFICATE", self.0.der())).unwrap();
        path
    }
}

#[tokio::test]
async fn an_authority_of_its_own_is_believed_for_its_registry_alone() {
    let authority = Authority::new();
    let other = FakeRegistry::start_tls_with(authority.server(false)).await;
    let bench =
        Bench::with(FakeRegistry::start_tls_with(authority.server(false)).await, |config, fake, folder| {
            config
                .certificate_authorities
                .push((fake.address.to_string().parse().unwrap(), authority.file(folder)));
        });
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();

    let error = bench.fetch_elsewhere(&other.image("hello:v1")).await.unwrap_err();
    assert_eq!(error.code(), "registry-unavailable");
    assert!(error.to_string().contains(&format!("--registry-ca {}=FILE", other.address)), "{error}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn verification_goes_on_with_an_authority_of_its_own() {
    let (good, evil) = (Authority::new(), Authority::new());
    let bench =
        Bench::with(FakeRegistry::start_tls_with(evil.server(false)).await, |config, fake, folder| {
            config
                .certificate_authorities
                .push((fake.address.to_string().parse().unwrap(), good.file(folder)));
        });
    bench.fake.artifact("hello", "v1", MODULE);
    assert!(bench.refusal("hello:v1").await.starts_with("registry-unavailable: "));
    assert!(bench.fake.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_to_whom_it_is_for() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("node");
    for together in [true, false] {
        let fake = FakeRegistry::start_tls_with(authority.server(true)).await;
        let bench = Bench::with(fake, |config, fake, folder| {
            let host = || fake.address.to_string().parse().unwrap();
            let (certificate_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
            config.certificate_authorities.push((host(), authority.file(folder)));
            config.client_certificates.push((host(), certificate_file.clone()));
            if together {
                fs::write(
                    certificate_file,
                    pem("CERTIFICATE", certificate.der()) + &pem("PRIVATE KEY", &key.serialize_der()),
                )
                .unwrap();
            } else {
                fs::write(certificate_file, pem("CERTIFICATE", certificate.der())).unwrap();
                fs::write(&key_file, pem("PRIVATE KEY", &key.serialize_der())).unwrap();
                config.client_keys.push((host(), key_file));
            }
        });
        bench.fake.artifact("hello", "v1", MODULE);
        bench.fetch("hello:v1").await.unwrap();
    }
    let fake = FakeRegistry::start_tls_with(authority.server(true)).await;
    let without = Bench::with(fake, |config, fake, folder| {
        config
            .certificate_authorities
            .push((fake.address.to_string().parse().unwrap(), authority.file(folder)));
    });
    assert!(without.refusal("hello:v1").await.starts_with("registry-unavailable: "));
    assert!(without.fake.seen().is_empty());
}

#[test]
fn files_that_cannot_be_used_are_named_and_not_shown() {
    install_provider();
    let folder = tempfile::tempdir().unwrap();
    let store = runtime_oci::ArtifactStore::open(folder.path(), 1).unwrap();
    let file = folder.path().join("secret.pem");
    fs::write(&file, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n").unwrap();
    let missing = folder.path().join("missing.pem");
    let host = || "lab:5000".parse().unwrap();
    let authority = |path: &Path| RegistryConfig {
        certificate_authorities: vec![(host(), path.to_owned())],
        ..RegistryConfig::default()
    };
    let configs = [
        authority(&file),
        authority(&missing),
        RegistryConfig { client_certificates: vec![(host(), file.clone())], ..RegistryConfig::default() },
        RegistryConfig { client_keys: vec![(host(), file.clone())], ..RegistryConfig::default() },
        RegistryConfig {
            certificate_authorities: vec![(host(), file.clone()), (host(), file.clone())],
            ..RegistryConfig::default()
        },
    ];
    for (config, expected) in
        configs.into_iter().zip(["secret.pem", "missing.pem", "secret.pem", "no client certificate", "twice"])
    {
        let error = Registry::new(config, store.clone()).err().unwrap();
        assert_eq!(error.code(), "invalid-certificate");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_known_is_said_to_be_that() {
    let bench = Bench::start().await;
    let refusal = bench.refusal_elsewhere("no-such-registry.invalid/hello:v1").await;
    assert!(
        refusal.starts_with("registry-unavailable: ") && refusal.contains("cannot be looked up"),
        "{refusal}"
    );
    assert!(!refusal.contains("--skip-tls-verify") && !refusal.contains("--registry-ca"), "{refusal}");
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_tried_again_and_no_reason_to_do_without() {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut hello = vec![0; 16 << 10];
            assert!(stream.read(&mut hello).await.unwrap() > 0);
        }
    });
    let bench = Bench::start().await;
    let error = bench.fetch_elsewhere(&format!("{address}/hello:v1")).await.unwrap_err();
    assert_eq!(error.code(), "registry-unavailable");
    assert!(!error.to_string().contains("--"), "no flag mends it: {error}");
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    server.abort();
}

#[tokio::test]
async fn a_port_that_is_closed_has_nothing_to_do_with_certificates() {
    let gone = FakeRegistry::start().await;
    let image = gone.image("hello:v1");
    gone.stop().await;
    let bench = Bench::start().await;
    let refusal = bench.refusal_elsewhere(&image).await;
    assert!(refusal.contains("cannot be reached") && !refusal.contains("--skip-tls-verify"), "{refusal}");
}
