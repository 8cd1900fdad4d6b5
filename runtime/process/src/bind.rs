use std::{
    io::{self, ErrorKind},
    iter,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
};

use socket2::{Domain, SockRef, Socket, Type};
use thiserror::Error;

/// Connections that wait to be accepted, as far as the operating system allows (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

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
        // The standard library's queue is shorter.
        SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| BindError::new(source, address, flag))
}

/// Listens on an address as many times as that, so that each core has a queue of its own; the operating system
/// spreads connections over them (Linux `SO_REUSEPORT`).
///
/// The first listens alone: a port that somebody else has is an error, even if they would share it. From then on the
/// port is shared with other processes of the same user that ask for it; nobody else's can.
///
/// # Errors
/// As [`bind`].
pub fn bind_each(
    address: SocketAddr,
    flag: &str,
    times: NonZeroUsize,
) -> Result<Vec<TcpListener>, BindError> {
    let first = bind(address, flag)?;
    let listen = || {
        let address = first.local_addr()?;
        // While the first keeps the port, there is no moment at which it is free.
        SockRef::from(&first).set_reuse_port(true)?;
        iter::repeat_with(|| listen_too(address)).take(times.get() - 1).collect::<io::Result<Vec<_>>>()
    };
    let mut listeners = listen().map_err(|source| BindError::new(source, address, flag))?;
    listeners.push(first);
    Ok(listeners)
}

fn listen_too(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl BindError {
    fn new(source: io::Error, address: SocketAddr, flag: &str) -> Self {
        Self { address, advice: advice(&source, address, flag), source }
    }
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
    fn a_port_is_shared_among_us_and_with_nobody_else() {
        let (two, loopback) = (NonZeroUsize::new(2).unwrap(), [127, 0, 0, 1]);
        let ours = bind_each((loopback, 0).into(), "--listen", two).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(address.port() != 0 && ours.iter().all(|one| one.local_addr().unwrap() == address));
        let taken = [bind_each(address, "--listen", two).map(drop), bind(address, "--listen").map(drop)];
        for taken in taken {
            let error = taken.unwrap_err().to_string();
            assert!(error.contains("in use") && error.contains("--listen"), "{error}");
        }
    }

    #[test]
    fn a_port_that_somebody_shares_is_taken_all_the_same() {
        let sharing = listen_too(([127, 0, 0, 1], 0).into()).unwrap();
        let address = sharing.local_addr().unwrap();
        let error = bind_each(address, "--listen", NonZeroUsize::MIN).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
    }

    #[test]
    fn says_when_the_address_is_another_machines() {
        let error = bind(([192, 0, 2, 1], 0).into(), "--listen").unwrap_err().to_string();
        assert!(error.contains("no address 192.0.2.1"), "{error}");
    }
}
