use runtime_api::ImageReference;

use super::*;
use crate::RegistryConfig;

fn session<'a>(transport: &'a Transport, image: &str) -> Session<'a> {
    let image = ImageReference::parse(image).unwrap();
    transport.session(Endpoint::registry(&image, &transport.config).unwrap(), Access::Pull)
}

async fn refusal(session: &Session<'_>, url: &str) -> String {
    let refused = session.client_for(&Url::parse(url).unwrap()).await.err().map(Error::from);
    refused.map_or_else(|| "followed".into(), |error| format!("{}: {error}", error.code()))
}

#[tokio::test]
async fn a_public_registry_leads_to_no_private_address() {
    let transport = Transport::new(RegistryConfig::default()).unwrap();
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

#[test]
fn what_only_trickles_does_not_keep_up() {
    let (second, stretch) = (Duration::from_secs(1), Duration::from_secs(30));
    let seconds = |bytes: usize| {
        let mut pace = Pace::default();
        (1..=120).find(|_| !pace.keeps_up(bytes, second, stretch))
    };
    assert_eq!(seconds(1), Some(30));
    assert_eq!(seconds(1023), Some(30));
    assert_eq!(seconds(1024), None);
    // What came fast before does not count for ever.
    let mut pace = Pace::default();
    assert!(pace.keeps_up(1 << 20, stretch, stretch));
    assert!(!pace.keeps_up(100, stretch, stretch));
}
