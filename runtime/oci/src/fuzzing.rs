//! What fuzzers call; not there in any other build.

use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};

use crate::{
    auth::{Challenge, is_same_site},
    image_config::ImageConfig,
    index::choose,
    layout::{Layout, detect},
    manifest::{Document, parse},
    spin::Application,
};

/// A manifest, and the configuration or description that it leads to.
pub fn manifest(manifest: &[u8], config: Option<&[u8]>) {
    let config = config.unwrap_or_default();
    match Document::parse(manifest) {
        Ok(Document::Index(index)) => drop(choose(&index)),
        Ok(Document::Image(manifest)) => {
            let image: Option<ImageConfig> = parse(config, "configuration").ok();
            if let Ok(Layout::File(entrypoint) | Layout::SomeFile(entrypoint)) =
                detect(&manifest, image.as_ref())
            {
                let outside = |part: &str| matches!(part, "." | "..");
                assert!(!entrypoint.path.split('/').any(outside), "{:?}", entrypoint.path);
            }
            if let Ok(application) = parse::<Application>(config, "description") {
                drop(application.module(&manifest));
            }
        }
        Err(_) => {}
    }
}

/// What a registry asks for: its password goes nowhere but to its own domain.
pub fn challenge(header: &[u8]) {
    let Ok(header) = HeaderValue::from_bytes(header) else { return };
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, header)]);
    let Some(Challenge::Bearer { realm, .. }) = Challenge::parse(&headers) else { return };
    let Ok(realm) = Url::parse(&realm) else { return };
    if let Some(host) = realm.host_str()
        && is_same_site(Some("registry.example.com"), Some(host))
    {
        // A dot may end a name.
        let host = host.strip_suffix('.').unwrap_or(host);
        assert!(host == "example.com" || host.ends_with(".example.com"), "{host}");
    }
}
