use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{HOST, ORIGIN},
    uri::Authority,
};
use runtime_api::{Error, Result};

/// Who made a browser send a request (W3C Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what a page of another site makes a user's browser send, from where it reaches us and with the credentials
/// that it keeps. Programs such as faas-cli and curl send neither header.
///
/// Where no credentials are asked for, a page could even have its own name lead here (DNS rebinding), so that then a
/// browser must name an address, or this machine.
///
/// # Errors
/// [`Error::Invalid`] with the code `cross-site`.
pub(crate) fn refuse_other_sites(headers: &HeaderMap, asks_credentials: bool) -> Result<()> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own_page = |site: &HeaderValue| site == "same-origin" || site == "none";
    let own_origin = |origin: &HeaderValue| is_origin_of(origin, host);
    let origins = headers.get_all(ORIGIN);
    if !headers.get_all(FETCH_SITE).iter().all(own_page) || !origins.iter().all(own_origin) {
        return Err(Error::invalid("cross-site", "a page of another site may not use /system or /ui"));
    }
    if !asks_credentials && headers.contains_key(ORIGIN) && !names_machine(host) {
        let text = format!(
            "without credentials a browser may not use /system or /ui of {host}; go by its address, or ask for credentials"
        );
        return Err(Error::invalid("cross-site", text));
    }
    Ok(())
}

fn is_origin_of(origin: &HeaderValue, host: &str) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn names_machine(host: &str) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_our_own_pages_are_let_in() {
        for (origin, host, ours) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true),
            ("https://faas.example", "FaaS.example", true),
            ("http://127.0.0.1:8081", "127.0.0.1:8080", false),
            ("http://evil.example", "127.0.0.1:8080", false),
            ("null", "127.0.0.1:8080", false),
            ("", "", false),
        ] {
            let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
            assert_eq!(refuse_other_sites(&headers, true).is_ok(), ours, "{origin} {host}");
        }
        for (site, ours) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("x", false)]
        {
            let headers = headers(&[(FETCH_SITE, site), (HOST, "faas.example")]);
            assert_eq!(refuse_other_sites(&headers, true).is_ok(), ours, "{site}");
        }
    }

    #[test]
    fn without_credentials_a_name_that_was_led_here_is_refused() {
        for (origin, host, admitted) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("http://192.0.2.7", "192.0.2.7", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://evil.example:8080", "evil.example:8080", false),
            ("http://localhost.evil.example", "localhost.evil.example", false),
        ] {
            let headers = headers(&[(ORIGIN, origin), (HOST, host)]);
            assert_eq!(refuse_other_sites(&headers, false).is_ok(), admitted, "{host}");
            assert!(refuse_other_sites(&headers, true).is_ok(), "{host}");
        }
        assert!(refuse_other_sites(&headers(&[(HOST, "gateway.openfaas:8080")]), false).is_ok());
    }
}
