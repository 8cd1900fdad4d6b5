//! The configuration of `fawn gateway`, read as that of a node is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use gateway_server::FunctionStore;
use runtime_api::DEFAULT_NAMESPACE;
use runtime_http::ProviderUrl;
use runtime_process::ServeConfig;
use serde::Deserialize;

use crate::{
    config::{Environment, duration, logs_server, read_file, truth},
    serve_settings::{Role, ServeOptions, ServeSettings, openfaas_truth},
    store_folder,
    usage::Mistakes,
};

/// How long a call may take (`OpenFaaS`).
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(60);
/// As many connections are kept to the provider (`OpenFaaS`).
const MAX_IDLE_CONNECTIONS: usize = 1024;

/// What can be chosen, in each of the three places in the same words.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct GatewaySettings {
    /// Where the provider is, such as http://127.0.0.1:8081
    #[arg(long, env = "FAWN_PROVIDER", value_name = "URL")]
    provider: Option<String>,
    /// Files basic-auth-user and basic-auth-password for the provider [default: those that users must know]
    #[arg(long, env = "FAWN_PROVIDER_CREDENTIALS", value_name = "FOLDER")]
    provider_credentials: Option<PathBuf>,
    /// How long the provider may take for a call, answer and all [default: 60s]
    #[arg(long, env = "FAWN_UPSTREAM_TIMEOUT", value_name = "DURATION")]
    upstream_timeout: Option<String>,
    /// Wake functions at zero replicas, where the provider does not do it itself [default: true]
    #[arg(long, env = "FAWN_SCALE_FROM_ZERO", value_parser = truth, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    scale_from_zero: Option<bool>,
    /// Connections to the provider that are kept while nobody uses them [default: 1024]
    #[arg(long, env = "FAWN_MAX_IDLE_CONNECTIONS", value_name = "COUNT")]
    max_idle_connections: Option<usize>,
    /// A server that logs are read from, in place of the provider (GET /system/logs)
    #[arg(long, env = "FAWN_LOGS_PROVIDER_URL", value_name = "URL")]
    logs_provider_url: Option<String>,
    /// A function store to offer: a folder with functions.json. Its images are for the nodes: give them the same --store
    #[arg(long, env = "FAWN_STORE", value_name = "FOLDER")]
    store: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    serve: ServeSettings,
}

/// The same, checked.
#[derive(Debug)]
pub(crate) struct GatewayConfig {
    pub(crate) serve: ServeOptions,
    pub(crate) provider: ProviderUrl,
    pub(crate) provider_credentials: Option<PathBuf>,
    pub(crate) upstream_timeout: Duration,
    /// How long a new connection may take to send its first request's head.
    pub(crate) head_timeout: Duration,
    pub(crate) scale_from_zero: bool,
    pub(crate) max_idle_connections: usize,
    pub(crate) logs_server: Option<String>,
    pub(crate) store: Option<FunctionStore>,
}

impl GatewayConfig {
    /// Reads and checks everything, and starts nothing.
    pub(crate) fn load(
        flags: GatewaySettings,
        file: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Self, Mistakes> {
        let (file, mut mistakes) =
            file.map_or_else(|| Ok(Default::default()), read_file::<GatewaySettings>)?;
        let config = flags.or(file).check(environment, &mut mistakes);
        Mistakes::check(mistakes)?;
        config.ok_or_else(|| Mistakes::from("there is no provider".to_owned()))
    }
}

impl GatewaySettings {
    /// What is set here, and the rest from the file.
    fn or(self, file: Self) -> Self {
        Self {
            provider: self.provider.or(file.provider),
            provider_credentials: self.provider_credentials.or(file.provider_credentials),
            upstream_timeout: self.upstream_timeout.or(file.upstream_timeout),
            scale_from_zero: self.scale_from_zero.or(file.scale_from_zero),
            max_idle_connections: self.max_idle_connections.or(file.max_idle_connections),
            logs_provider_url: self.logs_provider_url.or(file.logs_provider_url),
            store: self.store.or(file.store),
            serve: self.serve.or(file.serve),
        }
    }

