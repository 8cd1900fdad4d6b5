use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A signal that follows another within this time is the same one told twice.
const ECHO: Duration = Duration::from_millis(300);

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
        let signal = self.second().await;
        warn!(signal, "exiting at once");
        now.cancel();
    }

    /// The next signal that someone means: supervisors send one to the process and again to its group.
    async fn second(&mut self) -> &'static str {
        let meant = Instant::now() + ECHO;
        loop {
            let signal = self.next().await;
            if Instant::now() >= meant {
                return signal;
            }
        }
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
        let began = Instant::now();
        send("-TERM");
        shutdown.cancelled().await;
        // One that comes at once is an echo of the first; those after it are meant.
        while !now.is_cancelled() {
            send("-INT");
            tokio::task::yield_now().await;
        }
        assert!(began.elapsed() >= ECHO);
        running.await.unwrap();
    }

    fn send(signal: &str) {
        assert!(Command::new("kill").args([signal, &id().to_string()]).status().unwrap().success());
    }
}
