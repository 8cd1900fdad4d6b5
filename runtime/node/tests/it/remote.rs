//! A node at the other end of a connection.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::HeaderValue;
use runtime_api::Provider;
use runtime_http::{Credentials, HttpProvider, HttpProviderConfig, ProviderServer, ProviderServerConfig};
use runtime_node::Node;
use runtime_process::{ServeConfig, bind, serve};
use runtime_testing::{guests, provider_suite};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::Machine;

/// Serves a node until the test's runtime ends, and gives the other end.
fn across_the_wire(node: Node) -> Arc<HttpProvider> {
    let credentials = Credentials { user: "gateway".into(), password: "secret".into() };
    let config = ProviderServerConfig {
        basic_auth: Some(credentials.clone()),
        shutdown: CancellationToken::new(),
        control: Handle::current(),
    };
    let server = ProviderServer::new(config, Arc::new(node), &prometheus::Registry::new()).unwrap();
    let listener = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let service_for = move |peer| server.service(peer);
    tokio::spawn(serve(listener, service_for, ServeConfig::default(), CancellationToken::new()));
    let config = HttpProviderConfig {
        url,
        credentials: Some(credentials),
        call_timeout: Duration::from_secs(60),
        max_idle_connections: 16,
        runtimes: NonZeroUsize::MIN,
        user_agent: HeaderValue::from_static("fawn/test"),
    };
    Arc::new(HttpProvider::new(config).unwrap())
}

#[tokio::test]
async fn a_node_is_a_provider_from_afar() {
    let module = wat::parse_str(guests::HELLO_HTTP).unwrap();
    let machines = Mutex::new(Vec::new());
    let make = async || {
        let machine = Machine::new();
        let provider = across_the_wire(machine.start().node);
        machines.lock().unwrap().push(machine);
        provider
    };
    provider_suite(make, &module).await;
}

#[tokio::test]
async fn a_node_says_that_it_wakes_its_functions() {
    let machine = Machine::new();
    assert!(across_the_wire(machine.start().node).info().await.unwrap().wakes_functions());
}
