use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use blake3::keyed_hash;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use runtime_api::{Error, Result};
use subtle::ConstantTimeEq;

/// What is asked for where credentials are wrong or missing (`OpenFaaS`).
const CHALLENGE: &str = "Basic realm=\"Restricted\"";

/// What a user must present, or what we present to a provider.
#[derive(Clone)]
pub struct Credentials {
    /// The name, `admin` by convention.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Credentials {
    /// What `Authorization` says (RFC 7617).
    ///
    /// # Errors
    /// [`Error::Invalid`] when the user's name has a colon, which no server could tell from the password's beginning.
    pub fn header(&self) -> Result<HeaderValue> {
        if self.user.contains(':') {
            return Err(Error::invalid("invalid-credentials", "the user's name has a colon: choose another"));
        }
        let token = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut header = HeaderValue::try_from(format!("Basic {token}")).map_err(Error::internal)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Checks HTTP Basic credentials (RFC 7617) in a time that tells neither what they are nor how long.
pub struct BasicAuth {
    key: [u8; 32],
    user: [u8; 32],
    password: [u8; 32],
}

impl BasicAuth {
    /// Takes note of what is to be presented.
    pub fn new(credentials: &Credentials) -> Self {
        let key = rand::random();
        let hash = |part: &str| *keyed_hash(&key, part.as_bytes()).as_bytes();
        Self { key, user: hash(&credentials.user), password: hash(&credentials.password) }
    }

    /// Asks for what is to be presented.
    ///
    /// # Errors
    /// `Unauthenticated` when the request presents something else, or nothing.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        if self.admits(headers) {
            Ok(())
        } else {
            Err(Error::Unauthenticated { challenge: CHALLENGE.into() })
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
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

/// Asks for a bearer token (RFC 6750 §2.1), in a time that does not tell how much of it is right.
///
/// # Errors
/// `Unauthenticated` when the request presents another, or none.
pub fn check_bearer(headers: &HeaderMap, token: &[u8]) -> Result<()> {
    let presented = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let (scheme, given) = presented.split_at_checked("Bearer ".len()).unwrap_or_default();
    let same = blake3::hash(given.trim_ascii()).as_bytes().ct_eq(blake3::hash(token).as_bytes());
    if scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(same) {
        return Ok(());
    }
    Err(Error::Unauthenticated { challenge: "Bearer".into() })
}

/// Whether a request presents credentials that could be right. An empty bearer is what faas-cli sends that has none.
pub fn are_presented(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| value.as_bytes().trim_ascii() != b"Bearer")
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
    fn a_bearer_token_is_compared_whole() {
        let check = |value: &'static [u8]| {
            let value = HeaderValue::from_bytes(value).unwrap();
            check_bearer(&HeaderMap::from_iter([(AUTHORIZATION, value)]), b"s3cret")
        };
        for right in [&b"Bearer s3cret"[..], b"bearer s3cret", b"Bearer  s3cret "] {
            assert!(check(right).is_ok());
        }
        for wrong in [
            &b"Bearer s3cre"[..],
            b"Bearer s3crett",
            b"Bearer",
            b"Bearer ",
            b"Basic s3cret",
            b"s3cret",
            b"\xff",
        ] {
            assert!(
                matches!(check(wrong), Err(Error::Unauthenticated { challenge }) if challenge == "Bearer")
            );
        }
        assert!(check_bearer(&HeaderMap::new(), b"s3cret").is_err());
    }

    #[test]
    fn never_shows_itself() {
        let shown = format!("{:?}", Credentials { user: "admin".into(), password: "canary".into() });
        assert!(!shown.contains("canary") && !shown.contains("admin"), "{shown}");
    }
}
