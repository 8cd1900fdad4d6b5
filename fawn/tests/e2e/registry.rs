use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, StatusCode, header};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    edge::install_tls,
    images::Blob,
    process::Process,
    token_server::{ISSUER, SERVICE, TokenServer, pem},
};

/// A real registry (CNCF distribution) on a free port.
pub(crate) struct Registry {
    process: Process,
    folder: TempDir,
    http: Client,
    scheme: &'static str,
    /// Its address, as it begins a reference.
    pub(crate) host: String,
    credentials: Option<(&'static str, &'static str)>,
}

/// The one user of a registry that asks who is there, and the hash of the password (bcrypt).
pub(crate) const USER: &str = "fawn";
pub(crate) const PASSWORD: &str = "correct horse";
const HTPASSWD: &str = "fawn:$2b$04$KCJHZB12gOy1nzRoFqf92eVjudA1NOSDXOhUklWnlLA/zqbHsJCJO\n";

impl Registry {
    pub(crate) async fn start() -> Self {
        Self::launch(tempfile::tempdir().unwrap(), "", None).await
    }

    /// One that takes the tokens of a server, which it says is at that host.
    pub(crate) async fn start_with_tokens(tokens: &TokenServer, realm_host: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("tokens.pem");
        fs::write(&certificate, &tokens.certificate).unwrap();
        let auth = format!(
            "auth: {{token: {{realm: 'http://{realm_host}:{}/token', service: {SERVICE}, issuer: {ISSUER}, \
             rootcertbundle: {}}}}}\n",
            tokens.port,
            certificate.display()
        );
        Self::launch(folder, &auth, None).await
    }

    /// One over TLS, and the file of the authority that its certificate is from.
    pub(crate) async fn start_tls() -> (Self, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, label: &str, der: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, pem(label, der)).unwrap();
            path
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        let ca = file("ca.pem", "CERTIFICATE", authority.der());
        let tls = format!(
            ", tls: {{certificate: {}, key: {}}}",
            file("cert.pem", "CERTIFICATE", certificate.der()).display(),
            file("key.pem", "PRIVATE KEY", &key.serialize_der()).display()
        );
        install_tls();
        let trusted = Certificate::from_der(authority.der()).unwrap();
        let http = Client::builder().tls_certs_only([trusted]);
        (Self::launch_with(folder, "", &tls, http, None).await, ca)
    }

    /// One that only [`USER`] may read and write.
    pub(crate) async fn start_private() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("htpasswd");
        fs::write(&users, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", users.display());
        Self::launch(folder, &auth, Some((USER, PASSWORD))).await
    }

    async fn launch(folder: TempDir, auth: &str, credentials: Option<(&'static str, &'static str)>) -> Self {
        Self::launch_with(folder, auth, "", Client::builder(), credentials).await
    }

    async fn launch_with(
        folder: TempDir,
        auth: &str,
        tls: &str,
        http: ClientBuilder,
        credentials: Option<(&'static str, &'static str)>,
    ) -> Self {
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'{tls}}}\n{auth}",
            folder.path().join("storage").display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Process::spawn(Command::new("docker-registry").arg("serve").arg(&config));
        let host = process.until(address).await;
        install_tls();
        let http = http.no_proxy().build().unwrap();
        let scheme = if tls.is_empty() { "http" } else { "https" };
        Self { process, folder, http, scheme, host, credentials }
    }

    /// Ends it; nobody answers at its address from then on.
    pub(crate) async fn stop(&mut self) {
        self.process.kill().await;
    }

    /// The name of an image of this registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Keeps a blob and says under which digest.
    pub(crate) async fn push_blob(&self, repository: &str, blob: &Blob) {
        let begun =
            self.request(Method::POST, &format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED, "{begun:?}");
        let location = begun.headers()[header::LOCATION].to_str().unwrap();
        let mut url = begun.url().join(location).unwrap();
        url.query_pairs_mut().append_pair("digest", &blob.digest);
        let put = self.authenticated(self.http.put(url)).body(blob.bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "{put:?}");
    }

    pub(crate) async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Blob) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let put = self.request(Method::PUT, &path).header(header::CONTENT_TYPE, manifest.media_type);
        let put = put.body(manifest.bytes.clone()).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED, "{}", put.text().await.unwrap());
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authenticated(self.http.request(method, format!("{}://{}{path}", self.scheme, self.host)))
    }

    fn authenticated(&self, request: RequestBuilder) -> RequestBuilder {
        match self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// A file as `docker login` leaves it behind.
    pub(crate) fn docker_config(&self, user: &str, password: &str) -> PathBuf {
        use base64::prelude::{BASE64_STANDARD, Engine};

        let path = self.folder.path().join(format!("{user}.json"));
        let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
        fs::write(&path, serde_json::json!({ "auths": { &self.host: { "auth": auth } } }).to_string())
            .unwrap();
        path
    }
}

/// The address in the line by which it says that it serves.
fn address(log: &str) -> Option<String> {
    let (_, after) = log.split_once("listening on ")?;
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':')?;
    Some(after[..end].to_owned())
}
