use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use crate::{Error, Policy, Result, address::plain};

/// A resolver that takes longer is as good as down.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// No wait is longer, whatever is asked for: the clock cannot count to just any duration.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A name with more addresses than this is tried no further.
const MAX_ADDRESSES: usize = 16;

/// Looks a host up, once, and answers those of its addresses that may be reached.
///
/// # Errors
/// [`Error::Denied`] when there are addresses but none is allowed; otherwise why there are none.
pub async fn resolve(policy: &Policy, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let host = normal_host(host)?;
    let denied = || Error::Denied { host: host.clone(), port };
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) if !policy.may_look_up(&host, port) => return Err(denied()),
        Err(_) => look_up(policy, &host, port).await?,
    };
    let found: Vec<SocketAddr> =
        found.into_iter().map(|found| SocketAddr::new(plain(found.ip()), port)).collect();
    let allowed: Vec<SocketAddr> =
        found.iter().copied().filter(|found| policy.allows_as(&host, *found)).collect();
    if allowed.is_empty() {
        debug!(host, port, ?found, "egress denied");
        return Err(denied());
    }
    Ok(allowed)
}

/// Whether a host may be reached, as far as that is told without looking it up: one that is an address, or a name that
/// no rule could allow.
pub fn may_reach(policy: &Policy, host: &str, port: u16) -> bool {
    let Ok(host) = normal_host(host) else { return false };
    match host.parse::<IpAddr>() {
        Ok(address) => policy.allows_as(&host, SocketAddr::new(plain(address), port)),
        Err(_) => policy.may_look_up(&host, port),
    }
}

/// Connects to the first address of a host that may be reached and answers.
///
/// # Errors
/// As [`resolve`]; then why the last address tried did not take the connection.
pub async fn connect(policy: &Policy, host: &str, port: u16, limit: Duration) -> Result<TcpStream> {
    let deadline = deadline_after(limit);
    let timed_out = || Error::ConnectTimedOut { host: host.to_owned(), port, limit };
    let addresses = timeout_at(deadline, resolve(policy, host, port)).await.map_err(|_| timed_out())??;
    let mut outcome = timed_out();
    for (tried, address) in addresses.iter().enumerate() {
        // A dead address may use up its share of the time, and not that of the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return prepared(stream, host, port),
            Ok(Err(source)) => outcome = Error::ConnectFailed { host: host.to_owned(), port, source },
            Err(_) => outcome = timed_out(),
        }
    }
    Err(outcome)
}

fn prepared(stream: TcpStream, host: &str, port: u16) -> Result<TcpStream> {
    // Small requests would otherwise wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true).map_err(|source| Error::ConnectFailed {
        host: host.to_owned(),
        port,
        source,
    })?;
    Ok(stream)
}

/// When a time that a guest may have chosen is over.
pub(crate) fn deadline_after(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST)
}

/// One spelling of a host for rules and resolver: lower case, no brackets, no dot at the end.
pub(crate) fn normal_host(host: &str) -> Result<String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let plausible = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if bare.is_empty() || bare.len() > 253 || !bare.bytes().all(plausible) {
        return Err(Error::NameNotFound { host: host.chars().take(64).collect(), source: None });
    }
    Ok(bare.to_ascii_lowercase())
}

async fn look_up(policy: &Policy, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let timed_out = |_| Error::NameTimedOut { host: host.to_owned(), limit: LOOKUP_TIMEOUT };
    timeout(LOOKUP_TIMEOUT, look_up_on_a_thread(policy, host, port))
        .await
        .map_err(timed_out)?
        .map_err(|error| Error::NameNotFound { host: host.to_owned(), source: Some(error) })
}

async fn look_up_on_a_thread(policy: &Policy, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let permit = Arc::clone(&policy.lookups).acquire_owned().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        // The resolver cannot be interrupted: the permit goes with the thread, not with who waits for it.
        let _permit = permit;
        (host.as_str(), port).to_socket_addrs().map(|found| found.take(MAX_ADDRESSES).collect())
    });
    lookup.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod spellings;
#[cfg(test)]
mod tests;
