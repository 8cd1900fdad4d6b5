use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    io::ErrorKind,
    path::Path,
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use runtime_api::{Error, Result, canonical_registry};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::RegistryConfig;

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_HELPER_BYTES: u64 = 64 << 10;
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// What Docker files the credentials of Docker Hub under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry or its token server is shown. Has no `Debug`: it is secret.
pub(crate) enum Credentials {
    Password { username: String, password: String },
    IdentityToken(String),
}

/// Docker's configuration file, as far as credentials go.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    /// In an order, since a registry may be in it under several names.
    auths: BTreeMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// Base64 of `username:password`.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What a credential helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Looks up the credentials of one registry, in the order of Docker. The file is read anew each time, so that a login
/// counts at once. Entries may be for a part of a registry, as in `quay.io/team` (containers-auth.json(5), Kubernetes'
/// image pull secrets): the most particular one counts, also before what a helper has for the whole. Entries with
/// nothing in them only say that a helper has something.
pub(crate) async fn find(
    config: &RegistryConfig,
    host: &str,
    repository: &str,
) -> Result<Option<Credentials>> {
    let (path, required) = match (&config.auth_file, &config.default_auth_file) {
        (Some(path), _) => (path, true),
        (None, Some(path)) => (path, false),
        (None, None) => return Ok(None),
    };
    let Some(docker) = read(path, required).await? else { return Ok(None) };
    let parts = parts(host, repository).filter_map(|part| docker.auths.get(&part));
    if let Some(credentials) = first(parts, path, host)? {
        return Ok(Some(credentials));
    }
    let key = if host == "docker.io" { DOCKER_HUB_KEY } else { host };
    let helper = docker.cred_helpers.get(key).or_else(|| docker.cred_helpers.get(host));
    let helper = helper.unwrap_or(&docker.creds_store);
    if !helper.is_empty() {
        let program = helper_program(helper)?;
        if let Some(credentials) = ask_helper(program.as_ref(), key, HELPER_TIMEOUT).await? {
            return Ok(Some(credentials));
        }
    }
    let exact = [key, host].into_iter().filter_map(|name| docker.auths.get(name));
    let alike = docker.auths.iter().filter(|(name, _)| is_for(name, key) || is_for(name, host));
    first(exact.chain(alike.map(|(_, auth)| auth)), path, host)
}

/// What the first entry has that has anything.
fn first<'a>(
    mut auths: impl Iterator<Item = &'a Auth>,
    path: &Path,
    host: &str,
) -> Result<Option<Credentials>> {
    auths.find_map(|auth| auth.credentials(path, host).transpose()).transpose()
}

async fn read(path: &Path, required: bool) -> Result<Option<DockerConfig>> {
    let invalid = |problem: String| {
        Error::invalid(
            "invalid-credentials",
            format!("the file of registry credentials {} {problem}", path.display()),
        )
    };
    let file = match File::open(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound && !required => return Ok(None),
        file => file.map_err(|error| invalid(format!("cannot be read: {error}")))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| invalid(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(invalid(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    // Where the mistake is, but not what stands there: it may be a secret.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        invalid(format!("is not Docker's config.json (line {}, column {})", error.line(), error.column()))
    })
}

/// `host/a/b`, then `host/a`.
fn parts(host: &str, repository: &str) -> impl Iterator<Item = String> {
    let ends = std::iter::once(repository.len()).chain(repository.rmatch_indices('/').map(|(end, _)| end));
    ends.filter_map(|end| repository.get(..end))
        .map(|part| format!("{host}/{part}"))
        .collect::<Vec<_>>()
        .into_iter()
}

/// Old logins filed a registry under its address, and any may have written its name in another way.
fn is_for(name: &str, key: &str) -> bool {
    let bare = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let bare =
        ["/v1/", "/v2/", "/v1", "/v2", "/"].iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
    bare == key || canonical_registry(bare) == key
}

impl Auth {
    fn credentials(&self, path: &Path, host: &str) -> Result<Option<Credentials>> {
        let invalid = || {
            let message =
                format!("the entry for {host} in {} is not base64 of username:password", path.display());
            Error::invalid("invalid-credentials", message)
        };
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return Ok((!username.is_empty()).then_some(Credentials::Password { username, password }));
        }
        let decoded = STANDARD.decode(&self.auth).map_err(|_| invalid())?;
        let text = String::from_utf8(decoded).map_err(|_| invalid())?;
        let (username, password) = text.split_once(':').ok_or_else(invalid)?;
        // Docker itself pads with zero bytes.
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Credentials::Password { username: username.to_owned(), password }))
    }
}

/// The program of a helper: by its name on the search path, never by a path from the file.
fn helper_program(name: &str) -> Result<String> {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Ok(format!("docker-credential-{name}"));
    }
    Err(Error::invalid("invalid-credentials", format!("{name:?} is not the name of a credential helper")))
}

/// Asks a credential helper (Docker's protocol: the host goes in, JSON comes out).
async fn ask_helper(program: &OsStr, host: &str, limit: Duration) -> Result<Option<Credentials>> {
    let failed = |why: String| {
        let message = format!("credential helper {} has nothing for {host}: {why}", program.display());
        Error::invalid("credential-helper", message)
    };
    let (success, output) = timeout(limit, run(program, host))
        .await
        .map_err(|_| failed(format!("it did not end within {limit:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if !success {
        let text = String::from_utf8_lossy(&output);
        let not_found = text.contains("credentials not found");
        return if not_found { Ok(None) } else { Err(failed(text.trim().chars().take(200).collect())) };
    }
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| failed("its answer is not what helpers answer".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::IdentityToken(answer.secret),
        _ => Credentials::Password { username: answer.username, password: answer.secret },
    }))
}

async fn run(program: &OsStr, host: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input answers all the same.
        drop(input.write_all(host.as_bytes()).await);
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_HELPER_BYTES).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}

#[cfg(test)]
mod tests;
