use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::{DEFAULT_NAMESPACE, Error, Result, name::check_label};

/// The longest name of a secret, in bytes (RFC 1123, as Kubernetes has it).
const MAX_NAME_BYTES: usize = 253;

/// The largest value of a secret, in bytes (as Kubernetes has it).
pub const MAX_SECRET_BYTES: usize = 1 << 20;

/// A secret's name and namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName {
    namespace: String,
    name: String,
}

impl SecretName {
    /// Joins a name and a namespace; an empty namespace means [`DEFAULT_NAMESPACE`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name is not a DNS subdomain (RFC 1123) of at most 253 bytes, or the namespace is not
    /// valid. A name thus never leads out of a directory.
    pub fn new(name: &str, namespace: &str) -> Result<Self> {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        check_label("namespace", namespace)?;
        check_name(name)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The name, which is also that of the file that functions read.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("invalid-name", "non-empty name is required"));
    }
    if name.contains('/') || name.contains("..") {
        return Err(Error::invalid("invalid-name", "directory traversal found in name"));
    }
    let is_label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
    Err(Error::invalid(
        "invalid-name",
        format!(
            "secret name {shown:?} is not valid: use lower-case letters, digits, '-' and '.', each part beginning and \
             ending with a letter or digit, at most {MAX_NAME_BYTES} characters"
        ),
    ))
}

/// `name.namespace`, for messages: names have dots too, so that this is not to be parsed.
impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl fmt::Debug for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a secret holds. Never shown, whatever prints it, and wiped from memory when nobody holds it any more. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are more than [`MAX_SECRET_BYTES`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() > MAX_SECRET_BYTES {
            let text = format!("the secret's value is larger than {MAX_SECRET_BYTES} bytes");
            return Err(Error::invalid("too-large", text));
        }
        Ok(Self(Arc::new(bytes)))
    }

    /// The bytes, for the function that may read them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_subdomains() {
        let secret = SecretName::new("db.password-1", "").unwrap();
        assert_eq!((secret.name(), secret.namespace()), ("db.password-1", DEFAULT_NAMESPACE));
        assert!(SecretName::new(&"a".repeat(253), "dev").is_ok());
        let long = "a".repeat(254);
        for bad in
            ["", ".", "..", "a/b", "../a", "a..b", ".a", "a.", "A", "a_b", "-a", "a-.b", "ä", "a\0", &long]
        {
            assert_eq!(SecretName::new(bad, "dev").unwrap_err().code(), "invalid-name", "{bad}");
        }
        assert!(SecretName::new("a", "No").is_err());
    }

    #[test]
    fn values_are_bounded_and_never_shown() {
        let value = SecretValue::new(&b"hunter2"[..]).unwrap();
        assert!(!format!("{value:?}").contains("hunter2"));
        assert_eq!(SecretValue::new(vec![0; MAX_SECRET_BYTES + 1]).unwrap_err().code(), "too-large");
    }
}
