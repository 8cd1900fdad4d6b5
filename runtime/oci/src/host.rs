use std::{fmt, str::FromStr};

use reqwest::Url;
use runtime_api::{Error, Result};
use url::Host;

/// The port that a host is meant at when none is given.
const USUAL_PORT: u16 = 443;

/// A registry as settings name it: `host`, which covers all its ports, or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost {
    host: Host<String>,
    port: Option<u16>,
}

impl RegistryHost {
    pub(crate) fn of(url: &Url) -> Option<Self> {
        Some(Self { host: url.host()?.to_owned(), port: url.port() })
    }

    /// Whether it is of one port alone.
    pub(crate) fn has_port(&self) -> bool {
        self.port.is_some()
    }

    /// Whether what is said of `self` holds for `other`, an address that requests go to.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let same_port = |port| port == other.port.unwrap_or(USUAL_PORT);
        self.host == other.host && self.port.is_none_or(same_port)
    }
}

impl FromStr for RegistryHost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            let message = format!("{text:?} is not HOST or HOST:PORT, such as localhost:5000");
            Error::invalid("invalid-registry", message)
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse::<u16>().ok().filter(|port| *port > 0);
                (host, Some(port.ok_or_else(invalid)?))
            }
            _ => (text, None),
        };
        let host = Host::parse(host).map_err(|_| invalid())?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_covers_what_it_names() {
        for (setting, address, covered) in [
            ("lab", "lab", true),
            ("lab", "lab:5000", true),
            ("Lab:5000", "lab:5000", true),
            ("lab:5000", "lab:5001", false),
            ("lab:5000", "lab", false),
            ("lab:443", "lab", true),
            ("lab", "lab:443", true),
            ("lab", "evil.lab", false),
            ("[::1]:5000", "[::1]:5000", true),
            ("[::1]", "[0:0::1]:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
        ] {
            let (setting, address): (RegistryHost, RegistryHost) =
                (setting.parse().unwrap(), address.parse().unwrap());
            assert_eq!(setting.covers(&address), covered, "{setting} {address}");
        }
        let url = Url::parse("https://lab:443/").unwrap();
        assert!("lab:443".parse::<RegistryHost>().unwrap().covers(&RegistryHost::of(&url).unwrap()));
    }

    #[test]
    fn addresses_and_paths_are_no_hosts() {
        for bad in
            ["", "http://localhost:5000", "https://x/", "x/", "me@x", "x:", "x:0", "x:70000", "::1", "a b"]
        {
            assert!(bad.parse::<RegistryHost>().is_err(), "{bad}");
        }
    }
}
