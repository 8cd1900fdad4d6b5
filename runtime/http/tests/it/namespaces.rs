use http::Method;

use crate::Api;

#[tokio::test]
async fn a_namespace_is_created_described_updated_and_removed() {
    let api = Api::new();
    let staff = r#"{"name":"staff","labels":{"openfaas":"1"},"annotations":{"openfaas":"1"}}"#;
    let created = api.post("/system/namespace/", staff).await;
    assert_eq!((created.status.as_u16(), created.body.as_str()), (201, ""));
    assert_eq!(api.post("/system/namespace/", staff).await.error().0, 409);
    let told = api.get("/system/namespace/staff").await;
    assert_eq!(told.body, r#"{"name":"staff","annotations":{"openfaas":"1"},"labels":{"openfaas":"1"}}"#);
    let other = r#"{"name":"staff","labels":{"team":"a"}}"#;
    assert_eq!(api.send(Method::PUT, "/system/namespace/staff", other).await.status, 202);
    assert_eq!(api.get("/system/namespace/staff").await.body, other);
    assert_eq!(api.get("/system/namespaces").await.body, r#"["dev","openfaas-fn","staff"]"#);
    let body = r#"{"name":"staff","labels":{"openfaas":"1"}}"#;
    assert_eq!(api.send(Method::DELETE, "/system/namespace/staff", body).await.status, 202);
    for (method, path) in [
        (Method::GET, "/system/namespace/staff"),
        (Method::PUT, "/system/namespace/staff"),
        (Method::DELETE, "/system/namespace/staff"),
    ] {
        let answer = api.send(method, path, "").await;
        assert_eq!(answer.error(), (404, "not-found", "namespace staff not found"));
    }
}

#[tokio::test]
async fn the_name_is_in_the_path_or_in_the_body_and_the_same_in_both() {
    let api = Api::new();
    assert_eq!(api.post("/system/namespace/by-path", "{}").await.status, 201);
    assert_eq!(api.post("/system/namespace/", r#"{"name":"by-body"}"#).await.status, 201);
    assert_eq!(api.send(Method::DELETE, "/system/namespace/by-path", "").await.status, 202);
    for (path, body) in [
        ("/system/namespace/a", r#"{"name":"b"}"#),
        ("/system/namespace/", "{}"),
        ("/system/namespace/", r#"{"name":"Not one"}"#),
        ("/system/namespace/a.b", ""),
    ] {
        assert_eq!(api.post(path, body).await.error().1, "invalid-name", "{path} {body}");
    }
    assert_eq!(api.get("/system/namespace").await.status, 404);
}

#[tokio::test]
async fn one_that_is_in_use_stays() {
    let api = Api::with(&["f.dev"]);
    for namespace in ["dev", "openfaas-fn"] {
        let answer = api.send(Method::DELETE, &format!("/system/namespace/{namespace}"), "").await;
        assert_eq!(answer.error().1, "namespace-in-use");
    }
}
