use http::Method;
use runtime_api::SecretName;

use crate::Api;

const PATH: &str = "/system/secrets";

fn held(api: &Api, name: &str, namespace: &str) -> Option<Vec<u8>> {
    api.0.secret(&SecretName::new(name, namespace).unwrap()).map(|value| value.expose().to_vec())
}

#[tokio::test]
async fn a_secret_is_created_updated_listed_and_removed_and_never_told() {
    let api = Api::new();
    let secret = r#"{"name":"db","value":"canary"}"#;
    assert_eq!(api.send(Method::PUT, PATH, secret).await.error().0, 404);
    let created = api.post(PATH, secret).await;
    assert_eq!((created.status.as_u16(), created.body.as_str()), (202, ""));
    assert_eq!(api.post(PATH, secret).await.error().0, 409);
    assert_eq!(held(&api, "db", "").unwrap(), b"canary");
    assert_eq!(api.get(PATH).await.body, r#"[{"name":"db","namespace":"openfaas-fn"}]"#);
    let updated = api.send(Method::PUT, PATH, r#"{"name":"db","value":"canary 2"}"#).await;
    assert_eq!((updated.status.as_u16(), held(&api, "db", "").unwrap()), (202, b"canary 2".to_vec()));
    assert_eq!(api.send(Method::DELETE, PATH, r#"{"name":"db"}"#).await.status, 202);
    assert_eq!(api.send(Method::DELETE, PATH, r#"{"name":"db"}"#).await.error().0, 404);
    assert_eq!(api.get(PATH).await.body, "[]");
}

#[tokio::test]
async fn raw_bytes_win_over_text() {
    let api = Api::new();
    for (name, body, bytes) in [
        ("both", r#""value":"text","rawValue":"AP8K""#, &b"\0\xff\n"[..]),
        ("text", r#""value":"a\u0000b\n","rawValue":"""#, b"a\0b\n"),
        ("null", r#""value":"text","rawValue":null"#, b"text"),
        ("case", r#""Value":"text""#, b"text"),
        ("none", r#""labels":{}"#, b""),
    ] {
        let answer = api.post(PATH, &format!(r#"{{"name":"{name}",{body}}}"#)).await;
        assert_eq!((answer.status.as_u16(), held(&api, name, "").unwrap()), (202, bytes.to_vec()), "{name}");
    }
}

#[tokio::test]
async fn secrets_are_their_namespaces_own() {
    let api = Api::new();
    for (method, path, body) in [
        (Method::POST, PATH, r#"{"name":"a","namespace":"dev","value":"1"}"#),
        (Method::POST, "/system/secrets?namespace=dev", r#"{"name":"b","value":"2"}"#),
        (Method::PUT, "/system/secrets?namespace=x", r#"{"name":"b","namespace":"dev","value":"3"}"#),
        (Method::DELETE, "/system/secrets?namespace=dev", r#"{"name":"a"}"#),
    ] {
        assert_eq!(api.send(method, path, body).await.status, 202, "{body}");
    }
    assert_eq!(held(&api, "b", "dev").unwrap(), b"3");
    assert_eq!((api.get(PATH).await.body.as_str(), held(&api, "a", "dev")), ("[]", None));
    let listed = api.get("/system/secrets?namespace=dev").await;
    assert_eq!(listed.body, r#"[{"name":"b","namespace":"dev"}]"#);
    assert_eq!(api.get("/system/secrets?namespace=x").await.error().1, "no-such-namespace");
}

#[tokio::test]
async fn what_is_wrong_is_told_without_the_value() {
    let api = Api::new();
    let large = format!(r#"{{"name":"a","value":"{}"}}"#, "x".repeat((1 << 20) + 1));
    for (body, code) in [
        (r#"{"name":"","value":"canary"}"#, "invalid-name"),
        (r#"{"name":"../a","value":"canary"}"#, "invalid-name"),
        (r#"{"name":"A b","value":"canary"}"#, "invalid-name"),
        (r#"{"name":"a","value":["canary"]}"#, "invalid-json"),
        (r#"{"name":"a","value":"canary"#, "invalid-json"),
        (r#"{"name":"a","rawValue":"canary!"}"#, "invalid-secret"),
        (r#"{"name":"a","namespace":"x","value":"canary"}"#, "no-such-namespace"),
        (large.as_str(), "too-large"),
    ] {
        let answer = api.post(PATH, body).await;
        let (_, told, text) = answer.error();
        assert_eq!(told, code);
        assert!(!text.contains("canary"), "{text}");
    }
}
