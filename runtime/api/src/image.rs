use std::fmt;

use crate::{Digest, Error, Result};

/// The registry that stands for this node's own store of uploaded modules.
pub const LOCAL_REGISTRY: &str = "fawn.local";

/// The registry of a reference that names none (Docker).
const DEFAULT_REGISTRY: &str = "docker.io";
/// By what else Docker Hub goes.
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// The port of a registry that is given none.
const USUAL_PORT: &str = "443";

/// How an OCI image layout lies on disk, and what stands before its path in a reference (containers-transports).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutForm {
    /// A folder: `oci:PATH[:TAG]`.
    Folder,
    /// A tar of one, which may be compressed: `oci-archive:PATH[:TAG]`.
    Archive,
}

impl LayoutForm {
    const ALL: [Self; 2] = [Self::Folder, Self::Archive];

    /// The form of a reference that begins like one of a layout, whether the rest of it is right or not.
    pub fn of(reference: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| reference.starts_with(form.prefix()))
    }

    /// What stands in the place of a registry; no host is called so.
    fn prefix(self) -> &'static str {
        match self {
            Self::Folder => "oci:",
            Self::Archive => "oci-archive:",
        }
    }
}

/// Where a function's code is: `registry/repository:tag@digest`, with Docker's rules for what is left out; or an image
/// layout on disk, as [`LayoutForm`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// Host, and port where one is given, as [`canonical_registry`] writes them; for a layout on disk, the prefix.
    pub registry: String,
    /// Path within the registry, or on disk.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest is given. In a layout on disk any name that an image has there, or none.
    pub tag: Option<String>,
    /// Digest of the manifest (or, in [`LOCAL_REGISTRY`], of the module); it wins over the tag.
    pub digest: Option<Digest>,
    /// The name as it was written, if no registry was: other registries than Docker's may be meant.
    pub short_name: Option<String>,
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
        for form in LayoutForm::ALL {
            if let Some(place) = text.strip_prefix(form.prefix()) {
                return Self::on_disk(form, place).ok_or_else(|| {
                    Error::invalid(
                        "invalid-image",
                        format!("image {text:?} is not like {}PATH or {0}PATH:TAG", form.prefix()),
                    )
                });
            }
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
        let (registry, name) = match path.split_once('/') {
            Some((first, others)) if is_host(first) => (Some(first), others),
            _ => (None, path),
        };
        let short_name = registry.is_none().then(|| name.to_owned());
        let registry = canonical_registry(registry.unwrap_or(DEFAULT_REGISTRY));
        let is_official = registry == DEFAULT_REGISTRY && !name.contains('/');
        let repository = if is_official { format!("library/{name}") } else { name.to_owned() };
        if !valid_host(&registry) {
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
        Ok(Self { registry, repository, tag, digest, short_name })
    }

    /// Reads `PATH[:TAG]`. A path has no colon in it; a tag may be a whole name.
    fn on_disk(form: LayoutForm, place: &str) -> Option<Self> {
        let (path, tag) = place.split_once(':').map_or((place, None), |(path, tag)| (path, Some(tag)));
        let is_usable = |text: &str| !text.is_empty() && !text.contains(char::is_control);
        (is_usable(path) && tag.is_none_or(is_usable)).then(|| Self {
            registry: form.prefix().into(),
            repository: path.into(),
            tag: tag.map(Into::into),
            digest: None,
            short_name: None,
        })
    }

    /// The form of the layout that this names, if it is on disk.
    pub fn layout(&self) -> Option<LayoutForm> {
        LayoutForm::ALL.into_iter().find(|form| self.registry == form.prefix())
    }

    /// The reference of a module in this node's own store.
    pub fn local(digest: Digest) -> Self {
        Self {
            registry: LOCAL_REGISTRY.into(),
            repository: "module".into(),
            tag: None,
            digest: Some(digest),
            short_name: None,
        }
    }

    /// The names that a short one may mean in these registries, in their order; a full name means itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a registry is not a host.
    pub fn in_registries(&self, registries: &[String]) -> Result<Vec<Self>> {
        let Some(name) = self.short_name.as_deref().filter(|_| !registries.is_empty()) else {
            return Ok(vec![self.clone()]);
        };
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        let names = registries.iter().map(|registry| canonical_registry(registry));
        names.map(|registry| Self::parse(&format!("{registry}/{name}{tag}{digest}"))).collect()
    }

    /// Whether this names a module in the node's own store.
    pub fn is_local(&self) -> bool {
        self.registry == LOCAL_REGISTRY
    }
}

