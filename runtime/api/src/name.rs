use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::{Error, Result};

/// The namespace of a name that has none (`OpenFaaS`).
pub const DEFAULT_NAMESPACE: &str = "openfaas-fn";

/// The longest name or namespace, in bytes (a DNS label, RFC 1035 §2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A function's name and namespace: how everything refers to a function.
///
/// Displays as `name.namespace`, which is also its label in metrics. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName {
    qualified: Arc<str>,
    dot: usize,
}

impl FunctionName {
    /// Joins a name and a namespace; an empty namespace means [`DEFAULT_NAMESPACE`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when either is not `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$` of at most 63 bytes (`OpenFaaS`).
    pub fn new(name: &str, namespace: &str) -> Result<Self> {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        check_label("function name", name)?;
        check_label("namespace", namespace)?;
        Ok(Self { qualified: format!("{name}.{namespace}").into(), dot: name.len() })
    }

    /// Parses `name` or `name.namespace`, split at the last dot (`OpenFaaS`).
    ///
    /// # Errors
    /// As [`FunctionName::new`].
    pub fn parse(text: &str) -> Result<Self> {
        let (name, namespace) = text.rsplit_once('.').unwrap_or((text, DEFAULT_NAMESPACE));
        if namespace.is_empty() {
            return Err(Error::invalid("invalid-name", format!("function name {text:?} ends with a dot")));
        }
        Self::new(name, namespace)
    }

    /// The name without its namespace.
    pub fn name(&self) -> &str {
        self.qualified.get(..self.dot).unwrap_or_default()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.qualified.get(self.dot + 1..).unwrap_or_default()
    }

    /// `name.namespace`.
    pub fn as_str(&self) -> &str {
        &self.qualified
    }
}

pub(crate) fn check_label(what: &str, label: &str) -> Result<()> {
    let bytes = label.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner_well = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if inner_well && bytes.len() <= MAX_LABEL_BYTES && ends_well(bytes.first()) && ends_well(bytes.last()) {
        return Ok(());
    }
    Err(Error::invalid(
        "invalid-name",
        format!(
            "{what} {label:?} is not valid: use lower-case letters, digits and '-', \
             beginning and ending with a letter or digit, at most {MAX_LABEL_BYTES} characters"
        ),
    ))
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified)
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified)
    }
}

impl Serialize for FunctionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.qualified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_last_dot() {
        let name = FunctionName::parse("env.dev").unwrap();
        assert_eq!((name.name(), name.namespace(), name.as_str()), ("env", "dev", "env.dev"));
        assert_eq!(FunctionName::parse("env").unwrap().as_str(), "env.openfaas-fn");
    }

    #[test]
    fn refuses_what_is_not_a_dns_label() {
        let too_long = "a".repeat(64);
        for bad in ["", ".", "a.", ".b", "A", "a_b", "-a", "a-", "a.b.c", "a/b", "ä", "a b", &too_long] {
            let error = FunctionName::parse(bad).unwrap_err();
            assert_eq!(error.code(), "invalid-name", "{bad}");
        }
        assert!(FunctionName::new(&"a".repeat(63), "").is_ok());
    }
}
