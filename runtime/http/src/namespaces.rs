use axum::{Json, body::Body, extract::State};
use http::{StatusCode, Uri};
use runtime_api::{Error, Namespace, Result};

use crate::{
    json,
    routes::{Answer, Shared, last_segment},
};

pub(crate) async fn list(State(provider): Shared) -> Answer<Json<Vec<String>>> {
    Ok(Json(provider.namespaces().await?))
}

pub(crate) async fn status(State(provider): Shared, uri: Uri) -> Answer<Json<Namespace>> {
    let name = last_segment(&uri).to_owned();
    let named = Namespace { name, ..Namespace::default() };
    named.check()?;
    Ok(Json(provider.namespace(&named.name).await?))
}

pub(crate) async fn create(State(provider): Shared, uri: Uri, body: Body) -> Answer<StatusCode> {
    provider.create_namespace(read(&uri, body).await?).await?;
    Ok(StatusCode::CREATED)
}

pub(crate) async fn update(State(provider): Shared, uri: Uri, body: Body) -> Answer<StatusCode> {
    provider.update_namespace(read(&uri, body).await?).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(crate) async fn remove(State(provider): Shared, uri: Uri, body: Body) -> Answer<StatusCode> {
    provider.remove_namespace(&read(&uri, body).await?.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The namespace of the body, whose name may be in the path too, or there alone.
async fn read(uri: &Uri, body: Body) -> Result<Namespace> {
    let mut namespace: Namespace = json::read_or_default(body, &["name", "annotations", "labels"]).await?;
    let in_path = last_segment(uri);
    if !in_path.is_empty() && !namespace.name.is_empty() && in_path != namespace.name {
        let text = format!("the path names namespace {in_path:?}, and the body {:?}", namespace.name);
        return Err(Error::invalid("invalid-name", text));
    }
    if namespace.name.is_empty() {
        namespace.name = in_path.to_owned();
    }
    namespace.check()?;
    Ok(namespace)
}
