use axum::{
    Json,
    body::Body,
    extract::{Query, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use runtime_api::{DEFAULT_NAMESPACE, Error, MAX_SECRET_BYTES, Provider, Result, SecretName, SecretValue};
use serde::{Deserialize, Serialize};

use crate::{
    json,
    routes::{Answer, Parameters, Shared, check_namespace, first_of, namespace_of},
};

/// Room for a value as text, whose characters may all be escaped, beside the same value in base64.
const MAX_BODY_BYTES: usize = MAX_SECRET_BYTES * 8;

/// A secret as clients send it (`OpenFaaS` Secret). Without `Debug`, so that nothing prints it.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecretBody {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) value: String,
    /// In base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) raw_value: String,
}

/// A secret as it is listed.
#[derive(Deserialize, Serialize)]
pub(crate) struct Listed {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) namespace: String,
}

pub(crate) async fn list(
    State(provider): Shared,
    Query(query): Query<Parameters>,
) -> Answer<Json<Vec<Listed>>> {
    let secrets = provider.secrets(first_of([namespace_of(&query), DEFAULT_NAMESPACE])).await?;
    let listed = |secret: SecretName| Listed {
        name: secret.name().to_owned(),
        namespace: secret.namespace().to_owned(),
    };
    Ok(Json(secrets.into_iter().map(listed).collect()))
}

pub(crate) async fn create(
    State(provider): Shared,
    Query(query): Query<Parameters>,
    body: Body,
) -> Answer<StatusCode> {
    let (name, value) = read(&*provider, &query, body).await?;
    provider.create_secret(&name, value?).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(crate) async fn update(
    State(provider): Shared,
    Query(query): Query<Parameters>,
    body: Body,
) -> Answer<StatusCode> {
    let (name, value) = read(&*provider, &query, body).await?;
    provider.update_secret(&name, value?).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(crate) async fn remove(
    State(provider): Shared,
    Query(query): Query<Parameters>,
    body: Body,
) -> Answer<StatusCode> {
    let (name, _) = read(&*provider, &query, body).await?;
    provider.remove_secret(&name).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn read(
    provider: &dyn Provider,
    query: &Parameters,
    body: Body,
) -> Result<(SecretName, Result<SecretValue>)> {
    let fields = ["name", "namespace", "value", "rawValue"];
    let secret: SecretBody = json::read_up_to(MAX_BODY_BYTES, body, &fields).await.map_err(without_value)?;
    let namespace = first_of([&secret.namespace, namespace_of(query)]);
    check_namespace(provider, namespace).await?;
    Ok((SecretName::new(&secret.name, namespace)?, value(secret)))
}

/// What is wrong with a field, without what it holds.
fn without_value(error: Error) -> Error {
    match error.code() {
        "invalid-json" => Error::invalid(
            "invalid-json",
            "failed to unmarshal request: an object is expected, with name, namespace, value and rawValue as text",
        ),
        _ => error,
    }
}

/// The raw value wins if there is one (`OpenFaaS`).
fn value(secret: SecretBody) -> Result<SecretValue> {
    if secret.raw_value.is_empty() {
        return SecretValue::new(secret.value.into_bytes());
    }
    let bytes = STANDARD.decode(secret.raw_value);
    SecretValue::new(bytes.map_err(|_| Error::invalid("invalid-secret", "rawValue is not base64"))?)
}
