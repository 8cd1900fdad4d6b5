use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use rustls::ClientConfig;
use tokio::sync::{OnceCell, Semaphore};

use crate::{
    Error, Result,
    address::{Network, is_never_meant_by_a_name, is_public, plain},
};

/// Far more than anyone writes by hand.
const MAX_ENTRIES: usize = 256;

/// Names being looked up at once under one policy. A lookup holds a thread until the resolver gives up.
const LOOKUPS: usize = 16;

/// Which destinations may be reached. Cheap to clone; clones share one bound on lookups.
#[derive(Clone)]
pub struct Policy {
    rules: Arc<[Rule]>,
    pub(crate) lookups: Arc<Semaphore>,
    /// The system's certificates are read once, when a first request wants them.
    pub(crate) tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Whatever is on the public internet.
    Public,
    /// A range of addresses, however they were named.
    Addresses(Network, Port),
    /// A name, whatever it resolves to within reason.
    Name(String, Port),
    /// Every name below one.
    Below(String, Port),
}

/// The port of a rule; none stands for every port.
type Port = Option<u16>;

impl Policy {
    /// Public addresses only: what a function gets that asks for nothing else.
    pub fn public() -> Self {
        Self::of(vec![Rule::Public])
    }

    /// Nothing at all.
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    /// Reads `none`, or a comma-separated list of `public`, `host`, `host:port`, `*.suffix`, `*.suffix:port`,
    /// an address, `address:port`, `10.0.0.0/8` and `10.0.0.0/8:port`. IPv6 addresses with a port stand in brackets.
    ///
    /// A name that is listed may resolve to private addresses. Loopback is reached by `localhost` or by address only,
    /// and link-local addresses (where clouds keep credentials) by address only.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] that names the entry and says what to write.
    pub fn parse(text: &str) -> Result<Self> {
        parse_rules(text).map(Self::of)
    }

    /// The policy of a function: its own, if its annotation gives one, else this default.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn for_function(&self, annotation: Option<&str>) -> Result<Self> {
        let rules = match annotation {
            Some(text) => parse_rules(text)?.into(),
            None => Arc::clone(&self.rules),
        };
        Ok(Self { rules, lookups: Arc::new(Semaphore::new(LOOKUPS)), tls: Arc::clone(&self.tls) })
    }

    /// Whether an address may be reached of which no name is known.
    pub fn allows(&self, address: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.allows_address(address))
    }

    /// Whether an address that a name resolved to may be reached under that name.
    pub(crate) fn allows_as(&self, host: &str, address: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.allows_address(address) || rule.allows_name(host, address))
    }

    /// Whether any rule could let this host be reached, whatever it resolves to: a lookup is itself a message out.
    pub(crate) fn may_look_up(&self, host: &str, port: u16) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::Public => true,
            Rule::Addresses(_, wanted) => wanted.is_none_or(|wanted| wanted == port),
            Rule::Name(..) | Rule::Below(..) => rule.names(host, port),
        })
    }

    fn of(rules: Vec<Rule>) -> Self {
        Self { rules: rules.into(), lookups: Arc::new(Semaphore::new(LOOKUPS)), tls: Arc::default() }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::public()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.rules).finish()
    }
}

impl Rule {
    fn allows_address(&self, address: SocketAddr) -> bool {
        match self {
            Self::Public => is_public(address.ip()),
            Self::Addresses(network, port) => {
                network.contains(plain(address.ip())) && port.is_none_or(|port| port == address.port())
            }
            Self::Name(..) | Self::Below(..) => false,
        }
    }

    fn allows_name(&self, host: &str, address: SocketAddr) -> bool {
        let local = host == "localhost" || host.ends_with(".localhost");
        self.names(host, address.port())
            && !is_never_meant_by_a_name(address.ip())
            && (local || !plain(address.ip()).is_loopback())
    }

    fn names(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Name(name, wanted) => host == name && wanted.is_none_or(|wanted| wanted == port),
            Self::Below(suffix, wanted) => {
                let below = host
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
                below && wanted.is_none_or(|wanted| wanted == port)
            }
            Self::Public | Self::Addresses(..) => false,
        }
    }
}

fn parse_rules(text: &str) -> Result<Vec<Rule>> {
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    if entries == ["none"] {
        return Ok(Vec::new());
    }
    if entries.len() > MAX_ENTRIES {
        return Err(invalid(&format!("{} entries", entries.len()), format!("are more than {MAX_ENTRIES}")));
    }
    entries.into_iter().map(parse_rule).collect()
}

fn parse_rule(entry: &str) -> Result<Rule> {
    match entry {
        "" => return Err(invalid(entry, "is empty; write none, public, or a list of hosts".into())),
        "none" => return Err(invalid(entry, "cannot stand beside other entries".into())),
        "public" => return Ok(Rule::Public),
        _ => {}
    }
    if entry.contains('/') {
        return parse_network(entry);
    }
    let (host, port) = split_port(entry)?;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Rule::Addresses(Network::of(plain(address)), port));
    }
    let host = host.to_ascii_lowercase();
    match host.strip_prefix("*.") {
        Some(suffix) => Ok(Rule::Below(check_name(entry, suffix)?, port)),
        None => Ok(Rule::Name(check_name(entry, &host)?, port)),
    }
}

fn parse_network(entry: &str) -> Result<Rule> {
    let problem =
        || invalid(entry, "is not a range of addresses; write it like 10.0.0.0/8 or 10.0.0.0/8:443".into());
    let (first, rest) = entry.split_once('/').ok_or_else(problem)?;
    let (prefix, port) = match rest.split_once(':') {
        Some((prefix, port)) => (prefix.trim_end_matches(']'), Some(parse_port(entry, port)?)),
        None => (rest, None),
    };
    let first: IpAddr = first.trim_matches(['[', ']']).parse().map_err(|_| problem())?;
    if plain(first) != first {
        return Err(invalid(entry, "is IPv4 written as IPv6; write the IPv4 range".into()));
    }
    let prefix = prefix.parse().map_err(|_| problem())?;
    Network::new(first, prefix)
        .map(|network| Rule::Addresses(network, port))
        .map_err(|why| invalid(entry, why))
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` and a bare IPv6 address.
fn split_port(entry: &str) -> Result<(&str, Port)> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, after) =
            rest.split_once(']').ok_or_else(|| invalid(entry, "has no closing bracket".into()))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(parse_port(entry, port)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(invalid(entry, "has something other than a port after the bracket".into())),
        };
    }
    match entry.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((entry, None)),
        Some((host, port)) => Ok((host, Some(parse_port(entry, port)?))),
        None => Ok((entry, None)),
    }
}

fn parse_port(entry: &str, port: &str) -> Result<u16> {
    match port.parse() {
        Ok(0) | Err(_) => Err(invalid(entry, "has no port between 1 and 65535 after the colon".into())),
        Ok(port) => Ok(port),
    }
}

/// A name as a resolver takes it (RFC 1123 §2.1), and not one that it would read as a number.
fn check_name(entry: &str, name: &str) -> Result<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    if name.len() <= 253 && name.split('.').all(label) && !numeric {
        return Ok(name.to_owned());
    }
    Err(invalid(
        entry,
        "is not a host name; write api.example.com, *.example.com or an address such as 10.0.0.7".into(),
    ))
}

fn invalid(entry: &str, problem: String) -> Error {
    Error::InvalidPolicy { entry: entry.chars().take(64).collect(), problem }
}

#[cfg(test)]
mod tests;
