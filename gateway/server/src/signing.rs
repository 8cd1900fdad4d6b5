//! Signed answers (Standard Webhooks 1.0): who gets one can tell that it is ours, whole, and not an old one.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use ring::hmac::{Context, HMAC_SHA256, Key};
use runtime_api::{Error, Result, SecretName, SecretValue};

use crate::spool::Spool;

/// Looks up the secrets that answers are signed with.
pub type SigningSecrets = Arc<dyn Fn(&SecretName) -> Option<SecretValue> + Send + Sync>;

/// What a secret begins with whose rest is the key in Base64 (Standard Webhooks).
const ENCODED: &[u8] = b"whsec_";

/// Makes a key of a secret's value: Base64 behind `whsec_`, otherwise its own bytes without white space at either end.
///
/// # Errors
/// `Invalid` when it is empty, or no Base64.
pub(crate) fn key(secret: &SecretValue) -> Result<Key> {
    let value = secret.expose().trim_ascii();
    let bytes = match value.strip_prefix(ENCODED) {
        Some(encoded) => BASE64_STANDARD.decode(encoded).ok(),
        None => Some(value.to_owned()),
    };
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
        Error::invalid(
            "invalid-callback-secret",
            "the secret to sign with is empty, or not Base64 after whsec_",
        )
    })?;
    Ok(Key::new(HMAC_SHA256, &bytes))
}

/// Adds the three headers that an answer is verified by. `id` is the same each time that it is posted.
///
/// # Errors
/// `Internal` when the answer cannot be read.
pub(crate) async fn sign(
    headers: &mut HeaderMap,
    key: &Key,
    id: &str,
    now: SystemTime,
    answer: &Spool,
) -> Result<()> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut context = Context::with_key(key);
    context.update(format!("{id}.{seconds}.").as_bytes());
    let mut body = answer.body()?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Error::internal)?;
        context.update(frame.data_ref().map_or(&[][..], Bytes::as_ref));
    }
    let signature = format!("v1,{}", BASE64_STANDARD.encode(context.sign()));
    for (name, value) in [("webhook-id", id), ("webhook-signature", &signature)] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).map_err(Error::internal)?);
    }
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(seconds));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(value: &str) -> SecretValue {
        SecretValue::new(value.as_bytes()).unwrap()
    }

    /// The example that the specification's libraries are tested with.
    #[tokio::test]
    async fn signatures_are_those_of_the_specification() {
        let key = key(&secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")).unwrap();
        let (mut headers, answer) = (HeaderMap::new(), Spool::Memory(Bytes::from(r#"{"test": 2432232314}"#)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        sign(&mut headers, &key, "msg_p5jXN8AQM9LWM0D4loKWxJek", now, &answer).await.unwrap();
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
    }

    #[test]
    fn what_makes_no_key_is_refused() {
        for value in ["", " \n", "whsec_", "whsec_?"] {
            let error = SecretValue::new(value.as_bytes()).and_then(|value| key(&value)).unwrap_err();
            assert!(error.code().starts_with("invalid-"), "{value:?} {error}");
        }
    }
}
