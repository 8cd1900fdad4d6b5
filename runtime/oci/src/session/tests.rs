use runtime_api::ImageReference;

use super::*;
use crate::RegistryConfig;

fn session<'a>(transport: &'a Transport, image: &str) -> Session<'a> {
    let image = ImageReference::parse(image).unwrap();
    transport.session(Endpoint::to_pull(&image, &transport.config).unwrap(), Access::Pull)
}

async fn refusal(session: &Session<'_>, url: &str) -> String {
    let refused = session.client_for(&Url::parse(url).unwrap()).await.err();
    refused.map_or_else(|| "followed".into(), |error| format!("{}: {error}", error.code()))
}

#[tokio::test]
async fn a_public_registry_leads_to_no_private_address() {
    let transport = Transport::new(RegistryConfig::default());
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
