use base64::{Engine, engine::general_purpose::STANDARD};
use http_auth::ChallengeParser;
use reqwest::{
    Client, RequestBuilder, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use runtime_api::{Error, Result};
use serde::Deserialize;
use tokio::time::timeout;
use url::form_urlencoded::Serializer;

use crate::{
    credentials::{self, Credentials},
    endpoint::authority,
    host::RegistryHost,
    request::silent,
    retry::{Attempt, Failure},
    session::Session,
    transport::unanswered,
};

const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// A registry whose token server is not at its own domain, and is known to belong to it.
const TRUSTED_REALM: (&str, &str) = ("registry.hub.docker.com", "auth.docker.io");

/// What a request is to be allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// What requests to the registry itself carry. Has no `Debug`: it is secret.
pub(crate) enum Authorization {
    Basic { username: String, password: String },
    Bearer { token: String, anonymous: bool },
}

impl Authorization {
    pub(crate) fn header(&self) -> Result<HeaderValue> {
        let text = match self {
            Self::Basic { username, password } => basic(username, password),
            Self::Bearer { token, .. } => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            Error::invalid("invalid-token", "the registry's token has characters that cannot be sent")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    pub(crate) fn had_credentials(&self) -> bool {
        !matches!(self, Self::Bearer { anonymous: true, .. })
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// What a registry asks for (RFC 9110 §11.6.1; Docker's token authentication).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The strongest challenge that is understood.
    pub(crate) fn parse(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges =
            values.flat_map(|value| ChallengeParser::new(value).map_while(std::result::Result::ok));
        let mut basic = None;
        for challenge in challenges {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if let (true, Some(realm)) = (challenge.scheme.eq_ignore_ascii_case("bearer"), parameter("realm"))
            {
                return Some(Self::Bearer { realm, service: parameter("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// What a token server answers (Docker's token authentication; OAuth 2.0 names the same thing `access_token`).
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session<'_> {
    /// Gets what the registry asks for.
    pub(crate) async fn authorize(&mut self, headers: &HeaderMap) -> Attempt<()> {
        let host = &self.endpoint.host;
        let denied = |why: &str| Error::invalid("unauthorized", format!("registry {host} {why}"));
        let challenge = Challenge::parse(headers)
            .ok_or_else(|| denied("asks for neither Basic nor Bearer authentication"))?;
        let credentials = credentials::find(&self.transport.config, host, &self.endpoint.repository).await?;
        let authorization = match (challenge, credentials) {
            (Challenge::Bearer { realm, service }, credentials) => {
                let realm = self.trusted_realm(&realm, credentials.is_none())?;
                self.token(realm, service, credentials).await?
            }
            (Challenge::Basic, Some(Credentials::Password { username, password })) => {
                Authorization::Basic { username, password }
            }
            (Challenge::Basic, Some(Credentials::IdentityToken(_))) => {
                return Err(denied("asks for a password, and its credentials are an identity token").into());
            }
            (Challenge::Basic, None) => return Err(self.denied(host).into()),
        };
        self.authorization = Some(authorization);
        Ok(())
    }

    /// A registry names the server that gets its password: believed only within its own domain, or where the operator
    /// says so, and over https. One that gets nothing may be elsewhere.
    fn trusted_realm(&self, realm: &str, anonymous: bool) -> Result<Url> {
        let base = self.endpoint.base();
        let url = Url::parse(realm).ok().filter(|url| {
            let encrypted = url.scheme() == "https" || (url.scheme() == "http" && self.endpoint.is_plain());
            encrypted && (anonymous || self.is_listed(url) || is_same_site(base.host_str(), url.host_str()))
        });
        url.ok_or_else(|| {
            let host = &self.endpoint.host;
            Error::invalid(
                "untrusted-realm",
                format!(
                    "registry {host} has its tokens from {realm:?}, which is not asked: it is not https of the same \
                     domain; if it belongs to the registry, say so with `--registry-realm {host}=HOST`"
                ),
            )
        })
    }

    /// Whether the operator said that the registry has its tokens from there.
    fn is_listed(&self, realm: &Url) -> bool {
        let pair = self.endpoint.host.parse::<RegistryHost>().ok().zip(RegistryHost::of(realm));
        pair.is_some_and(|(own, realm)| {
            let mut listed = self.transport.config.realms.iter();
            listed.any(|(registry, host)| registry.covers(&own) && host.covers(&realm))
        })
    }

    async fn token(
        &self,
        realm: Url,
        service: Option<String>,
        credentials: Option<Credentials>,
    ) -> Attempt<Authorization> {
        let anonymous = credentials.is_none();
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        // Asked for as we mean it, whatever the registry's challenge says.
        let scope = format!("repository:{}:{actions}", self.endpoint.repository);
        let mut parameters = vec![("scope", scope.as_str())];
        parameters.extend(service.as_deref().map(|service| ("service", service)));
        let client = match self.is_listed(&realm) {
            true => self.transport.client(&realm, false)?,
            false => self.client_for(&realm).await?,
        };
        let request = token_request(&client, realm.clone(), &parameters, credentials);
        let response = timeout(self.transport.config.timeouts.stall, request.send()).await;
        let response = response
            .map_err(|_| Failure::Final(silent(&realm)))?
            .map_err(|error| unanswered(&realm, error))?;
        let host = authority(&realm);
        match response.status() {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::come_back(format!("{host} gives no token now ({status})"), &response));
            }
            status => {
                let own = &self.endpoint.host;
                let advice = if anonymous {
                    format!("log in with `docker login {own}`")
                } else {
                    "log in again".into()
                };
                let message =
                    format!("{host} gives no token for {own} ({status}): check the name, or {advice}");
                return Err(Error::invalid("unauthorized", message).into());
            }
        }
        let token = token_in(&self.read_all(response, MAX_TOKEN_BYTES, "token").await?, &host)?;
        Ok(Authorization::Bearer { token, anonymous })
    }
}

/// Reads the answer of a token server. What stands in it is not shown: it may be the token.
fn token_in(answer: &[u8], host: &str) -> Result<String> {
    let invalid =
        |problem: String| Error::invalid("invalid-token", format!("the answer of {host} {problem}"));
    let answer: Token = serde_json::from_slice(answer).map_err(|error| {
        invalid(format!("cannot be read (line {}, column {})", error.line(), error.column()))
    })?;
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    given(answer.token).or_else(|| given(answer.access_token)).ok_or_else(|| invalid("has no token".into()))
}

fn token_request(
    client: &Client,
    mut realm: Url,
    parameters: &[(&str, &str)],
    credentials: Option<Credentials>,
) -> RequestBuilder {
    if let Some(Credentials::IdentityToken(token)) = credentials {
        // OAuth 2.0 as registries do it (Docker's "OAuth2 token authentication").
        let fixed =
            [("grant_type", "refresh_token"), ("client_id", "fawn"), ("refresh_token", token.as_str())];
        let form = Serializer::new(String::new()).extend_pairs(fixed).extend_pairs(parameters).finish();
        return client.post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
    }
    realm.query_pairs_mut().extend_pairs(parameters);
    match credentials {
        Some(Credentials::Password { username, password }) => {
            client.get(realm).header(AUTHORIZATION, basic(&username, &password))
        }
        _ => client.get(realm),
    }
}

/// Whether two hosts are of one registrable domain (publicsuffix.org). Addresses and bare names must be equal.
pub(crate) fn is_same_site(registry: Option<&str>, realm: Option<&str>) -> bool {
    let (Some(registry), Some(realm)) = (registry, realm) else { return false };
    let domain = |host| psl::domain_str(host).filter(|_| !is_address(host));
    registry == realm
        || (registry, realm) == TRUSTED_REALM
        || domain(registry).is_some_and(|own| domain(realm) == Some(own))
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_in_the_registrable_domain() {
        for (registry, realm) in [
            ("ghcr.io", "ghcr.io"),
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.hub.docker.com", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.co.uk", "auth.example.co.uk"),
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "localhost"),
        ] {
            assert!(is_same_site(Some(registry), Some(realm)), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("ghcr.io", "evil.io"),
            ("ghcr.io", "ghcr.io.evil.com"),
            ("a.co.uk", "b.co.uk"),
            ("me.github.io", "you.github.io"),
            ("127.0.0.1", "128.0.0.1"),
            ("10.0.0.1", "11.0.0.1"),
            ("[::1]", "[::2]"),
            ("localhost", "127.0.0.1"),
            ("evil.example.com", "auth.docker.io"),
        ] {
            assert!(!is_same_site(Some(registry), Some(realm)), "{registry} {realm}");
        }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"bearer REALM="https://a/t""#, bearer("https://a/t", None)),
            (r#"Basic realm="a", Bearer realm="https://a/t""#, bearer("https://a/t", None)),
            (r#"BASIC realm="Registry Realm""#, Some(Challenge::Basic)),
            (r#"Digest realm="a", nonce="b""#, None),
            ("Bearer", None),
            ("=,\"", None),
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(header).unwrap())]);
            assert_eq!(Challenge::parse(&headers), expected, "{header}");
        }
    }
}
