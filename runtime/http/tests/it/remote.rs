//! Providers at the other end of a connection.

use std::{convert::Infallible, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use prometheus::Registry;
use runtime_api::{CallId, FunctionName, Invocation, Provider, ProviderInfo};
use runtime_http::{Credentials, HttpProvider, HttpProviderConfig, ProviderServer, ProviderServerConfig};
use runtime_process::{ServeConfig, bind, serve};
use runtime_testing::FakeProvider;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A provider that says that it is ours, served on a port, and the same at the other end.
pub(crate) struct Remote {
    pub(crate) fake: Arc<FakeProvider>,
    pub(crate) address: SocketAddr,
    pub(crate) provider: Arc<HttpProvider>,
    /// What the server is told to be shutting down by, while it goes on.
    pub(crate) ending: CancellationToken,
    running: DropGuard,
}

impl Remote {
    pub(crate) fn start() -> Self {
        Self::start_with(Duration::from_secs(20))
    }

    pub(crate) fn start_with(call_timeout: Duration) -> Self {
        let fake = FakeProvider::new();
        fake.add_detail(ProviderInfo::WAKES_FUNCTIONS, "yes");
        let (ending, control) = (CancellationToken::new(), Handle::current());
        let config =
            ProviderServerConfig { basic_auth: Some(credentials()), shutdown: ending.clone(), control };
        let server = ProviderServer::new(config, fake.clone(), &Registry::new()).unwrap();
        let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let config = ServeConfig { grace: Duration::ZERO, ..ServeConfig::default() };
        tokio::spawn(serve(listener, move |peer| server.service(peer), config, shutdown.clone()));
        let provider = client(address, call_timeout);
        Self { fake, address, provider, ending, running: shutdown.drop_guard() }
    }

    /// The provider's end alone, whose server goes on until the test's runtime ends.
    pub(crate) fn into_provider(self) -> Arc<dyn Provider> {
        self.running.disarm();
        self.provider
    }

    pub(crate) fn stop(self) -> Arc<HttpProvider> {
        self.provider
    }
}

pub(crate) fn credentials() -> Credentials {
    Credentials { user: "gateway".into(), password: "of the gateway".into() }
}

pub(crate) fn client(address: SocketAddr, call_timeout: Duration) -> Arc<HttpProvider> {
    let config = HttpProviderConfig {
        url: format!("http://{address}/").parse().unwrap(),
        credentials: Some(credentials()),
        call_timeout,
        max_idle_connections: 16,
        runtimes: NonZeroUsize::MIN,
        user_agent: HeaderValue::from_static("fawn/test"),
    };
    Arc::new(HttpProvider::new(config).unwrap())
}

/// Somebody else's provider, which gives the same answer to everything.
pub(crate) fn foreign(
    answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> Arc<HttpProvider> {
    let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
    let address = listener.local_addr().unwrap();
    let service_for = move |_| {
        let answer = answer.clone();
        service_fn(move |request| {
            let response = answer(&request);
            async move { Ok::<_, Infallible>(response) }
        })
    };
    tokio::spawn(serve(listener, service_for, ServeConfig::default(), CancellationToken::new()));
    client(address, Duration::from_secs(20))
}

/// A call as a gateway passes it on.
pub(crate) fn call(function: &str, request: Request<runtime_api::Body>) -> Invocation {
    Invocation { function: name(function), call_id: CallId::new("call-1"), request }
}

pub(crate) fn name(function: &str) -> FunctionName {
    FunctionName::parse(function).unwrap()
}
