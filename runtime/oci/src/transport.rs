use std::sync::OnceLock;

use reqwest::{
    Client, Url,
    dns::{Name, Resolve, Resolving},
    redirect,
};
use runtime_api::{Error, Result};
use runtime_egress::Policy;

use crate::{
    RegistryConfig, RegistryHost, auth::Access, endpoint::Endpoint, endpoint::authority, session::Session,
};

/// Speaks HTTP to registries, within bounds. What a registry says never decides where credentials go.
pub(crate) struct Transport {
    pub(crate) config: RegistryConfig,
    clients: Clients,
}

/// One client for each way of connecting, made when it is first needed: reading the system's certificates fails on
/// machines that have none, and a registry of plain http needs none.
#[derive(Default)]
struct Clients {
    anywhere: OnceLock<Client>,
    anywhere_unverified: OnceLock<Client>,
    public: OnceLock<Client>,
    public_unverified: OnceLock<Client>,
}

impl Transport {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Clients::default() }
    }

    pub(crate) fn session(&self, endpoint: Endpoint, access: Access) -> Session<'_> {
        Session::new(self, endpoint, access)
    }

    fn skips_verification(&self, url: &Url) -> bool {
        let to = RegistryHost::of(url);
        to.is_some_and(|to| self.config.skip_tls_verification.iter().any(|skipped| skipped.covers(&to)))
    }

    pub(crate) fn client(&self, url: &Url, public_only: bool) -> Result<&Client> {
        // Without TLS there is nothing to verify.
        let verify = url.scheme() == "https" && !self.skips_verification(url);
        let slot = match (public_only, verify) {
            (false, true) => &self.clients.anywhere,
            (false, false) => &self.clients.anywhere_unverified,
            (true, true) => &self.clients.public,
            (true, false) => &self.clients.public_unverified,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(public_only, verify)?;
        Ok(slot.get_or_init(|| client))
    }

    fn build(&self, public_only: bool, verify: bool) -> Result<Client> {
        let mut builder = Client::builder()
            .user_agent(concat!("fawn/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.config.timeouts.connect)
            .tls_danger_accept_invalid_certs(!verify);
        if public_only {
            builder = builder.dns_resolver(PublicAddresses(Policy::public()));
        }
        builder.build().map_err(|error| {
            Error::registry_unavailable("no https client: are the system's certificates there?", error)
        })
    }
}

/// Resolves names to public addresses and to no others, each time a connection is made.
struct PublicAddresses(Policy);

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            // The port is put in by the client.
            let addresses = runtime_egress::resolve(&policy, name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

pub(crate) fn unanswered(url: &Url, error: reqwest::Error) -> Error {
    let host = authority(url);
    let message = match (error.is_timeout(), error.is_connect(), url.scheme()) {
        (true, ..) => format!("{host} did not answer in time"),
        (_, true, "https") => {
            let cause = root_cause(&error);
            format!(
                "{host} cannot be reached over https ({cause}); if it speaks plain http, allow that with \
                 `--insecure-registry {host}`; if its certificate is its own, with `--skip-tls-verify {host}`"
            )
        }
        (_, true, _) => format!("{host} cannot be reached ({})", root_cause(&error)),
        _ => format!("the connection to {host} broke off"),
    };
    // The address may have a signature in it that gives access.
    Error::registry_unavailable(message, error.without_url())
}

/// What the user can act on: the name that is not known, the port that is closed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_to_public_addresses_only() {
        let resolver = PublicAddresses(Policy::public());
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
    }

    #[test]
    fn only_hosts_named_for_it_go_unverified() {
        let skipped = ["lab:5000", "lab.example.com", "usual.example.com:443"];
        let skip_tls_verification = skipped.map(|host| host.parse().unwrap()).into();
        let transport = Transport::new(RegistryConfig { skip_tls_verification, ..RegistryConfig::default() });
        for (url, skipped) in [
            ("https://lab:5000/", true),
            ("https://lab:5001/", false),
            ("https://lab.example.com:8443/", true),
            ("https://usual.example.com/", true),
            ("https://evil.lab.example.com/", false),
        ] {
            assert_eq!(transport.skips_verification(&Url::parse(url).unwrap()), skipped, "{url}");
        }
    }
}
