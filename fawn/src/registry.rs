//! How the subcommands reach registries: the server with its own store, the tools with one for the time being.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use reqwest::Url;
use runtime_oci::{ArtifactStore, DEFAULT_MAX_MODULE_BYTES, Registry, RegistryConfig, RegistryHost};
use tempfile::TempDir;

use crate::{config::quantity, usage::Mistakes};

/// What the tools can be told of registries.
#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArguments {
    /// A registry that is spoken to in plain HTTP; may be repeated
    #[arg(long, env = "FAWN_INSECURE_REGISTRY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// A registry whose certificate is not checked; may be repeated
    #[arg(long, env = "FAWN_SKIP_TLS_VERIFY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    skip_tls_verify: Vec<String>,
    /// Credentials for registries, as Docker's config.json holds them [default: ~/.docker/config.json]
    #[arg(long, env = "FAWN_REGISTRY_AUTH", value_name = "FILE")]
    registry_auth: Option<PathBuf>,
    /// The largest module that is taken [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_MODULE_SIZE", value_name = "QUANTITY")]
    max_module_size: Option<String>,
}

/// How registries are spoken to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registries {
    pub(crate) plain_http: Vec<RegistryHost>,
    pub(crate) skip_tls_verify: Vec<RegistryHost>,
    pub(crate) mirrors: Vec<(String, Url)>,
    pub(crate) auth_file: Option<PathBuf>,
}

/// A registry client whose store goes with it.
pub(crate) struct TemporaryRegistry {
    pub(crate) registry: Registry,
    max_module_bytes: u64,
    _folder: TempDir,
}

impl RegistryArguments {
    /// Checks what was said, and makes a client of it.
    pub(crate) fn connect(self) -> Result<TemporaryRegistry> {
        let mut mistakes = Vec::new();
        let registries = Registries::check(
            &self.insecure_registry,
            &self.skip_tls_verify,
            &[],
            self.registry_auth,
            &mut mistakes,
        );
        let max_module_bytes = quantity("max-module-size", self.max_module_size.as_deref(), &mut mistakes)
            .unwrap_or(DEFAULT_MAX_MODULE_BYTES);
        Mistakes::check(mistakes)?;
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let store = ArtifactStore::open(folder.path(), max_module_bytes)?;
        Ok(TemporaryRegistry { registry: open(registries, store)?, max_module_bytes, _folder: folder })
    }
}

impl TemporaryRegistry {
    /// Refuses a module that a gateway with the same limit would not take.
    pub(crate) fn check_size(&self, module: &[u8]) -> Result<(), Mistakes> {
        if module.len() as u64 <= self.max_module_bytes {
            return Ok(());
        }
        let (size, limit) = (module.len(), self.max_module_bytes);
        Err(format!("the module has {size} bytes, and the limit is {limit}: raise it with --max-module-size")
            .into())
    }
}

impl Registries {
    /// Reads the settings, each in the words of its flag.
    pub(crate) fn check(
        insecure_registry: &[String],
        skip_tls_verify: &[String],
        registry_mirror: &[String],
        registry_auth: Option<PathBuf>,
        mistakes: &mut Vec<String>,
    ) -> Self {
        if let Some(path) = registry_auth.as_ref().filter(|path| !path.is_file()) {
            mistakes.push(format!("registry-auth: there is no file {}", path.display()));
        }
        Self {
            plain_http: hosts("insecure-registry", insecure_registry, mistakes),
            skip_tls_verify: hosts("skip-tls-verify", skip_tls_verify, mistakes),
            mirrors: registry_mirror.iter().filter_map(|text| mirror(text, mistakes)).collect(),
            auth_file: registry_auth,
        }
    }
}

fn hosts(name: &str, texts: &[String], mistakes: &mut Vec<String>) -> Vec<RegistryHost> {
    let mut parse = |text: &String| {
        let parsed = text.parse();
        parsed.map_err(|error| mistakes.push(format!("{name} {error}"))).ok()
    };
    texts.iter().filter_map(&mut parse).collect()
}

fn mirror(text: &str, mistakes: &mut Vec<String>) -> Option<(String, Url)> {
    let (host, url) = text.split_once('=').unwrap_or((text, ""));
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    let url = Url::parse(url).ok().filter(usable);
    let parsed = host.parse::<RegistryHost>().ok().map(|host| host.to_string()).zip(url);
    if parsed.is_none() {
        // The address is not shown: it may have a password in it.
        mistakes.push(format!(
            "registry-mirror of {host:?} is not like docker.io=https://mirror.example.com, without credentials"
        ));
    }
    parsed
}

pub(crate) fn open(registries: Registries, store: ArtifactStore) -> Result<Registry> {
    let docker = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    let config = RegistryConfig {
        plain_http: registries.plain_http,
        skip_tls_verification: registries.skip_tls_verify,
        mirrors: registries.mirrors,
        auth_file: registries.auth_file,
        default_auth_file: docker.map(|folder| folder.join("config.json")),
        ..RegistryConfig::default()
    };
    Ok(Registry::new(config, store)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn all_mistakes_in_what_is_said_of_registries_are_told() {
        let mut mistakes = Vec::new();
        Registries::check(
            &words(&["localhost:5000", "http://localhost:5000"]),
            &words(&["https://x/"]),
            &words(&["docker.io=https://me:hunter2@mirror", "http://ghcr.io=https://mirror"]),
            Some("/nowhere/config.json".into()),
            &mut mistakes,
        );
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        let all = mistakes.join("\n");
        for part in [
            "insecure-registry \"http://localhost:5000\"",
            "skip-tls-verify",
            "registry-mirror of \"http://ghcr.io\"",
            "registry-auth",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("hunter2"), "{all}");
    }

    #[test]
    fn the_tools_know_the_limit_of_the_gateway() {
        let arguments =
            |size: &str| RegistryArguments { max_module_size: Some(size.into()), ..Default::default() };
        let client = arguments("1Ki").connect().unwrap();
        assert!(client.check_size(&[0; 1024]).is_ok());
        assert!(client.check_size(&[0; 1025]).unwrap_err().to_string().contains("--max-module-size"));
        assert!(arguments("much").connect().err().unwrap().is::<Mistakes>());
    }
}