/// The one way to write the name of a registry, so that names can be compared: in lower case, without the dot that may
/// end a host's name (RFC 1034 §3.1) and without the usual port, 443; `docker.io` for Docker Hub. A host that would be
/// taken for the first part of a name keeps its port. What is no host comes out as something that is none either.
pub fn canonical_registry(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let (host, port) = match lower.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (lower.as_str(), USUAL_PORT),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    // `0443` is a spelling of the same.
    let port = port.parse::<u16>().map_or_else(|_| port.to_owned(), |port| port.to_string());
    match port.as_str() {
        USUAL_PORT if DOCKER_HUB_ALIASES.contains(&host) => DEFAULT_REGISTRY.to_owned(),
        USUAL_PORT if is_host(host) => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

/// Whether what stands before a slash is a registry, and not the first part of a name (Docker).
fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost"
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
        && inner.split('.').all(|label| !label.is_empty())
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
        let slash = if self.layout().is_some() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.registry, self.repository)?;
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
            ("docker.io/hello", "docker.io/library/hello:latest".to_owned()),
            ("registry-1.docker.io:443/hello", "docker.io/library/hello:latest".to_owned()),
            ("Index.Docker.IO./hello", "docker.io/library/hello:latest".to_owned()),
            ("GHCR.io:443/a/b", "ghcr.io/a/b:latest".to_owned()),
            ("ghcr.io.:443/a/b", "ghcr.io/a/b:latest".to_owned()),
            ("ghcr.io.:8443/a/b", "ghcr.io:8443/a/b:latest".to_owned()),
            ("localhost:443/a", "localhost/a:latest".to_owned()),
            ("[::1]:443/a", "[::1]/a:latest".to_owned()),
            ("lab:443/a", "lab:443/a:latest".to_owned()),
            ("lab./a", "lab:443/a:latest".to_owned()),
            (&format!("ghcr.io/a/b@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("ghcr.io/a/b:v1@{digest}"), format!("ghcr.io/a/b:v1@{digest}")),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), full, "{text}");
            let again = ImageReference::parse(&full).unwrap();
            assert_eq!(again.to_string(), full, "it stays what it is");
        }
    }

    #[test]
    fn a_short_name_may_be_in_several_registries() {
        let registries = ["lab:5000", "docker.io", "localhost"].map(str::to_owned);
        let names = |text: &str| {
            let names = ImageReference::parse(text).unwrap().in_registries(&registries).unwrap();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("hello:1"), ["lab:5000/hello:1", "docker.io/library/hello:1", "localhost/hello:1"]);
        assert_eq!(names("me/hello")[0], "lab:5000/me/hello:latest");
        assert_eq!(names("library/hello")[0], "lab:5000/library/hello:latest");
        assert_eq!(names("ghcr.io/hello"), ["ghcr.io/hello:latest"]);
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(names(&format!("hello@{digest}"))[0], format!("lab:5000/hello@{digest}"));
        assert_eq!(ImageReference::parse("a").unwrap().in_registries(&[]).unwrap()[0].registry, "docker.io");
    }

    #[test]
    fn layouts_on_disk_are_named_by_path_and_tag() {
        for (text, form, path, tag) in [
            ("oci:app", LayoutForm::Folder, "app", None),
            ("oci:/srv/app:v1", LayoutForm::Folder, "/srv/app", Some("v1")),
            ("oci-archive:a/b.tar:ghcr.io/me/b:1", LayoutForm::Archive, "a/b.tar", Some("ghcr.io/me/b:1")),
        ] {
            let image = ImageReference::parse(text).unwrap();
            assert_eq!((image.layout(), &*image.repository, image.tag.as_deref()), (Some(form), path, tag));
            assert_eq!(image.to_string(), text);
        }
        for bad in ["oci:", "oci::v1", "oci:app:", "oci-archive:", "oci:a\nb", "oci:a\0"] {
            assert!(ImageReference::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ImageReference::parse("oci/app").unwrap().layout(), None);
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
