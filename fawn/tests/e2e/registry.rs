use std::{fs, path::PathBuf};

use reqwest::{Client, Method, RequestBuilder, StatusCode, header};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{images::Blob, process::Process};

/// A real registry (CNCF distribution) on a free port, over plain HTTP.
pub(crate) struct Registry {
    process: Process,
    folder: TempDir,
    http: Client,
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

    /// One that only [`USER`] may read and write.
    pub(crate) async fn start_private() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("htpasswd");
        fs::write(&users, HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", users.display());
        Self::launch(folder, &auth, Some((USER, PASSWORD))).await
    }

    async fn launch(folder: TempDir, auth: &str, credentials: Option<(&'static str, &'static str)>) -> Self {
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n{auth}",
            folder.path().join("storage").display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Process::spawn(Command::new("docker-registry").arg("serve").arg(&config));
        let host = process.until(address).await;
        let http = Client::builder().no_proxy().build().unwrap();
        Self { process, folder, http, host, credentials }
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
        self.authenticated(self.http.request(method, format!("http://{}{path}", self.host)))
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
