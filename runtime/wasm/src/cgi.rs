//! A request as environment variables (`OpenFaaS` classic-watchdog, `cgi_headers`).

use http::{HeaderMap, header};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use runtime_api::Body;

/// The `Http_…` variables of a request.
pub(crate) fn environment(request: &http::Request<Body>) -> Vec<(String, String)> {
    let headers = request.headers();
    let mut env: Vec<(String, String)> =
        headers.keys().filter_map(|name| Some((variable(name.as_str()), first(headers, name)?))).collect();
    let exact = request.body().size_hint().exact();
    let length = exact.map_or_else(|| "-1".to_owned(), |length| length.to_string());
    let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
    set("Http_Method", request.method().as_str().to_owned());
    set("Http_ContentLength", length.clone());
    set("Http_Content_Length", length);
    if exact.is_none() {
        set("Http_Transfer_Encoding", "chunked".to_owned());
    }
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        set("Http_Query", query.to_owned());
    }
    let path = request.uri().path();
    set(
        "Http_Path",
        percent_decode_str(if path.is_empty() { "/" } else { path }).decode_utf8_lossy().into_owned(),
    );
    if let Some(host) =
        first(headers, &header::HOST).or_else(|| request.uri().authority().map(ToString::to_string))
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
        let mut env = environment(&request);
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
        let frames = futures_util::stream::iter([Ok::<_, runtime_api::BodyError>(http_body::Frame::data(
            bytes::Bytes::from("a"),
        ))]);
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames));
        let env = environment(&http::Request::get("http://host").body(body).unwrap());
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