    /// `None` only after a mistake.
    fn check(self, environment: Environment<'_>, mistakes: &mut Vec<String>) -> Option<GatewayConfig> {
        let openfaas = |name| duration(name, environment(name).as_deref(), &mut Vec::new());
        let (read, write) = (openfaas("read_timeout"), openfaas("write_timeout"));
        for name in ["read_timeout", "write_timeout"] {
            duration(name, environment(name).as_deref(), mistakes);
        }
        let upstream = match self.upstream_timeout {
            Some(chosen) => duration("upstream-timeout", Some(&chosen), mistakes),
            None => duration("upstream_timeout", environment("upstream_timeout").as_deref(), mistakes),
        };
        let provider = provider(self.provider, environment, mistakes);
        refuse_unsupported(environment, mistakes);
        let logs = self.logs_provider_url.or_else(|| environment("logs_provider_url"));
        let logs_server = logs_server(logs, mistakes);
        let wakes = self.scale_from_zero.or_else(|| openfaas_truth("scale_from_zero", environment, mistakes));
        let max_idle_connections =
            self.max_idle_connections.or_else(|| max_idle_connections(environment, mistakes));
        let store = self.store.and_then(|folder| store_folder::open(&folder, mistakes));
        let serve = self.serve.check(Role::GATEWAY, environment, mistakes);
        Some(GatewayConfig {
            serve,
            provider: provider?,
            provider_credentials: self.provider_credentials,
            // An answer that is being written when write_timeout is over is broken off, too (OpenFaaS).
            upstream_timeout: upstream.unwrap_or(UPSTREAM_TIMEOUT).min(write.unwrap_or(Duration::MAX)),
            head_timeout: read.unwrap_or(ServeConfig::default().head_timeout),
            scale_from_zero: wakes.unwrap_or(true),
            max_idle_connections: max_idle_connections.unwrap_or(MAX_IDLE_CONNECTIONS),
            logs_server,
            store,
        })
    }
}

fn provider(
    chosen: Option<String>,
    environment: Environment<'_>,
    mistakes: &mut Vec<String>,
) -> Option<ProviderUrl> {
    let Some(text) = chosen.or_else(|| environment("functions_provider_url")) else {
        mistakes.push(
            "there is no provider: say where it is with --provider URL, such as http://127.0.0.1:8081".into(),
        );
        return None;
    };
    text.parse().map_err(|error: runtime_api::Error| mistakes.push(format!("provider: {error}"))).ok()
}

/// Of the two bounds of `OpenFaaS` the lower counts, since there is one provider.
fn max_idle_connections(environment: Environment<'_>, mistakes: &mut Vec<String>) -> Option<usize> {
    let mut read = |name| {
        let text: String = environment(name)?;
        let count = text.parse();
        count.map_err(|_| mistakes.push(format!("{name} {text:?} is not a number of connections"))).ok()
    };
    let (all, per_host) = (read("max_idle_conns"), read("max_idle_conns_per_host"));
    all.into_iter().chain(per_host).min()
}

/// What would otherwise be ignored at the user's cost.
fn refuse_unsupported(environment: Environment<'_>, mistakes: &mut Vec<String>) {
    let namespace = environment("function_namespace").filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace.filter(|namespace| namespace != DEFAULT_NAMESPACE) {
        mistakes.push(format!(
            "function_namespace {namespace:?} is not supported: names without a namespace mean {DEFAULT_NAMESPACE}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::serve_settings::Auth;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: GatewaySettings,
    }

    fn load(flags: &[&str], file: &str, environment: &[(&str, &str)]) -> Result<GatewayConfig, String> {
        let flags = Flags::try_parse_from(["test"].iter().chain(flags)).map_err(|error| error.to_string())?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fawn.toml");
        std::fs::write(&path, file).unwrap();
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name);
        let lookup = |name: &str| find(name).map(|(_, value)| (*value).to_owned());
        GatewayConfig::load(flags.settings, Some(&path), &lookup).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_variables_of_openfaas_are_enough() {
        let environment = [
            ("functions_provider_url", "http://faas-netes:8081/"),
            ("logs_provider_url", "http://faas-netes:8081"),
            ("basic_auth", "true"),
            ("secret_mount_path", "/var/secrets"),
            ("read_timeout", "65"),
            ("write_timeout", "1m5s"),
            ("upstream_timeout", "1m"),
            ("scale_from_zero", "false"),
            ("max_idle_conns", "1024"),
            ("max_idle_conns_per_host", "100"),
            ("function_namespace", "openfaas-fn"),
        ];
        let config = load(&[], "", &environment).unwrap();
        assert_eq!(config.provider.to_string(), "http://faas-netes:8081");
        assert_eq!(config.serve.auth, Auth::Mounted("/var/secrets".into()));
        assert_eq!((config.upstream_timeout.as_secs(), config.head_timeout.as_secs()), (60, 65));
        assert_eq!((config.scale_from_zero, config.max_idle_connections), (false, 100));

        let config = load(&["--provider=http://node", "--upstream-timeout=3m"], "", &environment).unwrap();
        assert_eq!(config.provider.to_string(), "http://node", "a flag beats the environment");
        assert_eq!(config.upstream_timeout.as_secs(), 65, "write_timeout breaks an answer off");
    }

    #[test]
    fn a_file_will_do_and_the_rest_has_defaults() {
        let file = "provider = \"http://10.0.0.5:8081\"\nlisten = \"127.0.0.1:1\"\nserve-threads = 3\n";
        let config = load(&[], file, &[]).unwrap();
        assert_eq!(config.serve.listen.port(), 1);
        assert_eq!(config.serve.serve_threads.get(), 3);
        assert_eq!((config.upstream_timeout.as_secs(), config.head_timeout.as_secs()), (60, 10));
        assert!(config.scale_from_zero && config.provider_credentials.is_none());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let environment = [
            ("read_timeout", "soon"),
            ("write_timeout", "-1s"),
            ("scale_from_zero", "maybe"),
            ("max_idle_conns", "many"),
            ("logs_provider_url", "loki"),
            ("function_namespace", "mine"),
        ];
        let flags = ["--provider=https://node", "--upstream-timeout=0", "--listen=8080"];
        let message = load(&flags, "egress = \"none\"", &environment).unwrap_err();
        for part in [
            "provider: \"https://node\"",
            "upstream-timeout \"0\"",
            "listen \"8080\"",
            "\"egress\", which is no setting",
            "read_timeout \"soon\"",
            "write_timeout \"-1s\"",
            "scale_from_zero \"maybe\"",
            "max_idle_conns \"many\"",
            "logs-provider-url is no address",
            "function_namespace \"mine\"",
        ] {
            assert_eq!(message.matches(part).count(), 1, "{part}: {message}");
        }
        assert!(load(&[], "", &[]).unwrap_err().contains("--provider URL"));
    }
}
