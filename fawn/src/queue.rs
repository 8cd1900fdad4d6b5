use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use reqwest::Method;
use runtime_api::DEFAULT_NAMESPACE;
use serde::{Deserialize, Serialize};

use crate::{client::ClientArguments, terminal::printable};

/// Dead letters in one answer.
const PAGE: usize = 1000;

/// See, replay, purge and cancel asynchronous calls
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn queue                           how many calls each function has, by state
  fawn queue show 5f0c…                what became of the calls with an id
  fawn queue dead resize               calls of a function that were given up
  fawn queue replay resize             have all of them run again
  fawn queue purge resize --id 12      remove one of them
  fawn queue clear resize              run none of those that are queued or waiting, stop those that run
  fawn queue cancel 5f0c…              do not run what is queued or waiting, and stop what runs

Credentials are those of `faas-cli login`; for a gateway on this machine, those in its data directory.")]
pub(crate) struct QueueArguments {
    #[command(subcommand)]
    command: Option<QueueCommand>,
    /// Print what the gateway answers, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    client: ClientArguments<false>,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// What became of the calls that carry an id
    Show {
        /// What X-Call-Id said
        call_id: String,
    },
    /// Calls of a function that were given up, the first thousand
    Dead {
        /// NAME or NAME.NAMESPACE
        function: String,
        /// Those that come after this one
        #[arg(long, value_name = "ID")]
        after: Option<u64>,
    },
    /// Has calls that were given up run again
    Replay {
        /// NAME or NAME.NAMESPACE
        function: String,
        /// Only this one
        #[arg(long)]
        id: Option<u64>,
    },
    /// Removes calls that were given up
    Purge {
        /// NAME or NAME.NAMESPACE
        function: String,
        /// Only this one
        #[arg(long)]
        id: Option<u64>,
    },
    /// Cancels all calls of a function, but for dead letters
    Clear {
        /// NAME or NAME.NAMESPACE
        function: String,
    },
    /// Does not run the calls that carry an id, or stops them
    Cancel {
        /// What X-Call-Id said
        call_id: String,
    },
}

