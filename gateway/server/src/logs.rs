//! `/system/logs`: the provider's, or another server's that answers this one route. Either ends when draining begins,
//! since who follows a log would otherwise hold that up.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use reqwest::{Client, Url, redirect::Policy};
use runtime_api::{Error, Result};
use tower::ServiceExt;
use tracing::warn;

use crate::routes::Backend;

/// How long another server may take to be connected to.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long it may take to begin its answer. What follows may be silent for as long as the function is.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// Another server that logs are read from (`OpenFaaS` `logs_provider_url`). It is the operator's choice, so it may be
/// anywhere.
#[derive(Clone)]
pub(crate) struct LogsServer {
    client: Client,
    route: Url,
}

impl LogsServer {
    pub(crate) fn new(server: &str) -> Result<Self> {
        let client =
            Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT_TIME).build();
        let route = format!("{}/system/logs", server.trim_end_matches('/')).parse();
        Ok(Self { client: client.map_err(Error::internal)?, route: route.map_err(Error::internal)? })
    }

    /// The query goes there as it came, and so do the credentials, unless the URL has some.
    async fn read(&self, query: Option<&str>, headers: &HeaderMap) -> Response {
        let has_credentials = !self.route.username().is_empty() || self.route.password().is_some();
        let mut route = self.route.clone();
        route.set_query(query);
        let mut request = self.client.get(route);
        if let Some(credentials) = headers.get(AUTHORIZATION).filter(|_| !has_credentials) {
            request = request.header(AUTHORIZATION, credentials);
        }
        let answer = match tokio::time::timeout(HEAD_TIME, request.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                // Without its address, which may hold credentials.
                let error = chain(&error.without_url());
                warn!(error, "the server of logs does not answer");
                return failed("log request failed".into());
            }
            Err(_) => {
                warn!("the server of logs does not answer in time");
                return failed("log request failed".into());
            }
        };
        match answer.status() {
            StatusCode::OK => {
                let kind = HeaderValue::from_static("application/x-ndjson");
                let kind = answer.headers().get(CONTENT_TYPE).cloned().unwrap_or(kind);
                ([(CONTENT_TYPE, kind)], Body::from_stream(answer.bytes_stream())).into_response()
            }
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => {
                StatusCode::NOT_IMPLEMENTED.into_response()
            }
            status => failed(format!("unknown log request error ({})", status.as_u16())),
        }
    }
}

pub(crate) async fn logs(State(backend): State<Backend>, request: Request) -> Response {
    let answer = match &backend.logs_server {
        Some(server) => server.read(request.uri().query(), request.headers()).await,
        None => backend.of_provider.clone().oneshot(request).await.into_response(),
    };
    let draining = backend.shutdown.clone().cancelled_owned();
    answer.map(|body| Body::from_stream(body.into_data_stream().take_until(draining)))
}

/// An error's text and all that it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The texts are the ones that clients of `OpenFaaS` know.
fn failed(text: String) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, kind)], text + "\n").into_response()
}
