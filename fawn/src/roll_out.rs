//! A deployment at a gateway, from the request until the function serves.

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, Result, bail};
use runtime_api::{Deployment, FunctionName, FunctionSpec};
use tokio::{select, time::sleep};

use crate::client::{Gateway, State};

/// How often a gateway is asked how far a deployment is.
const POLL: Duration = Duration::from_millis(250);

/// Deploys a function and waits until it serves, at most so long. Each stage is told, while it lasts.
pub(crate) async fn roll_out(
    gateway: &Gateway,
    spec: &FunctionSpec,
    longest: Duration,
    tell: &dyn Fn(String),
) -> Result<Option<Deployment>> {
    let function = spec.name()?;
    select! {
        deployed = gateway.deploy(spec) => deployed?,
        never = show_stages(gateway, &function, tell) => match never {},
    }
    let waited = tokio::time::timeout(longest, wait_until_ready(gateway, &function, tell)).await;
    waited.with_context(|| {
        format!(
            "{function} is not ready after {longest:?}; the gateway goes on, see `faas-cli describe {}`",
            function.name()
        )
    })?
}

async fn show_stages(gateway: &Gateway, function: &FunctionName, tell: &dyn Fn(String)) -> Infallible {
    loop {
        sleep(POLL).await;
        // Before the gateway has heard of the function there is nothing to show.
        if let Ok(State::Pending(stage)) = gateway.state(function).await {
            tell(format!("{}: {stage}", function.name()));
        }
    }
}

async fn wait_until_ready(
    gateway: &Gateway,
    function: &FunctionName,
    tell: &dyn Fn(String),
) -> Result<Option<Deployment>> {
    loop {
        match gateway.state(function).await? {
            State::Ready(deployment) => return Ok(deployment),
            State::Failed(reason) => bail!("{function} was rejected: {reason}"),
            State::Pending(stage) => tell(format!("{}: {stage}", function.name())),
        }
        sleep(POLL).await;
    }
}
