use std::{error::Error as StdError, time::Duration};

use http::{
    HeaderValue, Method, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use runtime_api::{Body, Error, Result, empty, full};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use crate::{HttpProviderConfig, ProviderUrl, answers, pools::Pools};

/// Connections to a provider, and how to be let in.
pub(crate) struct Wire {
    url: ProviderUrl,
    pools: Pools,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
}

impl Wire {
    pub(crate) fn new(config: HttpProviderConfig) -> Result<Self> {
        let authorization = config.credentials.as_ref().map(|credentials| credentials.header());
        Ok(Self {
            url: config.url,
            pools: Pools::new(config.runtimes, config.max_idle_connections),
            authorization: authorization.transpose()?,
            user_agent: config.user_agent,
        })
    }

    pub(crate) fn url(&self) -> &ProviderUrl {
        &self.url
    }

    /// A request of our own, with our credentials.
    pub(crate) fn request(&self, method: Method, route: &str, body: Body) -> Result<Request<Body>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.url.route(route)?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Asks for JSON.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, route: &str, within: Duration) -> Result<T> {
        let deadline = Instant::now() + within;
        let answer = self.send(self.request(Method::GET, route, empty())?, deadline).await?;
        answers::json(answers::granted(answer).await?, deadline).await
    }

    /// Sends JSON.
    pub(crate) async fn send_json(
        &self,
        method: Method,
        route: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<Response<Incoming>> {
        let bytes = serde_json::to_vec(body).map_err(Error::internal)?;
        let mut request = self.request(method, route, full(bytes))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(request, Instant::now() + within).await
    }

    /// Sends a request, and waits for the head of its answer until then. Redirects are answers like others.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Incoming>> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
        match timeout_at(deadline, self.pools.here().request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_senders_own(&error) => {
                Err(Error::invalid("incomplete-body", "the request's body did not arrive"))
            }
            Ok(Err(error)) => {
                let text = format!(
                    "the provider at {} does not answer: start it, or say where it is (--provider)",
                    self.url
                );
                Err(Error::unreachable(text, error))
            }
            Err(late) => {
                let text =
                    format!("the provider at {} did not answer in time: its log may say why", self.url);
                Err(Error::unreachable(text, late))
            }
        }
    }
}

/// Whether the body that was to be sent failed, and not the connection.
fn is_senders_own(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(<dyn StdError>::downcast_ref::<hyper::Error>);
    cause.is_some_and(|cause| cause.is_user() && cause.source().is_some())
}
