//! How the subcommands reach registries: the server with its own store, the tools with one for the time being.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use reqwest::Url;
use runtime_oci::{ArtifactStore, DEFAULT_MAX_MODULE_BYTES, Registry, RegistryConfig, RegistryHost};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{config::quantity, usage::Mistakes};

/// What can be said of registries, to the server and to the tools.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct RegistrySettings {
    /// A registry that is spoken to in plain HTTP; may be repeated
    #[arg(long, env = "FAWN_INSECURE_REGISTRY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// A registry whose certificate is not checked; may be repeated
    #[arg(long, env = "FAWN_SKIP_TLS_VERIFY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    skip_tls_verify: Vec<String>,
    /// A host and the authorities (PEM) that alone sign its certificate; may be repeated
    #[arg(long, env = "FAWN_REGISTRY_CA", value_delimiter = ',', value_name = "HOST=FILE")]
    registry_ca: Vec<String>,
    /// A host and the certificate (PEM) to show to it, with its key or without; may be repeated
    #[arg(long, env = "FAWN_REGISTRY_CLIENT_CERT", value_delimiter = ',', value_name = "HOST=FILE")]
    registry_client_cert: Vec<String>,
    /// A host and the key (PEM) of the certificate to show to it; may be repeated
    #[arg(long, env = "FAWN_REGISTRY_CLIENT_KEY", value_delimiter = ',', value_name = "HOST=FILE")]
    registry_client_key: Vec<String>,
    /// A registry and a host outside its domain that may have its credentials, to give tokens for them; may be repeated
    #[arg(long, env = "FAWN_REGISTRY_REALM", value_delimiter = ',', value_name = "HOST=HOST")]
    registry_realm: Vec<String>,
    /// A registry and what is asked before it, such as `docker.io=https://mirror.example.com`; may be repeated, in order
    #[arg(long, env = "FAWN_REGISTRY_MIRROR", value_delimiter = ',', value_name = "HOST=URL")]
    registry_mirror: Vec<String>,
    /// A registry that is never asked itself, but its mirrors alone; may be repeated
    #[arg(long, env = "FAWN_REGISTRY_MIRROR_ONLY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    registry_mirror_only: Vec<String>,
    /// Where images are looked for whose name has no registry; may be repeated, in order [default: docker.io]
    #[arg(long, env = "FAWN_SHORT_NAME_REGISTRY", value_delimiter = ',', value_name = "HOST[:PORT]")]
    short_name_registry: Vec<String>,
    /// Credentials for registries, as Docker's config.json holds them [default: ~/.docker/config.json]
    #[arg(long, env = "FAWN_REGISTRY_AUTH", value_name = "FILE")]
    registry_auth: Option<PathBuf>,
}

/// What the tools can be told of registries.
#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArguments {
    #[command(flatten)]
    settings: RegistrySettings,
    /// The largest module that is taken [default: 64Mi]
    #[arg(long, env = "FAWN_MAX_MODULE_SIZE", value_name = "QUANTITY")]
    max_module_size: Option<String>,
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
        let registries = self.settings.check(&mut mistakes);
        let max_module_bytes = quantity("max-module-size", self.max_module_size.as_deref(), &mut mistakes)
            .unwrap_or(DEFAULT_MAX_MODULE_BYTES);
        Mistakes::check(mistakes)?;
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let store = ArtifactStore::open(folder.path(), max_module_bytes)?;
        Ok(TemporaryRegistry {
            registry: Registry::new(registries, store)?,
            max_module_bytes,
            _folder: folder,
        })
    }
}

impl TemporaryRegistry {
    /// The largest module that is taken.
    pub(crate) fn max_module_bytes(&self) -> u64 {
        self.max_module_bytes
    }

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

impl RegistrySettings {
    /// What is set here, and the rest from the file.
    pub(crate) fn or(self, file: Self) -> Self {
        let either = |flags: Vec<String>, file| if flags.is_empty() { file } else { flags };
        Self {
            insecure_registry: either(self.insecure_registry, file.insecure_registry),
            skip_tls_verify: either(self.skip_tls_verify, file.skip_tls_verify),
            registry_ca: either(self.registry_ca, file.registry_ca),
            registry_client_cert: either(self.registry_client_cert, file.registry_client_cert),
            registry_client_key: either(self.registry_client_key, file.registry_client_key),
            registry_realm: either(self.registry_realm, file.registry_realm),
            registry_mirror: either(self.registry_mirror, file.registry_mirror),
            registry_mirror_only: either(self.registry_mirror_only, file.registry_mirror_only),
            short_name_registry: either(self.short_name_registry, file.short_name_registry),
            registry_auth: self.registry_auth.or(file.registry_auth),
        }
    }

