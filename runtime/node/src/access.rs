//! Who may call a function: everybody, unless its annotations ask for credentials.

use http::{HeaderMap, header::AUTHORIZATION};
use runtime_api::{BASIC_AUTH, BEARER_SECRET, Error, FunctionName, FunctionSpec, Result, SecretName};
use runtime_http::{BasicAuth, check_bearer};
use runtime_wasm::Secrets;

/// What a caller must present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// What the gateway asks for.
    Basic,
    /// The value of this secret.
    Bearer(SecretName),
    /// What cannot be told any more: nobody may call it.
    Nobody,
}

impl Access {
    /// What a spec's annotations ask for.
    ///
    /// # Errors
    /// `Invalid` where they contradict each other, or name what cannot be a secret.
    pub(crate) fn of(spec: &FunctionSpec, function: &FunctionName) -> Result<Self> {
        let basic = match spec.annotations.get(BASIC_AUTH).map(String::as_str) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let text = format!("annotation {BASIC_AUTH} {other:?} is neither \"true\" nor \"false\"");
                return Err(Error::invalid("invalid-access", text));
            }
        };
        match (basic, spec.annotations.get(BEARER_SECRET)) {
            (true, Some(_)) => Err(Error::invalid(
                "invalid-access",
                format!("annotations {BASIC_AUTH} and {BEARER_SECRET} exclude each other: keep one"),
            )),
            (true, None) => Ok(Self::Basic),
            (false, None) => Ok(Self::Open),
            (false, Some(secret)) => {
                SecretName::new(secret, function.namespace()).map(Self::Bearer).map_err(|error| {
                    Error::invalid("invalid-access", format!("annotation {BEARER_SECRET}: {error}"))
                })
            }
        }
    }

    /// Whether this node has what callers are to be asked for.
    ///
    /// # Errors
    /// `Invalid` that says what is missing.
    pub(crate) fn check(&self, asks_credentials: bool) -> Result<()> {
        if *self == Self::Basic && !asks_credentials {
            let text = format!(
                "annotation {BASIC_AUTH} needs credentials, and this server asks nobody for any (--no-auth)"
            );
            return Err(Error::invalid("invalid-access", text));
        }
        Ok(())
    }

    /// The secret that it needs, if any.
    pub(crate) fn secret(&self) -> Option<&SecretName> {
        if let Self::Bearer(secret) = self { Some(secret) } else { None }
    }

    /// Lets a caller in. What was looked at goes no further: it is not for the function to see.
    ///
    /// # Errors
    /// `Unauthenticated`.
    pub(crate) fn admit(
        &self,
        headers: &mut HeaderMap,
        basic: Option<&BasicAuth>,
        secrets: &Secrets,
    ) -> Result<()> {
        let refused = |challenge: &'static str| Error::Unauthenticated { challenge: challenge.into() };
        match self {
            Self::Open => return Ok(()),
            Self::Basic => basic.ok_or_else(|| refused("Basic"))?.check(headers)?,
            Self::Bearer(secret) => {
                let all = secrets.all();
                let value = all.get(secret).map(|value| value.expose().trim_ascii());
                let value = value.filter(|value| !value.is_empty()).ok_or_else(|| refused("Bearer"))?;
                check_bearer(headers, value)?;
            }
            Self::Nobody => return Err(refused("Basic")),
        }
        headers.remove(AUTHORIZATION);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Access> {
        let spec: FunctionSpec = serde_json::from_str(&format!(r#"{{"annotations":{json}}}"#)).unwrap();
        Access::of(&spec, &FunctionName::parse("f.dev").unwrap())
    }

    #[test]
    fn annotations_say_what_is_asked_for() {
        let secret = SecretName::new("token", "dev").unwrap();
        for (json, access) in [
            ("{}", Access::Open),
            (r#"{"faas.net/basic-auth":"false"}"#, Access::Open),
            (r#"{"faas.net/basic-auth":"true"}"#, Access::Basic),
            (r#"{"dev.fawn.bearer-secret":"token"}"#, Access::Bearer(secret)),
        ] {
            assert_eq!(of(json).unwrap(), access, "{json}");
        }
        for (json, named) in [
            (r#"{"faas.net/basic-auth":"true","dev.fawn.bearer-secret":"a"}"#, "exclude"),
            (r#"{"faas.net/basic-auth":"True"}"#, "neither"),
            (r#"{"faas.net/basic-auth":""}"#, "neither"),
            (r#"{"dev.fawn.bearer-secret":""}"#, "dev.fawn.bearer-secret"),
            (r#"{"dev.fawn.bearer-secret":"../a"}"#, "dev.fawn.bearer-secret"),
        ] {
            let error = of(json).unwrap_err();
            assert!(error.code() == "invalid-access" && error.to_string().contains(named), "{error}");
        }
        assert!(Access::Basic.check(false).unwrap_err().to_string().contains("--no-auth"));
        assert!(Access::Basic.check(true).is_ok() && Access::Open.check(false).is_ok());
    }

    #[test]
    fn nobody_is_let_in_where_there_is_nothing_to_compare_with() {
        let secrets = Secrets::default();
        let bearer = Access::Bearer(SecretName::new("token", "").unwrap());
        for access in [Access::Basic, bearer, Access::Nobody] {
            for given in ["", "Bearer ", "Bearer x", "Basic Og=="] {
                let mut headers: HeaderMap = [(AUTHORIZATION, given.parse().unwrap())].into_iter().collect();
                let error = access.admit(&mut headers, None, &secrets).unwrap_err();
                assert_eq!(error.code(), "unauthenticated", "{access:?} {given}");
            }
        }
    }
}
