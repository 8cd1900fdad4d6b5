use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};

use crate::CALL_ID;

/// When the gateway took a call, in nanoseconds since 1970 (`OpenFaaS`).
pub const START_TIME: HeaderName = HeaderName::from_static("x-start-time");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Makes a client's headers those that the function sees, but for what names the call. `peer` is whom we speak to, unless
/// that is a gateway that has said for whom it asks.
pub fn forward_request(headers: &mut HeaderMap, peer: Option<&HeaderValue>) {
    let host = headers.get(HOST).cloned();
    strip_hop_by_hop(headers);
    if let (Some(host), false) = (host, headers.contains_key(&FORWARDED_HOST)) {
        headers.insert(FORWARDED_HOST, host);
    }
    let Some(peer) = peer else { return };
    let before = headers.get_all(FORWARDED_FOR).iter();
    let path: Vec<&[u8]> = before.chain([peer]).map(HeaderValue::as_bytes).collect();
    let joined = if path.len() == 1 { None } else { HeaderValue::try_from(path.join(&b", "[..])).ok() };
    headers.insert(FORWARDED_FOR, joined.unwrap_or_else(|| peer.clone()));
}

/// Makes a function's headers those that the client sees. `body_size` is the body's length where it is known.
pub(crate) fn forward_response(
    headers: &mut HeaderMap,
    method: &Method,
    body_size: Option<u64>,
    request_type: Option<HeaderValue>,
) {
    strip_hop_by_hop(headers);
    // A length is the server's to say. The function's word counts only where nobody else knows, and it makes sense.
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let known = body_size.is_some() && *method != Method::HEAD;
    headers.remove(CONTENT_LENGTH);
    if let (Some(length), false) = (declared, known) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(CONTENT_TYPE) {
        // The provider of OpenFaaS does so.
        let fallback = request_type.unwrap_or(HeaderValue::from_static("text/plain"));
        headers.insert(CONTENT_TYPE, fallback);
    }
}

/// Removes the headers that are about one connection, and those that `Connection` names (RFC 9110 §7.6.1), but for
/// what names the call and whom it was for: that is not the client's to take away.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let tokens =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let named = tokens.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let named = named.filter(|name| ![CALL_ID, START_TIME, HOST].contains(name));
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name)).cloned().chain(named).collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().copied();
        lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_length_is_told_only_where_it_can_be_true() {
        for (method, declared, body_size, told) in [
            (Method::GET, "5", Some(3), None),
            (Method::GET, "5", None, Some("5")),
            (Method::GET, "+5", None, Some("5")),
            (Method::GET, "5, 5", None, None),
            (Method::GET, "-1", None, None),
            (Method::HEAD, "5", Some(0), Some("5")),
        ] {
            let mut headers = headers(&[("content-length", declared)]);
            forward_response(&mut headers, &method, body_size, None);
            let length = headers.get(CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            assert_eq!(length, told, "{method} {declared} {body_size:?}");
        }
    }

    #[test]
    fn a_missing_type_is_the_requests() {
        let request_type = || Some(HeaderValue::from_static("application/json"));
        for (own, request, told) in [
            (&[("content-type", "text/html")][..], request_type(), "text/html"),
            (&[], request_type(), "application/json"),
            (&[], None, "text/plain"),
        ] {
            let mut headers = headers(own);
            forward_response(&mut headers, &Method::POST, None, request);
            assert_eq!(headers[CONTENT_TYPE], told);
        }
    }
}