    /// Reads the settings; mistakes are in the words of the flags.
    pub(crate) fn check(self, mistakes: &mut Vec<String>) -> RegistryConfig {
        if let Some(path) = self.registry_auth.as_ref().filter(|path| !path.is_file()) {
            mistakes.push(format!("registry-auth: there is no file {}", path.display()));
        }
        let docker = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let realm = |text: &str| text.parse().ok();
        RegistryConfig {
            plain_http: hosts("insecure-registry", &self.insecure_registry, mistakes),
            skip_tls_verification: hosts("skip-tls-verify", &self.skip_tls_verify, mistakes),
            certificate_authorities: pairs(
                "registry-ca",
                "lab:5000=ca.pem",
                &self.registry_ca,
                file,
                mistakes,
            ),
            client_certificates: pairs(
                "registry-client-cert",
                "lab:5000=cert.pem",
                &self.registry_client_cert,
                file,
                mistakes,
            ),
            client_keys: pairs(
                "registry-client-key",
                "lab:5000=key.pem",
                &self.registry_client_key,
                file,
                mistakes,
            ),
            realms: pairs(
                "registry-realm",
                "registry.example.com=auth.example.org",
                &self.registry_realm,
                realm,
                mistakes,
            ),
            mirrors: self.registry_mirror.iter().filter_map(|text| mirror(text, mistakes)).collect(),
            mirrors_only: names("registry-mirror-only", &self.registry_mirror_only, mistakes),
            short_names: names("short-name-registry", &self.short_name_registry, mistakes),
            auth_file: self.registry_auth,
            default_auth_file: docker.map(|folder| folder.join("config.json")),
            ..RegistryConfig::default()
        }
    }
}

/// Settings of the form `HOST=SOMETHING`.
fn pairs<T>(
    name: &str,
    example: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Option<T>,
    mistakes: &mut Vec<String>,
) -> Vec<(RegistryHost, T)> {
    let mut all = Vec::new();
    for text in texts {
        let (host, value) = text.split_once('=').unwrap_or((text, ""));
        match host.parse().ok().zip(parse(value)) {
            Some(pair) => all.push(pair),
            None => mistakes.push(format!("{name} {text:?} is not like {example}")),
        }
    }
    all
}

fn file(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// Registries as they begin the names of images.
fn names(name: &str, texts: &[String], mistakes: &mut Vec<String>) -> Vec<String> {
    hosts(name, texts, mistakes).iter().map(ToString::to_string).collect()
}

/// Checks folders of images, which must be there.
pub(crate) fn image_dirs(folders: Vec<PathBuf>, mistakes: &mut Vec<String>) -> Vec<PathBuf> {
    let missing = folders.iter().filter(|folder| !folder.is_dir());
    mistakes.extend(missing.map(|folder| format!("image-dir: there is no folder {}", folder.display())));
    folders
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn all_mistakes_in_what_is_said_of_registries_are_told() {
        let mut mistakes = Vec::new();
        let settings = RegistrySettings {
            insecure_registry: words(&["localhost:5000", "http://localhost:5000"]),
            skip_tls_verify: words(&["https://x/"]),
            registry_ca: words(&["lab:5000=ca.pem", "ca.pem"]),
            registry_client_cert: words(&["lab="]),
            registry_client_key: words(&["=key.pem"]),
            registry_realm: words(&["lab=auth.example.com", "lab=https://auth.example.com/"]),
            registry_mirror: words(&["docker.io=https://me:hunter2@mirror", "http://ghcr.io=https://mirror"]),
            registry_mirror_only: words(&["https://ghcr.io"]),
            short_name_registry: words(&["docker.io", "ghcr.io/me"]),
            registry_auth: Some("/nowhere/config.json".into()),
        };
        settings.check(&mut mistakes);
        assert_eq!(mistakes.len(), 11, "{mistakes:?}");
        let all = mistakes.join("\n");
        for part in [
            "insecure-registry \"http://localhost:5000\"",
            "skip-tls-verify",
            "registry-mirror of \"http://ghcr.io\"",
            "registry-auth",
            "registry-ca \"ca.pem\" is not like lab:5000=ca.pem",
            "registry-client-cert \"lab=\"",
            "registry-client-key \"=key.pem\"",
            "registry-realm \"lab=https",
            "registry-mirror-only \"https://ghcr.io\"",
            "short-name-registry \"ghcr.io/me\"",
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
