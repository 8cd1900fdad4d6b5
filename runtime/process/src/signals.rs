use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// SIGTERM and SIGINT, from the moment this value exists.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen, inside a runtime; until then the signals end the process.
    ///
    /// # Errors
    /// The operating system refuses the handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `shutdown` on the first signal and `now` on the second, with which the caller should exit at once.
    pub async fn run(mut self, shutdown: CancellationToken, now: CancellationToken) {
        let signal = self.next().await;
        info!(signal, "shutting down; a second signal exits at once");
        shutdown.cancel();
        let signal = self.next().await;
        warn!(signal, "exiting at once");
        now.cancel();
    }

    async fn next(&mut self) -> &'static str {
        select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_exits() {
        let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
        let running = tokio::spawn(Signals::listen().unwrap().run(shutdown.clone(), now.clone()));
        send("-TERM");
        shutdown.cancelled().await;
        assert!(!now.is_cancelled());
        send("-INT");
        now.cancelled().await;
        running.await.unwrap();
    }

    fn send(signal: &str) {
        assert!(Command::new("kill").args([signal, &id().to_string()]).status().unwrap().success());
    }
}
