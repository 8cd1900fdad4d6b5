use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TEXT_FORMAT, TextEncoder, core::Collector,
};
use runtime_api::{Error, Response, Result, full};

const LABELS: [&str; 3] = ["code", "method", "path"];

/// The paths that are told apart, each standing for all below it (`OpenFaaS`).
const PATHS: [&str; 10] = [
    "/system/functions",
    "/system/function",
    "/system/scale-function",
    "/system/secrets",
    "/system/namespaces",
    "/system/namespace",
    "/system/logs",
    "/system/info",
    "/system/artifacts",
    "/healthz",
];

/// The series of `OpenFaaS` providers. Calls are not counted here, but by gateways.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let requests = Opts::new("provider_http_requests_total", "Requests answered");
        let seconds = HistogramOpts::new("provider_http_request_duration_seconds", "Request time taken");
        Ok(Self {
            requests: registered(registry, IntCounterVec::new(requests, &LABELS))?,
            seconds: registered(registry, HistogramVec::new(seconds, &LABELS))?,
        })
    }

    pub(crate) fn count(&self, path: &str, method: &Method, status: StatusCode, taken: Duration) {
        let labels = [status.as_str(), method_label(method), path];
        self.requests.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).observe(taken.as_secs_f64());
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    series: prometheus::Result<C>,
) -> Result<C> {
    let series = series.map_err(Error::internal)?;
    registry.register(Box::new(series.clone())).map_err(Error::internal)?;
    Ok(series)
}

/// What a path is counted as; what is none of ours, such as a call, is not counted.
pub(crate) fn path_label(path: &str) -> Option<&'static str> {
    PATHS
        .into_iter()
        .find(|known| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Callers choose methods freely.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// Everything that is counted, in Prometheus' words.
pub(crate) fn scrape(registry: &Registry) -> Result<Response> {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).map_err(Error::internal)?;
    let mut response = Response::new(full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_are_few() {
        for (path, label) in [
            ("/system/functions", Some("/system/functions")),
            ("/system/function/a", Some("/system/function")),
            ("/system/scale-function/a", Some("/system/scale-function")),
            ("/system/namespace/", Some("/system/namespace")),
            ("/system/namespaces", Some("/system/namespaces")),
            ("/healthz", Some("/healthz")),
            ("/function/a", None),
            ("/system/else", None),
            ("/system/functionsx", None),
        ] {
            assert_eq!(path_label(path), label, "{path}");
        }
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
    }
}
