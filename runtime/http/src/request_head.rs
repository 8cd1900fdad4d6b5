use http::{
    HeaderMap, HeaderValue, Request, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::Authority,
};
use runtime_api::{Error, Result};

/// Checks what a request says about itself, before anything goes by it, and makes `Host` name what it is for.
///
/// A `Content-Length` beside `Transfer-Encoding` cannot be refused: hyper goes by the chunks, as RFC 9112 §6.3 has it,
/// and drops the length before this sees the head. Nor are encodings that do not end in `chunked` seen here: hyper
/// answers those with 400.
///
/// # Errors
/// [`Error::Invalid`], after which the connection must be closed: what follows may be misread.
pub fn check_head<B>(request: &mut Request<B>) -> Result<()> {
    check_encoding(request.headers())?;
    check_host(request.headers(), request.version())?;
    // The target of a request says more than its Host (RFC 9112 §3.2.2).
    if let Some(authority) = request.uri().authority() {
        let host = without_user(authority.as_str()).parse().map_err(Error::internal)?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// An encoding that was not undone must not reach a function as if it were its body (RFC 9112 §6.1).
fn check_encoding(headers: &HeaderMap) -> Result<()> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Error::invalid(
            "unsupported-transfer-encoding",
            "the body comes in a Transfer-Encoding other than chunked; send it chunked or with its length",
        )),
    }
}

/// Whoever is before us may have gone by another Host than we would (RFC 9112 §3.2).
fn check_host(headers: &HeaderMap, version: Version) -> Result<()> {
    let mut hosts = headers.get_all(HOST).iter();
    let wrong = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => return Ok(()),
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no Host header",
        (Some(_), None) => "the request's Host header is neither a name nor an address",
        (Some(_), Some(_)) => "the request has more than one Host header",
    };
    Err(Error::invalid("invalid-host", wrong))
}

fn is_host(value: &HeaderValue) -> bool {
    value.is_empty() || !value.as_bytes().contains(&b'@') && Authority::try_from(value.as_bytes()).is_ok()
}

fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
