use reqwest::Url;
use runtime_api::{Error, ImageReference, Result};

use crate::{RegistryConfig, RegistryHost};

/// Docker Hub's registry has another name than its images (Docker).
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Where the requests for one image go: its registry, or the mirror that stands for it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `https://host:port/`.
    base: Url,
    /// The image's name there.
    pub(crate) repository: String,
    /// What its credentials are filed under.
    pub(crate) host: String,
}

impl Endpoint {
    /// Where an image may be pulled from, in order: the mirrors of its registry, and the registry itself unless that is
    /// not to be asked.
    pub(crate) fn to_pull(image: &ImageReference, config: &RegistryConfig) -> Result<Vec<Self>> {
        let mirrors = config.mirrors.iter().filter(|(host, _)| *host == image.registry);
        let mut all = mirrors.map(|(_, mirror)| Self::mirror(image, mirror)).collect::<Result<Vec<_>>>()?;
        if !config.mirrors_only.contains(&image.registry) {
            all.push(Self::registry(image, config)?);
        }
        Ok(all)
    }

    /// The image's own registry.
    pub(crate) fn registry(image: &ImageReference, config: &RegistryConfig) -> Result<Self> {
        let host = &image.registry;
        let own: RegistryHost = host.parse()?;
        let plain = config.plain_http.iter().any(|plain| plain.covers(&own));
        let scheme = if plain { "http" } else { "https" };
        let address = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
        let base = parse(&format!("{scheme}://{address}/"))?;
        Ok(Self { base, repository: image.repository.clone(), host: host.clone() })
    }

    /// A path in a mirror's address stands before the names of images, as in `https://mirror/docker-hub`.
    fn mirror(image: &ImageReference, mirror: &Url) -> Result<Self> {
        let host = authority(mirror);
        let base = parse(&format!("{}://{host}/", mirror.scheme()))?;
        let prefix = mirror.path().trim_matches('/');
        let repository =
            if prefix.is_empty() { String::new() } else { format!("{prefix}/") } + &image.repository;
        Ok(Self { base, repository, host })
    }

    /// The address of a manifest or blob (OCI distribution-spec, "Endpoints").
    pub(crate) fn url(&self, kind: &str, reference: &str) -> Result<Url> {
        parse(&format!("{}v2/{}/{kind}/{reference}", self.base, self.repository))
    }

    /// The address that tells whether the registry wants authentication.
    pub(crate) fn ping(&self) -> Result<Url> {
        parse(&format!("{}v2/", self.base))
    }

    /// Whether a request there may carry the registry's credentials.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Whether the operator said that this registry is spoken to without encryption.
    pub(crate) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// One repository of one server.
    pub(crate) fn place(&self) -> String {
        format!("{}{}", self.base, self.repository)
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }
}

/// The host of an address, with its port where one is given.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn parse(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|error| {
        Error::invalid("invalid-image", format!("the registry's address {text:?} is none: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest_urls(image: &str, config: &RegistryConfig) -> Vec<String> {
        let image = ImageReference::parse(image).unwrap();
        let endpoints = Endpoint::to_pull(&image, config).unwrap();
        endpoints.iter().map(|endpoint| endpoint.url("manifests", "v1").unwrap().to_string()).collect()
    }

    #[test]
    fn images_are_looked_for_where_docker_looks() {
        let config = RegistryConfig {
            plain_http: vec!["127.0.0.1:5000".parse().unwrap()],
            ..RegistryConfig::default()
        };
        for (image, url) in [
            ("hello", "https://registry-1.docker.io/v2/library/hello/manifests/v1"),
            ("ghcr.io/me/hello", "https://ghcr.io/v2/me/hello/manifests/v1"),
            ("GHCR.io.:443/me/hello", "https://ghcr.io/v2/me/hello/manifests/v1"),
            ("ghcr.io:444/me/hello", "https://ghcr.io:444/v2/me/hello/manifests/v1"),
            ("lab:443/me/hello", "https://lab/v2/me/hello/manifests/v1"),
            ("registry-1.docker.io/hello", "https://registry-1.docker.io/v2/library/hello/manifests/v1"),
            ("127.0.0.1:5000/hello", "http://127.0.0.1:5000/v2/hello/manifests/v1"),
            ("127.0.0.1:5001/hello", "https://127.0.0.1:5001/v2/hello/manifests/v1"),
        ] {
            assert_eq!(manifest_urls(image, &config), [url]);
        }
    }

    #[test]
    fn mirrors_stand_before_their_registry_and_no_other() {
        let mirrors = [
            ("docker.io", "http://mirror:5000"),
            ("ghcr.io", "https://harbor.example.com/ghcr/"),
            ("docker.io", "https://harbor.example.com/hub"),
        ];
        let mirrors = mirrors.map(|(host, url)| (host.to_owned(), Url::parse(url).unwrap())).into();
        let mirrors_only = vec!["ghcr.io".to_owned()];
        let config = RegistryConfig { mirrors, mirrors_only, ..RegistryConfig::default() };
        assert_eq!(
            manifest_urls("hello", &config),
            [
                "http://mirror:5000/v2/library/hello/manifests/v1",
                "https://harbor.example.com/v2/hub/library/hello/manifests/v1",
                "https://registry-1.docker.io/v2/library/hello/manifests/v1",
            ]
        );
        assert_eq!(
            manifest_urls("ghcr.io/me/a", &config),
            ["https://harbor.example.com/v2/ghcr/me/a/manifests/v1"]
        );
        for same in ["GHCR.IO/me/a", "ghcr.io:443/me/a", "ghcr.io./me/a"] {
            assert_eq!(manifest_urls(same, &config), manifest_urls("ghcr.io/me/a", &config), "{same}");
        }
        assert_eq!(manifest_urls("quay.io/me/a", &config), ["https://quay.io/v2/me/a/manifests/v1"]);
    }
}
