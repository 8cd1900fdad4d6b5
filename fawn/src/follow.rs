//! A function's log, shown as it is written.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use reqwest::Response;
use runtime_api::{FunctionName, LogLine};
use tokio::time::sleep;

use crate::{client::Gateway, terminal::Lines};

/// How long a gateway that does not answer is left alone.
const PAUSE: Duration = Duration::from_secs(2);
/// A line of a log has at most 64 KiB of text, which JSON may make six times as long.
const MAX_LINE_BYTES: usize = 512 << 10;

/// Shows what a function writes from now on, until the output cannot be written. A gateway that goes away is asked again.
pub(crate) async fn follow(gateway: Arc<Gateway>, function: FunctionName, lines: Arc<Lines>) -> Result<()> {
    // By the gateway's clock, which need not be ours.
    let now = gateway.time().await.ok().flatten();
    let mut since = now.unwrap_or_else(Timestamp::now);
    let mut told = String::new();
    loop {
        match gateway.follow_log(&function, since).await {
            Ok(answer) => {
                told.clear();
                show(answer, &function, &lines, &mut since).await?;
            }
            Err(error) => {
                let reason = format!("its log cannot be followed now: {error:#}");
                if reason != told {
                    lines.say(function.name(), &reason);
                    told = reason;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Shows what comes, to the end of the answer; afterwards, `since` is behind what was shown.
async fn show(
    mut answer: Response,
    function: &FunctionName,
    lines: &Lines,
    since: &mut Timestamp,
) -> Result<()> {
    let mut waiting = VecDeque::new();
    // However it ends: the log is asked for again.
    while let Ok(Some(piece)) = answer.chunk().await {
        waiting.extend(piece);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            // Other gateways may send what is no line.
            let Ok(line) = serde_json::from_slice::<LogLine>(&line) else { continue };
            lines.log(function.name(), &line.text)?;
            *since = line.timestamp.checked_add(Duration::from_nanos(1)).unwrap_or(line.timestamp);
        }
        if waiting.len() > MAX_LINE_BYTES {
            lines.say(function.name(), "a line of its log is too long to be shown");
            waiting.clear();
        }
    }
    Ok(())
}
