//! Gives back what it gets: a body as it comes, of whatever length, or, for `GET` and where `Accept` names
//! `application/json`, the whole request as JSON.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use fawn::{
    IntoResponse, Json, Request, Response, Result,
    http::{HeaderMap, HeaderValue, header},
};
use serde::Serialize;

/// The longest body that is shown as JSON, in bytes.
const MAX_SHOWN_BYTES: usize = 1 << 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    method: String,
    path: String,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    /// Where it is text.
    body: Option<String>,
    /// Where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// Answers with the body, or shows the request.
#[fawn::handler]
pub async fn handle(request: Request) -> Result<Response> {
    if request.method().is_safe() || wants_json(request.headers()) {
        return show(request).await;
    }
    let binary = HeaderValue::from_static("application/octet-stream");
    let kind = request.headers().get(header::CONTENT_TYPE).cloned().unwrap_or(binary);
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, kind)
        // A page that somebody else's site has sent here gets no rights of this site.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(request.into_body())?)
}

async fn show(request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let (body, body_base64) = match String::from_utf8(body.bytes_up_to(MAX_SHOWN_BYTES).await?.into()) {
        Ok(text) => (Some(text), None),
        Err(bytes) => (None, Some(BASE64_STANDARD.encode(bytes.as_bytes()))),
    };
    let shown = Shown {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers.keys().map(|name| (name.to_string(), values(&head.headers, name))).collect(),
        body,
        body_base64,
    };
    Ok(Json(shown).into_response())
}

/// All values of a header as one, which means the same (RFC 9110 §5.2).
fn values(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.collect::<Vec<_>>().join(", ")
}

fn wants_json(headers: &HeaderMap) -> bool {
    values(headers, &header::ACCEPT).contains("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fawn::{Bytes, http::request::Builder, testing};

    fn shown(request: Builder, body: impl Into<fawn::Body>) -> String {
        let answer: Response<Bytes> = testing::call(handle, request.body(body).unwrap());
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        String::from_utf8(answer.into_body().into()).unwrap()
    }

    #[test]
    fn gives_the_body_back() {
        let long = vec![b'x'; MAX_SHOWN_BYTES + 1];
        let request = Request::post("/").header("content-type", "text/csv").body(long.clone()).unwrap();
        let answer = testing::call(handle, request);
        assert_eq!(answer.body(), &long);
        assert_eq!(answer.headers()["content-type"], "text/csv");
    }

    #[test]
    fn shows_the_request() {
        let request = Request::get("/a/b?c=%20d").header("x-a", "1").header("x-a", "2");
        let expected =
            r#"{"method":"GET","path":"/a/b","query":"c=%20d","headers":{"x-a":"1, 2"},"body":""}"#;
        assert_eq!(shown(request, ()), expected);
    }

    #[test]
    fn shows_any_body_where_json_is_accepted() {
        let request = || Request::post("/").header("accept", "text/html, application/json;q=0.9");
        assert!(shown(request(), "a\"b").contains(r#""body":"a\"b""#));
        assert!(shown(request(), vec![0xff, 0]).contains(r#""body":null,"bodyBase64":"/wA=""#));
        let long = request().body(vec![b'x'; MAX_SHOWN_BYTES + 1]).unwrap();
        assert_eq!(testing::call(handle, long).status(), 413);
    }
}
