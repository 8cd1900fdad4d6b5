use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tracing::{error, info};

/// How long to wait after the machine could not accept, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that is not tied to a runtime yet.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Its place among all connections; none for those that are taken in beyond the limit at shutdown.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Takes connections from a listener's queue as long as there is room for them.
pub(crate) struct Acceptor {
    listener: tokio::net::TcpListener,
    room: Arc<Semaphore>,
    /// Taken from the queue, and there is no room for it yet. Room is looked for only now, as that which waits at one
    /// listener would be missing at the others.
    in_hand: Option<(TcpStream, SocketAddr)>,
    failing: bool,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, room: Arc<Semaphore>) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Self { listener, room, in_hand: None, failing: false })
    }

    /// The next connection that there is room for. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Accepted {
        loop {
            if self.in_hand.is_none() {
                self.in_hand = Some(self.accept().await);
            }
            let permit = Arc::clone(&self.room).acquire_owned().await.ok();
            if let Some((stream, peer)) = self.in_hand.take() {
                return Accepted { stream, peer, permit };
            }
        }
    }

    /// A failure passes, or at least must not end the server: it is logged once, and tried again.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok(accepted) => {
                    if self.failing {
                        self.failing = false;
                        info!("accepting connections again");
                    }
                    return accepted;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !self.failing {
                        self.failing = true;
                        error!(%error, "cannot accept connections; raise the limit of open files if that is it");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the listener, after taking what the operating system has accepted and we have not: those clients
    /// believe that they are connected.
    pub(crate) fn drain_queue(self, mut start: impl FnMut(Accepted)) {
        let mut start = |(stream, peer)| start(Accepted { stream, peer, permit: None });
        self.in_hand.into_iter().for_each(&mut start);
        let drained = self.listener.into_std().and_then(|listener| {
            loop {
                start(accept(&listener)?);
            }
        });
        match drained {
            Err::<(), _>(error) if error.kind() != ErrorKind::WouldBlock => {
                error!(%error, "cannot take the connections that were waiting at shutdown");
            }
            _ => {}
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}
