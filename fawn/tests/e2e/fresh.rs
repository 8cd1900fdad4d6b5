//! Each call has an instance of its own, whatever language it was written in.

use std::env;

use serde_json::json;

use crate::{
    edge::{Deployment, Edge},
    guests::built,
};

/// Calls of all clients together, unless `FAWN_FRESH_CALLS` says otherwise.
const CALLS: usize = 2200;

/// Clients at the same time.
const CLIENTS: usize = 4;

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn what_a_javascript_handler_keeps_is_gone_with_its_call() {
    let edge = Edge::start().await;
    edge.serve(Deployment::of("js", &edge.upload(built("js.wasm")).await)).await;
    let new = json!({ "calls": 1, "kept": null, "global": null, "prototype": null });
    let calls = env::var("FAWN_FRESH_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    let client = async |client: usize| {
        for call in 0..calls / CLIENTS {
            let found = edge.get(&format!("/function/js/keep?secret=of-{client}-{call}")).await;
            assert_eq!(found.json(), new, "client {client}, call {call}");
        }
    };
    tokio::join!(client(0), client(1), client(2), client(3));
}
