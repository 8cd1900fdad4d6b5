use std::{
    collections::HashMap,
    error::Error as StdError,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use reqwest::{
    Client, Url,
    dns::{Name, Resolve, Resolving},
    redirect,
};
use runtime_api::{Error, Result};
use runtime_egress::Policy;

use crate::{
    RegistryConfig, RegistryHost,
    auth::Access,
    endpoint::{Endpoint, authority},
    retry::Failure,
    session::Session,
    trust::{Proofs, Trust},
};

/// Speaks HTTP to registries, within bounds. What a registry says never decides where credentials go.
pub(crate) struct Transport {
    pub(crate) config: RegistryConfig,
    /// Where a registry may send us. One for all, since it bounds the lookups that go on at once.
    pub(crate) public: Policy,
    trust: Trust,
    /// One client for each way of connecting, made when it is first needed: reading the system's certificates fails
    /// on machines that have none, and a registry of plain http needs none. There are as many as the configuration has.
    clients: Mutex<HashMap<Way, Client>>,
}

/// A way of connecting.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    public_only: bool,
    verify: bool,
    proofs: Proofs,
}

impl Transport {
    pub(crate) fn new(config: RegistryConfig) -> Result<Self> {
        let trust = Trust::load(&config)?;
        Ok(Self { config, public: Policy::public(), trust, clients: Mutex::default() })
    }

    pub(crate) fn session(&self, endpoint: Endpoint, access: Access) -> Session<'_> {
        Session::new(self, endpoint, access)
    }

    pub(crate) fn client(&self, url: &Url, public_only: bool) -> Result<Client> {
        let way = self.way(url, public_only);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&way) {
            return Ok(client.clone());
        }
        let client = self.build(way)?;
        clients.insert(way, client.clone());
        Ok(client)
    }

    fn way(&self, url: &Url, public_only: bool) -> Way {
        let to = RegistryHost::of(url).filter(|_| url.scheme() == "https");
        // Without TLS there is nothing to verify.
        let Some(to) = to else { return Way { public_only, verify: false, proofs: Proofs::default() } };
        let verify = !self.config.skip_tls_verification.iter().any(|skipped| skipped.covers(&to));
        Way { public_only, verify, proofs: self.trust.proofs(&to) }
    }

    fn build(&self, way: Way) -> Result<Client> {
        let builder = Client::builder()
            .user_agent(concat!("fawn/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.config.timeouts.connect)
            .tls_danger_accept_invalid_certs(!way.verify)
            .dns_resolver(Resolver { within: way.public_only.then(|| self.public.clone()) });
        self.trust.apply(way.proofs, builder).build().map_err(|error| {
            Error::registry_unavailable("no https client: are the system's certificates there?", error)
        })
    }
}

/// Resolves names each time a connection is made; where there is a policy, to addresses that it allows and to no others.
struct Resolver {
    within: Option<Policy>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let within = self.within.clone();
        Box::pin(async move {
            // The port is put in by the client.
            let addresses: Vec<SocketAddr> = if let Some(policy) = within {
                runtime_egress::resolve(&policy, name.as_str(), 0).await?
            } else {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await;
                let unknown = |source| runtime_egress::Error::NameNotFound {
                    host: name.as_str().to_owned(),
                    source: Some(source),
                };
                found.map_err(unknown)?.collect()
            };
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// Why there is no answer, and whether it may pass.
pub(crate) fn unanswered(url: &Url, error: reqwest::Error) -> Failure {
    let (host, cause) = (authority(url), root_cause(&error));
    let lookup = causes(&error).find_map(|cause| cause.downcast_ref::<runtime_egress::Error>());
    let is_denied = matches!(lookup, Some(runtime_egress::Error::Denied { .. }));
    let is_tls = url.scheme() == "https" && fails_tls(&error);
    let (passes, message) = match (error.is_timeout(), error.is_connect(), lookup) {
        (true, ..) => (false, format!("{host} did not answer in time")),
        (_, true, Some(_)) if is_denied => (false, format!("{host} is at a private address")),
        (_, true, Some(_)) => {
            (true, format!("{host} cannot be looked up ({cause}): check the name, and this machine's DNS"))
        }
        (_, true, None) if is_tls => (
            false,
            format!(
                "{host} cannot be reached over https ({cause}); if it speaks plain http, allow that with \
                 `--insecure-registry {host}`; if its certificate is its own, name what signed it with \
                 `--registry-ca {host}=FILE`, or do not check it with `--skip-tls-verify {host}`"
            ),
        ),
        (_, true, None) => (true, format!("{host} cannot be reached ({cause})")),
        _ => (true, format!("the connection to {host} broke off ({cause})")),
    };
    // The address may have a signature in it that gives access.
    let error = Error::registry_unavailable(message, error.without_url());
    if passes { Failure::passing(error) } else { Failure::Final(error) }
}

/// Whether it was TLS that could not be agreed on, as where the other side speaks none. One that only breaks off says
/// nothing about that: whoever sits in between could make us advise to do without.
fn fails_tls(error: &reqwest::Error) -> bool {
    let mut io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.any(|cause| cause.kind() == ErrorKind::InvalidData)
}

/// An error and what it is due to. Of what an I/O error wraps, `source` would leave out the first.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        match error.downcast_ref::<io::Error>().map(io::Error::get_ref) {
            Some(Some(wrapped)) => Some(wrapped),
            _ => (**error).source(),
        }
    })
}

/// What the user can act on: the name that is not known, the port that is closed.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_to_public_addresses_only() {
        let resolver = Resolver { within: Some(Policy::public()) };
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
    }

    #[test]
    fn only_hosts_named_for_it_go_unverified() {
        let skipped = ["lab:5000", "lab.example.com", "usual.example.com:443"];
        let skip_tls_verification = skipped.map(|host| host.parse().unwrap()).into();
        let config = RegistryConfig { skip_tls_verification, ..RegistryConfig::default() };
        let transport = Transport::new(config).unwrap();
        for (url, skipped) in [
            ("https://lab:5000/", true),
            ("https://lab:5001/", false),
            ("https://lab.example.com:8443/", true),
            ("https://usual.example.com/", true),
            ("https://evil.lab.example.com/", false),
        ] {
            assert_eq!(!transport.way(&Url::parse(url).unwrap(), false).verify, skipped, "{url}");
        }
    }
}
