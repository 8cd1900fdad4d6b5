//! Calls that are accepted now and run later, from end to end.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    edge::{Edge, Plan, Reply},
    later::{accepted, call, counts, drained, number, passing, reaching_here, serve_passing, status, total},
    ledger::{Ledger, answer, body},
    process::eventually,
};

async fn delete(edge: &Edge, call_id: &str) -> Reply {
    Reply::to(edge.admin(Method::DELETE, &format!("/async-function/{call_id}"))).await
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_call_is_accepted_runs_and_its_answer_is_posted() {
    let ledger = Ledger::start().await;
    let edge = reaching_here(Plan::new()).start().await;
    serve_passing(&edge, "work", 1).await;
    let posted = |id: &str| call(&edge, &ledger, "work", id).header("x-callback-url", ledger.callback(id));

    let kept = Reply::to(posted("first")).await;
    let call_id = accepted(&kept);
    assert!(kept.body.is_empty(), "{kept}");
    assert!(kept.headers.contains_key("x-start-time") && kept.headers.contains_key("x-served-by"), "{kept}");
    assert_eq!(total(&drained(&edge).await, &["succeeded"]), 1);
    let seen = ledger.seen("first");
    let ([_], [callback]) = (&seen.effects[..], &seen.callbacks[..]) else { panic!("{seen:?}") };
    assert_eq!(callback.body, answer("first"));
    let told = |name: &str| callback.headers[name].to_str().unwrap();
    assert_eq!(told("x-call-id"), call_id);
    assert_eq!(told("x-function-name"), "work.openfaas-fn");
    assert_eq!(told("x-function-status"), "200");
    assert!(told("x-duration-seconds").parse::<f64>().unwrap() > 0.0);
    assert_eq!(status(&edge, &call_id).await["state"], "succeeded");

    // What fails is tried again, and the last answer is posted.
    ledger.refuse(true);
    let call_id = accepted(&Reply::to(posted("failing").header("x-call-id", "of-its-caller")).await);
    assert_eq!(call_id, "of-its-caller");
    assert_eq!(total(&drained(&edge).await, &["dead"]), 1);
    let seen = ledger.seen("failing");
    assert_eq!(seen.effects.len(), 2, "{seen:?}");
    assert_eq!(seen.callbacks.len(), 1, "{seen:?}");
    assert_eq!(seen.callbacks[0].headers["x-function-status"], "500");
    assert_eq!(seen.callbacks[0].headers["x-retry"], "1");
    let dead = status(&edge, &call_id).await;
    assert_eq!((&dead["state"], dead["attempts"].as_array().unwrap().len()), (&json!("dead"), 2), "{dead}");
    ledger.refuse(false);

    // Two requests with one key are one call; what is delayed can be cancelled.
    for _ in 0..2 {
        accepted(&Reply::to(posted("keyed").header("idempotency-key", "a key")).await);
    }
    let delayed = accepted(&Reply::to(posted("delayed").header("x-delay-seconds", "3600")).await);
    assert_eq!(status(&edge, &delayed).await["state"], "waiting");
    assert_eq!(delete(&edge, &delayed).await.status, 202);
    assert_eq!(status(&edge, &delayed).await["state"], "cancelled");
    assert_eq!(delete(&edge, &delayed).await.status, 404);
    drained(&edge).await;
    assert_eq!(ledger.seen("keyed").effects.len(), 1);
    assert_eq!(ledger.seen("delayed").effects.len(), 0);

    // As large as a body may be.
    let bytes = 5_000_000;
    let large = edge.request(Method::POST, &passing("work", &ledger.effect("large", 0)));
    accepted(&Reply::to(large.body(body("large", bytes))).await);
    drained(&edge).await;
    assert_eq!(ledger.seen("large").successes(), 1, "it came as it was");
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn what_cannot_run_is_refused_at_once() {
    let ledger = Ledger::start().await;
    let edge = Plan::new().argument("--max-async-body=1Ki").start().await;
    serve_passing(&edge, "work", 0).await;
    let refused = async |function: &str, header: (&'static str, &str), bytes: usize| {
        let path = passing(function, &ledger.effect("refused", 0));
        let request = edge.request(Method::POST, &path).header(header.0, header.1);
        Reply::to(request.body(body("refused", bytes))).await
    };
    let plain = ("x-any", "thing");
    for (answer, status) in [
        (refused("nobody", plain, 1).await, 404),
        (refused("work", plain, (1 << 10) + 1).await, 413),
        // The ledger's own address: not one that everybody may reach.
        (refused("work", ("x-callback-url", &ledger.callback("refused")), 1).await, 400),
        (refused("work", ("x-callback-url", "not a URL"), 1).await, 400),
        (refused("work", ("x-delay-seconds", "soon"), 1).await, 400),
    ] {
        assert_eq!(answer.status, status, "{answer}");
    }
    let unauthorised = edge.get("/system/async").await;
    assert_eq!(unauthorised.status, 401, "{unauthorised}");
    assert_eq!(total(&counts(&edge).await, &["queued", "running", "waiting", "dead", "succeeded"]), 0);
    assert!(ledger.seen("refused").effects.is_empty());
}

/// What a subcommand of `fawn queue` prints as JSON.
async fn queue_json(edge: &Edge, arguments: &[&str]) -> Value {
    let said = edge.fawn(&[&["queue", "--json"], arguments].concat()).await.succeeds();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

async fn queue(edge: &Edge, arguments: &[&str]) -> String {
    edge.fawn(&[&["queue"], arguments].concat()).await.succeeds()
}

#[tokio::test]
#[ignore = "needs the guests: run scripts/test"]
async fn a_call_that_its_server_dies_of_each_time_is_given_up() {
    const RETRIES: u32 = 2;
    let ledger = Ledger::start().await;
    let mut edge = reaching_here(Plan::new()).start().await;
    serve_passing(&edge, "deadly", RETRIES).await;
    serve_passing(&edge, "harmless", RETRIES).await;
    ledger.hold();
    let deadly = edge.request(Method::POST, &passing("deadly", &ledger.held("deadly")));
    let call_id = accepted(&Reply::to(deadly.body(body("deadly", 100))).await);
    for life in 1..=RETRIES as usize + 1 {
        eventually("it runs", async || (ledger.seen("deadly").effects.len() == life).then_some(())).await;
        // It is in nobody's way.
        let harmless = format!("harmless-{life}");
        accepted(&Reply::to(call(&edge, &ledger, "harmless", &harmless)).await);
        eventually("others run", async || (ledger.seen(&harmless).successes() == 1).then_some(())).await;
        edge.kill().await;
        ledger.next_life().await;
        edge = reaching_here(edge.again()).start().await;
    }
    let left = drained(&edge).await;
    assert_eq!(number(&left, "deadly", "dead"), 1, "{left}");
    assert_eq!(ledger.seen("deadly").effects.len(), RETRIES as usize + 1, "not once more");

    let said = queue(&edge, &[]).await;
    let row = said.lines().find(|line| line.starts_with("deadly ")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(row.split_whitespace().nth(4), Some("1"), "{said}");
    assert_eq!(number(&queue_json(&edge, &[]).await, "deadly", "dead"), 1);
    let said = queue(&edge, &["dead", "deadly"]).await;
    assert!(said.contains(&call_id) && said.contains("without an end on record"), "{said}");
    let dead = queue_json(&edge, &["dead", "deadly"]).await;
    assert_eq!((&dead[0]["callId"], &dead[0]["state"]), (&json!(call_id), &json!("dead")), "{dead}");
    assert_eq!(queue_json(&edge, &["dead", "harmless"]).await, json!([]));
    let said = queue(&edge, &["show", &call_id]).await;
    assert!(said.contains("deadly: dead"), "{said}");
    assert_eq!(queue_json(&edge, &["show", &call_id]).await[0]["callId"], call_id);

    ledger.let_go();
    assert_eq!(queue(&edge, &["replay", "deadly"]).await, "1 call is run again\n");
    let left = drained(&edge).await;
    assert_eq!((number(&left, "deadly", "dead"), number(&left, "deadly", "succeeded")), (0, 1), "{left}");
    assert_eq!(ledger.seen("deadly").effects.len(), RETRIES as usize + 2);

    ledger.refuse(true);
    for id in ["one", "two"] {
        accepted(&Reply::to(call(&edge, &ledger, "deadly", id)).await);
    }
    drained(&edge).await;
    let dead = queue_json(&edge, &["dead", "deadly"]).await;
    let first = dead[0]["id"].as_str().unwrap();
    assert_eq!(queue_json(&edge, &["purge", "deadly", "--id", first]).await, json!({ "calls": 1 }));
    let said = edge.fawn(&["queue", "purge", "deadly", "--id", first]).await.fails();
    assert!(said.contains(first), "{said}");
    assert_eq!(queue(&edge, &["purge", "deadly"]).await, "1 call is removed\n");
    assert_eq!(total(&counts(&edge).await, &["dead", "bytes"]), 0);

    let waiting = call(&edge, &ledger, "harmless", "waiting").header("x-delay-seconds", "3600");
    let call_id = accepted(&Reply::to(waiting).await);
    let said = queue(&edge, &["cancel", &call_id]).await;
    assert!(said.contains(&call_id), "{said}");
    assert_eq!(status(&edge, &call_id).await["state"], "cancelled");
}
