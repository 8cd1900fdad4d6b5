use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Error, Policy, Result, connect::normal_host};

/// Speaks TLS on a connection, and makes sure that the other side is who it should be.
pub(crate) async fn encrypt(policy: &Policy, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
    let failed = |source| Error::TlsFailed { host: host.to_owned(), source };
    let name = ServerName::try_from(normal_host(host)?).map_err(|error| failed(io::Error::other(error)))?;
    let config = policy.tls.get_or_try_init(load_config).await.map_err(failed)?;
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(failed)
}

async fn load_config() -> io::Result<Arc<ClientConfig>> {
    // Reading the system's certificates takes milliseconds of disk and parsing.
    tokio::task::spawn_blocking(|| client_config().map(Arc::new))
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}
