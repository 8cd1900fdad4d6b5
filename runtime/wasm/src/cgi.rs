//! A request as environment variables (`OpenFaaS` classic-watchdog, `cgi_headers`).

use http::{HeaderMap, header, request::Parts};
use percent_encoding::percent_decode_str;

/// The `Http_…` variables of a request, whose body has so many bytes if that is known.
pub(crate) fn environment(request: &Parts, body_bytes: Option<u64>) -> Vec<(String, String)> {
    let headers = &request.headers;
    let mut env: Vec<(String, String)> =
        headers.keys().filter_map(|name| Some((variable(name.as_str()), first(headers, name)?))).collect();
    let length = body_bytes.map_or_else(|| "-1".to_owned(), |length| length.to_string());
    let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
    set("Http_Method", request.method.as_str().to_owned());
    set("Http_ContentLength", length.clone());
    set("Http_Content_Length", length);
    if body_bytes.is_none() {
        set("Http_Transfer_Encoding", "chunked".to_owned());
    }
    if let Some(query) = request.uri.query().filter(|query| !query.is_empty()) {
        set("Http_Query", query.to_owned());
    }
    let path = request.uri.path();
    set(
        "Http_Path",
        percent_decode_str(if path.is_empty() { "/" } else { path }).decode_utf8_lossy().into_owned(),
    );
    if let Some(host) =
        first(headers, &header::HOST).or_else(|| request.uri.authority().map(ToString::to_string))
    {
        set("Http_Host", host);
    }
    // The last of two equal names counts, and an environment variable cannot hold a zero byte.
    let mut seen = std::collections::HashSet::new();
    env.reverse();
    env.retain(|(name, value)| !value.contains('\0') && seen.insert(name.clone()));
    env.reverse();
    env
}

fn first(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// `x-call-id` becomes `Http_X_Call_Id`: the canonical form of Go's net/http, with `_` for `-`.
fn variable(header: &str) -> String {
    let mut name = String::with_capacity("Http_".len() + header.len());
    name.push_str("Http_");
    let mut upper = true;
    for char in header.chars() {
        name.push(if char == '-' {
            '_'
        } else if upper {
            char.to_ascii_uppercase()
        } else {
            char
        });
        upper = char == '-';
    }
    name
}

#[cfg(test)]
mod tests {
    use runtime_api::full;

    use super::*;

    #[test]
    fn describes_a_request_as_the_watchdog_does() {
        let request = http::Request::post("/a/b%20c?q=1&r=%20")
            .header("X-Call-Id", "7")
            .header("X-Many", "one")
            .header("X-Many", "two")
            .header("Host", "example.com")
            .header("Content-Length", "3")
            .body(full("abc"))
            .unwrap();
        let (parts, body) = request.into_parts();
        let mut env = environment(&parts, http_body::Body::size_hint(&body).exact());
        env.sort();
        let expected = [
            ("Http_ContentLength", "3"),
            ("Http_Content_Length", "3"),
            ("Http_Host", "example.com"),
            ("Http_Method", "POST"),
            ("Http_Path", "/a/b c"),
            ("Http_Query", "q=1&r=%20"),
            ("Http_X_Call_Id", "7"),
            ("Http_X_Many", "one"),
        ];
        assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_body_of_unknown_length_is_chunked_and_an_empty_path_is_the_root() {
        let (parts, ()) = http::Request::get("http://host").body(()).unwrap().into_parts();
        let env = environment(&parts, None);
        for (name, value) in [
            ("Http_ContentLength", "-1"),
            ("Http_Transfer_Encoding", "chunked"),
            ("Http_Path", "/"),
            ("Http_Host", "host"),
            ("Http_Method", "GET"),
        ] {
            assert!(env.contains(&(name.to_owned(), value.to_owned())), "{name} in {env:?}");
        }
        assert!(!env.iter().any(|(name, _)| name == "Http_Query"));
    }
}
