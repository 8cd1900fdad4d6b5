use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The same, as `X-Forwarded-For` says it.
    pub header: HeaderValue,
}

impl From<SocketAddr> for Peer {
    fn from(peer: SocketAddr) -> Self {
        let address = peer.ip().to_canonical();
        // An address is visible ASCII.
        let header = HeaderValue::try_from(address.to_string());
        Self { address, header: header.unwrap_or(HeaderValue::from_static("unknown")) }
    }
}
