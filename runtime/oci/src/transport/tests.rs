use runtime_api::ImageReference;

use super::*;

fn transport(plain_http: &[&str]) -> Transport {
    let plain_http = plain_http.iter().map(|&host| host.to_owned()).collect();
    Transport::new(RegistryConfig { plain_http, ..RegistryConfig::default() })
}

fn session<'a>(transport: &'a Transport, image: &str) -> Session<'a> {
    let image = ImageReference::parse(image).unwrap();
    transport.session(Endpoint::to_pull(&image, &transport.config).unwrap())
}

async fn refusal(session: &Session<'_>, url: &str) -> String {
    let refused = session.client_for(&Url::parse(url).unwrap()).await.err();
    refused.map_or_else(|| "followed".into(), |error| format!("{}: {error}", error.code()))
}

#[tokio::test]
async fn a_public_registry_leads_to_no_private_address() {
    let transport = transport(&[]);
    let session = session(&transport, "ghcr.io/me/hello");
    for private in [
        "https://127.0.0.1/blob",
        "https://10.1.2.3/blob",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/blob",
        "https://[::ffff:10.0.0.1]/blob",
        "https://2130706433/blob",
        "https://localhost/blob",
    ] {
        let refusal = refusal(&session, private).await;
        assert!(refusal.starts_with("refused-redirect: "), "{private}: {refusal}");
        assert!(refusal.contains("registry ghcr.io") && refusal.contains("private address"), "{refusal}");
    }
    let plain = refusal(&session, "http://ghcr.io/blob").await;
    assert!(plain.contains("not encrypted"), "{plain}");
}

#[tokio::test]
async fn names_are_resolved_to_public_addresses_only() {
    let resolver = PublicAddresses(Policy::public());
    assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn only_hosts_named_for_it_go_unverified() {
    let mut transport = transport(&[]);
    transport.config.skip_tls_verification = vec!["lab:5000".into(), "lab.example.com".into()];
    for (url, skipped) in [
        ("https://lab:5000/", true),
        ("https://lab:5001/", false),
        ("https://lab.example.com:8443/", true),
        ("https://evil.lab.example.com/", false),
    ] {
        assert_eq!(transport.skips_verification(&Url::parse(url).unwrap()), skipped, "{url}");
    }
}
