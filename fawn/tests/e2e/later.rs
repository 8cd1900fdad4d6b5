//! Asynchronous calls, as their callers and operators see them.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    edge::{Deployment, Edge, Plan, Reply},
    guests::built,
    ledger::{Ledger, body},
    process::eventually,
};

/// What the ledger is reached by.
pub(crate) fn reaching_here(plan: Plan) -> Plan {
    ["--egress", "--callback-egress"]
        .into_iter()
        .fold(plan, |plan, flag| plan.argument(flag).argument("127.0.0.1"))
}

/// A function that passes what it is called with on, and how often its calls are tried again.
pub(crate) async fn serve_passing(edge: &Edge, name: &str, retries: u32) {
    let annotations = json!({
        "com.openfaas.retry.attempts": retries.to_string(),
        "com.openfaas.retry.min_wait": "100ms",
        "com.openfaas.retry.max_wait": "500ms",
    });
    let image = edge.upload(built("rust-handler.wasm")).await;
    edge.serve(Deployment::of(name, &image).field("annotations", annotations)).await;
}

/// A path that makes such a function pass its body on.
pub(crate) fn passing(name: &str, to: &str) -> String {
    format!("/async-function/{name}/pass?to={to}")
}

/// A call of such a function that leads to the ledger.
pub(crate) fn call(edge: &Edge, ledger: &Ledger, name: &str, id: &str) -> RequestBuilder {
    edge.request(Method::POST, &passing(name, &ledger.effect(id, 0))).body(body(id, 100))
}

/// A call that was accepted, and what it is known by.
#[track_caller]
pub(crate) fn accepted(answer: &Reply) -> String {
    assert_eq!(answer.status, 202, "{answer}");
    answer.headers["x-call-id"].to_str().unwrap().to_owned()
}

/// `GET /system/async`.
pub(crate) async fn counts(edge: &Edge) -> Value {
    let counts = Reply::to(edge.admin(Method::GET, "/system/async")).await;
    counts.ok();
    counts.json()
}

/// The sum over all functions of calls in these states.
pub(crate) fn total(counts: &Value, states: &[&str]) -> u64 {
    let functions = counts["functions"].as_array().unwrap();
    functions.iter().flat_map(|function| states.iter().map(|state| function[*state].as_u64().unwrap())).sum()
}

/// One function's number of calls in a state.
pub(crate) fn number(counts: &Value, name: &str, state: &str) -> u64 {
    let functions = counts["functions"].as_array().unwrap();
    functions
        .iter()
        .find(|function| function["name"] == name)
        .map_or(0, |found| found[state].as_u64().unwrap())
}

/// Waits until nothing is queued, running or waiting, however long that takes as long as it goes on, and gives the
/// counts.
pub(crate) async fn drained(edge: &Edge) -> Value {
    let mut left = u64::MAX;
    loop {
        let counts = eventually("calls end", async || {
            let counts = counts(edge).await;
            (total(&counts, &["queued", "running", "waiting"]) < left).then_some(counts)
        })
        .await;
        assert_eq!(counts["damaged"], json!([]), "{counts}");
        left = total(&counts, &["queued", "running", "waiting"]);
        if left == 0 {
            return counts;
        }
    }
}

/// `GET /system/async/ID`: the one call of this id.
pub(crate) async fn status(edge: &Edge, call_id: &str) -> Value {
    let found = Reply::to(edge.admin(Method::GET, &format!("/system/async/{call_id}"))).await;
    found.ok();
    let calls = found.json();
    assert_eq!(calls.as_array().unwrap().len(), 1, "{calls}");
    calls[0].clone()
}
