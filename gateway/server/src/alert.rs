use std::time::Duration;

use axum::body::{Body, to_bytes};
use runtime_api::{Error, FunctionName, Provider, Result};
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

/// Scales each function that an alert names, and tells why some could not be, once all were tried. Alerts of functions
/// that are not there do not count (`OpenFaaS`).
///
/// # Errors
/// `Invalid` when the body is not what Alertmanager posts.
pub(crate) async fn scale(provider: &dyn Provider, body: Body) -> Result<Vec<Error>> {
    let mut failed = Vec::new();
    for alert in read(body).await?.alerts {
        if let Err(error) = scale_one(provider, &alert).await {
            warn!(function = alert.labels.function_name, %error, "an alert did not scale its function");
            failed.push(error);
        }
    }
    Ok(failed)
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

async fn scale_one(provider: &dyn Provider, alert: &Alert) -> Result<()> {
    let Ok(function) = FunctionName::parse(&alert.labels.function_name) else { return Ok(()) };
    let status = match provider.status(&function).await {
        Err(Error::NotFound(_)) => return Ok(()),
        status => status?,
    };
    let trend = if alert.status == "firing" { Trend::Up } else { Trend::Down };
    let replicas = after_alert(trend, status.replicas, &status.spec.labels);
    if replicas == status.replicas {
        return Ok(());
    }
    provider.scale(&function, replicas).await?;
    info!(%function, from = status.replicas, replicas, alert = alert.status, "scaled");
    Ok(())
}
