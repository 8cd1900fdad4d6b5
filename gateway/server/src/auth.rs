use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use blake3::keyed_hash;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use runtime_api::{Body, full};
use subtle::ConstantTimeEq;

/// What a user must present.
#[derive(Clone)]
pub struct Credentials {
    /// The name, `admin` by convention.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Checks HTTP Basic credentials (RFC 7617) in a time that tells neither what they are nor how long.
pub(crate) struct BasicAuth {
    key: [u8; 32],
    user: [u8; 32],
    password: [u8; 32],
}

impl BasicAuth {
    pub(crate) fn new(credentials: &Credentials) -> Self {
        let key = rand::random();
        let hash = |part: &str| *keyed_hash(&key, part.as_bytes()).as_bytes();
        Self { key, user: hash(&credentials.user), password: hash(&credentials.password) }
    }

    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let (user, password) = presented(headers).unwrap_or_default();
        let user = keyed_hash(&self.key, &user).as_bytes().ct_eq(&self.user);
        let password = keyed_hash(&self.key, &password).as_bytes().ct_eq(&self.password);
        (user & password).into()
    }
}

fn presented(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let decoded =
        BASE64_STANDARD.decode(token.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let (user, password) = decoded.split_at_checked(decoded.iter().position(|byte| *byte == b':')?)?;
    Some((user.to_vec(), password.get(1..)?.to_vec()))
}

/// The answer to wrong or missing credentials (`OpenFaaS`).
pub(crate) fn refusal() -> Response<Body> {
    let mut response = Response::new(full("invalid credentials"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Restricted\""));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-error-code", HeaderValue::from_static("unauthenticated"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_right_pair_alone() {
        let auth = BasicAuth::new(&Credentials { user: "admin".into(), password: "a:b c".into() });
        let admits = |value: String| {
            auth.admits(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(value).unwrap())]))
        };
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(admits(basic("admin:a:b c")) && admits(basic("admin:a:b c").replace("Basic", "bASIC")));
        for wrong in ["admin:a:b", "admin:", "admin", "", ":", "Admin:a:b c", "admin:a:b c ", ":admin:a:b c"]
        {
            assert!(!admits(basic(wrong)), "{wrong}");
        }
        for wrong in ["", "Basic", "Basic ", "Bearer ", "Basic ****", "Bearer YWRtaW46YTpiIGM="] {
            assert!(!admits(wrong.into()), "{wrong}");
        }
        assert!(!auth.admits(&HeaderMap::new()));
    }

    #[test]
    fn never_shows_itself() {
        let shown = format!("{:?}", Credentials { user: "admin".into(), password: "canary".into() });
        assert!(!shown.contains("canary") && !shown.contains("admin"), "{shown}");
    }
}
