use std::fmt;

use crate::{Digest, Error, Result};

/// The registry that stands for this node's own store of uploaded modules.
pub const LOCAL_REGISTRY: &str = "fawn.local";

/// The registry of a reference that names none (Docker).
const DEFAULT_REGISTRY: &str = "docker.io";

/// Where a function's code is: `registry/repository:tag@digest`, with Docker's rules for what is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// Host, and port where one is given.
    pub registry: String,
    /// Path within the registry.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest is given.
    pub tag: Option<String>,
    /// Digest of the manifest (or, in [`LOCAL_REGISTRY`], of the module); it wins over the tag.
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// Parses a reference (OCI distribution-spec, "Pulling manifests"; Docker's defaults).
    ///
    /// # Errors
    /// [`Error::Invalid`] that says which part is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::invalid(
                "invalid-image",
                format!("image {text:?} is not a reference: {why}, as in registry/name:tag"),
            )
        };
        if text.len() > 512 {
            return Err(Error::invalid("invalid-image", "image is longer than 512 characters"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let last_segment = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest.get(last_segment..).and_then(|last| last.find(':')) {
            Some(colon) => (
                rest.get(..last_segment + colon).unwrap_or_default(),
                Some(rest.get(last_segment + colon + 1..).unwrap_or_default()),
            ),
            None => (rest, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, others)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, others.to_owned())
            }
            Some(_) => (DEFAULT_REGISTRY, path.to_owned()),
            None => (DEFAULT_REGISTRY, format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !valid_host(registry) {
            return Err(invalid("the registry must be a host name with an optional port"));
        }
        if !repository.split('/').all(valid_segment) {
            return Err(invalid("the name must be of lower-case letters, digits and single separators"));
        }
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err(invalid("the tag must be of at most 128 letters, digits, '_', '.' and '-'"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The reference of a module in this node's own store.
    pub fn local(digest: Digest) -> Self {
        Self { registry: LOCAL_REGISTRY.into(), repository: "module".into(), tag: None, digest: Some(digest) }
    }

    /// Whether this names a module in the node's own store.
    pub fn is_local(&self) -> bool {
        self.registry == LOCAL_REGISTRY
    }
}

fn valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let literal_v6 = name.starts_with('[') && name.ends_with(']');
    let inner = name.trim_start_matches('[').trim_end_matches(']');
    port.is_none_or(|port| port.parse::<u16>().is_ok())
        && !inner.is_empty()
        && inner.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b) || (literal_v6 && b == b':'))
}

fn valid_segment(segment: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = segment.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        && !segment.contains("..")
}

fn valid_tag(tag: &str) -> bool {
    let starts_well = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    starts_well && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_what_docker_fills_in() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, full) in [
            ("hello", "docker.io/library/hello:latest".to_owned()),
            ("me/hello:1", "docker.io/me/hello:1".to_owned()),
            ("localhost:5000/hello", "localhost:5000/hello:latest".to_owned()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".to_owned()),
            ("[::1]:5000/a:v1", "[::1]:5000/a:v1".to_owned()),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:v1@{digest}"), format!("ghcr.io/a/b:v1@{digest}")),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "/",
            "Hello",
            "a//b",
            "ghcr.io/",
            "ghcr.io/a:",
            "ghcr.io/a:b:c",
            "a/../b",
            "ghcr.io/a@sha256:12",
            "host:99999/a",
            "ghcr.io/a b",
            "user@host/a",
            "https://ghcr.io/a",
            "ghcr.io/a/-b",
            "ghcr.io/..",
        ] {
            assert!(ImageReference::parse(bad).is_err(), "{bad}");
        }
    }
}
