//! Who may administer: what the server asks for, and what clients send.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rand::TryRng;
use reqwest::Url;
use runtime_store::write_atomically;
use serde::Deserialize;

const USER_FILE: &str = "basic-auth-user";
pub(crate) const PASSWORD_FILE: &str = "basic-auth-password";

/// 192 bits: no rate limit is needed to make guessing pointless.
const PASSWORD_BYTES: usize = 24;

/// A user and a password, as the `OpenFaaS` gateway takes them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl From<Credentials> for runtime_http::Credentials {
    fn from(Credentials { user, password }: Credentials) -> Self {
        Self { user, password }
    }
}

impl Credentials {
    /// Reads both files of a directory, as `OpenFaaS` names them; white space at either end does not count.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::ensure!(
                !text.trim().is_empty(),
                "{} is empty: write a value or remove the file",
                path.display()
            );
            Ok(text.trim().to_owned())
        };
        Ok(Self { user: read(USER_FILE)?, password: read(PASSWORD_FILE)? })
    }

    /// Reads both files, after making those that are missing.
    pub(crate) fn read_or_make(directory: &Path) -> Result<Self> {
        let mut random = [0; PASSWORD_BYTES];
        rand::rngs::SysRng.try_fill_bytes(&mut random).context("the system gives no random numbers")?;
        let password = BASE64_URL_SAFE_NO_PAD.encode(random);
        for (name, value) in [(USER_FILE, "admin"), (PASSWORD_FILE, password.as_str())] {
            let path = directory.join(name);
            if !path.exists() {
                write_atomically(&path, value.as_bytes(), 0o600)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Self::read(directory)
    }

    /// Finds what to send to a gateway: what `faas-cli login` saved for it, else, when the gateway is on this machine,
    /// what it made in its data directory.
    pub(crate) fn find(
        gateway: &Url,
        faas_cli_directory: Option<&Path>,
        data_directory: &Path,
    ) -> Result<Option<Self>> {
        if let Some(path) =
            faas_cli_directory.map(|directory| directory.join("config.yml")).filter(|path| path.exists())
        {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            if let Some(found) =
                saved_for(gateway, &text).with_context(|| format!("in {}", path.display()))?
            {
                return Ok(Some(found));
            }
        }
        // The password of this machine is never sent to another one.
        if is_this_machine(gateway) { Ok(Self::read(data_directory).ok()) } else { Ok(None) }
    }
}

/// Whether a gateway is reached without leaving the machine.
pub(crate) fn is_this_machine(gateway: &Url) -> bool {
    match gateway.host_str().unwrap_or_default().trim_matches(['[', ']']) {
        "localhost" => true,
        host => host.parse::<std::net::IpAddr>().is_ok_and(|address| {
            // A connection to no address in particular goes to this machine.
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        }),
    }
}

/// The part of faas-cli's file that matters here; it is not ours, so other fields may be there.
#[derive(Deserialize)]
struct FaasCliConfig {
    #[serde(default)]
    auths: Vec<FaasCliAuth>,
}

#[derive(Deserialize)]
struct FaasCliAuth {
    #[serde(default)]
    gateway: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    token: String,
}

fn saved_for(gateway: &Url, config: &str) -> Result<Option<Credentials>> {
    let config: FaasCliConfig = serde_yaml_ng::from_str(config).context("not a configuration of faas-cli")?;
    let wanted = gateway.as_str().trim_end_matches('/').to_lowercase();
    let matches = |entry: &FaasCliAuth| entry.gateway.trim_end_matches('/').to_lowercase() == wanted;
    let Some(entry) = config.auths.iter().find(|entry| entry.auth == "basic" && matches(entry)) else {
        return Ok(None);
    };
    let decoded =
        BASE64_STANDARD.decode(entry.token.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (user, password) =
        pair.with_context(|| format!("the token of {wanted} is damaged: run faas-cli login again"))?;
    Ok(Some(Credentials { user: user.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_password_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let made = Credentials::read_or_make(folder.path()).unwrap();
        assert_eq!(made.user, "admin");
        assert_eq!(made.password.len(), 32);
        assert!(Credentials::read_or_make(folder.path()).unwrap() == made);
        let mode = fs::metadata(folder.path().join(PASSWORD_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(folder.path().join(PASSWORD_FILE), " chosen \n").unwrap();
        assert_eq!(Credentials::read_or_make(folder.path()).unwrap().password, "chosen");
        fs::write(folder.path().join(PASSWORD_FILE), "\n").unwrap();
        assert!(Credentials::read_or_make(folder.path()).is_err(), "an empty password lets anyone in");
    }

    #[test]
    fn a_saved_login_wins_and_the_local_password_stays_here() {
        let (cli, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let local = Credentials::read_or_make(data.path()).unwrap();
        let token = BASE64_STANDARD.encode("admin:from:login");
        let config = format!("auths:\n- gateway: http://127.0.0.1:8080\n  auth: basic\n  token: {token}\n");
        fs::write(cli.path().join("config.yml"), config).unwrap();
        let find = |gateway| Credentials::find(&url(gateway), Some(cli.path()), data.path()).unwrap();

        assert_eq!(find("http://127.0.0.1:8080/").unwrap().password, "from:login");
        assert!(find("http://127.0.0.1:9090").unwrap() == local);
        assert!(find("http://localhost:8080").unwrap() == local);
        assert!(find("http://0.0.0.0:8080").unwrap() == local);
        assert!(find("http://[::]:8080").unwrap() == local);
        assert!(find("http://example.com:8080").is_none());
    }

    #[test]
    fn a_damaged_login_is_an_error_and_not_an_anonymous_call() {
        let config = "auths:\n- gateway: http://g:1\n  auth: basic\n  token: '%%%'\n";
        let error = saved_for(&url("http://g:1"), config).err().unwrap().to_string();
        assert!(error.contains("faas-cli login"), "{error}");
        assert!(saved_for(&url("http://g:1"), "auths: 3").is_err());
        assert!(saved_for(&url("http://g:1"), "{}").unwrap().is_none());
    }
}
