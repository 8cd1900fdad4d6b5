use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use runtime_api::{Error, FunctionName, Provider, Result};
use runtime_process::Seldom;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::scale_policy::{Trend, after_alert};

/// Alertmanager groups alerts, and tells much of each that does not matter here.
const MAX_BYTES: usize = 4 << 20;
/// Functions that one message may scale.
const MAX_ALERTS: usize = 10_000;
/// Whoever takes longer to send it is not Alertmanager.
const MAX_TIME: Duration = Duration::from_secs(10);

/// How often it is said that alerts name no function: Alertmanager repeats itself.
const SAY_EVERY: Duration = Duration::from_mins(1);
/// Longer than any name of a function.
const MAX_NAME_CHARS: usize = 128;

/// What Alertmanager posts, as far as it matters (Alertmanager webhook, `OpenFaaS`).
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    #[serde(default)]
    status: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default)]
    function_name: String,
}

/// What is done on alerts.
pub(crate) struct Alerts {
    /// Those that named no function.
    stray: Mutex<Seldom>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { stray: Mutex::new(Seldom::new(SAY_EVERY)) }
    }
}

impl Alerts {
    /// Scales each function that an alert names, and tells why some could not be, once all were tried. Alerts of
    /// functions that are not there do not count (`OpenFaaS`), but for the log.
    ///
    /// # Errors
    /// `Invalid` when the body is not what Alertmanager posts.
    pub(crate) async fn scale(&self, provider: &dyn Provider, body: Body) -> Result<Vec<Error>> {
        let mut failed = Vec::new();
        for alert in read(body).await?.alerts {
            match scale_one(provider, &alert).await {
                Ok(Found::Yes) => {}
                Ok(Found::No) => self.warn_of_stray(&alert.labels.function_name),
                Err(error) => {
                    warn!(function = alert.labels.function_name, %error, "an alert did not scale its function");
                    failed.push(error);
                }
            }
        }
        Ok(failed)
    }

    fn warn_of_stray(&self, named: &str) {
        let alerts = self.stray.lock().unwrap_or_else(PoisonError::into_inner).add(1, Instant::now());
        if let Some(alerts) = alerts {
            let function: String = named.chars().take(MAX_NAME_CHARS).collect();
            warn!(
                function,
                alerts, "alerts name no function that there is; all since this was last said are counted"
            );
        }
    }
}

/// Whether there is the function that an alert names.
enum Found {
    Yes,
    No,
}

async fn read(body: Body) -> Result<Message> {
    let invalid = |why: &str| Error::invalid("invalid-alert", why);
    let bytes = timeout(MAX_TIME, to_bytes(body, MAX_BYTES)).await;
    let bytes = bytes
        .map_err(|_| Error::invalid("request-timeout", "the body did not arrive in time"))?
        .map_err(|error| invalid(&format!("Unable to read alert. {error}")))?;
    if bytes.is_empty() {
        return Err(invalid("A body is required for this endpoint"));
    }
    let message: Message = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(&format!("Unable to parse alert, bad format. {error}")))?;
    if message.alerts.len() > MAX_ALERTS {
        return Err(invalid(&format!("Unable to read alert. It has more than {MAX_ALERTS} alerts")));
    }
    Ok(message)
}

async fn scale_one(provider: &dyn Provider, alert: &Alert) -> Result<Found> {
    let Ok(function) = FunctionName::parse(&alert.labels.function_name) else { return Ok(Found::No) };
    let status = match provider.status(&function).await {
        Err(Error::NotFound(_)) => return Ok(Found::No),
        status => status?,
    };
    let trend = if alert.status == "firing" { Trend::Up } else { Trend::Down };
    let replicas = after_alert(trend, status.replicas, &status.spec.labels);
    if replicas == status.replicas {
        return Ok(Found::Yes);
    }
    provider.scale(&function, replicas).await?;
    info!(%function, from = status.replicas, replicas, alert = alert.status, "scaled");
    Ok(Found::Yes)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use runtime_testing::FakeProvider;
    use tracing::subscriber::set_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn alerts_of_no_function_are_said_now_and_then() {
        let log = Log::default();
        let lines = log.0.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        let _guard = set_default(subscriber);
        let (provider, alerts) = (FakeProvider::new(), Alerts::default());
        provider.add("there");
        let alert = |name: &str| format!(r#"{{"status":"firing","labels":{{"function_name":"{name}"}}}}"#);
        let long = "x".repeat(10_000);
        for names in [vec!["there"], vec!["missing", "Not a name"], vec![&long, "missing"]] {
            let each: Vec<String> = names.into_iter().map(&alert).collect();
            let body = format!(r#"{{"alerts":[{}]}}"#, each.join(","));
            assert!(alerts.scale(&*provider, Body::from(body)).await.unwrap().is_empty());
        }
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let warnings: Vec<&str> = text.lines().filter(|line| line.contains(" WARN ")).collect();
        assert_eq!(warnings.len(), 1, "{text}");
        assert!(warnings[0].contains("function=\"missing\" alerts=1"), "{text}");
    }
}
