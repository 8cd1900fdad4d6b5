use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
};

use thiserror::Error;

/// Why an address cannot be listened on, and what to do about it.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {advice}")]
pub struct BindError {
    address: SocketAddr,
    advice: String,
    #[source]
    source: io::Error,
}

/// Listens on an address; `flag` is what the user can choose another one with, such as `--listen`.
///
/// The listener is not tied to a runtime yet, so that it can be served from any thread.
///
/// # Errors
/// The address is in use, not ours or not permitted.
pub fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, BindError> {
    // The standard library sets SO_REUSEADDR, so a restart does not wait for old connections to time out.
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source: io::Error| BindError {
        address,
        advice: advice(&source, address, flag),
        source,
    })
}

fn advice(error: &io::Error, address: SocketAddr, flag: &str) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("port {port} is in use; stop what listens there or choose another with {flag}")
        }
        ErrorKind::PermissionDenied => {
            format!("port {port} needs privileges; choose one above 1023 with {flag}")
        }
        ErrorKind::AddrNotAvailable => {
            format!("this machine has no address {}; choose another with {flag}", address.ip())
        }
        _ => format!("{error}; choose another address with {flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_when_the_port_is_taken() {
        let taken = bind(([127, 0, 0, 1], 0).into(), "--listen").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, "--listen").unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
        assert!(error.contains("in use"), "{error}");
    }

    #[test]
    fn says_when_the_address_is_another_machines() {
        let error = bind(([192, 0, 2, 1], 0).into(), "--listen").unwrap_err().to_string();
        assert!(error.contains("no address 192.0.2.1"), "{error}");
    }
}
