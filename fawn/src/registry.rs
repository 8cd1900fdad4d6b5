//! How the subcommands reach registries: the server with its own store, the tools with one for the time being.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use runtime_oci::{ArtifactStore, DEFAULT_MAX_MODULE_BYTES, Registry, RegistryConfig};
use tempfile::TempDir;

use crate::config::Registries;

/// What the tools can be told of registries.
#[derive(Debug, Args)]
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
}

/// A registry client whose store goes with it.
pub(crate) struct TemporaryRegistry {
    pub(crate) registry: Registry,
    _folder: TempDir,
}

impl RegistryArguments {
    pub(crate) fn connect(self) -> Result<TemporaryRegistry> {
        let folder = tempfile::tempdir().context("no temporary folder can be made")?;
        let store = ArtifactStore::open(folder.path(), DEFAULT_MAX_MODULE_BYTES)?;
        let registries = Registries {
            plain_http: self.insecure_registry,
            skip_tls_verify: self.skip_tls_verify,
            mirrors: Vec::new(),
            auth_file: self.registry_auth,
        };
        Ok(TemporaryRegistry { registry: open(registries, store)?, _folder: folder })
    }
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
