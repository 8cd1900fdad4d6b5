use http::{HeaderMap, HeaderName};
use runtime_api::CallId;
use uuid::{Builder, fmt::Hyphenated};

/// `X-Call-Id` (`OpenFaaS`).
pub const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");

/// Long enough for any id in use, short enough for every line of a log.
const MAX_BYTES: usize = 128;

/// The client's call id, or a fresh one where there is none or it is not fit for logs and headers.
pub fn call_id(headers: &HeaderMap) -> CallId {
    let given = headers.get(CALL_ID).map_or("", |value| value.to_str().unwrap_or_default());
    if given.is_empty() || given.len() > MAX_BYTES || !given.bytes().all(|b| b.is_ascii_graphic()) {
        return fresh();
    }
    CallId::new(given)
}

fn fresh() -> CallId {
    let id = Builder::from_random_bytes(rand::random()).into_uuid();
    let mut text = [0; Hyphenated::LENGTH];
    CallId::new(&*id.hyphenated().encode_lower(&mut text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_clients_send_if_it_can_be_logged() {
        let of = |given: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CALL_ID, http::HeaderValue::from_bytes(given).unwrap());
            call_id(&headers).as_str().to_owned()
        };
        for good in ["1", "a/b?c=d", &"x".repeat(128)] {
            assert_eq!(of(good.as_bytes()), good);
        }
        for bad in [&b""[..], b"a b", b"\xff", "ä".as_bytes(), b"a\tb", &[b'x'; 129]] {
            let made = of(bad);
            assert_eq!(uuid::Uuid::parse_str(&made).unwrap().get_version_num(), 4, "{made}");
        }
    }
}