/// How many calls functions have.
#[derive(Deserialize, Serialize)]
struct Counts {
    functions: Vec<FunctionCounts>,
    damaged: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionCounts {
    name: String,
    namespace: String,
    queued: u64,
    running: u64,
    waiting: u64,
    dead: u64,
    succeeded: u64,
    cancelled: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_queued: Option<String>,
}

/// What is known of a call.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    id: String,
    name: String,
    namespace: String,
    call_id: String,
    state: String,
    accepted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    attempts: Vec<Attempt>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    last_error: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

#[derive(Deserialize, Serialize)]
struct Done {
    calls: u64,
}

pub(crate) async fn run(arguments: QueueArguments) -> Result<()> {
    let gateway = arguments.client.gateway(None)?;
    let one = |id: Option<u64>| Vec::from_iter(id.map(|id| ("id", id.to_string())));
    let text = match arguments.command {
        None => {
            let counts: Counts = gateway.ask(Method::GET, &["system", "async"], &[]).await?;
            if arguments.json { json(&counts)? } else { table(&counts) }
        }
        Some(QueueCommand::Show { call_id }) => {
            let calls: Vec<Call> = gateway.ask(Method::GET, &["system", "async", &call_id], &[]).await?;
            if arguments.json { json(&calls)? } else { calls.iter().map(whole).collect() }
        }
        Some(QueueCommand::Dead { function, after }) => {
            let limit = ("limit", PAGE.to_string());
            let query =
                Vec::from_iter(after.map(|after| ("after", after.to_string())).into_iter().chain([limit]));
            let path = ["system", "async", "dead", &function];
            let calls: Vec<Call> = gateway.ask(Method::GET, &path, &query).await?;
            if arguments.json { json(&calls)? } else { list(&calls, &function) }
        }
        Some(QueueCommand::Replay { function, id }) => {
            let path = ["system", "async", "dead", &function, "replay"];
            let done: Done = gateway.ask(Method::POST, &path, &one(id)).await?;
            if arguments.json { json(&done)? } else { format!("{} run again\n", number(done.calls)) }
        }
        Some(QueueCommand::Purge { function, id }) => {
            let path = ["system", "async", "dead", &function];
            let done: Done = gateway.ask(Method::DELETE, &path, &one(id)).await?;
            if arguments.json { json(&done)? } else { format!("{} removed\n", number(done.calls)) }
        }
        Some(QueueCommand::Clear { function }) => {
            let path = ["system", "async", "calls", &function];
            let done: Done = gateway.ask(Method::DELETE, &path, &[]).await?;
            if arguments.json { json(&done)? } else { format!("{} cancelled\n", number(done.calls)) }
        }
        Some(QueueCommand::Cancel { call_id }) => {
            gateway.tell(Method::DELETE, &["async-function", &call_id]).await?;
            if arguments.json { String::new() } else { format!("{call_id} is cancelled\n") }
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

fn json(answer: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(answer)? + "\n")
}

fn table(counts: &Counts) -> String {
    if counts.functions.is_empty() && counts.damaged.is_empty() {
        return "no calls: POST to /async-function/NAME\n".into();
    }
    let named = |counts: &FunctionCounts| full_name(&counts.name, &counts.namespace);
    let width = counts.functions.iter().map(|counts| named(counts).len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:width$} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}  OLDEST QUEUED\n",
        "FUNCTION", "QUEUED", "RUNNING", "WAITING", "DEAD", "SUCCEEDED", "CANCELLED"
    );
    for row in &counts.functions {
        let FunctionCounts { queued, running, waiting, dead, succeeded, cancelled, .. } = row;
        let oldest = row.oldest_queued.as_deref().unwrap_or("-");
        text += &format!(
            "{:width$} {queued:>9} {running:>7} {waiting:>9} {dead:>9} {succeeded:>9} {cancelled:>9}  {oldest}\n",
            named(row)
        );
    }
    if !counts.damaged.is_empty() {
        text += &format!("damaged, and never run: {}\n", counts.damaged.join(", "));
    }
    text
}

fn list(calls: &[Call], function: &str) -> String {
    let lines: String = calls.iter().map(line).collect();
    match calls.last() {
        None => format!("no dead letters of {function}\n"),
        Some(last) if calls.len() == PAGE => {
            format!("{lines}there may be more: fawn queue dead {function} --after {}\n", last.id)
        }
        Some(_) => lines,
    }
}

/// A call on one line.
fn line(call: &Call) -> String {
    let Call { id, call_id, state, attempts, last_error, .. } = call;
    let (accepted, tries) = (call.accepted.as_deref().unwrap_or("-"), attempts.len());
    let status = attempts.last().and_then(|attempt| attempt.status).map_or("-".into(), |s| s.to_string());
    format!(
        "{id}  {}  {state}  accepted {accepted}  attempts {tries}  status {status}  {}\n",
        printable(call_id),
        printable(last_error)
    )
}

/// A call with all that is known of it.
fn whole(call: &Call) -> String {
    let Call { id, call_id, state, last_error, .. } = call;
    let function = full_name(&call.name, &call.namespace);
    let mut text = format!("{} of {function}: {state}  (id {id})\n", printable(call_id));
    for (label, time) in [("accepted", &call.accepted), ("due", &call.due), ("ended", &call.ended)] {
        if let Some(time) = time {
            text += &format!("  {label:<9} {time}\n");
        }
    }
    for attempt in &call.attempts {
        let started = attempt.started.as_deref().unwrap_or("-");
        let status = attempt.status.map_or("-".into(), |status| status.to_string());
        let took = attempt.duration_seconds.map_or("-".into(), |seconds| format!("{seconds:.3} s"));
        text += &format!("  attempt   {started}  status {status}  took {took}\n");
    }
    if !last_error.is_empty() {
        text += &format!("  error     {}\n", printable(last_error));
    }
    text
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace == DEFAULT_NAMESPACE { name.to_owned() } else { format!("{name}.{namespace}") }
}

fn number(calls: u64) -> String {
    if calls == 1 { "1 call is".into() } else { format!("{calls} calls are") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        serde_json::from_str(
            r#"{"id":"7","name":"resize","namespace":"dev","callId":"a\u001bb","state":"dead",
                "accepted":"2026-11-22T10:00:00Z","ended":"2026-11-22T10:01:00Z",
                "attempts":[{"started":"2026-11-22T10:00:00Z","durationSeconds":0.0125,"status":500},
                            {"started":"2026-11-22T10:00:30Z"}],
                "lastError":"answered with 500\n"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_call_is_shown_with_its_attempts_and_steers_no_terminal() {
        assert_eq!(
            whole(&call()),
            "a b of resize.dev: dead  (id 7)\n\
             \x20 accepted  2026-11-22T10:00:00Z\n\
             \x20 ended     2026-11-22T10:01:00Z\n\
             \x20 attempt   2026-11-22T10:00:00Z  status 500  took 0.013 s\n\
             \x20 attempt   2026-11-22T10:00:30Z  status -  took -\n\
             \x20 error     answered with 500 \n"
        );
        assert_eq!(
            line(&call()),
            "7  a b  dead  accepted 2026-11-22T10:00:00Z  attempts 2  status -  answered with 500 \n"
        );
        assert_eq!(list(&[], "resize"), "no dead letters of resize\n");
    }

    #[test]
    fn functions_are_counted_in_columns() {
        let counts = |functions: &str| -> Counts {
            serde_json::from_str(&format!(r#"{{"functions":[{functions}],"damaged":[]}}"#)).unwrap()
        };
        assert!(table(&counts("")).contains("/async-function/NAME"));
        let one = r#"{"name":"a","namespace":"openfaas-fn","queued":1,"running":2,"waiting":3,"dead":4,
                      "succeeded":5,"cancelled":6,"bytes":7,"oldestQueued":"2026-11-22T10:00:00Z"}"#;
        let table = table(&counts(one));
        let words = |line: usize| table.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(1), ["a", "1", "2", "3", "4", "5", "6", "2026-11-22T10:00:00Z"]);
        assert_eq!(words(0).len(), 9);
    }
}
