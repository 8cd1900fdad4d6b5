use std::{fmt, str::FromStr};

use http::{Uri, uri::Authority};
use runtime_api::{Error, Result};

/// Where a provider is: `http://HOST[:PORT][/PATH]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderUrl {
    authority: Authority,
    /// What its routes' paths begin with; empty, or with a slash before and none behind.
    prefix: String,
}

impl FromStr for ProviderUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            let message =
                format!("{text:?} is not the address of a provider, such as http://127.0.0.1:8081: {why}");
            Error::invalid("invalid-provider", message)
        };
        let uri: Uri = text.parse().map_err(|_| invalid("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(invalid("https is not spoken; put the provider on a network of your own"));
            }
            _ => return Err(invalid("it does not begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("it has credentials, which belong into files"));
        }
        if uri.query().is_some() {
            return Err(invalid("it has a query"));
        }
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if authority.host().is_empty()
            || !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0)
        {
            return Err(invalid("it names no host, or no port"));
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { authority: authority.clone(), prefix })
    }
}

impl ProviderUrl {
    /// The address of one of its routes, whose path and query are taken as they are.
    pub(crate) fn route(&self, path_and_query: &str) -> Result<Uri> {
        let path = format!("{}{path_and_query}", self.prefix);
        let uri = Uri::builder().scheme("http").authority(self.authority.clone()).path_and_query(path);
        uri.build().map_err(Error::internal)
    }
}

impl fmt::Display for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_below_the_address_byte_for_byte() {
        for (base, route, whole) in [
            ("http://node:8081", "/system/info", "http://node:8081/system/info"),
            (
                "http://node:8081/",
                "/function/f.dev//a/%2F?x=%zz",
                "http://node:8081/function/f.dev//a/%2F?x=%zz",
            ),
            ("http://[::1]/a/b/", "/healthz", "http://[::1]/a/b/healthz"),
        ] {
            let url: ProviderUrl = base.parse().unwrap();
            assert_eq!(url.route(route).unwrap().to_string(), whole);
            assert_eq!(url.to_string(), base.trim_end_matches('/'));
        }
    }

    #[test]
    fn what_is_no_address_is_explained() {
        for (wrong, why) in [
            ("", "no URL"),
            ("node:8081", "http://"),
            ("/function", "http://"),
            ("https://node", "https is not spoken"),
            ("ftp://node", "does not begin"),
            ("http://admin:secret@node", "credentials"),
            ("http://node/?x=1", "query"),
            ("http://node:0", "no port"),
            ("http://node:99999", "no"),
        ] {
            let error = wrong.parse::<ProviderUrl>().unwrap_err();
            assert!(error.to_string().contains(why), "{wrong}: {error}");
            assert_eq!(error.code(), "invalid-provider");
        }
    }
}
